"""The uploads that pages look at: what is known of each, and when it is deleted."""

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vismae.core.errors import VismaeError
from vismae.web.folders import remove_upload
from vismae.web.jobs import Job
from vismae.web.work import CANCELLED, IMAGES, PROGRESS


@dataclass
class Study:
    """An upload on a page.

    Attributes:
        key: Names it; cannot be guessed.
        folder: Holds all of it.
        job: Reads it and asks the models.
        touched: When it was last asked for, on the monotonic clock.
        others: Jobs on single slices.
    """

    key: str
    folder: Path
    job: Job
    touched: float = field(default_factory=time.monotonic)
    others: list[Job] = field(default_factory=list[Job])

    @property
    def busy(self) -> bool:
        """Whether a job may still need the folder."""
        self.others = [job for job in self.others if not job.outcome.done()]
        return not self.job.outcome.done() or bool(self.others)

    def state(self) -> dict[str, Any]:
        """Return how far it is, and what is known of it."""
        known = _read(self.folder / IMAGES)
        if not self.job.outcome.done():
            place = self.job.place
            if place:
                return {"state": "queued", "place": place}
            progress = _read(self.folder / PROGRESS)
            stage = "answering" if progress else "reading"
            return {"state": "running", "stage": stage, **progress, **known}
        if self.job.outcome.cancelled():
            return {"state": "failed", "error": {"code": "cancelled", "message": "Cancelled."}}
        error = self.job.outcome.exception()
        if error is None:
            return {"state": "done", **self.job.outcome.result()}
        return {"state": "failed", "error": described(error), **known}


class Studies:
    """All uploads on pages.

    Args:
        keep_seconds: How long after the last question results stay.
        keep_bytes: Most that all results together take on the disk; beyond it those go first that
            nobody has asked for the longest. The latest stay, whatever they take.
    """

    def __init__(self, keep_seconds: float, keep_bytes: int) -> None:
        self._keep_seconds, self._keep_bytes = keep_seconds, keep_bytes
        self._lock = threading.Lock()
        self._known: dict[str, Study] = {}
        self._leaving: list[Study] = []

    def add(self, folder: Path, job: Job) -> Study:
        """Take up an upload; its file is deleted once its job is done."""
        study = Study(folder.name, folder, job)
        with self._lock:
            self._known[study.key] = study
        job.outcome.add_done_callback(lambda _: remove_upload(folder))
        return study

    def get(self, key: str) -> Study | None:
        """Return an upload that is still there, and note that it was asked for."""
        with self._lock:
            study = self._known.get(key)
            if study is not None:
                study.touched = time.monotonic()
        return study

    def remove(self, key: str) -> None:
        """Delete an upload with all that was made of it, as soon as no job works on it."""
        with self._lock:
            study = self._known.pop(key, None)
            if study is None:
                return
            self._leaving.append(study)
        if not study.job.cancel():
            (study.folder / CANCELLED).touch()
        self.sweep()

    def sweep(self) -> None:
        """Delete what nobody has asked for in time, or has no room, and what a job is done with."""
        now = time.monotonic()
        with self._lock:
            known = sorted(self._known.values(), key=lambda one: one.touched, reverse=True)
        # Looking at the disk keeps nobody waiting who asks for an upload.
        sizes = [_bytes_in(study.folder) for study in known]
        with self._lock:
            taken = 0
            for study, size in zip(known, sizes, strict=True):
                if study.busy or study.key not in self._known:
                    continue
                no_room = taken > 0 and taken + size > self._keep_bytes
                if no_room or now - study.touched > self._keep_seconds:
                    self._leaving.append(self._known.pop(study.key))
                else:
                    taken += size
            gone = [study for study in self._leaving if not study.busy]
            self._leaving = [study for study in self._leaving if study.busy]
        for study in gone:
            shutil.rmtree(study.folder, ignore_errors=True)


def described(error: BaseException) -> dict[str, str]:
    """Return an error as the page and programs get it; of a defect only that it is one."""
    if isinstance(error, VismaeError):
        code = str(getattr(error, "reason", error.code))
        return {"code": code, "message": str(error)}
    return {"code": "defect", "message": "A defect in vismae; nothing was made of this file."}


def zip_of(folder: Path, names: list[str], target: Path) -> Path:
    """Put results into one archive, unless it is there already."""
    if not target.exists():
        # A name of its own: whoever asks twice is answered by two threads.
        fresh = target.with_name(f"{target.name}.{secrets.token_hex(8)}")
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in names:
                archive.write(folder / name, name)
        fresh.replace(target)
    return target


def _bytes_in(folder: Path) -> int:
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            # An archive gets its name when it is whole.
            with contextlib.suppress(FileNotFoundError):
                found += os.stat(os.path.join(parent, name)).st_size
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
