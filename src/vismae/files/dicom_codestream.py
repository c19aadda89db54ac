"""The shape that a compressed frame gives of itself, read from its first bytes.

A few bytes may unfold to gigabytes, and a header that says otherwise does not stop a decoder; nor
do colours in a frame that its header calls grey, of which the first third was handed on.
Standard: ISO 15444-1 annex A.5.1 (JPEG 2000, SIZ), ISO 10918-1 annex B.2.2 (JPEG, SOF), ISO 14495-1
annex C.2.2 (JPEG-LS, SOF55).
"""

import struct

_JPEG_2000 = b"\xff\x4f\xff\x51"
_JPEG_2000_FILE = b"\x00\x00\x00\x0cjP  "
# Some writers put a whole JP2 file into a frame; its codestream begins behind a few boxes.
_BOXES_BYTES = 1024
_JPEG = b"\xff\xd8"
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}
_START_OF_SCAN = 0xDA


def codestream_shape(frame: bytes) -> tuple[int, int, int] | None:
    """Return height, width and samples of a pixel that a JPEG, JPEG-LS or JPEG 2000 codestream has.

    None where it does not say, is damaged, or is none of these.
    """
    try:
        if frame.startswith((_JPEG_2000, _JPEG_2000_FILE)):
            return _shape_of_jpeg_2000(frame)
        return _shape_of_jpeg(frame) if frame.startswith(_JPEG) else None
    except (struct.error, IndexError):
        return None


def _shape_of_jpeg_2000(frame: bytes) -> tuple[int, int, int] | None:
    start = frame.find(_JPEG_2000, 0, _BOXES_BYTES)
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    (samples,) = struct.unpack_from(">H", frame, start + 40)
    return bottom - top, right - left, samples


def _shape_of_jpeg(frame: bytes) -> tuple[int, int, int] | None:
    place = len(_JPEG)
    while frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _FRAME_HEADERS:
            height, width, samples = struct.unpack_from(">HHB", frame, place + 5)
            return (height, width, samples) if height and width else None
        if marker == _START_OF_SCAN:
            return None
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return None
