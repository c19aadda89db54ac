"""The first elements of a well-formed DICOM file, read without pydicom.

To plan an ingest, a dozen identifiers of every file are needed, which stand in its first
kilobytes. Anything unusual is left to pydicom: this reader gives up rather than guess. It takes a
tenth of the time. Standard: PS3.5 section 7 (elements), 7.5 (sequences), PS3.10 section 7 (file
meta information).
"""

import struct
from collections.abc import Set

_PREAMBLE_BYTES = 128
_TRANSFER_SYNTAX = 0x00020010
_IMPLICIT = b"1.2.840.10008.1.2"
_EXPLICIT = (b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5")
_NOT_EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1.99"  # deflated
_SHORT = set(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEEPEST = 8


class _UnusualError(Exception):
    """Something that only pydicom can tell."""


def first_elements(head: bytes, wanted: Set[int], last: int) -> dict[int, bytes] | None:
    """Return the bytes of wanted elements, those that are there.

    Args:
        head: The beginning of a file.
        wanted: Tags.
        last: The reading ends with the first element behind this tag.

    Returns:
        None where the head ends too early, is not in little-endian order, or is odd in any way.
    """
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        return None
    try:
        meta, start = _elements(head, _PREAMBLE_BYTES + 4, True, {_TRANSFER_SYNTAX}, 0x0002FFFF)
        syntax = meta.get(_TRANSFER_SYNTAX, b"").rstrip(b"\0 ")
        explicit = syntax.startswith(_EXPLICIT) and syntax != _NOT_EXPLICIT_LITTLE
        if not explicit and syntax != _IMPLICIT:
            return None
        found, _ = _elements(head, start, explicit, wanted, last)
    except (_UnusualError, struct.error):
        return None
    return found


def _elements(
    head: bytes, place: int, explicit: bool, wanted: Set[int], last: int
) -> tuple[dict[int, bytes], int]:
    """Return wanted elements from a place on, and where the first one behind ``last`` begins."""
    found: dict[int, bytes] = {}
    before = -1
    while True:
        if (tag := _tag(head, place)) > last:
            return found, place
        _, length, content = _element(head, place, explicit)
        if tag <= before:
            raise _UnusualError
        before = tag
        if length == _UNDEFINED:
            place = _end_of_sequence(head, content, explicit, 1)
            continue
        place = content + length
        if place > len(head):
            raise _UnusualError
        if tag in wanted:
            found[tag] = head[content:place]


def _tag(head: bytes, place: int) -> int:
    group, element = struct.unpack_from("<HH", head, place)
    return group << 16 | element


def _element(head: bytes, place: int, explicit: bool) -> tuple[int, int, int]:
    """Return tag and length of the element at a place, and where its content begins."""
    tag = _tag(head, place)
    if not explicit or tag >> 16 == 0xFFFE:
        return tag, struct.unpack_from("<I", head, place + 4)[0], place + 8
    vr = head[place + 4 : place + 6]
    if vr in _SHORT:
        return tag, struct.unpack_from("<H", head, place + 6)[0], place + 8
    if vr not in _LONG:
        raise _UnusualError
    return tag, struct.unpack_from("<I", head, place + 8)[0], place + 12


def _end_of_sequence(head: bytes, place: int, explicit: bool, depth: int) -> int:
    """Return where a sequence of undefined length ends whose first item begins at a place."""
    if depth > _DEEPEST:
        raise _UnusualError
    while True:
        tag, length, content = _element(head, place, explicit)
        if tag == _SEQUENCE_END:
            return content
        if tag != _ITEM:
            raise _UnusualError
        place = content + length
        if length == _UNDEFINED:
            place = _end_of_item(head, content, explicit, depth)


def _end_of_item(head: bytes, place: int, explicit: bool, depth: int) -> int:
    while True:
        tag, length, content = _element(head, place, explicit)
        if tag == _ITEM_END:
            return content
        place = content + length
        if length == _UNDEFINED:
            place = _end_of_sequence(head, content, explicit, depth + 1)
