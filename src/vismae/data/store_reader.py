"""A finished store, opened for reading rows and columns, on a disk or at an address."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from vismae.core.errors import DamagedImageError, DataError
from vismae.data.store_encoding import Decoder
from vismae.data.store_files import LocalFiles, open_files
from vismae.data.store_format import (
    CHECKSUM_COLUMNS,
    MANIFEST_NAME,
    file_sha256,
    parse_manifest,
    pixel_sha256,
)
from vismae.data.store_index import Column, StoreIndex


class StoredSlice(NamedTuple):
    """One slice as stored: physical value = pixels * slope + intercept of its index row.

    Attributes:
        pixels: (H, W) grey or (H, W, 3) colour in the dtype of the file.
        label_map: (H, W) raw values, uint8 or uint16; None where there is none.
    """

    pixels: np.ndarray
    label_map: np.ndarray | None


class Store:
    """A finished store, opened for reading.

    Cheap to send to another process: only the address travels, files are opened again there. It
    goes on showing the rows it was opened with while somebody adds to the store.

    Args:
        where: The store's folder, or an address that fsspec understands, such as
            ``s3://bucket/store``.

    Raises:
        DataError: No finished store is there, or one of another format version.
    """

    def __init__(self, where: Path | str) -> None:
        self._files = open_files(where)
        self.manifest = self._read_manifest()
        self._index = self._open_index()
        self._decoder = Decoder(str(self.manifest["encoding"]))

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.address,)

    def __len__(self) -> int:
        return int(self.manifest["count"])

    @property
    def address(self) -> str:
        """Path or address of the store, for messages and to open it again."""
        return self._files.address

    @property
    def folder(self) -> Path:
        """The store's folder.

        Raises:
            DataError: The store is not on this machine.
        """
        if isinstance(self._files, LocalFiles):
            return self._files.folder
        raise DataError(
            f"{self.address} is no local folder. Copy the store to this machine for what needs its "
            "files."
        )

    @property
    def label_values(self) -> tuple[int, ...]:
        """Raw values found in all label maps, in order; empty where there are none."""
        return tuple(self.manifest["label_values"])

    @property
    def classes(self) -> dict[int, str]:
        """Names of the values of label maps, as far as the sources gave them."""
        return {int(value): name for value, name in self.manifest.get("classes", {}).items()}

    @cached_property
    def index(self) -> pd.DataFrame:
        """The whole index, one row per slice in the order of ``read``; missing texts are NaN.

        Takes about a kilobyte a row; ``columns`` and ``compact`` are for large stores.
        """
        return self._index.whole()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns of the index and the curation."""
        return self._index.names

    def columns(self, names: Sequence[str], rows: np.ndarray | None = None) -> pd.DataFrame:
        """Return some columns, of the index or the curation; each is read once.

        Args:
            names: Of the columns.
            rows: Row numbers; all rows in order when unset.

        Returns:
            Labelled by row number. Texts are categories in alphabetical order, with ``rows`` only
            those that occur; missing ones are NaN.

        Raises:
            DataError: There is no such column; names those that are.
        """
        return self._index.columns(names, rows)

    def compact(self, name: str) -> Column:
        """Return one column for look-ups by row, small enough for every loader process.

        A missing text is None, a missing integer -1, a missing number NaN.

        Raises:
            DataError: There is no such column; names those that are.
        """
        return self._index.compact(name)

    def read(self, row: int) -> StoredSlice:
        """Return slice number ``row`` (0 to len - 1) as new arrays.

        Raises:
            IndexError: There is no such row.
            DamagedImageError: Its bytes are not those that were written; names row and shard.
            DataError: The shard is missing, cut short or cannot be read; names it.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a store with {len(self)} rows")
        place = self._places
        channels = int(place.channels[row])
        size = (int(place.height[row]), int(place.width[row]))
        shape = size if channels == 1 else (*size, channels)
        pixels = self._array(
            row,
            (place.pixels_offset, place.pixels_bytes, place.pixels_checksum),
            (place.dtype[row], shape),
        )
        label_map_dtype = place.label_map_dtype[row]
        if label_map_dtype is None:
            return StoredSlice(pixels, None)
        label_map = self._array(
            row,
            (place.label_map_offset, place.label_map_bytes, place.label_map_checksum),
            (label_map_dtype, size),
        )
        return StoredSlice(pixels, label_map)

    def _array(
        self,
        row: int,
        lies: tuple[Column, Column, Column | None],
        kind: tuple[str, tuple[int, ...]],
    ) -> np.ndarray:
        """Return what was encoded at (offset, bytes, checksum), an array of (dtype, shape)."""
        offset, length, checksum = lies
        shard = self._shard(row)
        try:
            content = self._files.part(
                shard["file"], shard["bytes"], int(offset[row]), int(length[row])
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{self._files.where(shard['file'])} is missing or damaged ({error}). Copy this "
                "file again if the store was copied, else ingest again with --overwrite. vismae "
                f"inspect {self.address} --verify says what else is affected."
            ) from error
        written = -1 if checksum is None else int(checksum[row])
        try:
            return self._decoder.array(content, *kind, checksum=None if written < 0 else written)
        except (pa.ArrowException, OSError, ValueError) as error:
            file, position = self.place(row)
            raise DamagedImageError(
                f"{file}: row {position} of it (row {row} of the store) is damaged ({error}). Copy "
                "this file again if the store was copied, else ingest again with --overwrite. "
                f"vismae inspect {self.address} --verify says what else is affected."
            ) from error

    def place(self, row: int) -> tuple[str, int]:
        """Return path or address of the shard that a row lies in, and which row of it it is."""
        file = self._files.where(self._shard(row)["file"])
        return file, int(self._index.compact("position")[row])

    def index_batches(self, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the index piece by piece, as they are stored; all columns if unset."""
        return self._index.batches(names)

    def verify(self) -> list[str]:
        """Check every file against its checksum and read every row; return what is wrong."""
        manifest = self.manifest
        tables = [manifest["index"], *filter(None, [manifest.get("curation")])]
        if problems := self._file_problems(tables):
            return problems
        problems = self._file_problems(manifest["shards"])
        row = 0
        for batch in self._index.batches(["pixel_sha256"]):
            for expected in batch["pixel_sha256"].to_pylist():
                try:
                    if pixel_sha256(self.read(row).pixels) != expected:
                        problems.append(f"{self.address}: the pixels of row {row} changed")
                except DamagedImageError as error:
                    problems.append(str(error))
                except DataError as error:
                    # Of a shard as a whole, which was told already, or of the whole store.
                    if not problems:
                        problems.append(str(error))
                row += 1
        return problems

    def _file_problems(self, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        found = (self._file_problem(entry) for entry in entries)
        return [problem for problem in found if problem is not None]

    def _file_problem(self, entry: Mapping[str, Any]) -> str | None:
        where = self._files.where(entry["file"])
        try:
            with self._files.open(entry["file"]) as file:
                found = file_sha256(file)
        except FileNotFoundError:
            return f"{where} is missing"
        except OSError as error:
            return f"{where} cannot be read ({error})"
        if found != entry["sha256"]:
            return f"{where} differs from its checksum in {MANIFEST_NAME}"
        return None

    @cached_property
    def _places(self) -> "_Places":
        # Stores of earlier versions have no checksums of rows.
        there = set(_Places._fields) - set(CHECKSUM_COLUMNS).difference(self.column_names)
        return _Places(**{name: self._index.compact(name) for name in there})

    def _shard(self, row: int) -> Mapping[str, Any]:
        number = int(self._places.shard[row])
        if number < 0:
            raise DataError(
                f"{self.address} was made without pixels, to count only. Ingest again to keep them."
            )
        return self.manifest["shards"][number]

    def _read_manifest(self) -> dict[str, Any]:
        where = self._files.where(MANIFEST_NAME)
        try:
            return parse_manifest(self._files.read(MANIFEST_NAME), where)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(
                f"{self.address} is not a finished store: {MANIFEST_NAME} is missing. Make one "
                f"with vismae ingest SOURCE --store {self.address}."
            ) from error
        except OSError as error:
            raise DataError(
                f"{where} cannot be read ({error}). Check the path and the rights to it."
            ) from error

    def _open_index(self) -> StoreIndex:
        try:
            return StoreIndex(self._files, self.manifest)
        except OSError as error:
            # Somebody may have added to the store just now; the new manifest names a new index.
            before, self.manifest = self.manifest, self._read_manifest()
            if self.manifest != before:
                return self._open_index()
            raise DataError(
                f"{self._files.where(self.manifest['index']['file'])} cannot be read ({error}). "
                "The store is incomplete; ingest again with --overwrite."
            ) from error


class _Places(NamedTuple):
    """Where the bytes of each row lie and what they mean, by row number."""

    shard: Column
    pixels_offset: Column
    pixels_bytes: Column
    label_map_offset: Column
    label_map_bytes: Column
    height: Column
    width: Column
    channels: Column
    dtype: Column
    label_map_dtype: Column
    pixels_checksum: Column | None = None
    label_map_checksum: Column | None = None
