"""Folders with one file for each structure of an image, as TotalSegmentator writes them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.files.archive import no_access
from vismae.files.discover import SourceFile, source_file
from vismae.files.label_place import ImageBlock
from vismae.files.label_slices import crop, paint
from vismae.files.read import read_label_map
from vismae.files.reasons import Reason

_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")


def structure_files(folder: Path) -> dict[str, Path]:
    """Return name -> file of each structure, sorted by name; no file is opened.

    Raises:
        UnreadableFileError: The folder cannot be listed.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise no_access(str(folder), error) from error
    found: dict[str, Path] = {}
    for name in names:
        suffix = next((end for end in _SUFFIXES if name.lower().endswith(end)), None)
        if suffix is not None and not name.startswith("."):
            found.setdefault(name[: -len(suffix)], folder / name)
    return found


def read_structure_folder(
    folder: Path, block: ImageBlock, classes: Sequence[int], begin: Callable[[], None]
) -> np.ndarray:
    """Return class numbers, int32 (S, H, W); a small structure stays visible on a large one.

    Args:
        folder: Where the structures are.
        block: The slices they describe.
        classes: Class number of each of ``structure_files``.
        begin: Called before each file.

    Raises:
        UnreadableFileError: ``label-geometry`` for a structure of another size; ``label-format``
            for a file that holds more than one structure; else as for ``read_label_map``.
    """
    files = structure_files(folder)
    if not files or len(files) != len(classes):
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{folder}: {len(files)} structures, {len(classes)} when it was looked at. A folder as "
            "a label map holds one NIfTI, MetaImage or NRRD file for each structure; ingest again.",
        )
    drawn = []
    for path, number in zip(files.values(), classes, strict=True):
        begin()
        slices = _read_structure(source_file(path), block)
        patches = [crop(place, inside) for place, inside in enumerate(slices)]
        drawn.append((number, [patch for patch in patches if patch is not None]))
    return paint(drawn, block.shape)[0]


def _read_structure(file: SourceFile, block: ImageBlock) -> np.ndarray:
    """Return where a structure is, bool (S, H, W)."""
    label_map, _ = read_label_map(file, block)
    if label_map.shape != block.shape:
        raise UnreadableFileError(
            Reason.LABEL_GEOMETRY,
            f"{file.name}: {label_map.shape} voxels, but {block.image.source} has {block.shape} "
            "(slices, rows, columns). Resample the structures onto their image.",
        )
    inside = label_map != 0
    values = np.unique(label_map[inside])
    if len(values) > 1:
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{file.name}: holds the values {', '.join(map(str, values[:5]))}, but in a folder "
            "with one file for each structure only one is expected. Name the label map in a table.",
        )
    return inside
