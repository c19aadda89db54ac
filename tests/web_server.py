"""``vismae web`` started as its users start it, and the marked volume that is sent to it."""

import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

UPLOAD_MIB = 2
PATIENT = "Mueller-Erika-1951"


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


LEFT, FRONT, TOP = 900, 600, 300
"""Values (HU) of the three marks of the phantom; the rest is -100, with a slow rise."""


def marked_volume() -> np.ndarray:
    """A volume (head, back, left) with a mark at the patient's left, one in front, one on top."""
    volume = np.full((12, 48, 40), -100, np.int16)
    volume += np.arange(48, dtype=np.int16)[None, :, None]
    volume += 3 * np.arange(12, dtype=np.int16)[:, None, None]
    volume[2:6, 20:28, 30:38] = LEFT
    volume[2:6, 2:10, 14:22] = FRONT
    volume[9:11, 20:28, 14:22] = TOP
    return volume


def marked_picture() -> np.ndarray:
    """A picture with a bright mark near its left upper corner."""
    picture = np.full((48, 40), 30, np.uint8)
    picture[4:14, 3:11] = 250
    return picture
