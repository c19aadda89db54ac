"""What is done in the guarded process: files are read and models asked here, never in the server.

A file that hangs, crashes or fills a decoder costs this process, not the server; the next call
starts another one. Models stay loaded between calls. ``step`` restarts the clock of the guard.
Results are plain data. Nothing here writes a log line.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from vismae.core.advice import on_page
from vismae.core.errors import ModelError, VismaeError
from vismae.core.types import Flag
from vismae.inference.ensemble import Ensemble, load_ensemble
from vismae.inference.predictor import choose_device
from vismae.web.work import CANCELLED, IMAGES, PROGRESS, Action, Served, UploadTask
from vismae.workflows.viewing.answers import Answer, ModelRun, ask
from vismae.workflows.viewing.calibration import calibration_note
from vismae.workflows.viewing.features import embed
from vismae.workflows.viewing.images import ShownImage
from vismae.workflows.viewing.reconstruction import Wanted, reconstruct
from vismae.workflows.viewing.upload import Upload, read_upload

Step = Callable[[str], None]

_FACTS = "facts.json"
_PROGRESS_SECONDS = 0.1
_SHOWN: TypeAdapter[tuple[ShownImage, ...]] = TypeAdapter(tuple[ShownImage, ...])
_LOADED: dict[Path, Ensemble] = {}


class CancelledError(VismaeError):
    """Whoever asked has gone."""

    code = "cancelled"


def do(task: Served | UploadTask, step: Step) -> Any:
    """Do a task."""
    torch.set_num_threads(task.threads if isinstance(task, Served) else task.served.threads)
    if isinstance(task, Served):
        return _describe(task, step)
    with on_page():
        return _ACTIONS[task.action](task, step)


def _describe(served: Served, step: Step) -> list[dict[str, Any]]:
    """Load every model, and say what each is."""
    found: list[dict[str, Any]] = []
    for name, folder in served.models:
        step(name)
        card = _ensemble(served, folder).cards[0]
        task = card.task
        if card.kind == "contrastive":
            raise ModelError(
                f"{folder} is a contrastive encoder, which says nothing of an image that the page "
                "could show. Use vismae embed for its features, or fine-tune it."
            )
        card.preprocessing.refuse_sequences(
            str(folder),
            "The page and the server take one image at a time; use vismae predict on files.",
        )
        note = None
        if card.kind == "classifier" and task is not None:
            note = calibration_note(folder, task, served.evaluations)
        found.append(
            {
                "name": name,
                "kind": card.kind,
                "classes": list(task.classes) if task else [],
                "multi_label": bool(task and task.multi_label),
                "modalities": [str(modality) for modality in card.modalities],
                "image_size": list(card.preprocessing.image_size),
                "mask_ratio": card.architecture.get("mask_ratio"),
                "licence": card.licence,
                "calibration": note,
            }
        )
    return found


def _view(task: UploadTask, step: Step) -> dict[str, Any]:
    """Read an upload for the page, and ask the models about it."""
    upload = _read(task, step)
    facts = [shown.for_page() for shown in upload.images]
    (task.folder / _FACTS).write_bytes(_SHOWN.dump_json(upload.images))
    _write(task.folder / IMAGES, {"images": facts, "left_out": _left_out(upload)})
    answers: list[dict[str, Any]] = []
    for place, number in enumerate(task.wanted):
        progress = _Progress(task, step, place, sum(shown.slices for shown in upload.images))
        answers.append(_plain(_ask(task, number, upload, progress.count), number))
    return {"images": facts, "left_out": _left_out(upload), "answers": answers}


def _predict(task: UploadTask, step: Step) -> dict[str, Any]:
    """Ask one model about an upload, for a program."""
    upload = _read(task, step)
    [number] = task.wanted
    progress = _Progress(task, step, 0, sum(shown.slices for shown in upload.images))
    answer = _ask(task, number, upload, progress.count)
    numbers = {found["image"]: found for found in answer.images}
    if not numbers and answer.notes:
        raise ModelError(answer.notes[0])
    return {
        "model": answer.model,
        "kind": answer.kind,
        "images": [
            {**_facts(shown), **numbers[shown.number]}
            for shown in upload.images
            if shown.number in numbers
        ],
        "files": answer.files,
        "notes": answer.notes,
        "left_out": _left_out(upload),
    }


def _embed(task: UploadTask, step: Step) -> dict[str, Any]:
    """Return the features of every slice of an upload, for a program."""
    upload = _read(task, step)
    [number] = task.wanted
    name, folder = task.served.models[number]
    found, notes = embed(upload, _ensemble(task.served, folder), task.served.batch_size)
    if not found:
        raise ModelError(notes[0])
    return {
        "model": name,
        "images": [
            {**_facts(shown), "features": found[shown.number]}
            for shown in upload.images
            if shown.number in found
        ],
        "notes": notes,
        "left_out": _left_out(upload),
    }


def _reconstruct_upload(task: UploadTask, step: Step) -> dict[str, Any]:
    """Reconstruct one slice of an upload, for a program."""
    upload = _read(task, step)
    return _reconstruct(task, upload.images)


def _reconstruct_shown(task: UploadTask, step: Step) -> dict[str, Any]:
    """Reconstruct one slice of an upload that was read before."""
    step("reconstruct")
    return _reconstruct(task, _SHOWN.validate_json((task.folder / _FACTS).read_bytes()))


def _read(task: UploadTask, step: Step) -> Upload:
    step("read")
    # Messages and tables then name the file as its owner does, without this machine's folders.
    os.chdir(task.folder / "upload")
    return read_upload(
        Path(task.file), task.folder, task.modality, task.most_bytes, (Flag.BURNED_IN,)
    )


def _ask(task: UploadTask, number: int, upload: Upload, on_slice: Callable[[], None]) -> Answer:
    name, folder = task.served.models[number]
    ensemble = _ensemble(task.served, folder)
    run = ModelRun(name, number, folder, ensemble, task.served.batch_size, task.served.uncertainty)
    return ask(upload, run, on_slice)


def _reconstruct(task: UploadTask, images: tuple[ShownImage, ...]) -> dict[str, Any]:
    [number] = task.wanted
    if task.slice is None:
        raise ValueError("a reconstruction needs the slice that is wanted")
    name, folder = task.served.models[number]
    wanted = Wanted(**asdict(task.slice))
    found = reconstruct(images, task.folder, _ensemble(task.served, folder), wanted)
    return {"model": name, **found}


def _ensemble(served: Served, folder: Path) -> Ensemble:
    if folder not in _LOADED:
        _LOADED[folder] = load_ensemble([folder], choose_device(served.device))
    return _LOADED[folder]


class _Progress:
    """Counts slices, writes how far a model is, and stops where nobody waits any more."""

    def __init__(self, task: UploadTask, step: Step, place: int, total: int) -> None:
        self._task, self._step, self._place, self._total = task, step, place, total
        self._done = 0
        self._written = 0.0
        self._write()

    def count(self) -> None:
        """Count one slice."""
        self._done += 1
        self._step(str(self._done))
        if time.monotonic() - self._written > _PROGRESS_SECONDS:
            self._write()

    def _write(self) -> None:
        if (self._task.folder / CANCELLED).exists():
            raise CancelledError("Cancelled, since nobody waits for the answer.")
        self._written = time.monotonic()
        name = self._task.served.models[self._task.wanted[self._place]][0]
        _write(
            self._task.folder / PROGRESS,
            {"model": name, "done": self._done, "total": self._total},
        )


def _plain(answer: Answer, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "model": answer.model,
        "kind": answer.kind,
        "images": answer.images,
        "layers": answer.layers,
        "files": [
            {"name": name, "bytes": (answer.results / name).stat().st_size} for name in answer.files
        ],
        "notes": answer.notes,
    }


def _facts(shown: ShownImage) -> dict[str, Any]:
    page = shown.for_page()
    names = ("title", "modality", "unit", "shape", "spacing_mm", "native_plane", "notes")
    return {"image": shown.number, **{name: page[name] for name in names}}


def _left_out(upload: Upload) -> list[dict[str, str]]:
    return [
        {"file": failure.source, "reason": failure.reason, "message": failure.message}
        for failure in upload.failures
    ]


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write so that the server reads the old or the new, never a half."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    os.replace(fresh, path)


_ACTIONS: dict[Action, Callable[[UploadTask, Step], dict[str, Any]]] = {
    "view": _view,
    "predict": _predict,
    "embed": _embed,
    "reconstruct": _reconstruct_upload,
    "reconstruct-shown": _reconstruct_shown,
}
