"""Text of DICOM headers in characters that tables, hashes and messages can take."""


def writable(text: str) -> str:
    r"""Return a text with lone surrogates written out, as in ``\udeaa``; all others unchanged.

    Some character sets that a header may name (such as UTF-7) decode to them, and no encoding
    takes them.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
