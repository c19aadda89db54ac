"""The store's file format: names, version, manifest, columns, checksums, and what can be stored.

The other ``store_*`` files read and write stores with these parts; ``store.py`` shows the layout.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from vismae.core.errors import DataError, RunFolderError
from vismae.data.likeness import FINE_BYTES

STORE_FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
REJECTED_NAME = "rejected.csv"
CONTACT_SHEET_NAME = "contact_sheet.png"
REPORT_NAME = "report.html"
SHARD_FOLDER = "shards"
PART_FOLDER = "parts"
UNFINISHED = ".unfinished"
PIXEL_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "float32")
CHECKSUM_COLUMNS = ("pixels_checksum", "label_map_checksum")
SHARD_SCHEMA = pa.schema([("pixels", pa.binary()), ("label_map", pa.binary())])

# What ingest, inspect and curation leave in a store's folder (and what a killed one leaves);
# anything else there belongs to somebody.
_STORE_ENTRY = re.compile(
    r"(index|curation)(-\d+)?\.parquet(\.unfinished)?"
    + "".join(
        rf"|\.?{re.escape(name)}(\.\w+)?"
        for name in (MANIFEST_NAME, REJECTED_NAME, CONTACT_SHEET_NAME, REPORT_NAME)
    )
    + f"|{SHARD_FOLDER}|{PART_FOLDER}"
)

logger = logging.getLogger(__name__)


def index_name(generation: int) -> str:
    """Return the file name of an index; each addition to a store writes the next one."""
    return f"index-{generation:04d}.parquet"


def curation_name(generation: int) -> str:
    """Return the file name of the curation columns; each curation writes the next one."""
    return f"curation-{generation:04d}.parquet"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a store on this machine, checked as by ``parse_manifest``.

    Raises:
        OSError: It is missing or cannot be read.
        DataError: It is damaged, or of another format version.
    """
    path = folder / MANIFEST_NAME
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(content: bytes, where: str) -> dict[str, Any]:
    """Return what ``manifest.json`` says, checked.

    Args:
        content: Of the file.
        where: Its path or address, for messages.

    Raises:
        DataError: It is damaged, or of another format version.
    """
    try:
        manifest = json.loads(content.decode("utf-8"))
        version = int(manifest["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where} is damaged ({error}). Ingest again with --overwrite.") from error
    if version > STORE_FORMAT_VERSION:
        raise DataError(
            f"{where}: format_version {version} was written by a newer vismae; this one reads "
            f"{STORE_FORMAT_VERSION}. Update vismae, or ingest again with this version."
        )
    if version < STORE_FORMAT_VERSION:
        raise DataError(
            f"{where}: format_version {version} was made by an older vismae; this one reads "
            f"{STORE_FORMAT_VERSION}. Ingest again with --overwrite."
        )
    if manifest.get("encoding") not in ("raw", "zstd"):
        raise DataError(
            f"{where}: encoding '{manifest.get('encoding')}' is not known; expected raw or zstd. "
            "Ingest again with --overwrite."
        )
    absent = {"generation", "count", "extra_columns", "index", "shards"} - set(manifest)
    if absent:
        raise DataError(
            f"{where} is damaged: {', '.join(sorted(absent))} is missing. Ingest again with "
            "--overwrite."
        )
    _require_own_files(manifest, where)
    return manifest


def _require_own_files(manifest: dict[str, Any], where: str) -> None:
    """Refuse a manifest whose files lie outside the store: it may come from anybody."""
    tables = [manifest["index"], manifest.get("curation"), *manifest["shards"]]
    for entry in filter(None, tables):
        name = entry.get("file") if isinstance(entry, dict) else None
        parts = re.split(r"[\\/]", name) if isinstance(name, str) else [".."]
        if ".." in parts or "" in parts or ":" in parts[0]:
            raise DataError(
                f"{where} names the file {name!r}, which is not inside the store. The store was "
                "changed by hand or comes from somebody else; do not use it."
            )


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
    foreign = [name for name in entries if not _STORE_ENTRY.fullmatch(name)]
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


def file_sha256(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file's content in hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def pixel_sha256(pixels: np.ndarray) -> str:
    """Return the SHA-256 of the pixels' little-endian bytes in hexadecimal."""
    ordered = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(ordered).data).hexdigest()


def index_schema(extra_columns: Sequence[str]) -> pa.Schema:
    """Return the columns of the index: ``SliceRecord``, and where and how the pixels lie.

    ``shard`` and ``position`` say which row of which shard it is; ``pixels_offset`` and
    ``pixels_bytes`` (of the label map too) say which bytes of the shard's file that row is made
    of, so that a reader needs nothing but these bytes; ``pixels_checksum`` (of the label map too)
    is what ``store_encoding.checksum_of`` says of them, missing where an earlier version wrote
    them.
    """
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
            *((name, pa.int32()) for name in ("shard", "position")),
            ("pixels_offset", pa.int64()),
            ("pixels_bytes", pa.int32()),
            ("label_map_offset", pa.int64()),
            ("label_map_bytes", pa.int32()),
            *((name, pa.int64()) for name in CHECKSUM_COLUMNS),
            *((name, pa.int32()) for name in ("height", "width", "channels")),
            ("dtype", pa.string()),
            ("has_label_map", pa.bool_()),
            ("label_map_dtype", pa.string()),
            ("pixel_sha256", pa.string()),
            ("likeness", pa.uint64()),
            ("fine_likeness", pa.binary(FINE_BYTES)),
        ]
    )
