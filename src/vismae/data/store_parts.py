"""Finished parts become a store, or are added to one.

The rows of new parts come behind those that are there, so that rows keep their numbers. Readers
see the old store, whole, until the new manifest takes the place of the old one in one step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vismae.core.errors import DataError
from vismae.core.rundir import write_json
from vismae.data.labels import join_class_names
from vismae.data.store_disk import NewTable, full_disk_named, sync_folder
from vismae.data.store_format import (
    MANIFEST_NAME,
    PART_FOLDER,
    SHARD_FOLDER,
    STORE_FORMAT_VERSION,
    UNFINISHED,
    index_name,
    index_schema,
)
from vismae.data.store_part_writer import Part, PartWriter, ShardFile, part_path
from vismae.data.store_reader import Store

__all__ = ["Part", "PartWriter", "ShardFile", "assemble_store", "remove_old_tables"]

# Rows of the index held in memory before they are written; columns are read by such groups.
_ROW_GROUP = 65536


def assemble_store(
    folder: Path,
    parts: Iterable[Part],
    *,
    encoding: str,
    extra_columns: Sequence[str] = (),
    fold: int | None = None,
    classes: Mapping[int, str] | None = None,
    previous: Store | Mapping[str, Any] | None = None,
) -> Store:
    """Put finished parts into one store and open it; memory does not grow with their number.

    Args:
        folder: Of the store.
        parts: In the order of the rows. Those that ``previous`` holds already are passed over.
        encoding: Of the parts.
        extra_columns: Of the parts; those of ``previous`` stay.
        fold: Cross-validation fold that the rows' ``split`` stands for, if any.
        classes: Names of values of the label maps; those of ``previous`` stay, unless new ones
            say that nobody annotated the pixels.
        previous: The store in the folder, or its manifest, to be added to.

    Raises:
        DataError: There is no row, a part does not fit or is missing, or the disk is full. The
            store is then as it was before.
    """
    folder = Path(folder)
    if previous is not None and not isinstance(previous, Store):
        previous = Store(folder)
    _require_fit(folder, encoding, previous)
    contents = _Contents(previous)
    columns = contents.columns_with(extra_columns)
    index = _IndexWriter(folder, index_name(contents.generation), columns)
    done: set[str] = set()
    with full_disk_named(folder, "the index", lambda: index.byte_count), index:
        if previous is not None:
            index.write(previous.index_batches())
        for part in parts:
            done.add(part.name)
            if part.rows and not contents.holds(part):
                index.write(_rows_of(folder, part, len(contents.shards)))
                contents.add(part)
        if not contents.count:
            raise DataError(f"{folder}: a store needs at least one image, none was added.")
        manifest = {
            "format_version": STORE_FORMAT_VERSION,
            "generation": contents.generation,
            "encoding": encoding,
            "classes": contents.classes_with(classes or {}),
            "fold": fold,
            "extra_columns": columns,
            "index": index.finish(),
            **contents.facts(),
        }
        write_json(folder / MANIFEST_NAME, manifest)
        sync_folder(folder)
    remove_old_tables(folder, manifest)
    _remove_remains(folder, done, {shard["file"] for shard in contents.shards})
    return Store(folder)


def remove_old_tables(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Remove indexes and curations that the manifest does not name."""
    named = {manifest[key]["file"] for key in ("index", "curation") if manifest.get(key)}
    for path in [*folder.glob("index-*.parquet"), *folder.glob("curation-*.parquet")]:
        if path.name not in named:
            path.unlink(missing_ok=True)


def _remove_remains(folder: Path, done: set[str], shards: set[str]) -> None:
    """Remove the rows of parts that are in the index, and what dead processes left unfinished.

    Parts come together only when none is being written.
    """
    for path in (folder / PART_FOLDER).glob("*.parquet"):
        if path.stem in done or f"{SHARD_FOLDER}/{path.stem}-000.arrow" in shards:
            path.unlink(missing_ok=True)
    for inside in (SHARD_FOLDER, PART_FOLDER):
        for path in (folder / inside).glob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)


