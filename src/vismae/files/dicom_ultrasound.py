"""Regions of an ultrasound image: where the picture of tissue is, its scale, and colour flow.

An ultrasound screen shows one or more pictures among text, curves and scales. Standard: PS3.3
C.8.5.5 (US region calibration) and C.8.5.6.1.11 (ultrasound colour data present).
"""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_numbers import number, whole_number
from vismae.files.reasons import Reason

_TWO_DIMENSIONAL = 1
_TRACES = {2, 3, 4}  # M-mode, spectrum, waveform
_COLOUR_FLOW = 2
_PICTURE_DATA = {1, _COLOUR_FLOW}  # tissue, colour flow
_CENTIMETRE = 3
_SMALLEST_SIDE = 16
# A coloured caret or logo is no Doppler: at least 0.5 % of the pixels of a frame, and clearly. A
# tinted grey picture is none either: there most of what is not black is coloured.
_COLOURED_FRACTION = 0.005
_TINTED_FRACTION = 0.5
_COLOURED_LEVELS = 48
_BLACK_LEVELS = 48
# Of a film of some heart beats, evenly spread; a few of them show flow if any does.
_FRAMES_LOOKED_AT = 16


@dataclass(frozen=True)
class PictureRegion:
    """The part of an ultrasound image that shows tissue, last row and column not included."""

    top: int
    bottom: int
    left: int
    right: int


def picture_region(dataset: Dataset, name: str) -> PictureRegion | None:
    """Return the box around all two-dimensional regions of tissue or colour flow.

    None where there are no regions, where the box is the whole image, and where regions reach
    beyond the image or are a few pixels small: they were written for another size.

    Raises:
        UnreadableFileError: ``ultrasound-trace`` if all regions are spectra, M-mode or curves.
    """
    regions = _regions(dataset)
    pictures = [region for region in regions if _is_picture(region)]
    if not pictures:
        formats = [whole_number(region, "RegionSpatialFormat") for region in regions]
        if formats and set(formats) <= _TRACES:
            raise UnreadableFileError(
                Reason.ULTRASOUND_TRACE,
                f"{name}: shows a spectrum, an M-mode or a curve, and no picture of tissue "
                f"(RegionSpatialFormat {', '.join(map(str, formats))}). Leave it out.",
            )
        return None
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    boxes = [box for box in map(_box, pictures) if box is not None]
    if not boxes:
        return None
    region = PictureRegion(
        top=min(box.top for box in boxes),
        bottom=max(box.bottom for box in boxes),
        left=min(box.left for box in boxes),
        right=max(box.right for box in boxes),
    )
    inside = _lies_inside(region, rows, columns)
    if not inside or min(region.bottom - region.top, region.right - region.left) < _SMALLEST_SIDE:
        return None
    region = PictureRegion(
        region.top, min(region.bottom, rows), region.left, min(region.right, columns)
    )
    return None if region == PictureRegion(0, rows, 0, columns) else region


def ultrasound_pixel_size(dataset: Dataset) -> tuple[float | None, float | None]:
    """Return distance of rows and columns in millimetres, if the pictures agree on it.

    Regions count that are measured in centimetres; of several kinds, those that show tissue. None
    counts where one reaches beyond the image: it was made smaller since.
    """
    regions = _regions(dataset)
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    boxes = [box for box in map(_box, regions) if box is not None]
    if not all(_lies_inside(box, rows, columns) for box in boxes):
        return None, None
    sizes: set[tuple[float, float]] = set()
    for region in [region for region in regions if _is_picture(region)] or regions:
        axes = ("PhysicalUnitsXDirection", "PhysicalUnitsYDirection")
        units = tuple(whole_number(region, axis) for axis in axes)
        row, column = number(region, "PhysicalDeltaY"), number(region, "PhysicalDeltaX")
        if units == (_CENTIMETRE, _CENTIMETRE) and row and column:
            sizes.add((round(abs(row) * 10.0, 6), round(abs(column) * 10.0, 6)))
    return sizes.pop() if len(sizes) == 1 else (None, None)


def shows_colour_flow(dataset: Dataset, frames: np.ndarray) -> bool:
    """Whether an image is colour Doppler.

    A region of colour flow says so. Without one, UltrasoundColorDataPresent is believed where the
    pixels are truly coloured; many scanners set it for a tinted grey picture too. A film need not
    begin while blood flows.

    Args:
        dataset: The header.
        frames: (F, H, W) or (F, H, W, 3), 8 bits.
    """
    if any(whole_number(region, "RegionDataType") == _COLOUR_FLOW for region in _regions(dataset)):
        return True
    if frames.ndim != 4 or whole_number(dataset, "UltrasoundColorDataPresent") != 1:
        return False
    some = frames[:: -(-len(frames) // _FRAMES_LOOKED_AT)]
    return any(map(_is_coloured, some))


def _lies_inside(region: PictureRegion, rows: int, columns: int) -> bool:
    # Many writers give the first row and column behind the region as its last.
    behind = region.bottom <= rows + 1 and region.right <= columns + 1
    return behind and region.top >= 0 and region.left >= 0


def _is_coloured(frame: np.ndarray) -> bool:
    brightest = frame.max(axis=-1)
    coloured = np.count_nonzero(brightest - frame.min(axis=-1) >= _COLOURED_LEVELS)
    seen = np.count_nonzero(brightest >= _BLACK_LEVELS)
    return _COLOURED_FRACTION * brightest.size <= coloured <= _TINTED_FRACTION * seen


def _regions(dataset: Dataset) -> list[Dataset]:
    return list(dataset.get("SequenceOfUltrasoundRegions") or [])


def _is_picture(region: Dataset) -> bool:
    return (
        whole_number(region, "RegionSpatialFormat") == _TWO_DIMENSIONAL
        and whole_number(region, "RegionDataType") in _PICTURE_DATA
    )


def _box(region: Dataset) -> PictureRegion | None:
    tags = ("MinY0", "MaxY1", "MinX0", "MaxX1")
    found = (number(region, f"RegionLocation{tag}") for tag in tags)
    values = [int(value) for value in found if value is not None]
    if len(values) < len(tags):
        return None
    top, bottom, left, right = values
    if bottom <= top or right <= left:
        return None
    return PictureRegion(top, bottom + 1, left, right + 1)
