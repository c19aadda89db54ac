"""Telling what a file is from its first bytes, and only then from its name.

DICOM: PS3.10 section 7.1 (``DICM`` at byte 128); files written without that preamble are known by
their first element. NIfTI: magic at byte 344 (version 1) or 4 (version 2), also inside gzip.
MetaImage: a text header that begins with one of its first keys. NRRD: ``NRRD000`` and a version.
"""

import re
import struct
import zlib
from typing import Literal

from pydicom.valuerep import VR

Kind = Literal["dicom", "nifti", "raster", "itk"]
Content = Literal["dicom", "nifti", "raster", "itk", "zip"]

HEAD_BYTES = 1024

DETACHED_PIXEL_SUFFIXES = (".raw", ".zraw", ".raw.gz")
"""Files that hold the pixels of a MetaImage or NRRD header beside them, and nothing else."""

_RASTER_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"II*\x00",  # TIFF, little endian
    b"MM\x00*",  # TIFF, big endian
    b"II+\x00",  # BigTIFF
    b"MM\x00+",
)
_PACKED_STARTS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
_NIFTI_BYTES = 348
_TAR_MAGIC, _TAR_PLACE = b"ustar", 257
_SUFFIXES: dict[str, Kind] = {
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".png": "raster",
    ".jpg": "raster",
    ".jpeg": "raster",
    ".tif": "raster",
    ".tiff": "raster",
    ".bmp": "raster",
    ".mha": "itk",
    ".mhd": "itk",
    ".nrrd": "itk",
    ".nhdr": "itk",
}
_VALUE_REPRESENTATIONS = {str(vr).encode() for vr in VR if len(str(vr)) == 2}


def content_of(head: bytes, name: str) -> Content | None:
    """Return what a file is, or None if neither content nor suffix tells.

    A known suffix on unknown content counts, so that a damaged image is reported as a damaged
    image and not as some foreign file.

    Args:
        head: The first ``HEAD_BYTES`` bytes, fewer if the file is shorter.
        name: File name; only its ending matters.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_RASTER_STARTS) or _is_bmp(head):
        return "raster"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if _is_nifti(head):
        return "nifti"
    if is_nrrd(head) or is_metaimage(head):
        return "itk"
    if _is_dicom_without_preamble(head):
        return "dicom"
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), None)


def is_gzip(head: bytes) -> bool:
    """Whether the bytes begin a gzip stream."""
    return head.startswith(b"\x1f\x8b")


def is_bzip2(head: bytes) -> bool:
    """Whether the bytes begin a bzip2 stream."""
    return head.startswith(b"BZh")


def packing(head: bytes) -> str | None:
    """Return the name of what a file is packed with that is not unpacked here, or None.

    Gzip counts only where a tar or an image is in it, since formats of their own use it too.
    """
    if is_gzip(head):
        inside = _unpacked(head, HEAD_BYTES)
        return "gzip" if _is_tar(inside) or content_of(inside, "") is not None else None
    if _is_tar(head):
        return "tar"
    return next((name for start, name in _PACKED_STARTS.items() if head.startswith(start)), None)


def _is_tar(head: bytes) -> bool:
    return head[_TAR_PLACE:].startswith(_TAR_MAGIC)


def _unpacked(head: bytes, count: int) -> bytes:
    """Return the first ``count`` bytes that a gzip stream unfolds to; none where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, count)
    except zlib.error:
        return b""


def is_nifti_pair_header(head: bytes) -> bool:
    """Whether the bytes begin a NIfTI header whose pixels lie in a second file (``.img``)."""
    return head[344:348] == b"ni1\x00" or head[4:8] == b"ni2\x00"


def is_nrrd(head: bytes) -> bool:
    """Whether the bytes begin an NRRD file."""
    return head.startswith(b"NRRD000")


def is_metaimage(head: bytes) -> bool:
    """Whether the bytes begin a MetaImage header."""
    first_keys = rb"(Comment\s*=[^\n]*\n)?(ObjectType\s*=\s*Image|NDims\s*=\s*\d)"
    return re.match(first_keys, head) is not None


def _is_bmp(head: bytes) -> bool:
    # Two letters alone would take any text that starts with "BM": ask for the header size as well.
    return head.startswith(b"BM") and len(head) > 18 and head[14:18] in _BMP_HEADER_SIZES


_BMP_HEADER_SIZES = {struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)}


def _is_nifti(head: bytes) -> bool:
    head = _unpacked(head, _NIFTI_BYTES) if is_gzip(head) else head
    return head[344:348] == b"n+1\x00" or head[4:8] == b"n+2\x00" or is_nifti_pair_header(head)


def _is_dicom_without_preamble(head: bytes) -> bool:
    """Whether the bytes look like a first element of group 2 or 8, in any byte order."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(order + "HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if head[4:6] in _VALUE_REPRESENTATIONS:
            return True
        # Implicit VR: a 4-byte length follows, short and even for every element that comes first.
        length = struct.unpack(order + "I", head[4:8])[0]
        if length <= 512 and length % 2 == 0:
            return True
    return False
