"""Where DICOM frames lie in the patient, and how those of one volume follow one another.

Standard: PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups of enhanced multi-frame
images), C.8.2.1 (gantry tilt). DICOM counts patient axes to left, posterior and superior (LPS);
affines here are RAS. All lengths are millimetres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydicom import Dataset

from vismae.core.types import Flag, Spacing
from vismae.files.dicom_frame_rows import FrameRow, frame_row, row_step_mm
from vismae.files.dicom_nuclear import reconstructed_place
from vismae.files.dicom_numbers import number, numbers, require_numbers, whole_number
from vismae.files.dicom_ultrasound import ultrasound_pixel_size

SAME_POSITION_MM = 1e-3
"""Positions that differ by less are one, but for rounding."""

_SAME_DIRECTION = 1e-3
_IRREGULAR_FRACTION = 0.05
# A gap this near to a whole multiple of the usual one is told as slices that are missing.
_MULTIPLE_FRACTION = 0.15
# Some writers round positions to tenths of millimetres.
_ROUNDING_MM = 0.1
# Slices shifted along themselves by this share of their distance, the tangent of 0.6 degrees.
_TILT_TANGENT = 0.01
_TILT_DEGREES = 0.5
_PLACE = (
    ("PlanePositionSequence", "ImagePositionPatient"),
    ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ("PixelMeasuresSequence", "PixelSpacing"),
)


@dataclass(frozen=True)
class FramePlane:
    """One frame's place; None where the header does not say.

    Attributes:
        position: Centre of the first pixel, LPS, (3,).
        rows, columns: Unit vectors along a row and along a column, LPS, (3,) each.
        row_mm: Distance between rows.
        column_mm: Distance between columns.
        between_mm: SpacingBetweenSlices; of frames in a row, their distance.
        thickness_mm: SliceThickness.
        tilted: Whether GantryDetectorTilt is not zero.
        in_patient: Whether axes are those of the patient. Those of an ultrasound volume are its
            own: they tell its planes apart, and nothing of left and right.
        row: What frames follow one another in that their object does not place; see ``frame_row``.
    """

    position: np.ndarray | None
    rows: np.ndarray | None
    columns: np.ndarray | None
    row_mm: float | None
    column_mm: float | None
    between_mm: float | None
    thickness_mm: float | None
    tilted: bool = False
    in_patient: bool = True
    row: FrameRow | None = None

    @property
    def located(self) -> bool:
        """Whether position and orientation are both known."""
        return self.position is not None and self.rows is not None

    @cached_property
    def normal(self) -> np.ndarray:
        """Direction of the slice axis, LPS; only for located planes."""
        return np.cross(_known(self.rows), _known(self.columns))

    @cached_property
    def height_mm(self) -> float:
        """Position along the normal; only for located planes."""
        return float(_known(self.position) @ self.normal)

    @cached_property
    def beside(self) -> np.ndarray:
        """Position without its part along the normal, LPS, (3,); only for located planes."""
        return _known(self.position) - self.height_mm * self.normal

    def parallel_to(self, other: "FramePlane") -> bool:
        """Whether both have one orientation (or none) and one pixel size (or none)."""
        if self.located != other.located:
            return False
        if self.located and not (
            np.abs(_known(self.rows) - _known(other.rows)).max() <= _SAME_DIRECTION
            and np.abs(_known(self.columns) - _known(other.columns)).max() <= _SAME_DIRECTION
        ):
            return False
        sizes = [(self.row_mm, other.row_mm), (self.column_mm, other.column_mm)]
        return all(
            a == b or (a is not None and b is not None and abs(a - b) <= 1e-3 * b) for a, b in sizes
        )


def frame_plane(dataset: Dataset, frame: int) -> FramePlane:
    """Return the place of a frame, counted from 0."""
    measures = functional_group(dataset, frame, "PixelMeasuresSequence")
    position = functional_group(dataset, frame, "PlanePositionSequence")
    orientation = functional_group(dataset, frame, "PlaneOrientationSequence")
    origin = numbers(position or dataset, "ImagePositionPatient", 3)
    axes = numbers(orientation or dataset, "ImageOrientationPatient", 6)
    if position is None and whole_number(dataset, "NumberOfFrames") > 1:
        origin = None  # one position for many frames places none of them
    reconstructed = reconstructed_place(dataset, frame)
    if reconstructed is not None:
        origin, axes = reconstructed
    in_volume = _place_in_volume(dataset, frame) if position is None else None
    if in_volume is not None:
        origin, axes = in_volume
    rows, columns = (None, None) if axes is None else (_unit(axes[:3]), _unit(axes[3:]))
    if rows is None or columns is None or abs(rows @ columns) > 0.1:
        rows = columns = None
    row_mm, column_mm = _pixel_size(dataset, measures)
    row = None if origin is not None and rows is not None else frame_row(dataset)
    between_mm = _positive(measures or dataset, "SpacingBetweenSlices")
    return FramePlane(
        position=origin,
        rows=rows,
        columns=columns,
        row_mm=row_mm,
        column_mm=column_mm,
        between_mm=between_mm if row is None else row_step_mm(dataset),
        thickness_mm=_positive(measures or dataset, "SliceThickness"),
        tilted=abs(number(dataset, "GantryDetectorTilt") or 0.0) > _TILT_DEGREES,
        in_patient=in_volume is None,
        row=row,
    )


def _place_in_volume(
    dataset: Dataset, frame: int
) -> tuple[np.ndarray | None, np.ndarray | None] | None:
    """Return position (3,) and direction cosines (6,) of a plane of an ultrasound volume.

    Returns:
        None for every other image.
    """
    position = functional_group(dataset, frame, "PlanePositionVolumeSequence")
    orientation = functional_group(dataset, frame, "PlaneOrientationVolumeSequence")
    if position is None or orientation is None:
        return None
    origin = numbers(position, "ImagePositionVolume", 3)
    return origin, numbers(orientation, "ImageOrientationVolume", 6)


def require_place(dataset: Dataset, frame: int, name: str) -> None:
    """Refuse a cross-section whose place stands in its header, but not in numbers.

    Without it the slice would be put where it does not belong, or taken for one without a place.

    Raises:
        UnreadableFileError: ``undecodable``, naming the elements.
    """
    for group, keyword in _PLACE:
        require_numbers(functional_group(dataset, frame, group) or dataset, [keyword], name)


def functional_group(dataset: Dataset, frame: int, name: str) -> Dataset | None:
    """Return a frame's functional group: its own, else the shared one, else None."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for item in (*per_frame[frame : frame + 1], *shared[:1]):
        group = item.get(name)
        if group:
            return group[0]
    return None


