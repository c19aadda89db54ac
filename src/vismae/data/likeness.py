"""What two pictures have in common: a difference hash, and whether there is a picture at all.

The hash is the classical "dHash" (N. Krawetz, 2013, "Kind of Like That"): the picture is averaged
onto 8 rows of 9 cells, and each bit tells whether a cell is brighter than its left neighbour. It
hardly changes with size, JPEG quality, brightness or contrast, so a small Hamming distance means
the same picture.
"""

from functools import lru_cache

import numpy as np

_ROWS = 8
_COLUMNS = 9
# A cell must be brighter by this share of the picture's range: in flat regions the sign of the
# rounding error would otherwise decide the bit.
_LEAST_STEP = 1e-5


def difference_hash(pixels: np.ndarray) -> int:
    """Return the 64-bit difference hash of a picture.

    Args:
        pixels: (H, W) grey or (H, W, 3) colour, any numeric type; values that are not finite
            count as 0. Sides below 8 or 9 pixels work, each pixel then covers several cells.

    Returns:
        0 to 2**64 - 1; the first bit (most significant) is the top left cell pair. 0 for a
        picture of one colour.
    """
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels
    values = grey.astype(np.float32)
    if not np.issubdtype(pixels.dtype, np.integer):
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    height, width = values.shape
    cells = _averaging(height, _ROWS) @ values @ _averaging(width, _COLUMNS).T  # (8, 9)
    step = _LEAST_STEP * max(float(cells.max() - cells.min()), abs(float(cells.max())))
    brighter = (cells[:, 1:] - cells[:, :-1]) > step
    return int.from_bytes(np.packbits(brighter).tobytes(), "big")


def hash_distance(first: int, second: int) -> int:
    """Return in how many of the 64 bits two difference hashes differ."""
    return (first ^ second).bit_count()


def is_blank(pixels: np.ndarray) -> bool:
    """Tell whether all finite pixels have one value (or none is finite)."""
    values = pixels
    if not np.issubdtype(pixels.dtype, np.integer):
        values = pixels[np.isfinite(pixels)]
    return values.size == 0 or bool(values.min() == values.max())


@lru_cache(maxsize=512)
def _averaging(length: int, cells: int) -> np.ndarray:
    """Return the matrix (cells, length) that averages ``length`` pixels onto equal cells.

    A pixel that lies across a border counts in both cells by its share (area averaging).
    """
    borders = np.linspace(0.0, length, cells + 1)
    left, right = borders[:-1, None], borders[1:, None]
    pixel = np.arange(length)[None, :]
    overlap = np.clip(np.minimum(right, pixel + 1) - np.maximum(left, pixel), 0.0, None)
    return (overlap / (length / cells)).astype(np.float32)
