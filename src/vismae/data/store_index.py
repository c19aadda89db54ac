"""The columns of a store's index and curation, read one by one and held small.

The index of a large archive does not fit into every loader process: what training needs of it
does, as small integers, with each different text or number held once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vismae.core.errors import DataError
from vismae.data.store_files import StoreFiles
from vismae.data.store_format import MANIFEST_NAME

# Different values of a column up to which each row holds only a number of two bytes.
_MOST_CODED_VALUES = 2**16


class Column(Protocol):
    """One fact of every row, by row number."""

    def __getitem__(self, row: int) -> Any:
        """Return the value of a row; None for a missing text."""
        ...


class CodedColumn:
    """A column of few different values: each is held once, rows hold its number.

    Args:
        codes: (N,) positions in ``values``.
        values: The different values.
    """

    def __init__(self, codes: np.ndarray, values: Sequence[Any] | np.ndarray) -> None:
        self.codes = codes
        self.values = values

    def __getitem__(self, row: int) -> Any:
        """Return the value of a row."""
        return self.values[self.codes[row]]


class StoreIndex:
    """The tables of a store, open for reading columns.

    They stay open: a store that is added to meanwhile removes the old index, and a process that
    reads it must go on seeing the rows that it began with.

    Args:
        files: Of the store.
        manifest: Of the store.

    Raises:
        FileNotFoundError: The index is missing.
        DataError: A table cannot be read, or has another number of rows than the manifest says.
    """

    def __init__(self, files: StoreFiles, manifest: Mapping[str, Any]) -> None:
        entries = [manifest["index"], *filter(None, [manifest.get("curation")])]
        self._tables = [_Table(files, entry["file"], int(manifest["count"])) for entry in entries]
        self._address = files.address
        self._series: dict[str, pd.Series] = {}
        self._compact: dict[str, Column] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(name for table in self._tables for name in table.names)

    def whole(self) -> pd.DataFrame:
        """Return the index as one table, texts as texts."""
        frame: pd.DataFrame = self._tables[0].plain().read().to_pandas()
        return frame

    def columns(self, names: Sequence[str], rows: np.ndarray | None = None) -> pd.DataFrame:
        """Return some columns, of some rows; ``Store.columns`` says more."""
        for name in names:
            if name not in self._series:
                self._series[name] = _as_series(self._read(name))
        chosen = {name: self._series[name] for name in names}
        if rows is not None:
            chosen = {name: _taken(series, rows) for name, series in chosen.items()}
        return pd.DataFrame(chosen)

    def compact(self, name: str) -> Column:
        """Return one column for look-ups by row, in as few bytes a row as hold its values.

        A missing text is None, a missing integer -1, a missing number NaN.
        """
        found = self._compact.get(name)
        if found is None:
            found = self._compact[name] = _as_compact(self._read(name))
            # Arrow would keep what reading took, in every loader process.
            pa.default_memory_pool().release_unused()
        return found

    def batches(self, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield rows of the index piece by piece; all columns when none is named."""
        yield from self._tables[0].plain().iter_batches(columns=names)

    def _read(self, name: str) -> pa.ChunkedArray:
        for table in self._tables:
            if name in table.names:
                return table.read(name)
        raise DataError(
            f"{self._address} has no column {name}; it has {', '.join(self.names)}. Correct the "
            "name, or ingest again so that the column is made."
        )


class _Table:
    """One parquet file, opened once."""

    def __init__(self, files: StoreFiles, name: str, count: int) -> None:
        self._where = files.where(name)
        self._file: BinaryIO = files.open(name)
        try:
            self._metadata = pq.read_metadata(self._file)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        if self._metadata.num_rows != count:
            raise DataError(
                f"{self._where} has {self._metadata.num_rows} rows, {MANIFEST_NAME} says {count}. "
                "The store is damaged; ingest again with --overwrite."
            )
        schema = self._metadata.schema.to_arrow_schema()
        self.names = tuple(schema.names)
        self._texts = [field.name for field in schema if pa.types.is_string(field.type)]

    def plain(self) -> pq.ParquetFile:
        """Open for reading values as they are."""
        return pq.ParquetFile(self._file, metadata=self._metadata)

    def read(self, name: str) -> pa.ChunkedArray:
        """Return one column; texts as numbers of their different values."""
        # Without this list every different text would be made once for each row that has it.
        parquet = pq.ParquetFile(self._file, metadata=self._metadata, read_dictionary=self._texts)
        try:
            return parquet.read(columns=[name], use_threads=False)[name]
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            f"{self._where} cannot be read ({error}). The store is damaged; ingest again with "
            "--overwrite."
        )


def _as_series(column: pa.ChunkedArray) -> pd.Series:
    if not pa.types.is_dictionary(column.type):
        series: pd.Series = column.to_pandas()
        return series
    codes, texts = _codes_and_values(column)
    order = pc.call_function("sort_indices", [texts]).to_numpy()
    rank = np.full(len(order) + 1, -1)  # the last place is that of a missing text
    rank[order] = np.arange(len(order))
    categories = pd.Index(texts.take(pa.array(order)).to_pandas())
    return pd.Series(pd.Categorical.from_codes(rank[codes], categories=categories))


def _taken(series: pd.Series, rows: np.ndarray) -> pd.Series:
    taken = series.iloc[rows]
    if isinstance(taken.dtype, pd.CategoricalDtype):
        return taken.cat.remove_unused_categories()
    return taken


def _as_compact(column: pa.ChunkedArray) -> Column:
    if pa.types.is_integer(column.type):
        numbers = (column.fill_null(-1) if column.null_count else column).to_numpy()
        return numbers.astype(_smallest_integer(numbers))
    if pa.types.is_floating(column.type):
        numbers = column.to_numpy()
        different = np.unique(numbers)
        if len(different) <= min(_MOST_CODED_VALUES, len(numbers) // 2):
            codes = np.searchsorted(different, numbers)
            return CodedColumn(codes.astype(_smallest_integer(codes)), different)
        single = numbers.astype(np.float32)
        return single if np.array_equal(single, numbers, equal_nan=True) else numbers
    codes, values = _codes_and_values(column.dictionary_encode())
    return CodedColumn(codes.astype(_smallest_integer(codes)), [*values.to_pylist(), None])


def _codes_and_values(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return the position of each row's value and the values; missing ones are past the end."""
    joined = column.unify_dictionaries().combine_chunks()
    codes = joined.indices.fill_null(len(joined.dictionary)).to_numpy(zero_copy_only=False)
    return codes, joined.dictionary


def _smallest_integer(values: np.ndarray) -> np.dtype:
    """Return the smallest type that holds the values."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    kinds = [f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("u", "")]
    limits = ((np.dtype(kind), np.iinfo(kind)) for kind in kinds)
    return next(dtype for dtype, limit in limits if limit.min <= low and high <= limit.max)
