"""Siemens mosaics: the slices of a volume as tiles of one picture.

The scanners' own format for functional and diffusion series: tiles row by row on a square grid,
with the place of the whole sheet in the header, as if it were one slice. The numbers stand in
private elements, (0019,xx0A) of "SIEMENS MR HEADER" and the CSA header; nibabel's
``MosaicWrapper`` and dcm2niix describe them. Frames of enhanced objects are never tiles.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import Dataset

from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_geometry import FramePlane
from vismae.files.dicom_objects import image_type_words
from vismae.files.reasons import Reason

_GROUP, _CREATOR, _COUNT = 0x0019, "SIEMENS MR HEADER", 0x0A


@dataclass(frozen=True)
class Mosaic:
    """How a sheet holds its tiles.

    Attributes:
        count: Tiles; the places behind them are empty.
        side: Places along each side of the sheet.
        along_normal: 1 where tiles follow one another along the normal of their rows and columns,
            -1 where they run against it.
    """

    count: int
    side: int
    along_normal: float

    def tiles(self, sheet: np.ndarray) -> np.ndarray:
        """Cut a sheet (H, W) into slices (count, h, w)."""
        height, width = (length // self.side for length in sheet.shape)
        grid = sheet.reshape(self.side, height, self.side, width).swapaxes(1, 2)
        return grid.reshape(-1, height, width)[: self.count]

    def planes(self, sheet: FramePlane, shape: tuple[int, ...]) -> list[FramePlane]:
        """Return the place of each tile.

        Args:
            sheet: The plane that the header gives: its centre is that of the first slice.
            shape: Height and width of the sheet in pixels.
        """
        corner, rows, columns = sheet.position, sheet.rows, sheet.columns
        if corner is None or rows is None or columns is None:
            return [replace(sheet, position=None)] * self.count
        if sheet.row_mm is None or sheet.column_mm is None:
            return [replace(sheet, position=None)] * self.count
        height, width = shape
        away = 0.5 * (1.0 - 1.0 / self.side)
        first = corner + away * (width * sheet.column_mm * rows + height * sheet.row_mm * columns)
        step = sheet.normal * self.along_normal * (sheet.between_mm or 0.0)
        return [replace(sheet, position=first + number * step) for number in range(self.count)]


def mosaic_of(dataset: Dataset, shape: tuple[int, ...], name: str) -> Mosaic | None:
    """Return how an image is tiled, or None for any other image.

    Args:
        dataset: The header.
        shape: Of the decoded pixels: frames, height, width, and colours where there are any.
        name: Of the file, for messages.

    Raises:
        UnreadableFileError: ``mosaic`` where the number of slices or their distance is missing,
            or does not fit the sheet.
    """
    if "MOSAIC" not in image_type_words(dataset):
        return None
    if len(shape) != 3 or shape[0] != 1:
        raise _not_divided(name, f"{shape} pixels were found where one grey sheet was expected")
    csa = _csa_header(dataset)
    count = _count(dataset, csa)
    if count is None or count < 1:
        raise _not_divided(name, "the number of its slices, (0019,xx0A), is missing")
    side = math.ceil(math.sqrt(count))
    if shape[1] % side or shape[2] % side:
        raise _not_divided(name, f"{shape[1]}×{shape[2]} pixels do not hold {side}×{side} tiles")
    if count > 1 and not float(dataset.get("SpacingBetweenSlices") or 0.0) > 0.0:
        raise _not_divided(name, "SpacingBetweenSlices is missing")
    return Mosaic(count, side, _along_normal(dataset, csa))


def _count(dataset: Dataset, csa: dict[str, Any] | None) -> int | None:
    try:
        value: Any = dataset.private_block(_GROUP, _CREATOR)[_COUNT].value
    except KeyError:
        value = _csa_values(csa, "NumberOfImagesInMosaic")
    if isinstance(value, bytes):  # its dictionary is unknown: US, in the file's byte order
        return int.from_bytes(value[:2], "little" if dataset.is_little_endian else "big")
    if isinstance(value, list):
        value = value[0] if value else None
    return None if value in (None, "") else int(value)


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
        f"{name}: a Siemens mosaic that cannot be cut into slices: {found}. Fetch it again with "
        f"its private elements, or convert it to NIfTI where it was made.",
    )
