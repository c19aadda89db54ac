"""The store's file format: names, versions, schemas, checksums, and what can be stored.

``store.py`` reads and writes stores with these parts.
"""

import dataclasses
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vismae.core.errors import DataError, RunFolderError
from vismae.core.types import SliceRecord
from vismae.data.likeness import difference_hash

STORE_FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.parquet"
REJECTED_NAME = "rejected.csv"
CONTACT_SHEET_NAME = "contact_sheet.png"
SHARD_FOLDER = "shards"
UNFINISHED = ".unfinished"
PIXEL_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "float32")

_SHARD_SCHEMA = pa.schema([("pixels", pa.binary()), ("label_map", pa.binary())])
# Bytes held in memory before they go to the shard as one record batch.
_BATCH_BYTES = 8 * 2**20
# What an ingest leaves in a store's folder; anything else there belongs to somebody.
_STORE_ENTRIES = {
    MANIFEST_NAME,
    INDEX_NAME,
    f"{INDEX_NAME}{UNFINISHED}",
    REJECTED_NAME,
    CONTACT_SHEET_NAME,
    SHARD_FOLDER,
}

logger = logging.getLogger(__name__)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a store's ``manifest.json``, checked.

    Raises:
        DataError: It is missing, damaged, or of a newer format.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise DataError(
            f"{folder} is not a finished store: {MANIFEST_NAME} is missing. Make one with vismae "
            f"ingest SOURCE --store {folder}."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). Ingest again with --overwrite.") from error
    if version > STORE_FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version {version} was written by a newer vismae; this one reads up "
            f"to {STORE_FORMAT_VERSION}. Update vismae, or ingest again with this version."
        )
    if manifest.get("encoding") not in ("raw", "zstd"):
        raise DataError(
            f"{path}: encoding '{manifest.get('encoding')}' is not known; expected raw or zstd. "
            "Ingest again with --overwrite."
        )
    return manifest


def clear_store(folder: Path, overwrite: bool) -> None:
    """Make room for a new store; what a killed ingest left behind is no obstacle.

    Raises:
        RunFolderError: The folder is a file, holds a store and ``overwrite`` is not set, or holds
            anything that is no part of a store (which is never removed).
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; --store needs a folder.")
    entries = sorted(entry.name for entry in folder.iterdir())
    foreign = [name for name in entries if name not in _STORE_ENTRIES]
    if foreign:
        raise RunFolderError(
            f"{folder} holds {', '.join(foreign[:4])}, which is no part of a store, so --overwrite "
            "would not empty it either. Use another --store."
        )
    if MANIFEST_NAME in entries and not overwrite:
        raise RunFolderError(
            f"{folder} already holds a store. Use --overwrite to replace it, or another --store."
        )
    if entries:
        logger.info("replacing %s", folder)
    # The manifest goes first: a half-removed store must not look like a whole one.
    for name in sorted(entries, key=lambda name: name != MANIFEST_NAME):
        entry = folder / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def storable_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return pixels in a dtype that the store keeps, C-ordered.

    uint8, int8, uint16, int16, int32 and float32 stay as they are. float64 and float16 become
    float32, bool uint8, and wider integers int32 where every value fits.

    Raises:
        DataError: Not (H, W) or (H, W, 3), empty, or a dtype or value that does not fit.
    """
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise DataError(
            f"Pixels have the shape {pixels.shape}; expected (H, W) or (H, W, 3), not empty."
        )
    dtype = pixels.dtype
    if dtype.newbyteorder("=").name in PIXEL_DTYPES:
        target = dtype.newbyteorder("=")
    elif dtype.kind == "f":
        target = np.dtype(np.float32)
    elif dtype.kind == "b":
        target = np.dtype(np.uint8)
    elif dtype.kind in "iu" and _fits(pixels, np.iinfo(np.int32)):
        target = np.dtype(np.int32)
    else:
        raise DataError(
            f"Pixels of type {dtype.name} cannot be stored; expected {', '.join(PIXEL_DTYPES)}, "
            "or integers within the range of int32."
        )
    return np.ascontiguousarray(pixels, dtype=target)


def storable_label_map(label_map: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return raw label values as uint8 where they fit, else uint16.

    Args:
        label_map: (H, W) whole numbers.
        shape: (H, W) of the image it belongs to.

    Raises:
        DataError: Another shape, fractions, or values outside 0 to 65535.
    """
    if tuple(label_map.shape) != tuple(shape):
        raise DataError(
            f"The label map has the shape {tuple(label_map.shape)}, its image {tuple(shape)}; they "
            "must be the same."
        )
    if label_map.dtype.kind not in "iub" or not _fits(label_map, np.iinfo(np.uint16)):
        raise DataError(
            f"The label map holds {label_map.dtype.name} values from {label_map.min()} to "
            f"{label_map.max()}; expected whole numbers from 0 to 65535."
        )
    return np.ascontiguousarray(label_map, np.uint8 if label_map.max() <= 255 else np.uint16)


def _fits(values: np.ndarray, limits: np.iinfo) -> bool:
    return int(values.min()) >= limits.min and int(values.max()) <= limits.max


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_sha256(pixels: np.ndarray) -> str:
    """Return the SHA-256 of the pixels' little-endian bytes in hexadecimal."""
    ordered = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(ordered).data).hexdigest()


