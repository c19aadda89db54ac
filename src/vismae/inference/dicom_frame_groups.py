"""What a multi-frame object says of its frames, encoded for writing.

pydicom encodes element by element, eighteen for each structure on each slice of a segmentation,
although frames of one slice and frames of one structure say most of it alike. Standard: PS3.5
section 7.5 (sequences of items).
"""

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element
from pydicom.tag import ItemTag, Tag

_FRAMES = Tag("PerFrameFunctionalGroupsSequence")


def encode_frame_groups(made: Dataset) -> None:
    """Replace the groups of all frames by their encoded form, explicit VR little endian.

    Written as such, the file is the same to the byte; to be called last before that.

    Args:
        made: A multi-frame object with PerFrameFunctionalGroupsSequence; changed.

    Raises:
        KeyError: It has no such sequence.
    """
    correct_ambiguous_vr(made, True)
    told = made.get("SpecificCharacterSet")
    characters = convert_encodings(told) if told else default_encoding
    known: dict[object, bytes] = {}
    whole = _buffer()
    for frame in made[_FRAMES].value:
        parts = []
        for element in frame:
            content = _content(element)
            if content not in known:
                known[content] = _encoded(element, characters)
            parts.append(known[content])
        whole.write_tag(ItemTag)
        whole.write_UL(sum(map(len, parts)))
        whole.write(b"".join(parts))
    value = whole.getvalue()
    made[_FRAMES] = RawDataElement(_FRAMES, "SQ", len(value), value, 0, False, True)
    # Otherwise it would be decoded again before it is written.
    made.set_original_encoding(False, True, characters)


def _content(element: DataElement) -> object:
    """Return what decides how an element is encoded, to be compared."""
    if element.VR == "SQ":
        items = (tuple(map(_content, item.values())) for item in element.value)
        return element.tag, tuple(items)
    return element.tag, element.VR, str(element.value)


def _encoded(element: DataElement, characters: str | list[str]) -> bytes:
    buffer = _buffer()
    write_data_element(buffer, element, characters)
    return buffer.getvalue()


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    return buffer
