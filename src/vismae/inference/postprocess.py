"""Cleaning label maps: only the largest piece of a structure, and no holes in it.

Nothing of this happens unless a user asks for it by class.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

_BACKGROUND = 0


def clean_labels(
    labels: Integer[np.ndarray, "S H W"],
    largest_component: Sequence[int] = (),
    fill_holes: Sequence[int] = (),
    in_space: bool = True,
) -> None:
    """Clean classes of a label map in place; first pieces are dropped, then holes filled.

    Args:
        labels: Class of each voxel.
        largest_component: Classes of which only the largest piece stays; the rest becomes
            background.
        fill_holes: Classes whose holes are filled; a hole is background that the class encloses
            wholly, and what another class says of it stays.
        in_space: Slices follow one another in space: pieces and holes go through them. Otherwise
            every slice is cleaned by itself.
    """
    parts = [labels] if in_space else [labels[number : number + 1] for number in range(len(labels))]
    for part in parts:
        for number in largest_component:
            _keep_largest(part, number)
        for number in fill_holes:
            _fill(part, number)


def _box(labels: np.ndarray, number: int) -> np.ndarray | None:
    """Return the view of ``labels`` round a class, or None where it has no voxel."""
    inside = labels == number
    if not inside.any():
        return None
    ends = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(inside.any(axis=others))
        ends.append(slice(int(found[0]), int(found[-1]) + 1))
    return labels[tuple(ends)]


def _keep_largest(labels: np.ndarray, number: int) -> None:
    box = _box(labels, number)
    if box is None:
        return
    # Voxels that touch at a corner belong together.
    pieces = np.zeros(box.shape, np.int32)
    count = ndimage.label(box == number, structure=np.ones((3, 3, 3)), output=pieces)
    if count != 1:
        sizes = np.bincount(pieces.ravel())
        sizes[_BACKGROUND] = 0
        box[(pieces > 0) & (pieces != int(sizes.argmax()))] = _BACKGROUND


def _fill(labels: np.ndarray, number: int) -> None:
    box = _box(labels, number)
    if box is None:
        return
    inside = box == number
    filled = np.zeros(box.shape, bool)
    # A single slice has no third dimension in which a hole could be open.
    single = len(box) == 1
    ndimage.binary_fill_holes(
        inside[0] if single else inside, output=filled[0] if single else filled
    )
    box[filled & (box == _BACKGROUND)] = number
