"""Curation: what the whole store says of each row (duplicates), and which rows to learn from.

``duplicate_of`` and ``near_duplicate_of`` hold the number of the first row that a row repeats, or
-1. They lie in a table of their own, which each curation replaces.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from vismae.core.errors import DataError, SettingError
from vismae.core.rundir import write_json
from vismae.core.types import Flag
from vismae.data.store_disk import NewTable, full_disk_named, sync_folder
from vismae.data.store_format import MANIFEST_NAME, curation_name, index_schema
from vismae.data.store_parts import remove_old_tables
from vismae.data.store_reader import Store

SKIPPABLE: dict[str, str] = {
    "duplicate": "duplicate_of",
    "near-duplicate": "near_duplicate_of",
}
"""Words for rows to skip, beside the flags, and the curation column that knows them."""


def write_curation(folder: Path, columns: Mapping[str, np.ndarray]) -> Store:
    """Put curation columns into a store, in place of those it had, and open it.

    Args:
        folder: Of the store.
        columns: Name -> row number or -1, (N,) integers; the index has no such column.

    Raises:
        DataError: A column does not fit the store, or the disk is full. The store is then as it
            was before.
    """
    store = Store(folder)
    table = pa.table({name: _row_numbers(store, name, rows) for name, rows in columns.items()})
    before = store.manifest.get("curation")
    generation = 1 if before is None else int(before["generation"]) + 1
    path = store.folder / curation_name(generation)
    with full_disk_named(store.folder, "the curation", lambda: 0):
        file = NewTable(path, table.schema)
    with full_disk_named(store.folder, "the curation", lambda: file.file.byte_count):
        try:
            file.write(table)
            file.complete()
            file.file.rename()
            entry = {"file": path.name, "generation": generation, "sha256": file.file.sha256}
            manifest = {**store.manifest, "curation": entry}
            write_json(store.folder / MANIFEST_NAME, manifest)
        finally:
            file.discard()
        sync_folder(store.folder)
    remove_old_tables(store.folder, manifest)
    return Store(folder)


def kept_rows(store: Store, skip: Collection[str]) -> np.ndarray:
    """Return the numbers of the rows that are left when some are skipped, (n,) int64, rising.

    Args:
        store: The store.
        skip: ``duplicate``, ``near-duplicate`` (all but the first of those alike) and words of
            ``Flag`` (rows that have it).

    Raises:
        SettingError: A word is not known.
        DataError: The store was never curated, and ``skip`` asks for duplicates.
    """
    flags = {flag.value for flag in Flag}
    unknown = sorted(set(skip) - flags - set(SKIPPABLE))
    if unknown:
        raise SettingError(
            f"'{unknown[0]}' is nothing that rows can be skipped for; expected some of "
            f"{', '.join([*SKIPPABLE, *sorted(flags)])}."
        )
    kept = np.ones(len(store), dtype=bool)
    for word in SKIPPABLE:
        if word in skip:
            kept &= store.columns([SKIPPABLE[word]])[SKIPPABLE[word]].to_numpy() < 0
    unwanted = flags & set(skip)
    if unwanted:
        found = store.columns(["flags"])["flags"].cat
        hit = [not unwanted.isdisjoint(str(words).split("|")) for words in found.categories]
        # A row without flags holds an empty text, which no word is part of.
        kept &= ~np.array([*hit, False])[found.codes.to_numpy()]
    return np.flatnonzero(kept)


def _row_numbers(store: Store, name: str, rows: np.ndarray) -> pa.Array:
    numbers = np.asarray(rows)
    if numbers.shape != (len(store),) or numbers.dtype.kind not in "iu":
        raise DataError(
            f"{store.address}: column {name} has the shape {numbers.shape} and type "
            f"{numbers.dtype.name}; expected one whole number for each of {len(store)} rows."
        )
    if numbers.min() < -1 or numbers.max() >= len(store):
        raise DataError(
            f"{store.address}: column {name} holds {numbers.min()} to {numbers.max()}; expected "
            f"-1 or row numbers up to {len(store) - 1}."
        )
    if name in index_schema(store.manifest["extra_columns"]).names:
        raise DataError(
            f"{store.address}: column {name} is part of the index; choose another name."
        )
    return pa.array(numbers, pa.int32())
