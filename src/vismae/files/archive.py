"""Zip archives: opened once, read member by member, never unpacked to disk."""

import lzma
import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from vismae.core.errors import UnreadableFileError
from vismae.files.reasons import Reason

MAX_MEMBER_BYTES = 4 * 1024**3
"""Largest archive member that is read; its unpacked bytes are held in memory."""


def require_archive_size(path: Path, most_bytes: int, most_members: int) -> None:
    """Refuse an archive that says it unpacks to more; no member gives more than it says.

    Raises:
        UnreadableFileError: ``too-large``, or the archive is damaged.
    """
    members = open_archive(path).infolist()
    total = sum(info.file_size for info in members)
    if total > most_bytes or len(members) > most_members:
        raise UnreadableFileError(
            Reason.TOO_LARGE,
            f"{path}: {len(members)} files of {total} bytes when unpacked; at most {most_members} "
            f"files of {most_bytes} bytes together are read. Divide the archive.",
        )


def close_archives() -> None:
    """Let go of archives that were read: an open one stays on the disk after its removal."""
    _opened.cache_clear()


def open_archive(path: Path) -> zipfile.ZipFile:
    """Return an open archive, the same one while its file does not change.

    Raises:
        UnreadableFileError: The file is gone, locked or damaged.
    """
    try:
        status = path.stat()
        return _opened(path, status.st_mtime_ns, status.st_size, os.getpid())
    except OSError as error:
        raise no_access(str(path), error) from error
    except zipfile.BadZipFile as error:
        raise UnreadableFileError(
            Reason.UNREADABLE, f"{path}: damaged zip archive ({error}). Copy it again."
        ) from error


@lru_cache(maxsize=4)
def _opened(path: Path, changed_ns: int, size: int, process: int) -> zipfile.ZipFile:
    # Kept open because listing an archive of 8,000 members for each member is quadratic. A changed
    # file gets a new entry; so does a forked process, which would share the position in the file.
    return zipfile.ZipFile(path)


_INFLATE_ERRORS = (zlib.error, lzma.LZMAError)


def read_member(path: Path, member: str, count: int) -> bytes:
    """Return the first ``count`` bytes of an archive member, all if negative.

    Raises:
        UnreadableFileError: The member or the archive is missing, damaged, encrypted or too large.
    """
    name = f"{path}!{member}"
    archive = open_archive(path)
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


def no_access(name: str, error: OSError) -> UnreadableFileError:
    """Return what to say of a file that the system does not open."""
    if isinstance(error, FileNotFoundError):
        return UnreadableFileError(
            Reason.NOT_FOUND, f"{name}: no such file. Check the path, or the link if it is one."
        )
    cure = "its permissions" if isinstance(error, PermissionError) else "the path and the disk"
    return UnreadableFileError(
        Reason.UNREADABLE, f"{name}: cannot be opened ({error.strerror}). Check {cure}."
    )
