"""What two pictures have in common: difference hashes, and whether there is a picture at all.

The hashes are the classical "dHash" (N. Krawetz, 2013, "Kind of Like That"): the picture is
averaged onto a grid of cells, and each bit tells whether a cell is brighter than its left
neighbour. They hardly change with size, JPEG quality, brightness or contrast, so a small Hamming
distance means the same picture. The coarse hash (8 rows of 9 cells) is the one that travels in a
model's card; medical images of one kind often share it. The fine one (16 rows of 17 cells) tells
them apart and is what ``duplicates.py`` compares.
"""

import math
from functools import lru_cache

import numpy as np

FINE_BYTES = 32
"""Length of a fine hash: 256 bits."""

_COARSE = (8, 9)
_FINE = (16, 17)
# A cell must be brighter by this share of the picture's range: in flat regions the sign of the
# rounding error would otherwise decide the bit.
_COARSE_STEP = 1e-5
# The fine hash also looks past noise: with 0.01 instead of 0.00001, 97 instead of 80 of 100
# JPEG copies of quality 70 keep all but 12 bits (2,443 real images).
_FINE_STEP = 1e-2
# See ``is_nearly_blank``.
_SAME_SHARE = 0.995
_SAME_STEP = 0.01
_SAMPLES_PER_SIDE = 64
_COMBS = 8


def difference_hash(pixels: np.ndarray) -> int:
    """Return the coarse, 64-bit difference hash of a picture; see ``likeness_hashes``."""
    return likeness_hashes(pixels)[0]


def fine_hash(pixels: np.ndarray) -> bytes:
    """Return the fine, 256-bit difference hash of a picture; see ``likeness_hashes``."""
    return likeness_hashes(pixels)[1]


def likeness_hashes(pixels: np.ndarray) -> tuple[int, bytes]:
    """Return the coarse and the fine difference hash in one pass over the pixels.

    0.1 ms for 512×512 int16 on one core.

    Args:
        pixels: (H, W) grey or (H, W, 3) colour, any numeric type; values that are not finite
            count as 0. Sides below the number of cells work, each pixel then covers several.

    Returns:
        The coarse hash as 0 to 2**64 - 1 and the fine one as 32 bytes; the first bit (most
        significant) is the top left cell pair. All bits are 0 for a picture of one colour.
    """
    coarse, fine = _cells(pixels)
    coarse_range = max(float(coarse.max() - coarse.min()), abs(float(coarse.max())))
    # Beside a large offset, differences below the rounding error are nothing.
    fine_step = max(
        _FINE_STEP * float(fine.max() - fine.min()), _COARSE_STEP * float(np.abs(fine).max())
    )
    return (
        int.from_bytes(_brighter(coarse, _COARSE_STEP * coarse_range), "big"),
        _brighter(fine, fine_step),
    )


def hash_distance(first: int | bytes, second: int | bytes) -> int:
    """Return in how many bits two difference hashes of the same kind differ."""
    if isinstance(first, bytes):
        first = int.from_bytes(first, "big")
    if isinstance(second, bytes):
        second = int.from_bytes(second, "big")
    return (first ^ second).bit_count()


def is_blank(pixels: np.ndarray) -> bool:
    """Tell whether all finite pixels have one value (or none is finite)."""
    values = pixels
    if not np.issubdtype(pixels.dtype, np.integer):
        values = pixels[np.isfinite(pixels)]
    return values.size == 0 or bool(values.min() == values.max())


def is_nearly_blank(pixels: np.ndarray) -> bool:
    """Tell whether next to nothing is to be seen; true for every blank picture.

    99.5 % of the values lie within 1 % of the picture's range around its median: what stands out
    is smaller than 18×18 pixels of 256×256. The range is that of averages over 16×17 cells, so
    that one hot pixel does not make all the rest look flat, and it is the picture's own, so that a
    dark picture with a faint structure counts as one.

    Measured on 19,544 real CT, MR, PET, X-ray, ultrasound and retina images: none is hit; the
    emptiest (coronal PET at the rim of the body) has 96 % of its pixels in the band. Hit is what a
    single dead detector element or a small mark leaves on an empty ground, and a PET slice whose
    hottest spot is a hundred times as bright as all else. 0.1 ms for 512×512 int16 on one core.

    Args:
        pixels: (H, W) grey or (H, W, 3) colour, any numeric type; values that are not finite are
            left out.
    """
    values = pixels
    if not np.issubdtype(pixels.dtype, np.integer):
        finite = np.isfinite(pixels)
        if not finite.all():
            values = pixels[finite]
    if values.size == 0:
        return True
    pixel_range = float(values.max()) - float(values.min())
    if pixel_range == 0.0:
        return True
    if not _mostly_alike(values, pixel_range):
        return False
    # Only few pictures come here, so that averaging costs nothing for the rest.
    _, cells = _cells(pixels)
    return _mostly_alike(values, min(pixel_range, float(cells.max() - cells.min())))