def _require_fit(folder: Path, encoding: str, previous: Store | None) -> None:
    if previous is None and (folder / MANIFEST_NAME).exists():
        raise DataError(
            f"{folder} holds a store already. Replace it with --overwrite, or add to it."
        )
    if previous is not None and previous.manifest["encoding"] != encoding:
        raise DataError(
            f"{folder} is encoded as {previous.manifest['encoding']}, what should be added as "
            f"{encoding}. Use the same encoding, or replace the store with --overwrite."
        )


def _rows_of(folder: Path, part: Part, first_shard: int) -> Iterator[pa.RecordBatch]:
    """Yield the index rows of a part, its shards numbered on from ``first_shard``."""
    path = part_path(folder, part.name)
    rows = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROW_GROUP):
                shifted = pc.call_function(
                    "add", [batch["shard"], pa.scalar(first_shard, pa.int32())]
                )
                yield batch.set_column(batch.schema.get_field_index("shard"), "shard", shifted)
                rows += len(batch)
    except (pa.ArrowException, FileNotFoundError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error}). Ingest again with --overwrite."
        ) from error
    if rows != part.rows:
        raise DataError(
            f"{path} has {rows} rows, {part.rows} were written. Ingest again with --overwrite."
        )


class _Contents:
    """What a store holds, beside its rows: counted on from what it held before."""

    def __init__(self, previous: Store | None) -> None:
        before: Mapping[str, Any] = {} if previous is None else previous.manifest
        self.generation = int(before.get("generation", 0)) + 1
        self.shards: list[dict[str, Any]] = list(before.get("shards", ()))
        self._before = before
        self._by_modality = Counter[str](before.get("by_modality", {}))
        self._label_values = set[int](before.get("label_values", ()))
        self._files = {shard["file"] for shard in self.shards}

    @property
    def count(self) -> int:
        return self._by_modality.total()

    def holds(self, part: Part) -> bool:
        return any(shard.file in self._files for shard in part.shards)

    def add(self, part: Part) -> None:
        self.shards.extend(asdict(shard) for shard in part.shards)
        self._by_modality.update(part.by_modality)
        self._label_values.update(part.label_values)

    def columns_with(self, extra_columns: Sequence[str]) -> list[str]:
        return list(dict.fromkeys([*self._before.get("extra_columns", ()), *extra_columns]))

    def classes_with(self, classes: Mapping[int, str]) -> dict[str, str]:
        known = {int(value): name for value, name in self._before.get("classes", {}).items()}
        joined = join_class_names([classes, known])
        return {str(value): name for value, name in sorted(joined.items())}

    def facts(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "by_modality": dict(sorted(self._by_modality.items())),
            "label_values": sorted(self._label_values),
            "shards": self.shards,
        }


class _IndexWriter:
    """The new index: rows of any number of tables, in large row groups."""

    def __init__(self, folder: Path, name: str, extra_columns: Sequence[str]) -> None:
        self._folder = folder
        self._schema = index_schema(extra_columns)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        with full_disk_named(folder, "the index", lambda: 0):
            self._table = NewTable(folder / name, self._schema)

    @property
    def byte_count(self) -> int:
        return self._table.file.byte_count

    def __enter__(self) -> "_IndexWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._table.discard()

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        for batch in batches:
            self._waiting.append(self._conformed(batch))
            self._waiting_rows += len(batch)
            if self._waiting_rows >= _ROW_GROUP:
                self._write_rows()

    def finish(self) -> dict[str, str]:
        """Complete the file under its name and return the manifest's words for it."""
        self._write_rows()
        self._table.complete()
        self._table.file.rename()
        return {"file": self._table.file.path.name, "sha256": self._table.file.sha256}

    def _write_rows(self) -> None:
        if self._waiting:
            self._table.write(pa.Table.from_batches(self._waiting))
            self._waiting, self._waiting_rows = [], 0

    def _conformed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with this index's columns; what it does not have is missing."""
        unknown = sorted(set(batch.schema.names) - set(self._schema.names))
        if unknown:
            raise DataError(
                f"{self._folder}: a part has the column {unknown[0]}, which extra_columns "
                "does not name."
            )
        columns = [
            batch[field.name]
            if field.name in batch.schema.names
            else pa.nulls(len(batch), field.type)
            for field in self._schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)
