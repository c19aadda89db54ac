"""DICOM files out of a multipart answer (RFC 2046, ``multipart/related``), written as they arrive.

Only a piece of the answer is in memory at any time. Every part goes into a file of mode 600 under
a hidden temporary name; whoever takes it renames it.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from pathlib import Path

from vismae.files.dicomweb_failures import Failure

_MAX_PART_HEADER_BYTES = 64 * 1024

_Write = Callable[[bytes | bytearray], object]


def instance_file_name(sop_uid: str) -> str:
    """Return the file name of an instance: a hash, so that a path tells nothing of the image.

    It also makes any text that a server may send a safe name.
    """
    return f"{hashlib.sha256(sop_uid.encode()).hexdigest()[:40]}.dcm"


def save_parts(content_type: str, chunks: Iterable[bytes], folder: Path) -> Iterator[Path]:
    """Yield one temporary file per DICOM object of an answer, each when it is whole.

    A file that was not renamed when the next one is asked for is removed.

    Args:
        content_type: Header of the answer. ``multipart/related`` is what the standard asks for;
            some servers send a single object bare, as ``application/dicom``.
        chunks: The body, in pieces of any size.
        folder: Where the files are written; must exist.

    Raises:
        Failure: ``broken`` when the body ends too early, ``foreign`` when it is something else.
        OSError: A file cannot be written.
    """
    header = Message()
    header["content-type"] = content_type
    kind, boundary = header.get_content_type(), header.get_param("boundary")
    if kind == "application/dicom":
        yield from _save(folder, lambda write: _copy_all(chunks, write))
    elif kind == "multipart/related" and isinstance(boundary, str):
        yield from _split(_Body(chunks), b"\r\n--" + boundary.encode(), folder)
    else:
        raise Failure("foreign", f"the answer holds {kind}, not DICOM")


def _copy_all(chunks: Iterable[bytes], write: _Write) -> None:
    for chunk in chunks:
        write(chunk)


def _split(body: "_Body", delimiter: bytes, folder: Path) -> Iterator[Path]:
    body.copy_until(delimiter, lambda _: None)
    while not body.starts_with(b"--"):
        body.skip_header()
        yield from _save(folder, lambda write: body.copy_until(delimiter, write))


def _save(folder: Path, fill: Callable[[_Write], None]) -> Iterator[Path]:
    # mkstemp makes files that only their owner can read.
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fill(file.write)
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Body:
    """A stream of bytes that is cut at delimiters, holding little more than one chunk."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        # The first delimiter of a body may come without the line break of all others.
        self._held = bytearray(b"\r\n")

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise Failure("broken", "the answer ended before its last part")
        self._held += chunk

    def starts_with(self, text: bytes) -> bool:
        while len(self._held) < len(text):
            self._more()
        return self._held.startswith(text)

    def skip_header(self) -> None:
        while (place := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > _MAX_PART_HEADER_BYTES:
                raise Failure("foreign", "a part of the answer has an endless header")
            self._more()
        del self._held[: place + 4]

    def copy_until(self, delimiter: bytes, write: _Write) -> None:
        """Write what comes before the next delimiter; both are taken off the stream."""
        while (place := self._held.find(delimiter)) < 0:
            # The delimiter may lie across two chunks.
            surplus = len(self._held) - len(delimiter) + 1
            if surplus > 0:
                write(self._held[:surplus])
                del self._held[:surplus]
            self._more()
        write(self._held[:place])
        del self._held[: place + len(delimiter)]
