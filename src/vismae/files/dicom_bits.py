"""Stored values out of the words that hold them: unused bits, and headers that count bits wrong.

Standard: PS3.5 section 8.1.1 (a word of BitsAllocated bits holds BitsStored bits, the topmost at
HighBit; what the others hold is not defined) and, for overlays in the unused bits, the retired
part of PS3.3 C.9.2.
"""

import numpy as np
from pydicom import Dataset

from vismae.files.dicom_numbers import number


def settle_stored_bits(words: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return pixel values of whole words, and correct the header in memory where it is wrong.

    Words that hold nothing beyond BitsStored are returned as they are. Otherwise the unused bits
    are cleared (or, of signed values, filled with the sign), unless BitsStored itself is wrong,
    as it is in many derived images: then the words are values. A header with an overlay in these
    bits settles it. Else the smoother image is taken, since clearing bits of true values makes
    them jump by 2^BitsStored, and leaving strays in makes them jump as far.

    Args:
        words: Integers, (F, H, W), read in the signedness of PixelRepresentation.
        dataset: Its header; BitsStored and HighBit may be changed.
    """
    allocated = 8 * words.dtype.itemsize
    bits = int(dataset.BitsStored)
    high_bit = number(dataset, "HighBit")
    unused_below = 0 if high_bit is None else int(high_bit) + 1 - bits
    if not 0 < bits < allocated or not 0 <= unused_below <= allocated - bits:
        return words
    fits = _fits(words, bits)
    if fits and unused_below == 0:
        return words
    if fits:  # nothing reaches HighBit, so it is wrong
        dataset.HighBit = bits - 1
        return words
    if unused_below == 0 and _only_padding_is_beyond(words, dataset, bits):
        return words
    above = allocated - bits - unused_below
    values = np.right_shift(np.left_shift(words, above), above + unused_below)
    if unused_below or _overlay_in_pixels(dataset) or roughness(values) <= roughness(words):
        return values
    dataset.BitsStored = next(b for b in range(bits + 1, allocated + 1) if _fits(words, b))
    dataset.HighBit = dataset.BitsStored - 1
    return words


def _fits(words: np.ndarray, bits: int) -> bool:
    if words.dtype.kind == "u":
        return int(words.max()) < 2**bits
    return -(2 ** (bits - 1)) <= int(words.min()) and int(words.max()) < 2 ** (bits - 1)


def padding_value(dataset: Dataset, tag: str, dtype: np.dtype) -> int | None:
    """Return a padding value in the pixels' signedness, which writers often get wrong."""
    value = number(dataset, tag)
    if value is None or dtype.kind not in "iu":
        return None
    range_ = np.iinfo(dtype)
    return (int(value) - range_.min) % 2 ** (8 * dtype.itemsize) + range_.min


def _only_padding_is_beyond(words: np.ndarray, dataset: Dataset, bits: int) -> bool:
    padding = padding_value(dataset, "PixelPaddingValue", words.dtype)
    if padding is None:
        return False
    valid = words[words != padding]
    return valid.size > 0 and _fits(valid, bits)


def roughness(values: np.ndarray) -> int:
    """Sum of differences between neighbours in a row."""
    return int(np.abs(np.diff(values.astype(np.int64), axis=-1)).sum())


def _overlay_in_pixels(dataset: Dataset) -> bool:
    """Whether an overlay has its place in the words but no data of its own."""
    groups = range(0x6000, 0x6020, 2)
    positions = [(group, dataset.get((group, 0x0102))) for group in groups]
    return any(
        position is not None and int(position.value or 0) > 0 and (group, 0x3000) not in dataset
        for group, position in positions
    )
