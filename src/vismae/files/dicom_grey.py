"""Stored grey values to the values handed on: tables, inverted scales and padding.

Order of PS3.3 C.7.6.3.1.2 and PS3.4 annex N: modality table, VOI table, then MONOCHROME1. Linear
rescales are not applied here but handed on.
"""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from vismae.files.dicom_bits import padding_value
from vismae.files.dicom_numbers import number
from vismae.files.dicom_tables import look_up
from vismae.files.dicom_window import apply_voi_table

# Pixels that are real numbers have elements of their own, and so has their padding.
_FLOATS = ("Float", "DoubleFloat")


@dataclass(frozen=True)
class GreyValues:
    """Values of all frames of one file.

    Attributes:
        pixels: (F, H, W).
        rescaled: Whether slope and intercept have been applied already, for a VOI table.
        tabled: Whether a VOI table was applied, so that windows no longer fit.
        turned_about: Sum of a value before and after MONOCHROME1 was turned round, or None.
        nothing_valid: Whether all of it is padding, which then stays as it is.
    """

    pixels: np.ndarray
    rescaled: bool = False
    tabled: bool = False
    turned_about: int | None = None
    nothing_valid: bool = False


def grey_values(
    stored: np.ndarray,
    dataset: Dataset,
    for_the_eye: bool,
    slope: float = 1.0,
    intercept: float = 0.0,
    lossy: bool = False,
) -> GreyValues:
    """Apply tables, turn MONOCHROME1 round and replace padding by the smallest valid value.

    Smallest after the rescale: of a negative slope the largest that is stored.

    VOI tables and turning round are for grey levels made for the eye; Hounsfield units and uptake
    do not depend on how a viewer paints them. Lossy compression spreads padding over values around
    it; there, of values that are not for the eye, it stays as it is.

    Args:
        stored: Stored values, (F, H, W).
        dataset: Its header.
        for_the_eye: Whether the unit is ``display``.
        slope, intercept: Of the first frame; a VOI table takes rescaled values.
        lossy: Whether the pixels were compressed with loss.
    """
    padding = _padding(stored, dataset) if for_the_eye or not lossy else None
    pixels, bits = stored, int(dataset.get("BitsStored") or 8 * stored.dtype.itemsize)
    rescaled = tabled = False
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    if tables := dataset.get("ModalityLUTSequence"):
        little_endian = dataset.original_encoding[1] is not False
        (pixels, bits), signed = look_up(pixels, tables[0], little_endian), False
    if for_the_eye and (found := apply_voi_table(pixels, dataset, slope, intercept)):
        (pixels, bits), tabled, signed = found, True, False
        rescaled = (slope, intercept) != (1.0, 0.0)
    turned_about = None
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    if for_the_eye and inverted and pixels.dtype.kind in "iu":
        # Unsigned values of b bits: 2^b - 1 - v; signed ones: -1 - v. Never by the image's own
        # extremes, which would give each slice of a series another scale.
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        turned_about = low + high
        # Lossy compression may overshoot the range, which must not wrap around.
        inside = np.clip(pixels, low, high)
        pixels = np.invert(inside) if signed else np.subtract(high, inside, dtype=inside.dtype)
    count = 0 if padding is None else int(np.count_nonzero(padding))
    nothing_valid = 0 < count == stored.size
    if padding is not None and count and not nothing_valid:
        pixels = _filled(pixels, padding, turned=slope < 0.0 and not rescaled)
    return GreyValues(pixels, rescaled, tabled, turned_about, nothing_valid)


def _filled(pixels: np.ndarray, padding: np.ndarray, turned: bool) -> np.ndarray:
    """Return pixels with the smallest valid value, or the largest, where there is padding."""
    result = pixels.copy()
    np.putmask(result, padding, pixels.min() if turned else pixels.max())
    np.putmask(result, padding, result.max() if turned else result.min())
    return result


def _padding(pixels: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Where pixels hold PixelPaddingValue (or lie in its range, PS3.3 C.7.5.1.1.2)."""
    kind = next((word for word in _FLOATS if f"{word}PixelData" in dataset), "")
    ends = (f"{kind}PixelPaddingValue", f"{kind}PixelPaddingRangeLimit")
    if pixels.dtype.kind == "f":
        # As the pixels are: doubles were rounded, and what was beyond float32 is finite no longer.
        with np.errstate(over="ignore"):
            values = (number(dataset, end) for end in ends)
            found = [None if value is None else np.float32(value) for value in values]
    else:
        found = [padding_value(dataset, end, pixels.dtype) for end in ends]
    first, limit = found
    if first is None:
        return None
    if limit is None or limit == first:
        return pixels == first
    return (pixels >= min(first, limit)) & (pixels <= max(first, limit))
