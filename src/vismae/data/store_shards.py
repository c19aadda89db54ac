"""Shards: Arrow IPC files of encoded slices, written in batches whose bytes can be found again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vismae.core.errors import DataError
from vismae.data.store_disk import NewFile
from vismae.data.store_encoding import EncodedSlice
from vismae.data.store_format import SHARD_SCHEMA

# "ARROW1" and two bytes of padding come before the first message of an Arrow IPC file.
_FIRST_MESSAGE = 8
# A binary column counts its bytes in 32 bits.
_MOST_BYTES = 2**31 - 1


class Place(NamedTuple):
    """Where a slice lies: its row in the shard, and its bytes in the shard's file."""

    position: int
    pixels_offset: int
    pixels_bytes: int
    label_map_offset: int | None
    label_map_bytes: int | None


class ShardWriter:
    """One shard, under an unfinished name until its part is whole.

    Args:
        path: The finished shard.
    """

    def __init__(self, path: Path) -> None:
        self.file = NewFile(path)
        self.rows = 0
        self.encoded_bytes = 0
        self.completed = False
        self._writer = pa.ipc.new_file(self.file, SHARD_SCHEMA)

    def write(self, pieces: Sequence[EncodedSlice]) -> list[Place]:
        """Append slices as one record batch and return where each of them lies."""
        pixels = _binary([piece.pixels for piece in pieces])
        label_maps = pa.array([piece.label_map for piece in pieces], pa.binary())
        start = self.file.byte_count
        self._writer.write_batch(pa.record_batch([pixels, label_maps], schema=SHARD_SCHEMA))
        places = self._places(start)
        self.rows += len(pieces)
        self.encoded_bytes += sum(piece.byte_count for piece in pieces)
        return places

    def complete(self) -> None:
        """Write the end of the file and bring it to the disk."""
        self._writer.close()
        self.file.complete()
        self.completed = True

    def discard(self) -> None:
        """Give up and remove the file."""
        self.file.discard()

    def _places(self, start: int) -> list[Place]:
        """Read back the batch that begins at a byte of the file, without copying it."""
        with pa.memory_map(str(self.file.unfinished)) as source:
            whole = source.read_buffer()
        messages = pa.BufferReader(whole)
        messages.seek(start or _FIRST_MESSAGE)
        message = pa.ipc.read_message(messages)
        if message.type == "schema":
            message = pa.ipc.read_message(messages)
        batch = pa.ipc.read_record_batch(message, SHARD_SCHEMA)
        pixels, label_maps = (_byte_ranges(column, whole.address) for column in batch.columns)
        return [
            Place(self.rows + number, *of_pixels, *of_label_map)
            for number, (of_pixels, of_label_map) in enumerate(zip(pixels, label_maps, strict=True))
        ]


def _binary(values: Sequence[bytes]) -> pa.Array:
    """Return values as a column; pyarrow's own way copies them several times while it grows."""
    ends = np.cumsum([0, *map(len, values)])
    if ends[-1] > _MOST_BYTES:
        raise DataError(
            f"An image takes {max(map(len, values))} bytes as it is stored; a store holds images "
            f"of at most {_MOST_BYTES} bytes. Average it down (--max-side), or leave it out."
        )
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.binary(), len(values), buffers)


def _byte_ranges(column: pa.Array, file_address: int) -> list[tuple[Any, Any]]:
    """Return offset in the file and length of each value of a mapped binary column, or None."""
    _, ends, values = column.buffers()
    if column.null_count == len(column) or ends is None or values is None:
        return [(None, None)] * len(column)
    start = values.address - file_address
    borders = np.frombuffer(ends, np.int32, len(column) + 1).tolist()
    known = column.is_valid().to_pylist()
    return [
        (start + first, last - first) if there else (None, None)
        for first, last, there in zip(borders[:-1], borders[1:], known, strict=True)
    ]
