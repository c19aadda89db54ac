"""One orientation for every volume: voxel arrays to slices as a radiologist sees them, and back.

For axial slices rows run from anterior to posterior and columns from the patient's right to left,
exactly as in the DICOM series of a patient lying on the back. File affines are RAS: their axes
count to the right, anterior and superior.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from vismae.core.types import Spacing

_PLANES = ("axial", "coronal", "sagittal")

# An axis counts as the slice axis if its voxels are this much longer than any other's.
_THICKER = 1.2
# Axes that span less than this share of a cube lie in one plane, but for rounding.
_FLAT = 1e-4


@dataclass(frozen=True)
class SliceOrientation:
    """How a file's voxel array becomes slices, and back.

    Attributes:
        axes: The file's axes that become slice, row and column.
        flips: Whether each of these runs backwards.
        affine: Voxel (column, row, slice) of the slices to RAS mm, (4, 4).
        spacing: Between slices, rows, columns.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    affine: np.ndarray
    spacing: Spacing

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(place for place, flip in enumerate(self.flips) if flip)

    def to_slices(self, volume: np.ndarray) -> np.ndarray:
        """Turn a voxel array as the file has it, (I, J, K, ...), into slices (S, H, W, ...)."""
        rest = range(3, volume.ndim)
        turned = volume.transpose(*self.axes, *rest)
        return np.ascontiguousarray(np.flip(turned, self._flipped))

    def to_volume(self, slices: np.ndarray) -> np.ndarray:
        """Undo ``to_slices``."""
        back = np.flip(slices, self._flipped)
        inverse = [self.axes.index(axis) for axis in range(3)]
        return np.ascontiguousarray(back.transpose(*inverse, *range(3, slices.ndim)))


def has_three_directions(affine: np.ndarray) -> bool:
    """Whether an affine, (4, 4), is finite and maps voxels to a space and not to a plane."""
    axes = affine[:3, :3]
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(axes, axis=0)
    return bool((lengths > 0).all()) and abs(float(np.linalg.det(axes / lengths))) > _FLAT


def slice_orientation(shape: tuple[int, int, int], affine: np.ndarray) -> SliceOrientation:
    """Choose slice axis, row and column direction from geometry alone.

    The slice axis is the one with a single voxel, else the one with clearly the longest voxels,
    else the axis nearest to head-foot. Rows run from anterior to posterior in axial slices and
    from superior to inferior in others; columns from right to left, in sagittal slices from
    anterior to posterior. Slices run to the right, posterior or superior: the order that the
    normal of such rows and columns gives, as in DICOM.

    Args:
        shape: Voxels along the file's axes.
        affine: Voxel to RAS mm, (4, 4).
    """
    # For each file axis, the nearest patient axis (0 R, 1 A, 2 S) and its sign.
    codes = nib.io_orientation(affine)
    if np.isnan(codes).any():
        affine, codes = np.eye(4), nib.io_orientation(np.eye(4))
    patient_axis = codes[:, 0].astype(int)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    slice_axis = _slice_axis(shape, sizes, patient_axis)
    slice_patient = int(patient_axis[slice_axis])
    row_patient = 1 if slice_patient == 2 else 2
    column_patient = 1 if slice_patient == 0 else 0
    to_file = {int(patient): file for file, patient in enumerate(patient_axis)}
    axes = (slice_axis, to_file[row_patient], to_file[column_patient])
    # Rows and columns all run against their RAS axis (to posterior, inferior, left); slices run
    # along it, save for coronal ones.
    wanted = (-1.0 if slice_patient == 1 else 1.0, -1.0, -1.0)
    flips = [bool(codes[axis, 1] != sign) for axis, sign in zip(axes, wanted, strict=True)]
    turned = np.zeros((4, 4))
    turned[3, 3] = 1.0
    turned[:3, 3] = affine[:3, 3]
    for place, (file_axis, flip) in enumerate(zip(axes, flips, strict=True)):
        direction = affine[:3, file_axis]
        turned[:3, 2 - place] = -direction if flip else direction
        if flip:
            turned[:3, 3] += direction * (shape[file_axis] - 1)
    spacing = Spacing(*(float(sizes[axis]) for axis in axes))
    return SliceOrientation(axes, (flips[0], flips[1], flips[2]), turned, spacing)


def _slice_axis(shape: tuple[int, int, int], sizes: np.ndarray, patient_axis: np.ndarray) -> int:
    lone = [axis for axis in range(3) if shape[axis] == 1]
    if len(lone) == 1:
        return lone[0]
    thickest = int(np.argmax(sizes))
    if sizes[thickest] > _THICKER * np.delete(sizes, thickest).max():
        return thickest
    return int(np.flatnonzero(patient_axis == 2)[0])


@dataclass(frozen=True)
class PatientOrientation:
    """How slices become a volume whose axes follow the patient, and back.

    The volume's first axis runs from feet to head, the second from front to back, the third from
    the patient's right to left (DICOM's own directions, LPS). Each axis of the slices goes to the
    nearest one of the patient; nothing is resampled.

    Attributes:
        axes: Axes of the slices (0 slice, 1 row, 2 column) that become head, back and left.
        flips: Whether each of these runs backwards.
        angle_deg: Largest angle between an axis and that of the patient it stands for.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    angle_deg: float

    @property
    def native_plane(self) -> str:
        """The plane in which the slices were taken: axial, coronal or sagittal."""
        return _PLANES[self.axes.index(0)]

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(place for place, flip in enumerate(self.flips) if flip)

    def to_patient(self, slices: np.ndarray) -> np.ndarray:
        """Turn slices (S, H, W, ...) into (head, back, left, ...); a view."""
        turned = slices.transpose(*self.axes, *range(3, slices.ndim))
        return np.flip(turned, self._flipped)

    def to_slices(self, volume: np.ndarray) -> np.ndarray:
        """Undo ``to_patient``; a view."""
        back = np.flip(volume, self._flipped)
        inverse = [self.axes.index(axis) for axis in range(3)]
        return back.transpose(*inverse, *range(3, volume.ndim))


def patient_orientation(affine: np.ndarray) -> PatientOrientation | None:
    """Return how slices lie in the patient; None where the affine has no direction for an axis.

    Args:
        affine: Voxel (column, row, slice) to RAS mm, (4, 4), as of ``MedicalImage``.
    """
    codes = nib.io_orientation(affine)
    if np.isnan(codes).any():
        return None
    # RAS axis of each axis of the slices; theirs are the affine's in reverse.
    nearest = [int(codes[2 - axis, 0]) for axis in range(3)]
    sign = [float(codes[2 - axis, 1]) for axis in range(3)]
    axes = (nearest.index(2), nearest.index(1), nearest.index(0))
    wanted = (1.0, -1.0, -1.0)
    flips = [sign[axis] != direction for axis, direction in zip(axes, wanted, strict=True)]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = [abs(affine[nearest[axis], 2 - axis]) / lengths[2 - axis] for axis in range(3)]
    angle = float(np.degrees(np.arccos(min(1.0, min(cosines)))))
    return PatientOrientation(axes, (flips[0], flips[1], flips[2]), angle)
