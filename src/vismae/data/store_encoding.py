"""A slice as bytes: what goes into a shard and the index, and back to arrays.

Pixels are C-ordered little-endian bytes, compressed value by value (not per batch), so that
reading one image never touches its neighbours. The index holds a checksum of what each was encoded
to, which tells every reader whether the bytes are still those that were written.
"""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vismae.core.errors import DataError
from vismae.core.types import SliceRecord
from vismae.data.likeness import likeness_hashes
from vismae.data.store_format import pixel_sha256, storable_label_map, storable_pixels

_BLOCK_BYTES = 512


class EncodedSlice(NamedTuple):
    """A slice as it goes into a shard, and its index row but for the place in the shards."""

    facts: dict[str, Any]
    pixels: bytes
    label_map: bytes | None
    label_values: tuple[int, ...]

    @property
    def byte_count(self) -> int:
        """Encoded bytes of pixels and label map."""
        return len(self.pixels) + len(self.label_map or b"")


def encode_slice(
    record: SliceRecord,
    pixels: np.ndarray,
    label_map: np.ndarray | None = None,
    encoding: str = "zstd",
    extra_columns: Sequence[str] = (),
) -> EncodedSlice:
    """Do all the work of storing a slice that needs no open file.

    Args:
        record: What is known of it.
        pixels: (H, W) or (H, W, 3), as ``storable_pixels`` takes them.
        label_map: (H, W) raw values, as ``storable_label_map`` takes them.
        encoding: ``zstd`` or ``raw``.
        extra_columns: Of the store.

    Raises:
        DataError: A dtype, shape or value that cannot be stored, or an ``extra`` value whose
            column the store does not have.
    """
    pixels = storable_pixels(pixels)
    unknown = sorted(set(record.extra) - set(extra_columns))
    if unknown:
        raise DataError(
            f"{record.image_id}: the store has no extra column {unknown[0]} "
            f"(extra_columns: {', '.join(extra_columns) or 'none'})."
        )
    facts = {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}
    extra = facts.pop("extra")
    facts["flags"] = "|".join(sorted(facts["flags"]))
    facts |= {f"extra_{name}": extra.get(name) for name in extra_columns}
    likeness, fine_likeness = likeness_hashes(pixels)
    facts |= {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "channels": pixels.shape[2] if pixels.ndim == 3 else 1,
        "dtype": pixels.dtype.name,
        "has_label_map": label_map is not None,
        "label_map_dtype": None,
        "pixel_sha256": pixel_sha256(pixels),
        "likeness": likeness,
        "fine_likeness": fine_likeness,
    }
    content = encode_array(pixels, encoding)
    facts |= {"pixels_checksum": checksum_of(content), "label_map_checksum": None}
    if label_map is None:
        return EncodedSlice(facts, content, None, ())
    label_map = storable_label_map(label_map, pixels.shape[:2])
    facts["label_map_dtype"] = label_map.dtype.name
    values = tuple(np.flatnonzero(np.bincount(label_map.ravel())).tolist())
    encoded = encode_array(label_map, encoding)
    facts["label_map_checksum"] = checksum_of(encoded)
    return EncodedSlice(facts, content, encoded, values)


def checksum_of(content: bytes | bytearray | memoryview) -> int:
    """Return a number that tells bytes from others: the CRC-32 of the sums of every 512 of them.

    A CRC of all bytes takes twice as long as reading raw pixels, these sums of 64-bit words a third
    of that. A byte that changes changes its sum, and blocks that change places change the CRC.
    """
    view = memoryview(content)
    whole = len(view) // _BLOCK_BYTES * _BLOCK_BYTES
    if not whole:
        return zlib.crc32(view)
    words = np.frombuffer(view[:whole], "<u8").reshape(-1, _BLOCK_BYTES // 8)
    sums = words.sum(axis=1, dtype=np.uint64).astype("<u8")
    return zlib.crc32(view[whole:], zlib.crc32(sums.tobytes()))


def encode_array(array: np.ndarray, encoding: str) -> bytes:
    """Return the little-endian bytes of an array, compressed unless ``encoding`` is raw.

    What is compressed has all low bytes first, then all high bytes: measured on CT slices of 16
    bits, zstd is then twice as fast and a third smaller, since only the low bytes hold noise.
    """
    stored = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if encoding == "raw":
        return stored.tobytes()
    return pa.compress(_byte_planes(stored), codec=encoding, asbytes=True)


def _byte_planes(stored: np.ndarray) -> np.ndarray:
    """Return all lowest bytes, then all second bytes, and so on, (bytes, pixels)."""
    if stored.itemsize == 1:
        return stored.reshape(1, -1).view(np.uint8)
    words = stored.reshape(-1).view(f"<u{stored.itemsize}")
    planes = np.empty((stored.itemsize, words.size), np.uint8)
    for place in range(stored.itemsize):
        # Cutting words off is three times as fast as gathering every second byte.
        np.right_shift(words, 8 * place, out=planes[place], casting="unsafe")
    return planes


class Decoder:
    """Turns bytes of a shard back into arrays.

    Args:
        encoding: ``zstd`` or ``raw``.
    """

    def __init__(self, encoding: str) -> None:
        self._codec = None if encoding == "raw" else pa.Codec(encoding)

    def array(
        self,
        content: memoryview | bytes,
        dtype: str,
        shape: tuple[int, ...],
        checksum: int | None = None,
    ) -> np.ndarray:
        """Return a new array that may be written to.

        Args:
            content: As encoded.
            dtype: Of the array.
            shape: Of the array.
            checksum: Of the bytes as they were written; None where it is not known.

        Raises:
            ValueError: The bytes are others than were written, or do not fit the shape.
            OSError: They cannot be decompressed (as pyarrow reports it).
        """
        if checksum is not None and checksum_of(content) != checksum:
            raise ValueError("its bytes differ from their checksum in the index")
        stored = np.dtype(dtype).newbyteorder("<")
        if self._codec is None:
            return np.frombuffer(content, stored).reshape(shape).astype(dtype)
        size = math.prod(shape) * stored.itemsize
        # Decompressed into memory of its own, which numpy may keep: no second copy.
        fresh = np.frombuffer(self._codec.decompress(content, size), np.uint8)
        if stored.itemsize > 1:
            planes = fresh.reshape(stored.itemsize, -1)
            fresh = np.empty((planes.shape[1], stored.itemsize), np.uint8)
            for place, plane in enumerate(planes):
                fresh[:, place] = plane
        return fresh.reshape(-1).view(stored).reshape(shape).astype(dtype, copy=False)
