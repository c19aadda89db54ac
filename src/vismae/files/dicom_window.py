"""How a file wants its grey values shown: linear windows are noted, tables are applied.

Standard: PS3.3 C.11.2 (VOI LUT). A window loses what lies outside, so it is only recorded. A VOI
table is not linear; of a radiograph it is the part of the maker's processing that turns the
detector's signal into the picture that is read, as a palette is. Where a file has both, the
standard has a viewer choose one; the first table is taken, since a window beside it is an
alternative and carries no shape.
"""

import logging
from typing import Any

import numpy as np
from pydicom import Dataset

from vismae.files.dicom_geometry import functional_group
from vismae.files.dicom_numbers import readable
from vismae.files.dicom_tables import look_up

logger = logging.getLogger(__name__)


def display_window(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Return the physical values that a frame's first window maps to black and white.

    LINEAR (C.11.2.1.2.1): centre - 0.5 -+ (width - 1) / 2. LINEAR_EXACT (C.11.2.1.3.2): centre -+
    width / 2. SIGMOID (C.11.2.1.3.1) has no ends; those of its tangent in the middle are
    centre -+ width / 2. None without a usable window.
    """
    holder = functional_group(dataset, frame, "FrameVOILUTSequence") or dataset
    centre, width = _first(holder, "WindowCenter"), _first(holder, "WindowWidth")
    if centre is None or width is None or not width > 0.0:
        return None
    function = str(holder.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function in ("LINEAR_EXACT", "SIGMOID"):
        return centre - width / 2.0, centre + width / 2.0
    if width < 1.0:
        return None
    return centre - 0.5 - (width - 1.0) / 2.0, centre - 0.5 + (width - 1.0) / 2.0


def apply_voi_table(
    stored: np.ndarray, dataset: Dataset, slope: float = 1.0, intercept: float = 0.0
) -> tuple[np.ndarray, int] | None:
    """Look integers up in the first VOI table, of an enhanced object in that of each frame.

    Args:
        stored: Values of all frames, (F, H, W).
        dataset: Their header.
        slope, intercept: Rescale; tables take rescaled values.

    Returns:
        The looked-up values and the bits they have, or None without a usable table for all frames:
        the picture is as good without it.
    """
    tables = _tables(dataset, len(stored))
    if not tables or stored.dtype.kind not in "iu":
        return None
    scaled = (slope, intercept) != (1.0, 0.0)
    values = np.rint(stored * slope + intercept).astype(np.int32) if scaled else stored
    little_endian = dataset.original_encoding[1] is not False
    try:
        if all(table is tables[0] for table in tables):
            return look_up(values, tables[0], little_endian)
        found = [look_up(*pair, little_endian) for pair in zip(values, tables, strict=True)]
    except (AttributeError, TypeError, ValueError) as error:
        logger.debug("VOI table left out: %s", type(error).__name__)
        return None
    bits = {of_frame for _, of_frame in found}
    return (np.stack([frame for frame, _ in found]), bits.pop()) if len(bits) == 1 else None


def _tables(dataset: Dataset, count: int) -> list[Dataset]:
    """Return the first VOI table of every frame (PS3.3 C.7.6.16.2.10b); empty if one has none."""
    whole = dataset.get("VOILUTSequence")
    if whole:
        return [whole[0]] * count
    groups = [functional_group(dataset, frame, "FrameVOILUTSequence") for frame in range(count)]
    tables = [group.get("VOILUTSequence") for group in groups if group is not None]
    return [table[0] for table in tables if table] if all(tables) and len(tables) == count else []


def _first(holder: Dataset, keyword: str) -> float | None:
    value: Any = readable(holder, keyword)
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int, float)):
        value = next(iter(value), None)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
