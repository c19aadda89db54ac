"""Finding image files in folders and zip archives, and telling what they are.

Nothing is unpacked to disk, and no pixel is decoded here.
"""

import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from vismae.core.errors import UnreadableFileError
from vismae.files.archive import no_access, open_archive, read_member
from vismae.files.found import FoundFile, found_member, unopened, with_pixels
from vismae.files.nifti_pair import header_beside, is_header_name
from vismae.files.packed_dicom import PACKED_HEAD_BYTES, head_of_packed, is_packed, unpacked
from vismae.files.reasons import Reason
from vismae.files.signatures import (
    DETACHED_PIXEL_SUFFIXES,
    HEAD_BYTES,
    Kind,
    content_of,
    is_nifti_pair_header,
    packing,
)

logger = logging.getLogger(__name__)

_WHOLE_BYTES = 2**26
_LARGE_READ_BYTES = 2**16

_COMPANION_SUFFIXES = {
    *(".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".rst", ".xml", ".yaml", ".yml"),
    *(".html", ".pdf", ".log", ".bval", ".bvec", ".parquet", ".xlsx", ".py", ".sh", ".ini"),
}
_COMPANION_NAMES = {
    *("dicomdir", "readme", "license", "licence", "changes", "citation", "version"),
    *("thumbs.db", "desktop.ini"),
}
_COMPANION_FOLDER = "__macosx"


@dataclass(frozen=True)
class SourceFile:
    """An image file on disk, or inside a zip archive.

    Attributes:
        path: The file, or the archive that holds it.
        member: Name inside the archive, or None for a plain file.
        kind: Which reader takes it.
    """

    path: Path
    member: str | None
    kind: Kind

    @property
    def name(self) -> str:
        """``folder/a.png``, or ``folder/archive.zip!images/a.png`` for an archive member."""
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    def open(self) -> BinaryIO:
        """Open for reading bytes; the stream can be repositioned. Packed DICOM is unpacked.

        Raises:
            UnreadableFileError: The file is gone, locked, or the archive is damaged.
        """
        stream = self._open_as_stored()
        if self.kind == "dicom":
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
            if is_packed(head):
                with stream:
                    return io.BytesIO(unpacked(stream, self.name))
        return stream

    def _open_as_stored(self) -> BinaryIO:
        if self.member is not None:
            return io.BytesIO(read_member(self.path, self.member, -1))
        try:
            if self.path.stat().st_size <= _WHOLE_BYTES:
                # Readers take headers in many small pieces, which is faster from memory.
                return io.BytesIO(self.path.read_bytes())
            return _ClippedReader(self.path)
        except OSError as error:
            raise no_access(self.name, error) from error

    def head(self, count: int) -> bytes:
        """Return the first ``count`` bytes, fewer if the file is shorter.

        Raises:
            UnreadableFileError: As for ``open``.
        """
        head = _stored_head(self.path, self.member, max(count, HEAD_BYTES))
        if self.kind == "dicom" and is_packed(head):
            with self._open_as_stored() as stream:
                return unpacked(stream, self.name, count)
        return head[:count]

    def read_bytes(self) -> bytes:
        """Return the whole file.

        Raises:
            UnreadableFileError: As for ``open``.
        """
        with self.open() as stream:
            return stream.read()


class _ClippedReader(io.BufferedReader):
    """A file that is never asked for more bytes than it has.

    Python takes memory for all bytes that are asked for, and damaged headers promise gigabytes.
    """

    def __init__(self, path: Path) -> None:
        raw = io.FileIO(path, "rb")
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGE_READ_BYTES:
            size = max(0, min(size, self._size - self.tell()))
        return super().read(size)


@dataclass(frozen=True)
class RejectedFile:
    """A file that no reader takes; the caller records it and goes on.

    Attributes:
        path: Name as ``SourceFile.name`` gives it.
        reason: Why, as a code.
        message: Why, as a sentence.
    """

    path: str
    reason: Reason
    message: str


@dataclass(frozen=True)
class Group:
    """Files that are read together: a DICOM series, or one file of any kind."""

    kind: Kind
    files: tuple[SourceFile, ...]


def discover(
    source: Path, apart: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[SourceFile | RejectedFile]:
    """Yield every image in a folder (with its subfolders), a zip archive or a single file.

    The order is that of the sorted names. Zip archives found in a folder are entered; archives
    inside archives are not. Hidden files and companions (tables, texts, ``DICOMDIR``, ``README``)
    are passed over in silence; anything else that is no image is yielded as rejected.

    Args:
        source: Folder, archive or file.
        apart: As for ``walk``.

    Raises:
        UnreadableFileError: ``source`` does not exist; raised when the first item is asked for.
    """
    for found in walk(source, apart):
        if isinstance(found, RejectedFile):
            yield found
            continue
        identified = identify(found.path)
        if identified != "archive":
            yield identified
            continue
        for member in archive_members(found.path):
            inside = member if isinstance(member, RejectedFile) else identify(*member.place)
            if inside != "archive":
                yield inside


def inode(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which tell a file or folder by any path; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def walk(
    source: Path, apart: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[FoundFile | RejectedFile]:
    """Yield the files of a folder and its subfolders in sorted order, or the one file named.

    No file is opened but headers whose pixels lie in a second file, which stand for both.
    Hidden files and companions are passed over.

    Args:
        source: Folder or file.
        apart: Folders and files to pass over, by ``inode``, whatever path leads there.

    Raises:
        UnreadableFileError: ``source`` does not exist; raised when the first item is asked for.
    """
    if not source.exists():
        raise UnreadableFileError(
            Reason.NOT_FOUND, f"{source}: no such file or folder. Check the spelling of the path."
        )
    for path in _walk(source, apart) if source.is_dir() else [source]:
        if isinstance(path, RejectedFile):
            yield path
            continue
        try:
            status = path.stat()
        except OSError as error:
            yield _no_access_to(str(path), error)
            continue
        if (status.st_dev, status.st_ino) not in apart:
            yield with_pixels(FoundFile(path, None, status.st_size, status.st_mtime_ns))


def find_file(path: Path, member: str | None = None) -> FoundFile:
    """Return one named file or archive member; nothing but headers is opened, as in ``walk``.

    Raises:
        UnreadableFileError: It does not exist, or its archive is damaged.
    """
    return with_pixels(unopened(path, member))


def archive_members(path: Path) -> Iterator[FoundFile | RejectedFile]:
    """Yield the files in a zip archive in sorted order, companions passed over.

    Of several files of one name the last is the one that counts, as for programs that unpack.
    """
    try:
        members = [info for info in open_archive(path).infolist() if not info.is_dir()]
    except OSError as error:
        yield _no_access_to(str(path), error)
        return
    except UnreadableFileError as error:
        yield RejectedFile(str(path), Reason(error.reason), str(error))
        return
    by_name = {info.filename: info for info in members}
    if len(by_name) < len(members):
        # Without the archive's name, which may be a patient's.
        logger.warning(
            "a zip archive holds several files of one name: the last of each is read, %d are not",
            len(members) - len(by_name),
        )
    for filename, info in sorted(by_name.items()):
        *folders, name = filename.split("/")
        if _is_companion(name) or any(map(_is_companion_folder, folders)):
            continue
        if header_beside(path, filename) is None:
            yield with_pixels(found_member(path, info))


def identify(
    path: Path, member: str | None = None
) -> SourceFile | RejectedFile | Literal["archive"]:
    """Say what a file is from its first bytes; ``archive`` for a zip archive on disk."""
    name = str(path) if member is None else f"{path}!{member}"
    try:
        head = _stored_head(path, member)
    except UnreadableFileError as error:
        return RejectedFile(name, Reason(error.reason), str(error))
    if member is None and content_of(head, path.name) == "zip":
        return "archive"
    return _classify(path, member, head)


def source_file(path: Path, member: str | None = None) -> SourceFile:
    """Return one named file, such as a manifest's, with the reader that takes it.

    Raises:
        UnreadableFileError: It does not exist or is no image.
    """
    head = _stored_head(path, member)
    found = _classify(path, member, head)
    if isinstance(found, RejectedFile):
        raise UnreadableFileError(found.reason, found.message)
    return found


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path | RejectedFile]:
    """Yield files in sorted order, following links but never into a folder above (a loop).

    Folders to pass over are handed in as if they were above.
    """
    try:
        status = folder.stat()
        paths = sorted(folder.iterdir())
    except OSError as error:
        yield _no_access_to(str(folder), error)
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for path in paths:
        if path.is_dir():
            if not _is_companion_folder(path.name):
                yield from _walk(path, above | {identity})
        elif _is_companion(path.name) or header_beside(path, None) is not None:
            continue
        elif path.is_file() or path.is_symlink():  # a broken link is reported, a pipe is not read
            yield path


def _is_companion(name: str) -> bool:
    lower = name.lower()
    return (
        name.startswith(".")
        or lower in _COMPANION_NAMES
        or Path(lower).suffix in _COMPANION_SUFFIXES
        or lower.endswith(DETACHED_PIXEL_SUFFIXES)
    )


def _is_companion_folder(name: str) -> bool:
    hidden = name.startswith(".") and name not in (".", "..")
    return hidden or name.lower() == _COMPANION_FOLDER


def _classify(path: Path, member: str | None, head: bytes) -> SourceFile | RejectedFile:
    name = str(path) if member is None else f"{path}!{member}"
    content = content_of(head, member or path.name)
    if content is None and _is_packed_dicom(path, member, head):
        return SourceFile(path, member, "dicom")
    if not head:
        return RejectedFile(name, Reason.EMPTY, f"{name}: the file is empty. Copy it again.")
    if not any(head):
        # To a DICOM reader every eight zeros are an element: it would be at it for minutes.
        return RejectedFile(
            name, Reason.UNDECODABLE, f"{name}: begins with nothing but zeros. Copy it again."
        )
    if content == "zip":
        return RejectedFile(
            name,
            Reason.NESTED_ARCHIVE,
            f"{name}: an archive where an image was expected. Archives inside archives are not "
            f"entered; unpack it first.",
        )
    if (header := header_beside(path, member)) is not None:
        return RejectedFile(
            name,
            Reason.UNKNOWN_FORMAT,
            f"{name}: the voxels of {header[1] or header[0]}, which is read with them. Name that "
            "file instead.",
        )
    if content is None and (how := packing(head)) is not None:
        return RejectedFile(
            name,
            Reason.UNKNOWN_FORMAT,
            f"{name}: packed with {how}. Of archives only zip is entered, of packed files only "
            "NIfTI and DICOM are read; unpack it first.",
        )
    misnamed = is_nifti_pair_header(head) and not is_header_name(member or path.name)
    if content is None or (content == "nifti" and misnamed):
        pair = "" if content is None else " (the header of a NIfTI pair, which must end with .hdr)"
        return RejectedFile(
            name,
            Reason.UNKNOWN_FORMAT,
            f"{name}: not a known image format{pair}. DICOM, NIfTI (.nii, .nii.gz, .hdr with "
            f".img), PNG, JPEG, TIFF and BMP are read; convert it to one of these or leave it out.",
        )
    return SourceFile(path, member, content)


def _is_packed_dicom(path: Path, member: str | None, head: bytes) -> bool:
    if not is_packed(head):
        return False
    start = head_of_packed(head, HEAD_BYTES)
    if not start:  # a block of bzip2 is unpacked as a whole
        packed = _stored_head(path, member, PACKED_HEAD_BYTES)
        start = head_of_packed(packed, HEAD_BYTES)
    # As of any damaged file the suffix counts where the content says nothing.
    return content_of(start, Path(member or path.name).stem if not start else "") == "dicom"


def _stored_head(path: Path, member: str | None, count: int = HEAD_BYTES) -> bytes:
    return _head(path, count) if member is None else read_member(path, member, count)


def _head(path: Path, count: int = HEAD_BYTES) -> bytes:
    try:
        with path.open("rb", buffering=0) as stream:
            return stream.read(count)
    except OSError as error:
        raise no_access(str(path), error) from error


def _no_access_to(name: str, error: OSError) -> RejectedFile:
    found = no_access(name, error)
    return RejectedFile(name, Reason(found.reason), str(found))
