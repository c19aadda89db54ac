"""BUSI: breast ultrasound, three classes, lesions drawn.

``benign/benign (1).png``, ``benign/benign (1)_mask.png``, more lesions ``benign (4)_mask_1.png``;
also ``malignant`` and ``normal``. Al-Dhabyani et al., Data in Brief 2020;28:104863. The set has no
patient numbers, so every image is a group of its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vismae.core.errors import DataError
from vismae.data.public.tasks import PublicTask, TaskRow, find_folder, numbered

CLASSES = ("normal", "benign", "malignant")
_IMAGE = r"(.+ \(\d+\))\.png"
_LESION = r"{}_mask(_\d+)?\.png"


def read_busi(root: Path) -> list[PublicTask]:
    """Return two tasks on the same images: lesions to segment, classes to tell apart."""
    folder = find_folder(root, ("benign", "Dataset_BUSI_with_GT/benign"), "busi").parent
    rows = tuple(_rows(folder))
    return [PublicTask("segment", rows, ("lesion",)), PublicTask("classify", rows, CLASSES)]


def _rows(folder: Path) -> Iterator[TaskRow]:
    for name in CLASSES:
        images = folder / name
        if not images.is_dir():
            continue
        for match, image in numbered(images, _IMAGE):
            pattern = re.compile(_LESION.format(re.escape(match[1])))
            lesions = [path for path in sorted(images.iterdir()) if pattern.fullmatch(path.name)]
            if not lesions:
                raise DataError(f"{image}: no label map {match[1]}_mask.png beside it.")
            yield TaskRow(
                image,
                lambda paths=tuple(lesions): _united(paths),
                label=name,
                group_id=match[1],
                modality="us",
            )


def _united(paths: tuple[Path, ...]) -> np.ndarray:
    """Return 1 where any of several drawings is, (H, W).

    Raises:
        DataError: One cannot be read, or they differ in size.
    """
    union: np.ndarray | None = None
    for path in paths:
        try:
            drawn = np.asarray(Image.open(path).convert("L")) > 127
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} cannot be read ({error}). Fetch the archive again.") from error
        if union is not None and drawn.shape != union.shape:
            raise DataError(
                f"{path}: {drawn.shape[0]} × {drawn.shape[1]} pixels, {paths[0].name} has "
                f"{union.shape[0]} × {union.shape[1]}. Both are of one image."
            )
        union = drawn if union is None else union | drawn
    if union is None:
        raise DataError("No label map was named.")
    return union.astype(np.uint8)
