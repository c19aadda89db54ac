"""Whether a volume of class numbers lies on its image, and how it is turned to do so.

Formats whose header has an affine say where their voxels lie; a file may also leave that open.
Standard: NIfTI-1 (``sform_code`` and ``qform_code`` of 0 mean an unknown orientation), MetaImage
and NRRD (no directions given).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage
from vismae.files.orientation import SliceOrientation
from vismae.files.reasons import Reason

# Programs write positions as float32 and corners that are half a voxel off; beyond that a label
# belongs to another voxel.
_MOST_VOXELS = 0.5


@dataclass(frozen=True)
class ImageBlock:
    """Consecutive slices of an image: those that one label file describes.

    Attributes:
        image: The whole image.
        first: Its slice that the file begins with, from 0.
        count: Slices.
    """

    image: MedicalImage
    first: int
    count: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        height, width = self.image.pixels.shape[1:3]
        return self.count, height, width


def lay_on_image(
    stored: np.ndarray,
    own: SliceOrientation,
    known: bool,
    name: str,
    block: ImageBlock | None,
    is_part: bool = False,
) -> np.ndarray:
    """Turn stored class numbers (I, J, K) into slices (S, H, W) that fit their image.

    Where the orientation of one of them is unknown, the voxels are taken to be stored in the same
    order, and the image's orientation holds for both. Another shape than the image's is handed
    back as it is, for the caller to refuse.

    Args:
        stored: In the file's own axes.
        own: How the file's affine would turn them.
        known: Whether the file says its orientation.
        name: Of the file, for messages.
        block: The image; None turns by ``own`` and checks nothing.
        is_part: It may be a part of the image's grid, or reach beyond it, and has background
            everywhere else; it is brought to the image's shape by its place.

    Raises:
        UnreadableFileError: ``label-geometry`` where both say where they lie, more than half a
            voxel apart; or where only the image does, and its voxels have no stored order; or
            where structures of a part lie outside the image.
    """
    if block is None:
        return own.to_slices(stored)
    details = block.image.details
    image_known = bool(details.get("orientation_known", block.image.affine is not None))
    as_stored = details.get("file_orientation")
    if not (known and image_known) and as_stored is not None and not is_part:
        return as_stored.to_slices(stored)
    slices, affine = own.to_slices(stored), own.affine
    if known and block.image.affine is not None:
        slices, affine = _turned_like(block.image.affine, slices, affine)
        if is_part and slices.shape != block.shape:
            slices, affine = _put_back(slices, affine, block, name)
    if block.image.affine is None or slices.shape != block.shape:
        return slices
    if not known:
        raise UnreadableFileError(
            Reason.LABEL_GEOMETRY,
            f"{name}: its header does not say how the patient lies (sform_code and qform_code are "
            f"0, or no directions are given), so it cannot be laid on {block.image.source}. Save "
            "it again with the affine of the image.",
        )
    apart = _voxels_apart(affine, block)
    if apart > _MOST_VOXELS:
        raise UnreadableFileError(
            Reason.LABEL_GEOMETRY,
            f"{name}: by its header it lies up to {apart:.1f} voxels beside {block.image.source}; "
            f"at most {_MOST_VOXELS} are expected. If its voxels are stored in the image's order "
            "and only the header is wrong, save it again with the affine of the image; otherwise "
            "resample it onto the image with nearest neighbour.",
        )
    return slices


def _turned_like(
    image: np.ndarray, slices: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn slices and their affine into the nearest directions of an image's slices.

    A DICOM series is in the order of its own normal, as of a patient who lies on the belly.
    """
    steps = np.rint(np.linalg.solve(image[:3, :3], affine[:3, :3])).astype(int)
    if not (np.abs(steps).sum(axis=0) == 1).all() or not (np.abs(steps).sum(axis=1) == 1).all():
        return slices, affine  # not voxels of the image's size
    turned = affine.copy()
    order = [0, 0, 0]
    flipped: list[int] = []
    for axis, row in enumerate(steps):  # columns, rows, slices of the image
        own = int(np.flatnonzero(row)[0])
        order[2 - axis] = 2 - own
        turned[:3, axis] = affine[:3, own] * row[own]
        if row[own] < 0:
            flipped.append(2 - axis)
            turned[:3, 3] += affine[:3, own] * (slices.shape[2 - own] - 1)
    return np.ascontiguousarray(np.flip(slices.transpose(order), tuple(flipped))), turned


def _put_back(
    slices: np.ndarray, affine: np.ndarray, block: ImageBlock, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Lay a part of a grid into the whole of it, and return that with its affine.

    Whether voxels are of one size and meet is for the caller to check.
    """
    image = np.asarray(block.image.affine, dtype=np.float64)
    first = np.linalg.solve(image[:3, :3], affine[:3, 3] - image[:3, 3])
    start = np.rint(first).astype(int)[::-1] - (block.first, 0, 0)  # slice, row, column
    low, high = np.maximum(start, 0), np.minimum(start + slices.shape, block.shape)
    whole = np.zeros(block.shape, dtype=slices.dtype)
    inside = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    if (high > low).all():
        whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = slices[inside]
    if np.count_nonzero(whole) < np.count_nonzero(slices):
        raise UnreadableFileError(
            Reason.LABEL_GEOMETRY,
            f"{name}: by its header its structures lie partly outside of {block.image.source}. "
            "Give the image that it was drawn on, or save it with the image's geometry.",
        )
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3] @ start[::-1]
    return whole, moved


def _voxels_apart(affine: np.ndarray, block: ImageBlock) -> float:
    """Return the largest distance between corners of label map and image, in image voxels."""
    image = np.asarray(block.image.affine, dtype=np.float64)
    slices, height, width = block.shape
    corners = np.array([*product((0, width - 1), (0, height - 1), (0, slices - 1), (1,))]).T
    wanted = image @ (corners + np.array([[0], [0], [block.first], [0]]))
    apart = np.linalg.solve(image[:3, :3], (affine @ corners - wanted)[:3])
    return float(np.abs(apart).max())
