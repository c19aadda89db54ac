"""A server with three small models, started as its users start it, and files to send to it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from factories import write_dicom_series, write_nifti, write_png, write_zip
from models_on_disk import write_classifier, write_mae, write_segmenter

UPLOAD_MIB = 2
PATIENT = "Mueller-Erika-1951"
FRAME = {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.1"}


@dataclass
class RunningServer:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    home: Path
    lines: list[str] = field(default_factory=list[str])

    @property
    def folder(self) -> Path:
        """Its private folder."""
        [found] = self.home.glob("vismae-web-*")
        return found

    def uploads(self) -> list[Path]:
        """Folders of uploads that are still there."""
        return [path for path in self.folder.iterdir() if path.is_dir() and path.name != "incoming"]

    def client(self, **settings: Any) -> httpx.Client:
        """Return a client that never leaves this machine."""
        return httpx.Client(base_url=self.address, timeout=120, trust_env=False, **settings)


def start_server(home: Path, *words: str | Path, **environment: str) -> RunningServer:
    """Start ``vismae web`` on a free port and wait until it says where."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "from vismae.cli import main; main()", "web"]
    process = subprocess.Popen(
        [*command, "--port=0", "--device=cpu", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(home), **environment},
    )
    server = RunningServer(process, "", home)
    found = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            server.lines.append(line)
            address = re.search(r"open (http://\S+?/)(\?token=\S+)? ", line)
            if address:
                server.address = address[1]
                found.set()
        found.set()

    threading.Thread(target=listen, daemon=True).start()
    assert found.wait(180), "the server did not start"
    assert server.address, "".join(server.lines)
    return server


def stop_server(server: RunningServer) -> int:
    """Stop a server as a service manager would; return its exit status."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    try:
        return server.process.wait(30)
    except subprocess.TimeoutExpired:
        server.process.kill()
        raise


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A segmenter, a classifier and a masked autoencoder of the smallest size."""
    home = tmp_path_factory.mktemp("models")
    return {
        "organs": write_segmenter(home / "organs" / "model"),
        "finding": write_classifier(home / "finding" / "model"),
        "mae": write_mae(home / "mae" / "model"),
    }


@pytest.fixture(scope="session")
def server(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """The server that most tests share."""
    options = [f"--model={folder}" for folder in model_folders.values()]
    limits = [f"--set=max_upload_mib={UPLOAD_MIB}", "--set=max_expanded_mib=8"]
    home = tmp_path_factory.mktemp("server")
    started = start_server(home, *options, *limits, "--stop-after=120")
    yield started
    assert stop_server(started) == 0, "".join(started.lines)
    assert list(home.iterdir()) == []


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind that people drop; every volume holds ``marked_volume``."""
    folder = tmp_path_factory.mktemp("files")
    volume = marked_volume()
    # In NIfTI's own directions: the first axis to the right, the second to the front.
    ras = np.ascontiguousarray(volume.transpose(2, 1, 0)[::-1, ::-1])
    series = write_dicom_series(
        folder / "series", (volume + 1024).astype(np.uint16), (4.0, 1.0, 1.0), PatientID=PATIENT,
        PatientName=PATIENT, **FRAME,
    )  # fmt: skip
    return {
        "nifti": write_nifti(folder / "head_ct.nii.gz", ras, np.diag([1.0, 1.0, 4.0, 1.0])),
        "zip": write_zip(folder / "series.zip", {f"ct/{path.name}": path for path in series}),
        "dicom": series[2],
        "png": write_png(folder / "film.png", marked_picture()),
        "text": _text(folder / "letter.txt"),
    }


def _text(path: Path) -> Path:
    path.write_text("No image.")
    return path


LEFT, FRONT, TOP = 900, 600, 300
"""Values (HU) of the three marks of the phantom; the rest is -600, with a slow rise."""


def marked_volume() -> np.ndarray:
    """A volume (head, back, left) with a mark at the patient's left, one in front, one on top."""
    volume = np.full((12, 48, 40), -600, np.int16)
    volume += np.arange(48, dtype=np.int16)[None, :, None]
    volume[2:6, 20:28, 30:38] = LEFT
    volume[2:6, 2:10, 14:22] = FRONT
    volume[9:11, 20:28, 14:22] = TOP
    return volume


def marked_picture() -> np.ndarray:
    """A picture with a bright mark near its left upper corner."""
    picture = np.full((48, 40), 30, np.uint8)
    picture[4:14, 3:11] = 250
    return picture


@pytest.fixture
def finish(server: RunningServer) -> Callable[[httpx.Client, str], dict[str, Any]]:
    """Wait until an upload of the page is done, and return what is known of it."""

    def wait(client: httpx.Client, key: str) -> dict[str, Any]:
        for _ in range(600):
            found = json.loads(client.get(f"/page/studies/{key}").text)
            if found["state"] in ("done", "failed"):
                return found
            threading.Event().wait(0.1)
        raise AssertionError("the upload was not worked on in a minute")

    return wait
