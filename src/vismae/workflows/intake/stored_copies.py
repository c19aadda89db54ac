"""Files that hold a DICOM object which the store has from an earlier ingest."""

from dataclasses import replace

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, MedicalImage, Modality
from vismae.files.discover import SourceFile
from vismae.files.read import read_image
from vismae.files.reasons import Reason
from vismae.workflows.intake.work import Begin, Entry, Rejection, WorkItem


def without_stored(
    item: WorkItem, keep: frozenset[Flag], begin: Begin
) -> tuple[WorkItem, list[Rejection]]:
    """Leave out files whose pixels are those that the store has already.

    One whose original is out of reach by now stays: the search for duplicates finds it.

    Args:
        item: What is about to be read.
        keep: As for ``read_image``.
        begin: Called before each file is read.

    Returns:
        The rest, which may have no entry, and what was left out.
    """
    kept: list[Entry] = []
    rejected: list[Rejection] = []
    for entry in item.entries:
        name = entry.file.name
        if entry.stored is None or not _same_pixels(entry, entry.stored, keep, begin):
            kept.append(entry)
            continue
        message = f"{name}: the same image as {entry.stored.name}, which is in the store already."
        rejected.append(Rejection(name, Reason.COPY.value, message))
    return replace(item, entries=tuple(kept)), rejected


def _same_pixels(entry: Entry, stored: SourceFile, keep: frozenset[Flag], begin: Begin) -> bool:
    try:
        # Stored values are compared, so no unit need be known.
        images = [
            read_image(file, Modality.OTHER, keep, lambda _: begin(entry.number))
            for file in (entry.file, stored)
        ]
    except (UnreadableFileError, MemoryError):
        return False
    return len(images[0]) == len(images[1]) and all(map(_equal, *images))


def _equal(one: MedicalImage, other: MedicalImage) -> bool:
    scales = [(image.slope, image.intercept) for image in (one, other)]
    return scales[0] == scales[1] and np.array_equal(one.pixels, other.pixels)
