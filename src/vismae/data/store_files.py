"""Where a store lies: a local folder whose files are mapped, or an address read by ranges.

Addresses are those of fsspec, such as ``s3://bucket/store`` or ``https://host/store``. Credentials
come from where its file systems look for them (environment, ``~/.config/fsspec``).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import pyarrow as pa
from fsspec.core import url_to_fs

from vismae.core.errors import DataError

# ``Path`` turns "s3://bucket" into "s3:/bucket". One letter is a drive, not a protocol.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.:-]+):/+(.*)")
_LOCAL = ("file", "local")


class StoreFiles(Protocol):
    """The files of a store, by their names in ``manifest.json``.

    Every method but ``where`` raises ``OSError`` for files that are missing or cannot be read.
    """

    @property
    def address(self) -> str:
        """Path or address of the store."""
        ...

    def where(self, name: str) -> str:
        """Return the full path or address of a file, for messages."""
        ...

    def read(self, name: str) -> bytes:
        """Return a whole small file."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at any place."""
        ...

    def part(self, name: str, size: int, start: int, length: int) -> memoryview | bytes:
        """Return some bytes of a file.

        Args:
            name: Of the file.
            size: Of the whole file in bytes, as the manifest says.
            start: First byte.
            length: Number of bytes.

        Raises:
            ValueError: The file does not have these bytes.
        """
        ...


class LocalFiles:
    """A folder of this machine; shards are mapped into memory, once in every process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: dict[str, memoryview] = {}

    @property
    def address(self) -> str:
        """Path of the folder."""
        return str(self.folder)

    def where(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        """Return a whole small file."""
        return (self.folder / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at any place."""
        return cast("BinaryIO", pa.OSFile(str(self.folder / name)))

    def part(self, name: str, size: int, start: int, length: int) -> memoryview | bytes:
        """Return some bytes of a mapped file, without copying them."""
        content = self._mapped.get(name)
        if content is None:
            # The mapping outlives its file handle: a store may have more shards than a process
            # may have open files.
            with pa.memory_map(str(self.folder / name)) as source:
                content = memoryview(source.read_buffer())
            if len(content) != size:
                raise ValueError(f"it has {len(content)} bytes, the manifest says {size}")
            self._mapped[name] = content
        return content[start : start + length]


class RemoteFiles:
    """An address of fsspec; nothing is kept but what was asked for."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        try:
            self._system, root = url_to_fs(self._address)
        except (ImportError, ValueError) as error:
            raise DataError(
                f"{address} cannot be opened ({error}). Correct the address, install the package "
                "that fsspec needs for it, or copy the store to a local folder."
            ) from error
        self._root = root.rstrip("/")

    @property
    def address(self) -> str:
        """The address, whole."""
        return self._address

    def where(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self._address}/{name}"

    def read(self, name: str) -> bytes:
        """Return a whole small file."""
        with _as_os_errors():
            return cast("bytes", self._system.cat_file(f"{self._root}/{name}"))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at any place."""
        with _as_os_errors():
            return cast("BinaryIO", self._system.open(f"{self._root}/{name}", "rb"))

    def part(self, name: str, size: int, start: int, length: int) -> memoryview | bytes:
        """Fetch some bytes of a file by one ranged request."""
        with _as_os_errors():
            path = f"{self._root}/{name}"
            content = cast("bytes", self._system.cat_file(path, start=start, end=start + length))
        if len(content) != length:
            raise ValueError(
                f"bytes {start} to {start + length} of {size} were asked for and {len(content)} "
                "bytes came; it was cut short, or the server does not answer ranged requests"
            )
        return content


def is_remote(where: Path | str) -> bool:
    """Tell whether a text or path is the address of a store on another machine."""
    return _remote_address(where) is not None


def open_files(where: Path | str) -> LocalFiles | RemoteFiles:
    """Return the files of the store at a path or an address; they need not be there.

    Raises:
        DataError: No installed file system understands the address.
    """
    address = _remote_address(where)
    if address is not None:
        return RemoteFiles(address)
    found = _ADDRESS.fullmatch(str(where))
    if found is not None and found[1] in _LOCAL and not Path(where).exists():
        return LocalFiles(Path(url_to_fs(str(where))[1]))
    return LocalFiles(Path(where))


def _remote_address(where: Path | str) -> str | None:
    found = _ADDRESS.fullmatch(str(where))
    if found is None or found[1] in _LOCAL or Path(where).exists():
        return None
    return f"{found[1]}://{found[2]}"


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Give the errors of a file system's own network library one common class."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
