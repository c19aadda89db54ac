"""The store: images of any size on disk, lossless, with random access by row number.

::

    STORE/manifest.json            format version, encoding, counts, files with their checksums
    STORE/index-0001.parquet       one row per slice: SliceRecord, shape, and where its bytes are
    STORE/curation-0001.parquet    further columns, such as duplicates; may be absent
    STORE/shards/000012-000.arrow  Arrow IPC files: pixels (binary), label_map (binary or null)
    STORE/parts/000012.parquet     index rows of a part that is not in the store yet

``PartWriter`` writes parts in many processes, ``assemble_store`` (``store_parts.py``) makes a store
of them, ``Store`` (``store_reader.py``) reads it, ``StoreWriter`` makes a small one in one process.

Shards are memory-mapped, and the index knows the bytes of each row in them. Measured by
``benchmarks/loading.py``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vismae.core.types import SliceRecord
from vismae.data.store_encoding import EncodedSlice
from vismae.data.store_format import clear_store
from vismae.data.store_parts import Part, PartWriter, assemble_store
from vismae.data.store_reader import Store, StoredSlice

__all__ = ["Part", "PartWriter", "Store", "StoreWriter", "StoredSlice", "assemble_store"]


class StoreWriter:
    """Writes a store slice by slice in one process, as a single part.

    ::

        with StoreWriter(folder) as writer:
            writer.add(record, pixels)
        store = Store(folder)

    An interrupted writer leaves nothing that looks like a store.

    Args:
        folder: New or empty folder.
        encoding: ``zstd`` or ``raw``; both lossless.
        shard_mib: Size at which a shard is closed, in MiB of encoded bytes.
        extra_columns: Names of ``SliceRecord.extra``; they become ``extra_NAME`` in the index.
        overwrite: Replace a store that is there.
        fold: Cross-validation fold that the records' ``split`` stands for, if any.

    Raises:
        RunFolderError: The folder holds something and ``overwrite`` is not set, or it holds
            files that are no part of a store.
    """

    def __init__(
        self,
        folder: Path,
        encoding: Literal["zstd", "raw"] = "zstd",
        shard_mib: int = 256,
        extra_columns: Sequence[str] = (),
        overwrite: bool = False,
        fold: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        clear_store(self.folder, overwrite)
        self._encoding = encoding
        self._extra_columns = tuple(extra_columns)
        self._fold = fold
        self._part = PartWriter(self.folder, "000001", encoding, shard_mib, self._extra_columns)
        self._store: Store | None = None

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self._part.discard()

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
        self._part.add(record, pixels, label_map)

    def add_encoded(self, piece: EncodedSlice) -> None:
        """Append a slice that ``encode_slice`` made for this encoding and these extra columns."""
        self._part.add_encoded(piece)

    def finish(self) -> Store:
        """Close everything, write the manifest and open the store.

        Raises:
            DataError: Nothing was added, or the disk is full.
        """
        if self._store is None:
            self._store = assemble_store(
                self.folder,
                [self._part.finish()],
                encoding=self._encoding,
                extra_columns=self._extra_columns,
                fold=self._fold,
            )
        return self._store
