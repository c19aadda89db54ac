"""Look-up tables of grey values: modality tables and VOI tables have one form.

Standard: PS3.3 C.11.1.1 and C.11.2.1.1. pydicom's own look-up knows entries of 8 and 16 bits; both
kinds of table are often written with 10, 12 or 14.
"""

import numpy as np
from pydicom import Dataset


def look_up(values: np.ndarray, table: Dataset, little_endian: bool) -> tuple[np.ndarray, int]:
    """Return integers as a table maps them, and the bits of its entries.

    Values outside the table get its first or last entry.

    Args:
        values: Integers of any shape.
        table: Item of ModalityLUTSequence or VOILUTSequence.
        little_endian: Byte order of entries that are given as bytes.

    Raises:
        ValueError: The table is damaged.
    """
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    count = count or 2**16  # which does not fit the element
    entries = _entries(table, count, little_endian)
    if len(entries) < count or not 1 <= bits <= 16:
        raise ValueError(f"{len(entries)} of {count} entries of {bits} bits")
    # The first value is signed as the pixels are, whatever the element says.
    if values.dtype.kind == "i" and first >= 2**15:
        first -= 2**16
    index = np.clip(values.astype(np.int64) - first, 0, count - 1)
    return entries[:count].astype(np.uint8 if bits <= 8 else np.uint16)[index], bits


def _entries(table: Dataset, count: int, little_endian: bool) -> np.ndarray:
    data = table.LUTData
    if isinstance(data, bytes):
        if len(data) < 2 * count:  # one byte each, as some tables of 8 bits have it
            return np.frombuffer(data, np.uint8)
        return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little_endian else ">u2")
    return np.atleast_1d(np.asarray(data, dtype=np.int64)) % 2**16
