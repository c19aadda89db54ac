"""PNG files without the texts in them.

Viewers and microscopes write whole protocols, and some of them the whole DICOM header, beside the
pixels. Pillow unfolds all of it and refuses the image where it is more than a mebibyte, or 64
together. Standard: ISO 15948 (PNG) sections 5.3 and 11.3.3.
"""

import io
import struct
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Texts, and the colour profile: pixels are taken as they are numbered.
_TEXTS = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}
_AROUND = 12  # bytes of length, kind and checksum


def is_png(head: bytes) -> bool:
    """Tell whether the bytes begin a PNG file."""
    return head.startswith(_SIGNATURE)


def without_texts(stream: BinaryIO) -> BinaryIO:
    """Return a PNG file without texts and colour profile, the same stream where it has none.

    What is damaged is left as it is: the decoder says what is wrong with it.
    """
    content = stream.read()
    kept, place = [_SIGNATURE], len(_SIGNATURE)
    while place + _AROUND <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + _AROUND + length
        if kind not in _TEXTS:
            kept.append(content[place:end])
        place = end
    stream.seek(0)
    if sum(map(len, kept)) >= len(content):
        return stream
    stream.close()
    return io.BytesIO(b"".join(kept) + content[place:])