@dataclass(frozen=True)
class VolumeGeometry:
    """Geometry of ordered slices.

    Attributes:
        spacing: Between slices (the median; of two the smaller), rows, columns.
        affine: Voxel (column, row, slice) to RAS mm, or None if unknown. The third column is 1 mm
            or the slice thickness long where a lone slice has no neighbour.
        in_space: Whether slices follow one another in space, not in time or in no known order.
        regular: Whether all distances between slices agree within 5 %, and no slice lies further
            than 5 % of one and 0.1 mm from where a constant step would put it.
        flags: ``gantry-tilt`` where slices are shifted along themselves or the header says so,
            ``missing-slices`` where a gap is about twice the usual one or more,
            ``irregular-spacing`` where gaps differ in another way, or a slice lies beside the
            others or ever further from the constant step.
    """

    spacing: Spacing
    affine: np.ndarray | None
    in_space: bool
    regular: bool
    flags: frozenset[Flag] = frozenset()


def volume_geometry(planes: Sequence[FramePlane]) -> VolumeGeometry:
    """Return spacing and affine of slices in the order given by ``order_volumes``."""
    first = planes[0]
    alone = first.between_mm if len(planes) == 1 else None
    flat = Spacing(alone, first.row_mm, first.column_mm)
    tilt = frozenset([Flag.GANTRY_TILT] if any(plane.tilted for plane in planes) else ())
    if not first.located:
        in_space = first.row == "slices"
        if in_space:
            flat = Spacing(first.between_mm, first.row_mm, first.column_mm)
        return VolumeGeometry(flat, None, in_space=in_space, regular=True, flags=tilt)
    if len(planes) == 1 or planes[-1].height_mm - first.height_mm <= SAME_POSITION_MM:
        step = first.normal * (first.between_mm or first.thickness_mm or 1.0)
        affine = _affine(first, step)
        in_space = len(planes) == 1
        return VolumeGeometry(flat, affine, in_space=in_space, regular=True, flags=tilt)
    positions = np.array([plane.position for plane in planes])
    gaps = np.diff(np.array([plane.height_mm for plane in planes]))
    # Of an even number of gaps the smaller one in the middle: the mean of two would be the distance
    # of no slices at all.
    usual = int(np.argsort(gaps, kind="stable")[(len(gaps) - 1) // 2])
    median = float(gaps[usual])
    regular = bool((np.abs(gaps - median) <= _IRREGULAR_FRACTION * median).all())
    steps = np.diff(positions, axis=0)
    # The mean spreads rounding of positions over all slices; with a slice missing it would be
    # wrong for every slice, the median only behind the gap.
    step = steps.mean(axis=0)
    shifts = (steps - gaps[:, None] * first.normal) / gaps[:, None]
    flags = tilt | _gap_flags(gaps, median)
    if regular and not _on_a_line(positions, step):
        regular, flags = False, flags | {Flag.IRREGULAR_SPACING}
    if not regular:
        step = steps[usual]
    # Where one slice or one half of them lies beside the rest, that is no tilt.
    shift = shifts.mean(axis=0) if regular else np.median(shifts, axis=0)
    if float(np.linalg.norm(shift)) > _TILT_TANGENT:
        flags |= {Flag.GANTRY_TILT}
    spacing = Spacing(median, first.row_mm, first.column_mm)
    return VolumeGeometry(
        spacing, _affine(first, step), in_space=True, regular=regular, flags=flags
    )


def _on_a_line(positions: np.ndarray, step: np.ndarray) -> bool:
    """Whether positions, (S, 3), are those of a constant step from the first one."""
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    most = _IRREGULAR_FRACTION * float(np.linalg.norm(step)) + _ROUNDING_MM
    return bool((np.linalg.norm(positions - expected, axis=1) <= most).all())


def _gap_flags(gaps: np.ndarray, median: float) -> frozenset[Flag]:
    """Tell gaps of whole multiples of the usual distance from other irregular ones."""
    ratios = gaps / median
    nearest = np.maximum(np.rint(ratios), 1.0)
    usual = np.abs(ratios - 1.0) <= _IRREGULAR_FRACTION
    multiple = (nearest > 1.0) & (np.abs(ratios - nearest) <= _MULTIPLE_FRACTION)
    flags: set[Flag] = set()
    if multiple.any():
        flags.add(Flag.MISSING_SLICES)
    if not (usual | multiple).all():
        flags.add(Flag.IRREGULAR_SPACING)
    return frozenset(flags)


def _affine(first: FramePlane, step: np.ndarray) -> np.ndarray | None:
    if first.row_mm is None or first.column_mm is None or not first.in_patient:
        return None
    affine = np.eye(4)
    affine[:3, 0] = _known(first.rows) * first.column_mm
    affine[:3, 1] = _known(first.columns) * first.row_mm
    affine[:3, 2] = step
    affine[:3, 3] = _known(first.position)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS


def _pixel_size(dataset: Dataset, measures: Dataset | None) -> tuple[float | None, float | None]:
    """Return row and column distance: in the patient if known, else at the detector."""
    for holder, tag in (
        (measures, "PixelSpacing"),
        (dataset, "PixelSpacing"),
        (dataset, "ImagerPixelSpacing"),
        (dataset, "NominalScannedPixelSpacing"),
    ):
        pair = None if holder is None else numbers(holder, tag, 2)
        if pair is not None and (pair > 0).all():
            return float(pair[0]), float(pair[1])
    return ultrasound_pixel_size(dataset)


def _unit(vector: np.ndarray) -> np.ndarray | None:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0.5 else None


def _positive(holder: Dataset, keyword: str) -> float | None:
    value = number(holder, keyword)
    return value if value is not None and value > 0.0 else None


def _known(vector: np.ndarray | None) -> np.ndarray:
    if vector is None:
        raise ValueError("this plane is not located; test 'located' first")
    return vector
