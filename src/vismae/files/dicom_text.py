"""Text of DICOM headers in characters that tables, hashes and messages can take."""

from typing import Any

from pydicom.multival import MultiValue


def one_text(value: Any) -> str:
    """Return the value of a text element as it is written in the file; empty for None.

    A backslash divides values by the standard, also in an identifier that was meant to be one.
    """
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return str(value or "")


def writable(text: str) -> str:
    r"""Return a text with lone surrogates written out, as in ``\udeaa``; all others unchanged.

    Some character sets that a header may name (such as UTF-7) decode to them, and no encoding
    takes them.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
