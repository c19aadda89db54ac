"""Checks and repairs that every reader makes to an array of pixels or of labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.files.reasons import Reason

MAX_IMAGE_BYTES = 8 * 1024**3
"""Largest decoded image or volume; headers that promise more are damaged or hostile."""

_most_bytes: ContextVar[int] = ContextVar("most_bytes", default=MAX_IMAGE_BYTES)


@contextmanager
def image_limit(most_bytes: int) -> Iterator[None]:
    """Refuse images that decode to more than so many bytes while inside."""
    before = _most_bytes.set(min(most_bytes, MAX_IMAGE_BYTES))
    try:
        yield
    finally:
        _most_bytes.reset(before)


def require_size(shape: tuple[int, ...], bytes_per_pixel: int, name: str) -> None:
    """Refuse an image before it is decoded if it would not fit in memory.

    Raises:
        UnreadableFileError: ``too-large``, or ``no-pixels`` for an empty shape.
    """
    count = 1
    for length in shape:
        count *= int(length)
    if count <= 0:
        raise UnreadableFileError(
            Reason.NO_PIXELS, f"{name}: shape {shape} holds no pixels. Leave the file out."
        )
    most = _most_bytes.get()
    if count * bytes_per_pixel > most:
        raise UnreadableFileError(
            Reason.TOO_LARGE,
            f"{name}: shape {shape} needs {count * bytes_per_pixel} bytes, at most "
            f"{most} are read. Divide the file, or leave it out.",
        )


def grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    """Return one channel of (..., 3) pixels if all three are equal, else the pixels as they are."""
    first = pixels[..., 0]
    if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
        return np.ascontiguousarray(first)
    return pixels


def native_numbers(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return pixels in the machine's byte order; floats as float32 without NaN and infinity.

    Not-a-number marks "outside the body" in many float images, so it becomes the smallest finite
    value, as padding does.

    Raises:
        UnreadableFileError: ``not-finite`` if no pixel is finite.
    """
    if pixels.dtype.kind != "f":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # beyond float32 counts as infinite
        pixels = pixels.astype(np.float32)
    finite = np.isfinite(pixels)
    if finite.all():
        return pixels
    if not finite.any():
        raise UnreadableFileError(
            Reason.NOT_FINITE, f"{name}: no pixel holds a finite number. Leave the file out."
        )
    return np.where(finite, pixels, pixels[finite].min())


def as_class_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """Return label values as int32.

    Raises:
        UnreadableFileError: ``label-not-integer``, naming the first ten values at fault.
    """
    limits = np.iinfo(np.int32)
    if values.dtype.kind == "f":
        # A scale factor of the file may leave 2.9999998 where 3 was meant.
        nearest = np.rint(values)
        wrong = ~(np.abs(values - nearest) <= 1e-4)
    else:
        nearest = values
        wrong = np.zeros(values.shape, dtype=bool)
    wrong |= (nearest < limits.min) | (nearest > limits.max)
    if wrong.any():
        some = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:10])
        raise UnreadableFileError(
            Reason.LABEL_NOT_INTEGER,
            f"{name}: a label map must hold whole class numbers, found {some}. Threshold a "
            f"probability map, and resample label maps with nearest neighbour.",
        )
    return nearest.astype(np.int32)
