"""What is asked of the guarded process, in words that need no torch to be said."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Action = Literal["view", "predict", "embed", "reconstruct", "reconstruct-shown"]
"""``view`` for the page, the next three for programs; the last for an upload that was viewed."""

CANCELLED = "cancelled"
"""A file of this name in the folder of an upload stops the work on it."""
IMAGES = "images.json"
"""What the page needs to show the images, there as soon as they are read."""
PROGRESS = "progress.json"
"""How far the models are."""


@dataclass(frozen=True)
class Served:
    """The models on offer, and how they are asked.

    Attributes:
        models: Name and folder of each.
        device: Where to compute.
        batch_size: Slices at a time.
        threads: Of the processor.
        uncertainty: Give a segmenter's uncertainty too.
        evaluations: Folders of ``vismae evaluate``.
    """

    models: tuple[tuple[str, Path], ...]
    device: str
    batch_size: int
    threads: int
    uncertainty: bool
    evaluations: tuple[Path, ...]


@dataclass(frozen=True)
class SliceWanted:
    """A slice that is to be reconstructed.

    Attributes:
        image: Number of the image in the upload.
        slice: Number of its slice in the order of the file, counted from 0.
        mask_ratio: Share of mask units to hide.
        pattern: Decides which are hidden.
    """

    image: int
    slice: int
    mask_ratio: float
    pattern: int


@dataclass(frozen=True)
class UploadTask:
    """An upload, and which models are asked about it.

    Attributes:
        action: What is wanted.
        served: All models.
        folder: Of this upload: the file lies in ``upload``, what is made of it beside that.
        file: Name of the file.
        modality: Word for files that do not say theirs.
        most_bytes: That may come of it.
        wanted: Numbers of the models.
        slice: What is to be reconstructed; None for answers about whole images.
    """

    action: Action
    served: Served
    folder: Path
    file: str
    modality: str | None
    most_bytes: int
    wanted: tuple[int, ...] = ()
    slice: SliceWanted | None = None


def run(task: Served | UploadTask, step: Callable[[str], None]) -> Any:
    """Do a task, in the guarded process: only there are torch and the readers loaded."""
    from vismae.web.child import do

    return do(task, step)
