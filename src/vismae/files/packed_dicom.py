"""DICOM files that were packed one by one with gzip or bzip2 (``.dcm.gz``, ``.dcm.bz2``).

They are unpacked in memory, as members of zip archives are, and never beyond a limit: what a
stream unfolds to is not known before.
"""

import bz2
import gzip
import io
import zlib
from typing import BinaryIO

from vismae.core.errors import UnreadableFileError
from vismae.files.archive import MAX_MEMBER_BYTES
from vismae.files.reasons import Reason
from vismae.files.signatures import is_bzip2, is_gzip

# Of these bytes of a bzip2 stream a whole block can be unpacked: it holds 900,000 bytes at most,
# which bytes without any order make 1 % longer.
PACKED_HEAD_BYTES = 2**20

_PIECE_BYTES = 2**20


def is_packed(head: bytes) -> bool:
    """Tell whether the bytes begin a packed file, and not one that merely has such a preamble."""
    return (is_gzip(head) or is_bzip2(head)) and head[128:132] != b"DICM"


def head_of_packed(packed: bytes, count: int) -> bytes:
    """Return the first ``count`` bytes that the beginning of a packed file unfolds to.

    Fewer where it is damaged, or where ``packed`` is too short to tell.
    """
    try:
        if is_gzip(packed):
            return zlib.decompressobj(wbits=31).decompress(packed, count)
        return bz2.BZ2Decompressor().decompress(packed, count)
    except (zlib.error, OSError):
        return b""


def unpacked(packed: BinaryIO, name: str, count: int = -1) -> bytes:
    """Return the first ``count`` bytes that a packed file unfolds to, all if negative.

    Raises:
        UnreadableFileError: ``truncated``, ``unreadable`` if it is damaged, or ``too-large``.
    """
    head = packed.read(3)
    packed.seek(0)
    wanted = MAX_MEMBER_BYTES + 1 if count < 0 else count
    opened = gzip.GzipFile(fileobj=packed) if is_gzip(head) else bz2.BZ2File(packed)
    held = io.BytesIO()
    try:
        # Piece by piece: a stream is asked for no more memory than it has content.
        while wanted > 0 and (piece := opened.read(min(wanted, _PIECE_BYTES))):
            held.write(piece)
            wanted -= len(piece)
    except EOFError as error:
        raise UnreadableFileError(
            Reason.TRUNCATED, f"{name}: the packed file has no end. Copy it again."
        ) from error
    except (OSError, zlib.error) as error:
        raise UnreadableFileError(
            Reason.UNREADABLE, f"{name}: cannot be unpacked ({error}). Copy the file again."
        ) from error
    if count < 0 and wanted <= 0:
        raise UnreadableFileError(
            Reason.TOO_LARGE,
            f"{name}: unfolds to more than {MAX_MEMBER_BYTES} bytes, which are the most that are "
            "read of a packed file. Unpack it first.",
        )
    return held.getvalue()