def _mostly_alike(values: np.ndarray, value_range: float) -> bool:
    """Tell whether nearly all values are about the median, by a share of a range."""
    # If nearly all values are alike, the median of a sample is one of them.
    steps = tuple(slice(None, None, max(1, side // _SAMPLES_PER_SIDE)) for side in values.shape[:2])
    centre = float(np.median(values[steps]))
    low, high = centre - _SAME_STEP * value_range, centre + _SAME_STEP * value_range
    if np.issubdtype(values.dtype, np.integer):
        # Whole numbers within the type keep the comparison in it, which is the fastest.
        limits = np.iinfo(values.dtype)
        low, high = max(math.ceil(low), limits.min), min(math.floor(high), limits.max)
    most_unlike = values.size - math.ceil(_SAME_SHARE * values.size)
    unlike = 0
    # Of most pictures one comb of rows has more unlike values than all may have.
    for first in range(_COMBS):
        comb = values[first::_COMBS]
        unlike += comb.size - np.count_nonzero((comb >= low) & (comb <= high))
        if unlike > most_unlike:
            return False
    return True


def _cells(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the averages over the coarse and the fine grid, (8, 9) and (16, 17)."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    values = pixels.reshape(height, width * channels).astype(np.float32)
    bands = _bands(values) if _adds_exactly(pixels) else _averaging_rows(height) @ values
    if not np.isfinite(bands).all():
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        bands = _averaging_rows(height) @ values
    coarse = bands[: _COARSE[0]] @ _averaging_columns(width, channels, _COARSE[1])
    fine = bands[_COARSE[0] :] @ _averaging_columns(width, channels, _FINE[1])
    return coarse, fine


def _adds_exactly(pixels: np.ndarray) -> bool:
    """Tell whether float32 averages of rows hold no rounding, so that any order gives the same.

    So it is where a cell has 2^k rows: of integers of 16 bits and at most 256 rows no sum needs
    more than 24 bits.
    """
    rows, rest = divmod(len(pixels), _FINE[0])
    two_to_k = rows > 0 and rest == 0 and rows & (rows - 1) == 0
    return two_to_k and 2 * rows <= 256 and pixels.dtype.kind in "iu" and pixels.itemsize <= 2


def _bands(values: np.ndarray) -> np.ndarray:
    """Average rows onto those of both grids, (24, W·C), without the many zeros of the matrix.

    A tenth of the matrix product's time; equal to it where ``_adds_exactly``.
    """
    rows = len(values) // _FINE[0]
    shares = np.full((1, rows), 1.0 / rows, np.float32)
    fine = (shares @ values.reshape(_FINE[0], rows, -1))[:, 0]
    coarse = (fine[0::2] + fine[1::2]) * np.float32(0.5)
    return np.concatenate([coarse, fine])


@lru_cache(maxsize=512)
def averaging_matrix(length: int, cells: int) -> np.ndarray:
    """Return the matrix (cells, length) that averages ``length`` pixels onto equal cells.

    A pixel that lies across a border counts in both cells by its share (area averaging).
    """
    borders = np.linspace(0.0, length, cells + 1)
    left, right = borders[:-1, None], borders[1:, None]
    pixel = np.arange(length)[None, :]
    overlap = np.clip(np.minimum(right, pixel + 1) - np.maximum(left, pixel), 0.0, None)
    return (overlap / (length / cells)).astype(np.float32)


def _brighter(cells: np.ndarray, step: float) -> bytes:
    """Return the bits that tell which cells are brighter than their left neighbour by a step."""
    return np.packbits((cells[:, 1:] - cells[:, :-1]) > step).tobytes()


@lru_cache(maxsize=512)
def _averaging_rows(height: int) -> np.ndarray:
    """Return the matrix (8 + 16, H) that averages rows onto those of both grids."""
    return np.concatenate(
        [averaging_matrix(height, _COARSE[0]), averaging_matrix(height, _FINE[0])]
    )


@lru_cache(maxsize=512)
def _averaging_columns(width: int, channels: int, cells: int) -> np.ndarray:
    """Return the matrix (W·channels, cells) that averages columns and channels onto cells."""
    return np.repeat(
        averaging_matrix(width, cells) / np.float32(channels), channels, axis=1
    ).T.copy()
