"""What a command leaves in its folder when it fails before its first result, or is killed."""

import json
import os
import platform
import re
from pathlib import Path
from typing import Any, cast

LOCK_NAME = ".lock"

# Files that are being written are named so until they are whole (``write_bytes``).
UNFINISHED = ".unfinished"
_UNFINISHED = re.compile(r"\..+\.unfinished(\..+)?|last\.partial")

# Written before the first step: settings, what made them, who is learnt from, empty records.
_BEFORE_THE_FIRST_STEP = {
    *("config.yaml", "provenance.json", "log.txt", "metrics.csv", "tensorboard"),
    *("mlflow.db", "mlflow", "splits.csv", "training_patients.csv", "transfer.json"),
    *("cases_left_out.csv", "checkpoints", "figures"),
}
# Images that a process met before that step: one list of each.
_DAMAGED = re.compile(r"damaged(_rank_\d+)?\.csv")
_STORES = {"store", "monitor_store"}
_IMAGES_OF_RUN = "images.json"


def is_unbegun(folder: Path, *, with_stores: bool = False) -> bool:
    """Tell whether a command failed in a folder before it had done anything worth keeping.

    Only a folder with the settings and the provenance of a command is one; a foreign one never is,
    nor one that a process of another machine has locked: nobody here can tell whether that lives.

    Args:
        folder: A run folder.
        with_stores: Count images that were ingested on the way as nothing done.
    """
    if not (folder / "config.yaml").is_file() or not (folder / "provenance.json").is_file():
        return False
    if _is_locked_elsewhere(folder / LOCK_NAME):
        return False
    names = {entry.name for entry in folder.iterdir() if not _is_passing(entry.name)}
    names = {name for name in names if not _DAMAGED.fullmatch(name)}
    if names - _BEFORE_THE_FIRST_STEP - (_STORES if with_stores else set()):
        return False
    inside = [
        path.name
        for part in ("checkpoints", "figures")
        for path in (folder / part).glob("**/*")
        if not _is_passing(path.name)
    ]
    return not set(inside) - {_IMAGES_OF_RUN} and not _has_rows(folder / "metrics.csv")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes were writing below a folder that is held by this one.

    Folders below that have a lock of their own are left to their holders.
    """
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if not (here / name / LOCK_NAME).exists()]
        for name in files:
            if _UNFINISHED.fullmatch(name):
                (here / name).unlink(missing_ok=True)


def _is_locked_elsewhere(lock: Path) -> bool:
    try:
        holder: Any = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # none, or one that a killed process had just begun
    if not isinstance(holder, dict):
        return False
    return cast("dict[str, Any]", holder).get("host") != platform.node()


def _is_passing(name: str) -> bool:
    return name == LOCK_NAME or _UNFINISHED.fullmatch(name) is not None


def _has_rows(metrics: Path) -> bool:
    """Tell whether a table has more than its header."""
    if not metrics.is_file():
        return False
    with metrics.open("rb") as file:
        return bool(file.readline()) and bool(file.readline())
