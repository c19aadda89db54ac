"""The text headers of MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr) files.

The library reads the geometry; here is what decides whether it may: which format it is, where the
pixels lie, and whether directions are given at all. A segmentation of 3D Slicer (``.seg.nrrd``)
names its segments in ``Segment0_Name``, ``Segment0_LabelValue``, ``Segment0_Layer`` and so on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality
from vismae.files.reasons import Reason
from vismae.files.signatures import is_metaimage, is_nrrd

HEADER_BYTES = 1 << 18
"""Longer headers are refused; lists of gradient directions are the longest in use."""

_SERIES_KINDS = {"list", "time"}
_DIRECTION_KEYS = {"transformmatrix", "rotation", "orientation", "space", "space dimension"}


_MOST_SEGMENTS = 4096


@dataclass(frozen=True)
class Segment:
    """A structure that the header names.

    Attributes:
        name: As typed by hand.
        value: Its number in the voxels.
        layer: In which of the volumes; segments that overlap lie in several.
    """

    name: str
    value: int
    layer: int


@dataclass(frozen=True)
class ItkHeader:
    """What the header says.

    Attributes:
        reader: ITK's name for the reader of this format.
        pixel_file: Name of the file beside it that holds the pixels; None if it holds them itself.
        orientation_known: Whether directions in the patient are given.
        modality: ``other`` if not given.
        components_are_volumes: Whether the values of a pixel are a run of volumes (NRRD kind
            ``list`` or ``time``), and not one colour or vector.
        segments: Structures in the order of their numbers; none where it is no segmentation.
    """

    reader: str
    pixel_file: str | None
    orientation_known: bool
    modality: Modality
    components_are_volumes: bool
    segments: tuple[Segment, ...] = ()


def parse_itk_header(head: bytes, name: str) -> ItkHeader:
    """Read the first ``HEADER_BYTES`` of a file.

    Raises:
        UnreadableFileError: ``undecodable`` if it is neither format, ends without saying where
            the pixels are, or names anything but one file in the same folder (a header must not
            lead the reader to other places).
    """
    if not (is_nrrd(head) or is_metaimage(head)):
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: neither a MetaImage nor an NRRD header. Copy the file again.",
        )
    fields = _nrrd_fields(head) if is_nrrd(head) else _metaimage_fields(head)
    if fields is None:
        raise UnreadableFileError(
            Reason.TRUNCATED, f"{name}: the header has no end. Copy the file again."
        )
    pixel_file = fields.get("elementdatafile") or fields.get("data file") or fields.get("datafile")
    if pixel_file is not None:  # "./scan.raw", as teem writes it, is in the same folder
        pixel_file = None if pixel_file.upper() == "LOCAL" else pixel_file.removeprefix("./")
    if pixel_file is not None and not _is_plain_name(pixel_file):
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: the header says that the pixels are in '{pixel_file}'. Only one file in the "
            f"same folder is read; save the image as one .mha or .nrrd file.",
        )
    word = fields.get("modality", "").removeprefix("MET_MOD_")
    return ItkHeader(
        "NrrdImageIO" if is_nrrd(head) else "MetaImageIO",
        pixel_file,
        not _DIRECTION_KEYS.isdisjoint(fields),
        Modality.parse(word),
        fields.get("kinds", "").partition(" ")[0] in _SERIES_KINDS,
        tuple(_segments(fields, name)),
    )


def _segments(fields: dict[str, str], name: str) -> Iterator[Segment]:
    keys = (re.fullmatch(r"segment(\d{1,6})_labelvalue", key) for key in fields)
    numbers = sorted(int(key[1]) for key in keys if key)
    if len(numbers) > _MOST_SEGMENTS:
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{name}: {len(numbers)} segments, at most {_MOST_SEGMENTS} are read. Divide it.",
        )
    for number in numbers:
        value = fields[f"segment{number}_labelvalue"]
        layer = fields.get(f"segment{number}_layer", "0")
        if not (value.isdecimal() and layer.isdecimal()):
            raise UnreadableFileError(
                Reason.LABEL_FORMAT,
                f"{name}: segment {number} has the value '{value}' in the layer '{layer}'. Whole "
                "numbers are expected; save the segmentation again.",
            )
        yield Segment(fields.get(f"segment{number}_name", ""), int(value), int(layer))


def _metaimage_fields(head: bytes) -> dict[str, str] | None:
    """Return lower-case key -> value up to ``ElementDataFile``, which is last."""
    fields: dict[str, str] = {}
    for line in head.split(b"\n"):
        key, equals, value = line.decode("latin-1").partition("=")
        if not equals:
            continue
        fields[key.strip().lower()] = value.strip()
        if "elementdatafile" in fields:
            return fields
    return None


def _nrrd_fields(head: bytes) -> dict[str, str] | None:
    """Return lower-case key -> value up to the empty line, or to the end of a detached header."""
    fields: dict[str, str] = {}
    for line in head.split(b"\n"):
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return fields
        if text.startswith("#"):
            continue
        key, colon, value = text.partition(":")
        if colon:
            fields[key.strip().lower()] = value.removeprefix("=").strip()
    detached = "data file" in fields or "datafile" in fields
    return fields if detached and len(head) < HEADER_BYTES else None


def _is_plain_name(text: str) -> bool:
    several = text.upper().startswith("LIST") or "%" in text
    return not several and text not in (".", "..") and not set(text) & set("/\\:\0")
