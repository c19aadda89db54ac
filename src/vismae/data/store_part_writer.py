"""One part of a store: a few shards and the index rows of their slices.

Many processes may write parts of one store at once; ``store_parts.py`` makes a store of them.
"""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vismae.core.errors import DataError
from vismae.core.types import SliceRecord
from vismae.data.store_disk import NewTable, full_disk_named, sync_folder
from vismae.data.store_encoding import EncodedSlice, encode_slice
from vismae.data.store_format import (
    MANIFEST_NAME,
    PART_FOLDER,
    SHARD_FOLDER,
    UNFINISHED,
    index_schema,
    read_manifest,
)
from vismae.data.store_shards import ShardWriter

# Encoded bytes and slices held in memory before they go to the shard as one record batch.
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 1024
# Rows of a part's index held in memory before they are written.
_ROW_GROUP = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class ShardFile:
    """A finished shard: its path within the store, and what the manifest says of it."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """A finished part of a store.

    Attributes:
        name: As it was written under.
        rows: Slices in it.
        shards: Their files, in order; none where the pixels were not kept.
        by_modality: Slices of each modality.
        label_values: Raw values found in the label maps, in order.
        byte_count: Of all pixels and label maps as encoded, kept or not.
    """

    name: str
    rows: int
    shards: tuple[ShardFile, ...]
    by_modality: dict[str, int]
    label_values: tuple[int, ...]
    byte_count: int

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Part":
        """Return the part that ``dataclasses.asdict`` and JSON made ``value`` of."""
        shards = tuple(ShardFile(**shard) for shard in value["shards"])
        label_values = tuple(value["label_values"])
        return cls(**{**value, "shards": shards, "label_values": label_values})


def part_path(folder: Path, name: str) -> Path:
    """Return where the index rows of a part lie until they are in the store's index."""
    return folder / PART_FOLDER / f"{name}.parquet"


