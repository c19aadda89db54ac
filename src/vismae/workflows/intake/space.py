"""Room on the disk: known to be short before it runs out."""

import shutil
from pathlib import Path

from vismae.core.errors import DataError

# Left free on any account, so that the ledger and the index can still be written.
_RESERVE_BYTES = 64 * 2**20
# The index and the private tables, per image; an image is about this many bytes or more.
_INDEX_SHARE = 0.02


class SpaceGuard:
    """Compares what is still to be written with what is free.

    The size of the pixels is known from the headers; how much smaller they become by encoding is
    learnt from the parts already written.

    Args:
        folder: Where the store is written.
        pixel_bytes: Decoded size of everything that is to be read.
    """

    def __init__(self, folder: Path, pixel_bytes: int) -> None:
        self._folder = folder
        self._to_come = pixel_bytes
        self._read = self._written = 0

    def require_start(self) -> None:
        """Refuse to begin where the raw pixels would not fit at half their size.

        Raises:
            DataError: Names the space needed and the space free.
        """
        self._require(int(self._to_come / 2), "This is likely to need")

    def require(self, pixel_bytes: int) -> None:
        """Refuse a portion that may not fit.

        Args:
            pixel_bytes: Its decoded size.

        Raises:
            DataError: Names the space that all that is left needs, and the space free.
        """
        ratio = self._written / self._read if self._read else 1.0
        if self._free() < pixel_bytes * max(ratio, 0.1) + _RESERVE_BYTES:
            self._require(int(self._to_come * ratio), "What is left needs about")

    def wrote(self, pixel_bytes: int, written_bytes: int) -> None:
        """Learn from a portion: its decoded size and the size of its part."""
        self._to_come -= pixel_bytes
        self._read += pixel_bytes
        self._written += written_bytes

    def _require(self, needed_bytes: int, opening: str) -> None:
        needed = int(needed_bytes * (1 + _INDEX_SHARE)) + _RESERVE_BYTES
        free = self._free()
        if needed > free:
            raise DataError(
                f"{self._folder}: {opening} {_size(needed)}, {_size(free)} are free. What was "
                "read so far is kept: make room and give the same command again, set --max-side "
                "to store smaller images, or use another disk."
            )

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
