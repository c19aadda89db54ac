"""Files that have their name only when they are whole, and what a full disk means."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vismae.core.errors import DataError
from vismae.data.store_format import UNFINISHED

# A quota or a limit on the size of files is a full disk to whoever meets it.
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NewFile:
    """A file written from start to end under an unfinished name; its checksum grows along.

    pyarrow's writers take it as their sink. Closing it is left to ``complete``, because they
    close what they write to.

    Args:
        path: The finished file.
    """

    closed = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unfinished = path.with_name(path.name + UNFINISHED)
        self.byte_count = 0
        self._digest = hashlib.sha256()
        self._discarded = False
        # Unbuffered: what was written can be mapped at once, and closing cannot fail.
        self._file = self.unfinished.open("wb", buffering=0)

    def write(self, content: bytes) -> int:
        """Append bytes; nothing is written any more after ``discard``."""
        view = memoryview(content).cast("B")
        if self._discarded:
            return len(view)
        rest = view
        while len(rest):
            rest = rest[self._file.write(rest) or 0 :]
        self._digest.update(view)
        self.byte_count += len(view)
        return len(view)

    def flush(self) -> None:
        """Do nothing: every write goes through."""

    def close(self) -> None:
        """Do nothing: ``complete`` or ``discard`` ends the file."""

    @property
    def sha256(self) -> str:
        """Checksum of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def complete(self) -> None:
        """Bring all bytes to the disk; the name is still the unfinished one."""
        os.fsync(self._file.fileno())
        self._file.close()

    def rename(self) -> None:
        """Give a complete file its name."""
        os.replace(self.unfinished, self.path)

    def discard(self) -> None:
        """Give up and remove the file."""
        self._discarded = True
        self._file.close()
        self.unfinished.unlink(missing_ok=True)


class NewTable:
    """A parquet file that has its name only when it is whole.

    Args:
        path: The finished file.
        schema: Of its rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = NewFile(path)
        try:
            self._writer = pq.ParquetWriter(self.file, schema, compression="zstd")
        except OSError:
            self.file.discard()
            raise

    def write(self, table: pa.Table) -> None:
        """Append rows as one row group."""
        self._writer.write_table(table)

    def complete(self) -> None:
        """Bring all rows to the disk; the name is still the unfinished one."""
        self._writer.close()
        self.file.complete()

    def discard(self) -> None:
        """Give up and remove the file, unless it has its name."""
        self.file.discard()
        # pyarrow would otherwise close it when it is collected, into a file that is gone.
        self._writer.close()


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def full_disk_named(folder: Path, what: str, byte_count: Callable[[], int]) -> Iterator[None]:
    """Turn "no space left" into an error that says what was being written and what to do.

    Args:
        folder: Of the store.
        what: What is being written, such as ``part 000012``.
        byte_count: Tells how many bytes of it were written so far.

    Raises:
        DataError: In place of an ``OSError`` for lack of space; others pass through.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        free = shutil.disk_usage(folder).free
        raise DataError(
            f"{folder}: no space is left for {what} ({os.strerror(error.errno)}). "
            f"{free / 2**20:.1f} MiB are free; {byte_count() / 2**20:.1f} MiB of it were written "
            "before. Finished parts are kept: make room and run the same command again."
        ) from error
