"""Finding image files in folders and zip archives, and grouping DICOM files into series.

Nothing is unpacked to disk, no pixel is decoded here, and only paths and identifiers are kept.
"""

import io
import logging
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.errors import InvalidDicomError

from vismae.core.errors import UnreadableFileError
from vismae.files.reasons import Reason
from vismae.files.signatures import HEAD_BYTES, Kind, content_of, is_nifti_pair_header

logger = logging.getLogger(__name__)

MAX_MEMBER_BYTES = 4 * 1024**3
"""Largest archive member that is read; its unpacked bytes are held in memory."""

_COMPANION_SUFFIXES = {
    *(".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".rst", ".xml", ".yaml", ".yml"),
    *(".html", ".pdf", ".log", ".bval", ".bvec", ".parquet", ".xlsx", ".py", ".sh", ".ini"),
}
_COMPANION_NAMES = {
    *("dicomdir", "readme", "license", "licence", "changes", "citation", "version"),
    *("thumbs.db", "desktop.ini", "__macosx"),
}


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
        """Open for reading bytes; the stream can be repositioned.

        Raises:
            UnreadableFileError: The file is gone, locked, or the archive is damaged.
        """
        if self.member is not None:
            return io.BytesIO(_read_member(self.path, self.member, -1))
        try:
            return self.path.open("rb")
        except OSError as error:
            raise _no_access(self.name, error) from error

    def read_bytes(self) -> bytes:
        """Return the whole file.

        Raises:
            UnreadableFileError: As for ``open``.
        """
        with self.open() as stream:
            return stream.read()


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


def discover(source: Path) -> Iterator[SourceFile | RejectedFile]:
    """Yield every image in a folder (with its subfolders), a zip archive or a single file.

    The order is that of the sorted names. Zip archives found in a folder are entered; archives
    inside archives are not. Hidden files and companions (tables, texts, ``DICOMDIR``, ``README``)
    are passed over in silence; anything else that is no image is yielded as rejected.

    Raises:
        UnreadableFileError: ``source`` does not exist; raised when the first item is asked for.
    """
    if not source.exists():
        raise UnreadableFileError(
            Reason.NOT_FOUND, f"{source}: no such file or folder. Check the spelling of the path."
        )
    if source.is_dir():
        for path in _walk(source, frozenset()):
            yield from [path] if isinstance(path, RejectedFile) else _inspect(path)
    else:
        yield from _inspect(source)


def source_file(path: Path, member: str | None = None) -> SourceFile:
    """Return one named file, such as a manifest's, with the reader that takes it.

    Raises:
        UnreadableFileError: It does not exist or is no image.
    """
    head = _head(path) if member is None else _read_member(path, member, HEAD_BYTES)
    found = _classify(path, member, head)
    if isinstance(found, RejectedFile):
        raise UnreadableFileError(found.reason, found.message)
    return found


def group_series(files: Iterable[SourceFile]) -> Iterator[Group]:
    """Put the single-frame DICOM files of one series into one group; all others stand alone.

    Files that are no DICOM, and multi-frame DICOM files, come first in the order given; then the
    series, each in the order of its first file. Only identifiers are read from the headers. The
    patient is part of the key, since anonymisers are known to give one series UID to many.
    """
    series: dict[tuple[str, str], list[SourceFile]] = {}
    for file in files:
        key = _series_key(file) if file.kind == "dicom" else None
        if key is None:
            yield Group(file.kind, (file,))
        else:
            series.setdefault(key, []).append(file)
    while series:
        yield Group("dicom", tuple(series.pop(next(iter(series)))))


def _series_key(file: SourceFile) -> tuple[str, str] | None:
    tags = ["SeriesInstanceUID", "PatientID", "NumberOfFrames"]
    try:
        with file.open() as stream:
            header = pydicom.dcmread(
                stream, force=True, stop_before_pixels=True, specific_tags=list(tags)
            )
        uid = str(header.get("SeriesInstanceUID") or "")
        frames = int(header.get("NumberOfFrames") or 1)
        patient = str(header.get("PatientID") or "")
    except (UnreadableFileError, InvalidDicomError, OSError, EOFError, *_HEADER_ERRORS) as error:
        # The reader will meet the same damage and say so; here it only means "stands alone".
        logger.debug("%s: header not read for grouping: %s", file.name, error)
        return None
    return (patient, uid) if uid and frames == 1 else None


# What pydicom raises on damaged headers besides its own error and end of file.
_HEADER_ERRORS = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path | RejectedFile]:
    """Yield files in sorted order, following links but never into a folder above (a loop)."""
    try:
        status = folder.stat()
        paths = sorted(folder.iterdir())
    except OSError as error:
        yield RejectedFile(str(folder), Reason.UNREADABLE, str(_no_access(str(folder), error)))
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for path in paths:
        if _is_companion(path.name):
            continue
        if path.is_dir():
            yield from _walk(path, above | {identity})
        elif path.is_file() or path.is_symlink():  # a broken link is reported, a pipe is not read
            yield path


