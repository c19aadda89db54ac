"""NIfTI pairs: the header ``scan.hdr`` and the voxels ``scan.img`` beside it are one image.

The header stands for both. Either may be compressed by gzip. The header's magic is ``ni1`` or
``ni2`` (https://nifti.nimh.nih.gov); files of Analyze 7.5 and ENVI, which bear the same names, have
none.
"""

import zlib
from pathlib import Path, PurePosixPath

from vismae.core.errors import UnreadableFileError
from vismae.files.archive import open_archive, read_member
from vismae.files.signatures import is_gzip, is_nifti_pair_header

HEADER_BYTES = 540
"""Of NIfTI-2; those of version 1 are shorter."""

_HEADERS, _VOXELS = (".hdr", ".hdr.gz"), (".img", ".img.gz")


def is_header_name(name: str) -> bool:
    """Tell whether a file is named as the header of a pair."""
    return name.lower().endswith(_HEADERS)


def voxels_beside(path: Path, member: str | None) -> tuple[Path, str | None] | None:
    """Return the file of voxels that belongs to a header; None if it is not there."""
    return _beside(path, member, _HEADERS, _VOXELS)


def header_beside(path: Path, member: str | None) -> tuple[Path, str | None] | None:
    """Return the NIfTI header of which a file holds the voxels; None for any other file.

    The header is opened, since other formats have files of these names too.
    """
    found = _beside(path, member, _VOXELS, _HEADERS)
    if found is None:
        return None
    try:
        head = first_bytes(*found)
    except (OSError, UnreadableFileError):
        return None
    return found if is_nifti_pair_header(unpacked(head)) else None


def first_bytes(path: Path, member: str | None) -> bytes:
    """Return as many bytes as a header has.

    Raises:
        OSError: The file cannot be read.
        UnreadableFileError: The archive member cannot be read.
    """
    if member is not None:
        return read_member(path, member, HEADER_BYTES)
    with path.open("rb", buffering=0) as stream:
        return stream.read(HEADER_BYTES)


def unpacked(head: bytes) -> bytes:
    """Return the first bytes of a file as they are without gzip, at most a header of them."""
    if not is_gzip(head):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEADER_BYTES)
    except zlib.error:
        return b""


def _beside(
    path: Path, member: str | None, own: tuple[str, ...], other: tuple[str, ...]
) -> tuple[Path, str | None] | None:
    name = path.name if member is None else PurePosixPath(member).name
    suffix = next((end for end in reversed(own) if name.lower().endswith(end)), None)
    if suffix is None:
        return None
    stem, written = name[: -len(suffix)], name[-len(suffix) :]
    alike = [end.upper() if written[1:].isupper() else end for end in other]
    for end in dict.fromkeys([*alike, *other, *map(str.upper, other)]):
        twin = stem + end
        if member is None:
            if path.with_name(twin).is_file():
                return path.with_name(twin), None
            continue
        inside = str(PurePosixPath(member).with_name(twin))
        if inside in open_archive(path).NameToInfo:
            return path, inside
    return None