class PartWriter:
    """Writes one part of a store; memory does not grow with the number of slices.

    ::

        with PartWriter(folder, "000012") as writer:
            writer.add(record, pixels)
            part = writer.finish()

    Files have their names only when the whole part is finished. A part that is begun again
    replaces what a killed process left of it; one that is left without ``finish`` is removed.

    Args:
        folder: Of the store; made if missing.
        name: Of the part, unlike that of any other part of the store.
        encoding: ``zstd`` or ``raw``; both lossless. The same for all parts.
        shard_mib: Size at which a shard is closed, in MiB of encoded bytes.
        extra_columns: Names of ``SliceRecord.extra``; they become ``extra_NAME`` in the index.
        keep_pixels: False writes index rows only, to count what a store would hold.

    Raises:
        DataError: The name is none, or a part of this name is in the store already.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        encoding: str = "zstd",
        shard_mib: int = 256,
        extra_columns: tuple[str, ...] = (),
        keep_pixels: bool = True,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise DataError(
                f"'{name}' is no name of a part; use letters, digits, points, - and _ only."
            )
        self._folder = Path(folder)
        self._name = name
        self._encoding = encoding
        self._shard_bytes = shard_mib * 2**20
        self._extra_columns = tuple(extra_columns)
        self._keep_pixels = keep_pixels
        self._schema = index_schema(self._extra_columns)
        self._waiting: list[EncodedSlice] = []
        self._waiting_bytes = 0
        self._tables: list[pa.Table] = []
        self._shards: list[ShardWriter] = []
        self._by_modality: Counter[str] = Counter()
        self._label_values: set[int] = set()
        self._byte_count = 0
        self._ended = False
        with self._full_disk_named():
            for inside in (SHARD_FOLDER, PART_FOLDER):
                (self._folder / inside).mkdir(parents=True, exist_ok=True)
            _remove_earlier(self._folder, name)
            self._index = NewTable(part_path(self._folder, name), self._schema)

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def add(
        self, record: SliceRecord, pixels: np.ndarray, label_map: np.ndarray | None = None
    ) -> None:
        """Append one slice.

        Args:
            record: What is known of it.
            pixels: (H, W) or (H, W, 3), as ``storable_pixels`` takes them.
            label_map: (H, W) raw values, as ``storable_label_map`` takes them.

        Raises:
            DataError: A dtype, shape or value that cannot be stored, or the disk is full.
        """
        self.add_encoded(
            encode_slice(record, pixels, label_map, self._encoding, self._extra_columns)
        )

    def add_encoded(self, piece: EncodedSlice) -> None:
        """Append a slice that ``encode_slice`` made for this encoding and these extra columns.

        Raises:
            DataError: The disk is full.
        """
        self._waiting.append(piece)
        self._waiting_bytes += piece.byte_count
        self._byte_count += piece.byte_count
        self._by_modality[str(piece.facts["modality"])] += 1
        self._label_values.update(piece.label_values)
        open_bytes = self._waiting_bytes
        if self._shards:
            open_bytes += self._shards[-1].encoded_bytes
        if (
            open_bytes >= self._shard_bytes
            or self._waiting_bytes >= _BATCH_BYTES
            or len(self._waiting) >= _BATCH_ROWS
        ):
            with self._full_disk_named():
                self._write_batch()

    def finish(self) -> Part:
        """Bring everything to the disk under its final names.

        Returns:
            What ``assemble_store`` needs. A part without slices leaves no files.

        Raises:
            DataError: The disk is full.
        """
        rows = self._by_modality.total()
        if rows == 0:
            self.discard()
            return Part(self._name, 0, (), {}, (), 0)
        with self._full_disk_named():
            self._write_batch()
            self._write_rows()
            if self._shards and not self._shards[-1].completed:
                self._shards[-1].complete()
            self._index.complete()
            for shard in self._shards:
                shard.file.rename()
            sync_folder(self._folder / SHARD_FOLDER)
            # Last: where it is, the shards are.
            self._index.file.rename()
            sync_folder(self._folder / PART_FOLDER)
        self._ended = True
        return Part(
            self._name,
            rows,
            tuple(self._shard_file(shard) for shard in self._shards),
            dict(sorted(self._by_modality.items())),
            tuple(sorted(self._label_values)),
            self._byte_count,
        )

    def discard(self) -> None:
        """Give up an unfinished part and remove its files; a finished one stays."""
        if self._ended:
            return
        self._ended = True
        for shard in self._shards:
            shard.discard()
        self._index.discard()

    def _write_batch(self) -> None:
        """Write waiting slices to the shard, and prepare their index rows."""
        if not self._waiting:
            return
        if not self._keep_pixels:
            rows = [{**piece.facts} for piece in self._waiting]
        else:
            if not self._shards or self._shards[-1].completed:
                self._shards.append(ShardWriter(self._shard_path(len(self._shards))))
            shard = self._shards[-1]
            number = len(self._shards) - 1
            rows = [
                {**piece.facts, "shard": number, **place._asdict()}
                for piece, place in zip(self._waiting, shard.write(self._waiting), strict=True)
            ]
            if shard.encoded_bytes >= self._shard_bytes:
                shard.complete()
        self._tables.append(pa.Table.from_pylist(rows, schema=self._schema))
        self._waiting, self._waiting_bytes = [], 0
        if sum(len(table) for table in self._tables) >= _ROW_GROUP:
            self._write_rows()

    def _write_rows(self) -> None:
        if self._tables:
            self._index.write(pa.concat_tables(self._tables))
            self._tables = []

    def _shard_path(self, number: int) -> Path:
        return self._folder / SHARD_FOLDER / f"{self._name}-{number:03d}.arrow"

    def _shard_file(self, shard: ShardWriter) -> ShardFile:
        name = f"{SHARD_FOLDER}/{shard.file.path.name}"
        return ShardFile(name, shard.rows, shard.file.byte_count, shard.file.sha256)

    def _full_disk_named(self) -> AbstractContextManager[None]:
        def byte_count() -> int:
            return sum(shard.file.byte_count for shard in self._shards)

        return full_disk_named(self._folder, f"part {self._name}", byte_count)


def _remove_earlier(folder: Path, name: str) -> None:
    """Remove what an earlier process wrote of a part, finished or not.

    Raises:
        DataError: The part is in the store.
    """
    found: list[Path] = []
    number = 0
    while True:
        shard = folder / SHARD_FOLDER / f"{name}-{number:03d}.arrow"
        there = [
            path for path in (shard, shard.with_name(shard.name + UNFINISHED)) if path.exists()
        ]
        if not there:
            break
        found.extend(there)
        number += 1
    if found and (folder / MANIFEST_NAME).is_file():
        stored = read_manifest(folder)["shards"]
        if f"{SHARD_FOLDER}/{name}-000.arrow" in {entry["file"] for entry in stored}:
            raise DataError(
                f"{folder} holds a part {name} already. Give another name, or replace the store "
                "with --overwrite."
            )
    index = part_path(folder, name)
    index.unlink(missing_ok=True)
    index.with_name(index.name + UNFINISHED).unlink(missing_ok=True)
    # From the last to the first: shards are found by counting up, also after a second kill.
    for path in reversed(found):
        path.unlink()