def _is_companion(name: str) -> bool:
    lower = name.lower()
    return (
        name.startswith(".")
        or lower in _COMPANION_NAMES
        or Path(lower).suffix in _COMPANION_SUFFIXES
    )


def _inspect(path: Path) -> Iterator[SourceFile | RejectedFile]:
    try:
        head = _head(path)
    except UnreadableFileError as error:
        yield RejectedFile(str(path), Reason(error.reason), str(error))
        return
    if content_of(head, path.name) == "zip":
        yield from _inspect_archive(path)
    else:
        yield _classify(path, None, head)


def _inspect_archive(path: Path) -> Iterator[SourceFile | RejectedFile]:
    try:
        members = sorted(_archive(path).infolist(), key=lambda info: info.filename)
    except UnreadableFileError as error:
        yield RejectedFile(str(path), Reason(error.reason), str(error))
        return
    for info in members:
        if info.is_dir() or any(_is_companion(part) for part in info.filename.split("/")):
            continue
        try:
            yield _classify(path, info.filename, _read_member(path, info.filename, HEAD_BYTES))
        except UnreadableFileError as error:
            yield RejectedFile(f"{path}!{info.filename}", Reason(error.reason), str(error))


def _classify(path: Path, member: str | None, head: bytes) -> SourceFile | RejectedFile:
    name = str(path) if member is None else f"{path}!{member}"
    content = content_of(head, member or path.name)
    if not head:
        return RejectedFile(name, Reason.EMPTY, f"{name}: the file is empty. Copy it again.")
    if content == "zip":
        return RejectedFile(
            name,
            Reason.NESTED_ARCHIVE,
            f"{name}: an archive where an image was expected. Archives inside archives are not "
            f"entered; unpack it first.",
        )
    if content is None or (content == "nifti" and is_nifti_pair_header(head)):
        pair = "" if content is None else " (a NIfTI header without its .img pixels)"
        return RejectedFile(
            name,
            Reason.UNKNOWN_FORMAT,
            f"{name}: not a known image format{pair}. DICOM, NIfTI (.nii, .nii.gz), PNG, JPEG, "
            f"TIFF and BMP are read; convert it to one of these or leave it out.",
        )
    return SourceFile(path, member, content)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError as error:
        raise _no_access(str(path), error) from error


def _no_access(name: str, error: OSError) -> UnreadableFileError:
    if isinstance(error, FileNotFoundError):
        return UnreadableFileError(
            Reason.NOT_FOUND, f"{name}: no such file. Check the path, or the link if it is one."
        )
    return UnreadableFileError(
        Reason.UNREADABLE, f"{name}: cannot be opened ({error.strerror}). Check its permissions."
    )


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        status = path.stat()
        return _open_archive(path, status.st_mtime_ns, status.st_size, os.getpid())
    except OSError as error:
        raise _no_access(str(path), error) from error
    except zipfile.BadZipFile as error:
        raise UnreadableFileError(
            Reason.UNREADABLE, f"{path}: damaged zip archive ({error}). Copy it again."
        ) from error


@lru_cache(maxsize=4)
def _open_archive(path: Path, changed_ns: int, size: int, process: int) -> zipfile.ZipFile:
    # Kept open because listing an archive of 8,000 members for each member is quadratic. A changed
    # file gets a new entry; so does a forked process, which would share the position in the file.
    return zipfile.ZipFile(path)


_INFLATE_ERRORS = (zlib.error, lzma.LZMAError)


def _read_member(path: Path, member: str, count: int) -> bytes:
    """Return the first ``count`` bytes of an archive member, all if negative."""
    name = f"{path}!{member}"
    archive = _archive(path)
    try:
        info = archive.getinfo(member)
        if info.flag_bits & 1:
            raise UnreadableFileError(
                Reason.ENCRYPTED, f"{name}: protected by a password. Unpack the archive first."
            )
        if info.file_size > MAX_MEMBER_BYTES:
            raise UnreadableFileError(
                Reason.TOO_LARGE,
                f"{name}: {info.file_size} bytes unpacked, at most {MAX_MEMBER_BYTES} are read "
                f"from an archive. Unpack the archive first.",
            )
        with archive.open(info) as stream:
            return stream.read(count)
    except KeyError as error:
        raise UnreadableFileError(
            Reason.NOT_FOUND, f"{name}: the archive has no such member. Check the name."
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, *_INFLATE_ERRORS) as error:
        raise UnreadableFileError(
            Reason.UNREADABLE, f"{name}: cannot be unpacked ({error}). Copy the archive again."
        ) from error
