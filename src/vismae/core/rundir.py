"""A run's folder: layout, refusal of foreign content, lock, atomic writes, provenance.

``config.yaml, provenance.json, metrics.csv, log.txt, figures/, checkpoints/last.ckpt, model/``
"""

import json
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from vismae.core.errors import RunFolderError

LOCK_NAME = ".lock"
CHECKPOINT = Path("checkpoints") / "last.ckpt"
MODEL = Path("model")

logger = logging.getLogger(__name__)


def prepare_folder(folder: Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Make the output folder of a command, or say why it cannot be used.

    Args:
        folder: Where results go.
        resume: Keep what is there and go on.
        overwrite: Empty it first.

    Raises:
        RunFolderError: The folder is not empty and neither ``resume`` nor ``overwrite`` was
            given, both were, or the path is a file.
    """
    if resume and overwrite:
        raise RunFolderError("--resume and --overwrite contradict each other; give one of them.")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; --out needs a folder.")
    entries = (
        sorted(e.name for e in folder.iterdir() if e.name != LOCK_NAME) if folder.exists() else []
    )
    if entries and not resume:
        if not overwrite:
            raise RunFolderError(
                f"{folder} is not empty (it holds {', '.join(entries[:4])}). Use --resume to "
                "continue the run in it, --overwrite to empty it first, or another --out."
            )
        _empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _empty(folder: Path) -> None:
    """Remove what a folder holds; refuse folders that no vismae command can have made."""
    if folder.resolve() in (Path.home(), Path.cwd(), Path(folder.resolve().anchor)):
        raise RunFolderError(f"{folder} will not be emptied: it is a home, working or root folder.")
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder against a second process; a dead process's lock is taken over.

    Raises:
        RunFolderError: A living process on this machine holds it.
    """
    lock = folder / LOCK_NAME
    holder = {"pid": os.getpid(), "host": platform.node(), "started": _process_start(os.getpid())}
    _claim(lock, folder, holder)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _claim(lock: Path, folder: Path, holder: dict[str, Any]) -> None:
    for _ in range(10):
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            found = _read_holder(lock)
            if _is_alive(found):
                raise RunFolderError(
                    f"{folder} is in use by process {found['pid']}. Wait for it, stop it, or use "
                    "another --out."
                ) from None
            logger.info("taking over the lock of a process that is gone: %s", lock)
            lock.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "w") as file:
            json.dump(holder, file)
        return
    raise RunFolderError(f"{lock} keeps coming back; remove it if nothing else uses {folder}.")


def _read_holder(lock: Path) -> dict[str, Any]:
    try:
        found = json.loads(lock.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(holder: dict[str, Any]) -> bool:
    """Tell whether the lock's process runs; another machine's process counts as gone."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or holder.get("host") != platform.node():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A number used again by another program is not the process that took the lock.
    return holder.get("started") == _process_start(pid)


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks where the system tells it (Linux), else None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if len(fields) > 19 else None


def write_text(path: Path, text: str) -> None:
    """Write a text file so that readers see the old or the new one, never a half."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def provenance(command: str) -> dict[str, Any]:
    """Return what made a result: versions, platform, time. No user, host or path."""
    packages = ("vismae", "torch", "lightning", "monai", "numpy", "pydicom", "nibabel")
    versions: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": command,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


@contextmanager
def log_to(folder: Path) -> Iterator[None]:
    """Also write vismae's log lines to ``folder/log.txt`` (appended) while inside."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("vismae")
    root.addHandler(handler)
    previous = root.level
    root.setLevel(min(logging.INFO, previous) if previous else logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(previous)
        handler.close()
