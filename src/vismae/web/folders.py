"""Where uploads and results lie: a folder that only this user can enter, emptied on a schedule.

One folder for each upload, named by chance. The uploaded file goes as soon as it was worked on, the
results when their page is closed, when nobody has asked for them for a while, or when the server
ends. What a killed server left is removed by the next one.
"""

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import unicodedata
from pathlib import Path

_PREFIX = "vismae-web-"
_LOCK = "lock"
_LONGEST_NAME_BYTES = 80
_UNWANTED = re.compile(r"[^\w. -]+")


class PrivateFolder:
    """The folder of one server.

    Args:
        parent: Where to make it; the system's temporary folder if not given.
    """

    def __init__(self, parent: Path | None = None) -> None:
        home = Path(tempfile.gettempdir()) if parent is None else parent
        remove_orphans(home)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))  # mode 0700
        # Held until the process ends, however it ends: that tells the next server who lives.
        self._lock = (self.path / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.incoming = self.path / "incoming"
        self.incoming.mkdir(mode=0o700)

    def new(self) -> Path:
        """Make the folder of an upload."""
        folder = self.path / secrets.token_urlsafe(18)
        (folder / "upload").mkdir(mode=0o700, parents=True)
        return folder

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def remove_orphans(home: Path) -> None:
    """Delete folders of servers that are gone."""
    for folder in home.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # held by a server that lives, or not ours to remove
            continue


def remove_upload(folder: Path) -> None:
    """Delete the file that was uploaded; what was made of it stays."""
    shutil.rmtree(folder / "upload", ignore_errors=True)


def safe_name(name: str | None) -> str:
    """Return a file name that is nothing but a name: no folder, no control character.

    Letters of every script stay, since results are named after it, and so does its ending, by
    which formats and modalities may be known.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name or ""))[-1]
    plain = _UNWANTED.sub("_", last).strip(" .-")
    short = plain.encode()[-_LONGEST_NAME_BYTES:].decode(errors="ignore")
    return short.lstrip(" .-") or "upload"


class Clock:
    """When the server was last asked for anything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()

    def touch(self) -> None:
        """Note that it is asked now."""
        with self._lock:
            self._last = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """How long nobody has asked."""
        with self._lock:
            return time.monotonic() - self._last
