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
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel

from vismae.core.errors import RunFolderError
from vismae.core.launch import is_main_process
from vismae.core.remains import LOCK_NAME, UNFINISHED, is_unbegun, remove_unfinished
from vismae.core.settings import to_yaml

CHECKPOINT = Path("checkpoints") / "last.ckpt"
MODEL = Path("model")

logger = logging.getLogger(__name__)


@contextmanager
def open_run(
    folder: Path,
    command: str,
    config: BaseModel,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Generator[Path]:
    """Hold a run folder for one command: refusal, lock, log, configuration, provenance.

    Processes that train beside the first one only get the folder. Where a command failed before it
    had done anything, the folder counts as empty but for its log.

    Args:
        folder: The run folder, made if missing.
        command: Name of the command, for provenance and messages.
        config: Complete settings, written to ``config.yaml``.
        resume: Keep what is there and go on; the settings that decide the result must be the
            same as before.
        overwrite: Empty the folder first.

    Raises:
        RunFolderError: The folder cannot be used; says why and what to do.
    """
    if not is_main_process():
        yield folder
        return
    if resume and overwrite:
        raise RunFolderError("--resume and --overwrite contradict each other; give one of them.")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; --out needs a folder.")
    held, unbegun = _entries(folder), is_unbegun(folder)
    if held and not (resume or overwrite or unbegun):
        go_on = "--resume to continue the run in it, " if hasattr(config, "resume") else ""
        raise RunFolderError(
            f"{folder} is not empty (it holds {', '.join(held[:4])}). Use {go_on}--overwrite to "
            "empty it first, or another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        remove_unfinished(folder)
        again = unbegun and not resume and is_unbegun(folder)
        if overwrite or again:
            _refuse_needed(folder, config)
            _empty(folder, but={"log.txt"} if again else set())
        # How this start was asked for is no part of the run: given back by --config, "overwrite"
        # would empty the folder once more.
        asked = {name: False for name in ("resume", "overwrite") if hasattr(config, name)}
        settings = to_yaml(config.model_copy(update=asked))
        if resume:
            _refuse_changed(folder, settings)
        write_text(folder / "config.yaml", settings)
        write_json(folder / "provenance.json", provenance(command))
        with log_to(folder):
            yield folder


# Any of these may change as long as a step sees as many images: the same ones in the same order.
_IMAGES_PER_STEP = (
    "data.batch_size",
    "trainer.accumulate",
    "trainer.devices",
    "trainer.nodes",
)
_FREE_ON_RESUME = {
    *("resume", "overwrite", "out", "licence", "data.workers", "trainer.device"),
    # More steps lengthen a run; the schedule follows.
    *("trainer.max_steps", "trainer.max_epochs"),
    *("trainer.wait_minutes", "trainer.silence_seconds", "data.max_damaged_fraction"),
    *("trainer.checkpoint_every", "trainer.log_every", "trainer.picture_every"),
    *("monitor.every", "monitor.most_time_fraction", "monitor.data", "monitor.images"),
    "monitor.mlflow",
    # A study may grow; the runs it has stay what they are.
    *("seeds", "folds", "label_fractions", "label_patients", "bootstrap", "keep_models"),
    *("executor", "workers", "run_hours", "only_report", "worst_cases", "qualities"),
}
_OF_STORE = {"data.sources", "fold", "task.kind", "model.sequences"}
# Parts whose keys are the user's own: a further one is a change, and none of a newer vismae.
_OWN_KEYS = ("settings", "segment", "classify", "pretrain", "init_for", "label_values")
# Of a study's tasks: how results are shown; of its starts: which of the tasks they take part in.
_FREE_ENDINGS = (".domain", ".qualities", ".subgroups", ".tasks")


def _refuse_changed(folder: Path, settings: str) -> None:
    """Refuse to go on with settings that would make the run another one.

    Settings that the earlier file does not name (of a newer vismae, or a study's further tasks)
    are no change.
    """
    before = folder / "config.yaml"
    if not before.is_file():
        return
    old, new = (dict(_dotted(yaml.safe_load(t))) for t in (before.read_text(), settings))
    # Without a result any may change, but for those that images already ingested depend on.
    if is_unbegun(folder, with_stores=True):
        old, new = ({k: v for k, v in each.items() if k in _OF_STORE} for each in (old, new))
    differing = [
        name
        for name in sorted(set(old) - _FREE_ON_RESUME)
        if (name not in new or old[name] != new[name]) and not name.endswith(_FREE_ENDINGS)
    ]
    further = (name for name in set(new) - set(old) if _is_own_key(name, old))
    differing += sorted(name for name in further if not _is_of_new_task(name, old))
    images = [prod(each.get(name, 1) for name in _IMAGES_PER_STEP) for each in (old, new)]
    if images[0] == images[1]:
        # SimCLR compares the images of all processes' batches, but not those of several batches.
        kept = {"trainer.accumulate"} if new.get("method") == "simclr" else set[str]()
        differing = [name for name in differing if name not in {*_IMAGES_PER_STEP} - kept]
    elif set(differing) & set(_IMAGES_PER_STEP):
        raise RunFolderError(
            f"{folder} cannot be resumed with {images[1]} images a step, it began with {images[0]} "
            f"({' × '.join(_IMAGES_PER_STEP)}). On another number of processes change "
            "data.batch_size or trainer.accumulate so that their product stays."
        )
    changed = [
        f"{name} was {old.get(name, 'unset')}, now {new.get(name, 'something else')}"
        for name in differing
    ]
    if changed:
        raise RunFolderError(
            f"{folder} cannot be resumed with other settings: {'; '.join(changed)}. Give the "
            "settings it began with, or start a new run with another --out."
        )


def _is_own_key(name: str, old: Mapping[str, object]) -> bool:
    """Tell whether a setting is a further key of a part that had keys of the user before."""
    parts = name.split(".")
    wholes = [
        ".".join(parts[: place + 1]) + "."
        for place, part in enumerate(parts[:-1])
        if part in _OWN_KEYS
    ]
    return any(known.startswith(whole) for whole in wholes for known in old)


def _is_of_new_task(name: str, old: Mapping[str, object]) -> bool:
    """Tell whether a setting names the weights of a start for a task that a study did not have."""
    task = name.partition(".init_for.")[2]
    return bool(task) and not any(known.startswith(f"tasks.{task}.") for known in old)


def _dotted(value: dict[str, Any], prefix: str = "") -> Generator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _dotted(cast(dict[str, Any], inner), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _entries(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK_NAME)


def _refuse_needed(folder: Path, config: BaseModel) -> None:
    """Refuse to empty a folder that holds what the settings name to be read."""
    place = folder.resolve()
    for path in _paths_in(config.model_dump(exclude={"out"})):
        if path.resolve().is_relative_to(place) and path.exists():
            raise RunFolderError(
                f"{folder} will not be emptied: {path} lies in it and is to be read. Use another "
                "--out."
            )


def _paths_in(value: object) -> Generator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict | list | tuple):
        several = cast("dict[str, Any] | list[Any] | tuple[Any, ...]", value)
        for inner in several.values() if isinstance(several, dict) else several:
            yield from _paths_in(inner)


def _empty(folder: Path, but: set[str]) -> None:
    """Remove what a folder holds; refuse folders that no command can have made."""
    place = folder.resolve()
    # Not Path.home(), which fails for a user that the machine does not know, as in a container.
    homes = (Path(os.path.expanduser("~")), Path.cwd())
    if any(home.resolve().is_relative_to(place) for home in homes):
        raise RunFolderError(
            f"{folder} will not be emptied: it is or holds the home or the working folder. Use "
            "another --out."
        )
    for name in set(_entries(folder)) - but:
        entry = folder / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a run folder against a second process; a dead process's lock is taken over.

    Raises:
        RunFolderError: A living process on this machine holds it.
    """
    lock = folder / LOCK_NAME
    holder = {"pid": os.getpid(), "host": platform.node(), "started": _process_start(os.getpid())}
    with _claiming_alone(folder):
        _claim(lock, folder, holder)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


@contextmanager
def _claiming_alone(folder: Path) -> Generator[None]:
    """Let no other process of this machine look at a folder's lock meanwhile.

    Two that start together would find the lock of a dead one, or one just made and still empty, and
    both take it. A system or disk without such locks leaves that moment open.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # not on Windows

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _claim(lock: Path, folder: Path, holder: dict[str, Any]) -> None:
    for _ in range(10):
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            found = _read_holder(lock)
            if _is_alive(found):
                raise RunFolderError(
                    f"{folder} is in use by process {found['pid']}. Wait for it, stop it, or use "
                    "another folder."
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
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


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
    """Start time of a process in clock ticks where the system tells it (Linux), else None.

    A process that has ended but was not yet collected by its parent (a zombie) has none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else None


def write_text(path: Path, text: str) -> None:
    """Write a text file so that readers see the old or the new one, never a half.

    What no text may hold, such as a file name in another encoding than the system's, is written
    as its number.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that readers see the old or the new one, never a half.

    Raises:
        OSError: It cannot be written, such as where a folder has that name; names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # not the one that nobody knows of
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def provenance(command: str) -> dict[str, Any]:
    """Return what made a result: versions, platform, time. No user, host or path."""
    packages = ("vismae", "torch", "lightning", "numpy", "pydicom", "nibabel")
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


class _RunLog(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Leave out a line that cannot be written, as on a full disk: the screen has it."""


@contextmanager
def log_to(folder: Path) -> Generator[None]:
    """Also write vismae's log lines to ``folder/log.txt`` (appended) while inside."""
    handler = _RunLog(folder / "log.txt", encoding="utf-8")
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
