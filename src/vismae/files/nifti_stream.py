"""The bytes of a NIfTI file, as one stream also where header and voxels are two files."""

import gzip
import io
from typing import Any, BinaryIO, cast

import nibabel as nib

from vismae.core.errors import UnreadableFileError
from vismae.files.discover import SourceFile
from vismae.files.nifti_pair import HEADER_BYTES, is_header_name, unpacked, voxels_beside
from vismae.files.reasons import Reason
from vismae.files.signatures import is_gzip, is_nifti_pair_header

_VERSION_1_BYTES = 348
# Where voxels begin in a single file: behind the header and four bytes that say "no extensions".
_NO_EXTENSIONS = bytes(4)


def open_nifti(file: SourceFile) -> BinaryIO:
    """Open a NIfTI file, or a pair as the single file that holds the same.

    Raises:
        UnreadableFileError: As ``SourceFile.open``; ``not-found`` where the voxels of a pair are
            missing.
    """
    if not is_header_name(file.name):
        return file.open()
    head = unpacked(file.head(HEADER_BYTES))
    if not is_nifti_pair_header(head):
        return file.open()
    place = voxels_beside(file.path, file.member)
    if place is None:
        raise UnreadableFileError(
            Reason.NOT_FOUND,
            f"{file.name}: a NIfTI header whose voxels, the file of the same name that ends with "
            ".img, are not in the same folder. Copy it there.",
        )
    voxels: Any = SourceFile(*place, file.kind).open()
    packed = is_gzip(voxels.read(2))
    voxels.seek(0)
    return cast(BinaryIO, _Joined(head, gzip.GzipFile(fileobj=voxels) if packed else voxels))


class _Joined(io.RawIOBase):
    """Header and voxels of a pair as one file: the magic and the place of the voxels are changed.

    Args:
        head: Begins with the header; what follows is left out.
        voxels: The other file.
    """

    def __init__(self, head: bytes, voxels: BinaryIO | gzip.GzipFile) -> None:
        is_version_2 = head[4:7] == b"ni2"
        length = HEADER_BYTES if is_version_2 else _VERSION_1_BYTES
        kind: Any = nib.Nifti2Header if is_version_2 else nib.Nifti1Header
        header = kind(head[:length], check=False)
        self._before = int(header["vox_offset"])
        header["magic"] = b"n+2" if is_version_2 else b"n+1"
        header["vox_offset"] = length + len(_NO_EXTENSIONS)
        self._head = header.binaryblock + _NO_EXTENSIONS
        self._voxels = voxels
        self._place = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, reckoned from the beginning or from here."""
        self._place = offset + (self._place if whence == io.SEEK_CUR else 0)
        return self._place

    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes, fewer at the end."""
        stop = len(self._head) if size < 0 else self._place + size
        found = self._head[self._place : stop]
        self._place += len(found)
        if size < 0 or len(found) < size:
            self._voxels.seek(self._before + self._place - len(self._head))
            more = self._voxels.read(-1 if size < 0 else size - len(found))
            self._place += len(more)
            found += more
        return found

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; return how many bytes it got."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Close the file of voxels."""
        if not self.closed:
            self._voxels.close()
        super().close()
