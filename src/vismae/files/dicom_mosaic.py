"""Mosaics of Siemens and of United Imaging: the slices of a volume as tiles of one picture.

The scanners' own formats for functional and diffusion series: tiles row by row on a grid, with the
number of slices in private elements. Siemens has a square grid and gives the place of the whole
sheet, as if it were one slice; see (0019,xx0A) of "SIEMENS MR HEADER" and the CSA header, nibabel's
``MosaicWrapper`` and dcm2niix. United Imaging leaves out rows without a slice and gives each slice
its place; see (0065,xx50) and (0065,xx51) of "Image Private Header" and dcm2niix. Frames of
enhanced objects are never tiles.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import Dataset

from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_geometry import FramePlane
from vismae.files.dicom_numbers import number, without_use
from vismae.files.dicom_objects import image_type_words
from vismae.files.reasons import Reason

_SIEMENS = (0x0019, "SIEMENS MR HEADER", 0x0A)
_UNITED_IMAGING = (0x0065, "Image Private Header", 0x50)
_PLACES = (0x0065, "Image Private Header", 0x51)


@dataclass(frozen=True)
class Mosaic:
    """How a sheet holds its tiles.

    Attributes:
        count: Tiles; the places behind them are empty.
        down, across: Places along the sides of the sheet.
        along_normal: 1 where tiles follow one another along the normal of their rows and columns,
            -1 where they run against it.
        positions: Centre of the first pixel of each tile, LPS; None where the header gives the
            place of the whole sheet instead.
    """

    count: int
    down: int
    across: int
    along_normal: float = 1.0
    positions: tuple[np.ndarray, ...] | None = None

    def tiles(self, sheet: np.ndarray) -> np.ndarray:
        """Cut a sheet (H, W) into slices (count, h, w)."""
        height, width = sheet.shape[0] // self.down, sheet.shape[1] // self.across
        grid = sheet.reshape(self.down, height, self.across, width).swapaxes(1, 2)
        return grid.reshape(-1, height, width)[: self.count]

    def planes(self, sheet: FramePlane, shape: tuple[int, ...]) -> list[FramePlane]:
        """Return the place of each tile.

        Args:
            sheet: The plane that the header gives.
            shape: Height and width of the sheet in pixels.
        """
        if self.positions is not None:
            return [replace(sheet, position=position) for position in self.positions]
        corner, rows, columns = sheet.position, sheet.rows, sheet.columns
        if corner is None or rows is None or columns is None:
            return [replace(sheet, position=None)] * self.count
        if sheet.row_mm is None or sheet.column_mm is None:
            return [replace(sheet, position=None)] * self.count
        # The sheet's centre is that of the first slice.
        right = 0.5 * (1.0 - 1.0 / self.across) * shape[1] * sheet.column_mm
        below = 0.5 * (1.0 - 1.0 / self.down) * shape[0] * sheet.row_mm
        first = corner + right * rows + below * columns
        step = sheet.normal * self.along_normal * (sheet.between_mm or 0.0)
        return [replace(sheet, position=first + number * step) for number in range(self.count)]


def mosaic_of(dataset: Dataset, shape: tuple[int, ...], name: str) -> Mosaic | None:
    """Return how an image is tiled, or None for any other image.

    Args:
        dataset: The header.
        shape: Of the decoded pixels: frames, height, width, and colours where there are any.
        name: Of the file, for messages.

    Raises:
        UnreadableFileError: ``mosaic`` where the number of slices or their places are missing, or
            do not fit the sheet.
    """
    words = image_type_words(dataset)
    if "MOSAIC" not in words and "VFRAME" not in words:
        return None
    if len(shape) != 3 or shape[0] != 1:
        raise _not_divided(name, f"{shape} pixels were found where one grey sheet was expected")
    csa = _csa_header(dataset) if "MOSAIC" in words else None
    element = _SIEMENS if "MOSAIC" in words else _UNITED_IMAGING
    count = _count(dataset, element, csa)
    if count is None or count < 1:
        tag = f"({element[0]:04X},xx{element[2]:02X})"
        raise _not_divided(name, f"the number of its slices, {tag}, is missing")
    across = math.ceil(math.sqrt(count))
    down = across if "MOSAIC" in words else math.ceil(count / across)
    if shape[1] % down or shape[2] % across:
        raise _not_divided(name, f"{shape[1]}×{shape[2]} pixels do not hold {down}×{across} tiles")
    if "VFRAME" in words:
        return Mosaic(count, down, across, positions=_positions(dataset, count, name))
    if count > 1 and not (number(dataset, "SpacingBetweenSlices") or 0.0) > 0.0:
        raise _not_divided(name, without_use(dataset, "SpacingBetweenSlices"))
    return Mosaic(count, down, across, _along_normal(dataset, csa))


def _positions(dataset: Dataset, count: int, name: str) -> tuple[np.ndarray, ...]:
    try:
        items = dataset.private_block(*_PLACES[:2])[_PLACES[2]].value
        found = [np.array(item.ImagePositionPatient, dtype=float) for item in items]
    except (AttributeError, KeyError, TypeError, ValueError):
        found = []
    if len(found) != count or any(position.shape != (3,) for position in found):
        raise _not_divided(name, "the places of its slices, (0065,xx51), are missing")
    return tuple(found)


def _count(
    dataset: Dataset, element: tuple[int, str, int], csa: dict[str, Any] | None
) -> int | None:
    try:
        value: Any = dataset.private_block(*element[:2])[element[2]].value
    except KeyError:
        value = _csa_values(csa, "NumberOfImagesInMosaic")
    if isinstance(value, bytes) and element == _SIEMENS:
        # Its dictionary is unknown: US, in the file's byte order.
        return int.from_bytes(value[:2], "little" if dataset.is_little_endian else "big")
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore").strip(" \0")
    if isinstance(value, list):
        value = value[0] if value else None
    try:
        return None if value in (None, "") else int(float(value))
    except (TypeError, ValueError):
        return None


def _along_normal(dataset: Dataset, csa: dict[str, Any] | None) -> float:
    """Return the sign that only the CSA header tells; scanners mostly follow the normal."""
    normal = _csa_values(csa, "SliceNormalVector")
    axes = dataset.get("ImageOrientationPatient")
    if normal is None or len(normal) != 3 or not axes:
        return 1.0
    turned = np.cross([float(x) for x in axes[:3]], [float(x) for x in axes[3:]])
    return -1.0 if float(turned @ np.array(normal, dtype=float)) < 0.0 else 1.0


def _csa_header(dataset: Dataset) -> dict[str, Any] | None:
    with warnings.catch_warnings():
        # On import it warns that its readers of whole files are experimental.
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader

        return csareader.get_csa_header(dataset, "image")


def _csa_values(csa: dict[str, Any] | None, tag: str) -> list[Any] | None:
    found = None if csa is None else csa["tags"].get(tag)
    return None if found is None or not found["items"] else list(found["items"])


def _not_divided(name: str, found: str) -> UnreadableFileError:
    return UnreadableFileError(
        Reason.MOSAIC,
        f"{name}: a mosaic that cannot be cut into slices: {found}. Fetch it again with "
        f"its private elements, or convert it to NIfTI where it was made.",
    )
