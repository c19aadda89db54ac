"""A real PACS for tests: Orthanc with its DICOMweb plugin, answering this machine alone."""

import json
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

PROGRAM = Path("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_SECONDS = 30.0


class Orthanc:
    """One server on one folder; may be killed and started again with what it holds."""

    def __init__(self, folder: Path, account: tuple[str, str] | None = None) -> None:
        self.account = account
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/dicom-web"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        storage = str(folder / "storage")
        self._configuration = {
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": account is not None,
            "RegisteredUsers": dict([account]) if account else {},
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration), encoding="utf-8")
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, configuration], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self._folder / "log.txt").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.root}/system", auth=self.account, timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        """End the server at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def put(self, path: Path) -> bool:
        """Store a file through the server's own interface; False if it was not taken as new."""
        answer = requests.post(
            f"{self.root}/instances", data=path.read_bytes(), auth=self.account, timeout=30
        )
        return answer.ok and answer.json()["Status"] == "Success"

    def count(self) -> int:
        """Return how many objects the server holds."""
        return len(requests.get(f"{self.root}/instances", auth=self.account, timeout=30).json())


@contextmanager
def running_orthanc(folder: Path, account: tuple[str, str] | None = None) -> Generator[Orthanc]:
    """Run a server that starts empty; skip the test where Orthanc is not installed."""
    if not (PROGRAM.is_file() and PLUGIN.is_file()):
        pytest.skip("needs Orthanc with DICOMweb (Debian: orthanc, orthanc-dicomweb)")
    server = Orthanc(folder, account)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """Return a port that nothing on this machine listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
