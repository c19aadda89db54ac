"""The same picture twice in a store: exact copies by pixel hash, near ones by fine hash.

An exact copy has the same pixels, shape and type. A near duplicate is the same picture after
another JPEG, another size or another window: its fine hash (``likeness.py``) differs in at most 12
of 256 bits, and in no more than a fifth of the bits set. Rows of one volume or series are alike by
nature and never count; blank rows are left out.

Measured on 2,443 real CT, MR, PET, X-ray, ultrasound and retina images, each in an altered copy,
share that is recognised: JPEG of quality 70 97 %, of 90 99 %; size halved 91 %, by 0.75 or 1.5
over 99 %; 1 % cut off 95 %, 2 % 47 %; brighter by 20 levels or 0.8 of the contrast over 99 %; gamma
0.8 or 1.25 94 %; narrower window (a tenth of the levels clipped at each end) 70 %; mirrored 1 %.
False hits: of 190 million pairs of 19,544 real images from different groups 166 hit. 95 of them
come from abdominal CT and brain MR without patient ids, and those looked at show one patient under
several names; 63 are averaged PET maps in one template space; 8 are others. These collections had
been cleared of some look-alikes before, so an archive may show more.

Not all pairs are compared. The 256 bits are dealt out to 13 bands: hashes that differ in 12 bits
agree in at least one band (pigeonhole), so only rows with an equal band are looked at. Where more
rows than the window share a band, they are sorted by 44 further bits, and each is compared with
its nearest neighbours in that order only. Such thinned rows are counted; time stays linear.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vismae.core.errors import DataError
from vismae.core.types import Flag
from vismae.data.likeness import FINE_BYTES

MOST_BITS_APART = 12
"""Bits in which the fine hashes of near duplicates may differ."""

_BITS = 8 * FINE_BYTES
# A blob on a dark ground sets few bits, and any two blobs differ in few: without this rule, PET
# and CT slices through the top of the head were half of the false hits.
_SHARE_APART = 1 / 5
_FEWEST_BITS = 16  # 0.2 % of real images set fewer
# Neighbours in the picture go to different bands: 97 = 6 rows of 16 bits and 1 column.
_DEALT = np.arange(_BITS) * 97 % _BITS
_BANDS = np.linspace(0, _BITS, MOST_BITS_APART + 2).astype(int)
_KEY_BITS = 64
_WINDOW = 32
# Rows looked at together; bounds the memory for intermediate values.
_ROWS_AT_ONCE = 2**16
_SHAPE = ("height", "width", "channels", "dtype")
_BLANK = {Flag.BLANK.value, Flag.NEARLY_BLANK.value}


@dataclass(frozen=True)
class Duplicates:
    """Which rows repeat an earlier one.

    Attributes:
        duplicate_of: First row with the same pixels, or -1, (N,) int32.
        near_duplicate_of: First row found that looks the same, or -1, (N,) int32; always -1 for
            an exact duplicate, whose first row stands for it.
        thinned: Rows that were compared with only some of those that share a band with them.
    """

    duplicate_of: np.ndarray
    near_duplicate_of: np.ndarray
    thinned: int


def exact_duplicates(pixel_codes: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Return the first row with the same pixels as each row, or -1 where it is the first itself.

    Args:
        pixel_codes: 128 bits that are equal for equal pixels, shape and type, (N, 2) uint64.
        blank: True for rows to leave out, (N,) bool.
    """
    duplicate_of = np.full(len(blank), -1, dtype=np.int32)
    rows = np.flatnonzero(~blank).astype(np.int32)
    first = rows[_first_of_equal(pixel_codes[rows])]
    repeated = first != rows
    duplicate_of[rows[repeated]] = first[repeated]
    return duplicate_of


