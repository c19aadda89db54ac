"""A PACS as a destination: DICOM files sent by STOW-RS (DICOM PS3.18, sec. 10.5), each once.

One object is one request, so that every answer speaks of one file. When an answer is lost, the
server may or may not have stored the object: before anything is sent again it is asked for. The
ledger carries what is known over to the next run; of the images it holds SOP instance UIDs alone.
"""

import io
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import pydicom

from vismae.core.errors import DataError
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicomweb import DicomWebServer
from vismae.files.dicomweb_failures import CHUNK_BYTES, Failure, with_retries
from vismae.files.dicomweb_query import first_number, sequence

logger = logging.getLogger(__name__)

_DUPLICATE_INSTANCE = 0x0111
_LINE_START = b'{"sop_instance_uid": "'

State = Literal["begun", "stored"]


@dataclass(frozen=True)
class SendReport:
    """What became of every file, in the order given.

    Attributes:
        stored: The server stored these now.
        already_there: Nothing was sent: the ledger or the server knows these already.
        failed: File and reason; a further run tries these again.
    """

    stored: tuple[Path, ...]
    already_there: tuple[Path, ...]
    failed: tuple[tuple[Path, str], ...]


def send_files(
    server: DicomWebServer, paths: Iterable[Path], ledger: Path, ask_first: bool = False
) -> SendReport:
    """Send DICOM files to a server, never one that it holds from an earlier try.

    Args:
        server: Where to.
        paths: DICOM files.
        ledger: File with a JSON line per object begun and stored, made with mode 600. Give the
            same one again after an interrupted run; one run at a time may use it.
        ask_first: Ask the server for every object before it is sent: another run, whose ledger is
            not at hand, may have sent it.

    Raises:
        DicomWebError: The server was not reached, or refuses the account. The ledger is kept.
        DataError: The ledger is something else.
    """
    stored: list[Path] = []
    already_there: list[Path] = []
    failed: list[tuple[Path, str]] = []
    with _Ledger(ledger) as known:
        for path in paths:
            try:
                (stored if _send(server, path, known, ask_first) else already_there).append(path)
            except _NotSent as reason:
                failed.append((path, str(reason)))
    logger.info(
        "%d objects stored, %d already there, %d failed",
        *(len(stored), len(already_there), len(failed)),
    )
    return SendReport(tuple(stored), tuple(already_there), tuple(failed))


class _NotSent(Exception):
    """One file was not stored; the text says why."""


def _send(server: DicomWebServer, path: Path, ledger: "_Ledger", ask_first: bool) -> bool:
    """Send one file; False when it was there already."""
    study, series, sop = _identifiers(path)
    if ledger.states.get(sop) == "stored":
        return False
    # A run that ended between sending and writing down may have been successful.
    unclear = ask_first or sop in ledger.states
    sent_now = False

    def action() -> bool:
        nonlocal unclear, sent_now
        if unclear and server.has_instance(study, series, sop):
            return sent_now
        ledger.write(sop, "begun")
        try:
            return _store(server, path)
        except Failure as failure:
            if failure.kind != "unreachable" and failure.passing:
                unclear = sent_now = True
            raise

    try:
        done = with_retries(action, server.retries, server.pause_seconds)
    except Failure as failure:
        error = failure.as_image_error(server.url, "sending an object")
        if isinstance(error, DataError):
            raise error from None
        raise _NotSent(str(error)) from None
    ledger.write(sop, "stored")
    return done


def _store(server: DicomWebServer, path: Path) -> bool:
    """Send one file once; False when the server says that it holds the object already."""
    boundary = uuid.uuid4().hex
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    with path.open("rb") as file:
        answer = server.connection().store(_Body(file, boundary), content_type)
    for item in sequence(answer, "FailedSOPSequence"):
        reason = first_number(item, "FailureReason") or 0
        if reason == _DUPLICATE_INSTANCE:
            return False
        raise _NotSent(
            f"{server.url}: the server did not store the object; its reason is 0x{reason:04X} "
            f"(DICOM PS3.18, table 10.5.3-1). Its log may say more."
        )
    if not sequence(answer, "ReferencedSOPSequence"):
        raise Failure("broken", "the answer does not say whether the object was stored")
    return True


def _identifiers(path: Path) -> tuple[str, str, str]:
    names = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(path, specific_tags=list(names), stop_before_pixels=True)
        uids = [str(header.get(name) or "").strip() for name in names]
    except Exception as error:  # whatever a damaged file makes pydicom raise
        raise _NotSent(
            f"{path}: cannot be read as DICOM ({type(error).__name__}). Only whole DICOM files "
            f"can be sent."
        ) from None
    if not all(uids):
        missing = names[uids.index("")]
        raise _NotSent(f"{path}: {missing} is missing or empty. A server files objects by it.")
    return uids[0], uids[1], uids[2]


class _Body:
    """A multipart body around an open file, read piece by piece, of a length known beforehand."""

    def __init__(self, file: BinaryIO, boundary: str) -> None:
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        self._pieces: list[BinaryIO] = [io.BytesIO(head), file, io.BytesIO(tail)]
        self._length = len(head) + os.fstat(file.fileno()).st_size + len(tail)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(CHUNK_BYTES), b"")

    def read(self, size: int = -1) -> bytes:
        while self._pieces:
            if data := self._pieces[0].read(size):
                return data
            self._pieces.pop(0)
        return b""


class _Ledger:
    """What is known of objects sent, by SOP instance UID, in memory and line by line on disk."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            text = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: the ledger cannot be written ({error.strerror}). Give a file in a "
                f"folder that may be written."
            ) from None
        whole = text[: text.rfind(b"\n") + 1]
        self.states: dict[str, State] = dict(_parse(whole, path))
        # What a killed run was still writing; nothing was sent on the strength of it.
        unfinished = text[len(whole) :]
        if unfinished[: len(_LINE_START)] != _LINE_START[: len(unfinished)]:
            raise _foreign(path, len(whole.splitlines()) + 1)
        os.ftruncate(self._descriptor, len(whole))

    def __enter__(self) -> "_Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, sop: str, state: State) -> None:
        """Note a state so that it outlives the process and the machine."""
        if self.states.get(sop) == state:
            return
        line = json.dumps({"sop_instance_uid": sop, "state": state}) + "\n"
        os.write(self._descriptor, line.encode())
        os.fsync(self._descriptor)
        self.states[sop] = state


def _parse(text: bytes, path: Path) -> Iterator[tuple[str, State]]:
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
            yield entry["sop_instance_uid"], entry["state"]
        except (ValueError, KeyError, TypeError):
            raise _foreign(path, number) from None


def _foreign(path: Path, line: int) -> DataError:
    return DataError(
        f"{path}, line {line}: not a line of a ledger of sent objects. Give the ledger of an "
        f"earlier run, or a name that does not exist."
    )