def index_schema(extra_columns: Sequence[str]) -> pa.Schema:
    """Return the columns of ``index.parquet``: ``SliceRecord`` and where the pixels lie."""
    texts = ("image_id", "modality", "unit", "patient_id", "group_kind", "volume_id")
    numbers = (
        *("slope", "intercept", "scale_low", "scale_high"),
        *("spacing_slice_mm", "spacing_row_mm", "spacing_column_mm"),
        *("window_low", "window_high"),
    )
    known = ("study_id", "series_id", "body_part", "sex", "age_band", "manufacturer")
    return pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("slice_index", pa.int32()),
            *((name, pa.float64()) for name in numbers),
            *((name, pa.string()) for name in known),
            ("flags", pa.string()),
            ("original_height", pa.int32()),
            ("original_width", pa.int32()),
            ("label", pa.string()),
            ("split", pa.string()),
            *((f"extra_{name}", pa.string()) for name in extra_columns),
            *((name, pa.int32()) for name in ("shard", "position", "height", "width", "channels")),
            ("dtype", pa.string()),
            ("has_label_map", pa.bool_()),
            ("label_map_dtype", pa.string()),
            ("pixel_sha256", pa.string()),
            ("likeness", pa.uint64()),
        ]
    )


class EncodedSlice(NamedTuple):
    """A slice as it goes into a shard, and its index row but for the place in the shards."""

    facts: dict[str, Any]
    pixels: bytes
    label_map: bytes | None
    label_values: tuple[int, ...]


def encode_slice(
    record: SliceRecord,
    pixels: np.ndarray,
    label_map: np.ndarray | None = None,
    encoding: str = "zstd",
    extra_columns: Sequence[str] = (),
) -> EncodedSlice:
    """Do all the work of storing a slice that needs no open file, so that any process may do it.

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
    facts |= {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "channels": pixels.shape[2] if pixels.ndim == 3 else 1,
        "dtype": pixels.dtype.name,
        "has_label_map": label_map is not None,
        "label_map_dtype": None,
        "pixel_sha256": pixel_sha256(pixels),
        "likeness": difference_hash(pixels),
    }
    content = encode_array(pixels, encoding)
    if label_map is None:
        return EncodedSlice(facts, content, None, ())
    label_map = storable_label_map(label_map, pixels.shape[:2])
    facts["label_map_dtype"] = label_map.dtype.name
    values = tuple(np.flatnonzero(np.bincount(label_map.ravel())).tolist())
    return EncodedSlice(facts, content, encode_array(label_map, encoding), values)


def encode_array(array: np.ndarray, encoding: str) -> bytes:
    """Return the little-endian bytes of an array, compressed unless ``encoding`` is raw."""
    content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return content if encoding == "raw" else pa.compress(content, codec=encoding, asbytes=True)


def decode_array(value: pa.Scalar, encoding: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array of an encoded value, as a copy that may be written to.

    Raises:
        ValueError: The bytes do not fit the shape, or there are none.
        pyarrow.ArrowException: They cannot be decompressed.
    """
    buffer = value.as_buffer()
    if buffer is None:
        raise ValueError("the value is empty")
    stored = np.dtype(dtype).newbyteorder("<")
    if encoding != "raw":
        size = math.prod(shape) * stored.itemsize
        buffer = pa.decompress(buffer, decompressed_size=size, codec=encoding)
    return np.frombuffer(buffer, dtype=stored).reshape(shape).astype(dtype)


class ShardWriter:
    """One Arrow IPC file, written in batches and named only when complete.

    Args:
        path: The finished shard.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(path.name + UNFINISHED)
        self._writer = pa.ipc.new_file(str(self._unfinished), _SHARD_SCHEMA)
        self._pixels: list[bytes] = []
        self._label_maps: list[bytes | None] = []
        self._batch_bytes = 0
        self._rows = 0
        self.byte_count = 0
        """Encoded bytes so far."""

    def add(self, pixels: bytes, label_map: bytes | None) -> int:
        """Append one encoded slice and return its position in the shard."""
        self._pixels.append(pixels)
        self._label_maps.append(label_map)
        size = len(pixels) + len(label_map or b"")
        self._batch_bytes += size
        self.byte_count += size
        self._rows += 1
        if self._batch_bytes >= _BATCH_BYTES:
            self._write_batch()
        return self._rows - 1

    def close(self) -> int:
        """Complete the file and return its number of rows; an empty one is removed."""
        if self._pixels:
            self._write_batch()
        self._writer.close()
        if self._rows:
            self._unfinished.rename(self._path)
        else:
            self._unfinished.unlink()
        return self._rows

    def discard(self) -> None:
        """Give up an unfinished file."""
        self._writer.close()
        self._unfinished.unlink(missing_ok=True)

    def _write_batch(self) -> None:
        columns = [pa.array(values, pa.binary()) for values in (self._pixels, self._label_maps)]
        self._writer.write_batch(pa.record_batch(columns, schema=_SHARD_SCHEMA))
        self._pixels, self._label_maps, self._batch_bytes = [], [], 0