def near_duplicates(
    fine_hashes: np.ndarray, volumes: np.ndarray, series: np.ndarray, left_out: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the first row found that looks like each row, or -1, and how many rows were thinned.

    Args:
        fine_hashes: (N, 32) uint8.
        volumes: Code of the volume of each row, (N,) uint64.
        series: Code of its series, (N,) uint64; 0 where there is none.
        left_out: True for rows to leave out, blank ones and exact duplicates, (N,) bool.
    """
    bits_set = np.bitwise_count(_words(fine_hashes)).sum(axis=1, dtype=np.uint16)
    rows = np.flatnonzero(~left_out & (bits_set >= _FEWEST_BITS)).astype(np.int32)
    words = _words(fine_hashes)
    found = np.full(len(fine_hashes), -1, dtype=np.int32)
    thinned = np.zeros(len(rows), dtype=bool)
    for start, end in pairwise(_BANDS.tolist()):
        order, keys = _sorted_keys(fine_hashes, rows, start)
        for places, step, apart in _pairs_with_equal_start(keys, end - start):
            if step > _WINDOW:
                thinned[order[places]] = thinned[order[places + step]] = True
                continue
            # The key holds 64 of the 256 bits: most pairs end here, without a look at the rest.
            places = places[apart <= MOST_BITS_APART]
            one, other = rows[order[places]], rows[order[places + step]]
            apart = np.bitwise_count(words[one] ^ words[other]).sum(axis=1, dtype=np.uint16)
            alike = apart <= MOST_BITS_APART
            alike &= apart <= _SHARE_APART * np.minimum(bits_set[one], bits_set[other])
            alike &= volumes[one] != volumes[other]
            alike &= (series[one] != series[other]) | (series[one] == 0)
            one, other = one[alike], other[alike]
            _keep_first(found, np.maximum(one, other), np.minimum(one, other))
    return found, int(thinned.sum())


def pairs_across(first_of: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the pairs of a row and its duplicate that differ in a value, such as the split.

    Args:
        first_of: ``duplicate_of`` or ``near_duplicate_of``, (N,).
        values: Code of each row's split, patient or label, (N,); 0 where unknown, which differs
            from nothing. ``column_codes`` reads them from an index.

    Returns:
        Row numbers, (P, 2): the first row and the one that repeats it, in the order of the second.
    """
    later = np.flatnonzero(first_of >= 0)
    earlier = first_of[later]
    known = (values[later] != 0) & (values[earlier] != 0)
    differ = known & (values[later] != values[earlier])
    return np.stack([earlier[differ], later[differ]], axis=1)


def duplicates_of_index(path: Path) -> Duplicates:
    """Find the duplicates of a store from its index, read piece by piece.

    2.5 million rows take half a minute to a minute on one core, and 120 bytes a row.

    Raises:
        DataError: The index cannot be read or lacks a column.
    """
    blank = _column(path, ("flags",), _blank, None, np.bool_)
    pixel_codes = _column(path, ("pixel_sha256", *_SHAPE), _pixel_codes, 2, np.uint64)
    duplicate_of = exact_duplicates(pixel_codes, blank)
    del pixel_codes  # not needed while the larger hashes are held
    near_duplicate_of, thinned = near_duplicates(
        _column(path, ("fine_likeness",), _fine_hashes, FINE_BYTES, np.uint8),
        column_codes(path, "volume_id"),
        column_codes(path, "series_id"),
        blank | (duplicate_of >= 0),
    )
    return Duplicates(duplicate_of, near_duplicate_of, thinned)


def column_codes(path: Path, name: str) -> np.ndarray:
    """Return a 64-bit code of every text of a column of an index, 0 where it is missing, (N,).

    Raises:
        DataError: The index cannot be read or lacks the column.
    """
    return _column(path, (name,), lambda batch: _codes(batch.column(0)), None, np.uint64)


def _first_of_equal(codes: np.ndarray) -> np.ndarray:
    """Return for each row the number of the first one with the same code."""
    order = np.lexsort((codes[:, 1], codes[:, 0])).astype(np.int32)
    codes = codes[order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (codes[1:] != codes[:-1]).any(axis=1)
    place = np.maximum.accumulate(np.where(starts, np.arange(len(order), dtype=np.int32), 0))
    first = np.empty_like(order)
    first[order] = order[place]  # the sort is stable: a run begins with its first row
    return first


def _words(fine_hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(fine_hashes).view(np.uint64)  # (N, 4)


def _sorted_keys(
    fine_hashes: np.ndarray, rows: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return 64 bits of each row from the start of a band on, sorted, and the order."""
    chosen = _DEALT[(start + np.arange(_KEY_BITS)) % _BITS]
    keys = np.empty(len(rows), dtype=np.uint64)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        piece = slice(begin, begin + _ROWS_AT_ONCE)
        bits = np.unpackbits(fine_hashes[rows[piece]], axis=1).take(chosen, axis=1)
        keys[piece] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    # Stable, so that equal keys keep the same order on every machine.
    order = np.argsort(keys, kind="stable").astype(np.int32)
    return order, keys[order]


def _pairs_with_equal_start(
    keys: np.ndarray, bits: int
) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
    """Yield places and a step such that sorted keys there and a step further begin alike.

    The last step is one beyond the window: keys that still begin alike are too many to compare.
    The third value is the number of bits in which the two keys differ.
    """
    shift = np.uint64(_KEY_BITS - bits)
    for begin in range(0, len(keys), _ROWS_AT_ONCE):
        places = np.arange(begin, min(begin + _ROWS_AT_ONCE, len(keys)))
        for step in range(1, _WINDOW + 2):
            places = places[places + step < len(keys)]
            differing = keys[places] ^ keys[places + step]
            # In sorted order, who begins unlike the next one begins unlike all that follow.
            alike = differing >> shift == 0
            places = places[alike]
            if not len(places):
                break
            yield places, step, np.bitwise_count(differing[alike])


def _keep_first(found: np.ndarray, later: np.ndarray, earlier: np.ndarray) -> None:
    """Note the earlier row of each later one, unless a still earlier one is known."""
    unknown = np.iinfo(found.dtype).max
    best = np.where(found[later] < 0, unknown, found[later])
    better = earlier < best
    later, earlier = later[better], earlier[better]
    order = np.argsort(-earlier, kind="stable")  # the last one assigned stays: the smallest
    found[later[order]] = earlier[order]


def _pixel_codes(batch: pa.RecordBatch) -> np.ndarray:
    """Return half of the pixel hash, its second word changed by the shape and type, (n, 2)."""
    digests = bytes.fromhex("".join(batch.column(0).to_pylist()))
    codes = np.frombuffer(digests, dtype=np.uint64).reshape(len(batch), 4)[:, :2].copy()
    numbers = [batch.column(name).to_numpy() for name in _SHAPE[:3]]
    shapes = np.stack(numbers, axis=1).astype(np.int64)
    different, which = np.unique(shapes, axis=0, return_inverse=True)
    shape_codes = np.array([_code(str(tuple(s))) for s in different.tolist()], dtype=np.uint64)
    codes[:, 1] ^= shape_codes[which.reshape(-1)] ^ _codes(batch.column("dtype"))
    return codes


def _fine_hashes(batch: pa.RecordBatch) -> np.ndarray:
    column = batch.column(0)
    if column.null_count:
        raise ValueError("fine_likeness is missing in some rows")
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(len(batch), FINE_BYTES)


def _blank(batch: pa.RecordBatch) -> np.ndarray:
    column = batch.column(0).dictionary_encode()
    blank = [
        not _BLANK.isdisjoint((text or "").split("|")) for text in column.dictionary.to_pylist()
    ]
    return np.array([*blank, False])[_places(column)]


def _codes(texts: pa.Array) -> np.ndarray:
    column = texts.dictionary_encode()
    codes = [_code(text) for text in column.dictionary.to_pylist()]
    return np.array([*codes, 0], dtype=np.uint64)[_places(column)]


def _places(column: pa.DictionaryArray) -> np.ndarray:
    """Return the place of each value in the dictionary; missing ones are past its end."""
    return column.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False)


def _code(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1  # 0 means missing


def _column(
    path: Path,
    names: tuple[str, ...],
    read: Callable[[pa.RecordBatch], np.ndarray],
    width: int | None,
    dtype: type[np.generic],
) -> np.ndarray:
    """Return what a function makes of some columns of an index, for all rows."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            lacking = sorted(set(names) - set(file.schema_arrow.names))
            if lacking:
                raise DataError(
                    f"{path} has no column {lacking[0]}, which finding duplicates needs; an older "
                    "vismae made it. Ingest again with --overwrite."
                )
            count = file.metadata.num_rows
            values = np.empty(count if width is None else (count, width), dtype)
            place = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(names), use_threads=False):
                values[place : place + len(batch)] = read(batch)
                place += len(batch)
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read ({error}). The store is damaged; ingest again with --overwrite."
        ) from error
    return values
