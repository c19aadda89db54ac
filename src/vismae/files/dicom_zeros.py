"""DICOM files that were filled with zeros, as by a copy that broke off or was never made.

To pydicom every eight zeros are an element, and it makes an object of each: it would be at forty
megabytes of them for minutes. Zeros inside an element, such as its pixels, are no trouble.
"""

import io
from typing import BinaryIO, cast

import pydicom
from pydicom.dataset import FileDataset

from vismae.core.errors import UnreadableFileError
from vismae.files.reasons import Reason

# More than any writer pads a file with (a block of a disk or tape), and read within a blink.
_MOST_ZEROS = 2**13
_HEADER_BYTES = 8
# pydicom looks at some places twice, so what is counted may be half as many bytes on disk.
_BLOCK = bytes(_MOST_ZEROS * 2)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


class _UntilZeros:
    """A stream that ends where nothing but zeros was read again and again, header by header.

    Attributes:
        ended: Whether it did.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._zeros = 0
        self.ended = False

    def read(self, size: int = -1, /) -> bytes:
        if self.ended:
            return b""
        content = self._stream.read(size)
        if len(content) > _HEADER_BYTES:
            self._zeros = 0
        elif content:
            self._zeros = 0 if any(content) else self._zeros + 1
            self.ended = self._zeros > _MOST_ZEROS
        return b"" if self.ended else content

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def until_zeros(stream: BinaryIO) -> BinaryIO:
    """Return a stream for pydicom that ends where a file is filled with zeros.

    It is the stream itself where the file holds no such zeros, so that reading takes no longer.

    Args:
        stream: At its beginning.
    """
    if isinstance(stream, io.BytesIO):
        content = stream.getvalue()  # shares the bytes
        places = range(0, len(content), len(_BLOCK))
        if not any(content.startswith(_BLOCK, place) for place in places):
            return stream
    # It has all that pydicom asks of a stream.
    return cast(BinaryIO, _UntilZeros(stream))


def read_whole(stream: BinaryIO, name: str) -> FileDataset:
    """Read a DICOM file with its pixels.

    Args:
        stream: At its beginning.
        name: Of the file, for the message.

    Raises:
        UnreadableFileError: ``undecodable``: it is filled with zeros before any pixels.
    """
    stream = until_zeros(stream)
    dataset = pydicom.dcmread(stream, force=True)
    ended = isinstance(stream, _UntilZeros) and stream.ended
    if ended and not any(keyword in dataset for keyword in _PIXELS):
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: filled with zeros where its elements and pixels should be; it was not "
            "copied to its end. Copy the file again.",
        )
    return dataset
