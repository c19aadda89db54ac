"""What can go wrong with one request to a DICOMweb server, and when to try again.

The words are written here: the text of a network library's error quotes the address asked for, and
with it the identifiers of a patient's images. No message, log line or chained error may hold them.
"""

import logging
import random
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal, TypeVar

from vismae.core.errors import DataError, UnreadableFileError
from vismae.files.reasons import Reason

logger = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
"""How much of a file is read at a time; as much is lost at most when a connection breaks off."""

MAX_PAUSE_SECONDS = 60.0
"""Longest pause between two tries, whatever the server asks for."""

FailureKind = Literal[
    "unreachable",  # no connection was made: nothing was sent
    "untrusted",  # the server's certificate
    "refused",  # who we are, or what we may do
    "missing",
    "rejected",  # by a rule of the server
    "busy",
    "silent",  # no answer in time
    "broken",  # the answer ended early
    "foreign",  # no DICOMweb answer
]
_PASSING: frozenset[FailureKind] = frozenset({"unreachable", "busy", "silent", "broken"})
_WHOLE_SERVER: frozenset[FailureKind] = frozenset(
    {"unreachable", "untrusted", "refused", "foreign"}
)
_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_NEVER = {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}

_CURES: dict[FailureKind, str] = {
    "unreachable": "Check host, port and network, and that the server runs.",
    "untrusted": "Name the file with the certificate of its authority in REQUESTS_CA_BUNDLE.",
    "refused": "Set VISMAE_DICOMWEB_USER and VISMAE_DICOMWEB_PASSWORD, or VISMAE_DICOMWEB_TOKEN, "
    "to an account that may do this.",
    "missing": "Check the path of the address (often /dicom-web), and that the server still holds "
    "what was asked for, under one patient alone.",
    "rejected": "Check the query, and what the server's log says of it.",
    "busy": "Try again later, or ask with fewer workers.",
    "silent": "Try again later, ask with fewer workers, or give a longer timeout.",
    "broken": "Try again; if it breaks off at the same image, the server's copy is damaged.",
    "foreign": "Check the address: it must be the root of a DICOMweb service.",
}

Result = TypeVar("Result")


class DicomWebError(DataError):
    """A DICOMweb server cannot be used: not reached, refused, or it speaks otherwise."""

    code = "dicomweb"


class Failure(Exception):
    """One request failed; for the floor above to turn into an error of the house.

    Attributes:
        kind: Decides whether to try again, and what is advised.
        wait_seconds: Pause the server asked for, if any.
    """

    def __init__(self, kind: FailureKind, found: str, wait_seconds: float | None = None) -> None:
        super().__init__(found)
        self.kind: FailureKind = kind
        self.wait_seconds = wait_seconds

    def __reduce__(self) -> tuple[type["Failure"], tuple[FailureKind, str, float | None]]:
        """Survive pickling between processes."""
        return Failure, (self.kind, str(self), self.wait_seconds)

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in _PASSING

    def as_error(self, url: str, what: str) -> DicomWebError:
        """Return the error for a person: server, what was asked, what was found, what to do."""
        return DicomWebError(f"{url}: {what} failed: {self}. {_CURES[self.kind]}")

    def as_image_error(self, url: str, what: str) -> DicomWebError | UnreadableFileError:
        """As ``as_error``, but an ``UnreadableFileError`` where other images may still be got."""
        error = self.as_error(url, what)
        if self.kind in _WHOLE_SERVER:
            return error
        reasons = {"missing": Reason.NOT_FOUND, "broken": Reason.TRUNCATED}
        return UnreadableFileError(reasons.get(self.kind, Reason.UNREADABLE), str(error))


def failure_of_status(status: int, retry_after: str | None = None) -> Failure:
    """Return the failure that an HTTP status other than success stands for."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown status"
    found = f"the server answered {status} {phrase}"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Failure("refused", found)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return Failure("missing", found)
    if status in _BUSY or (status >= 500 and status not in _NEVER):
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        return Failure("busy", found, seconds)
    return Failure("rejected", found)


def with_retries(action: Callable[[], Result], retries: int, pause_seconds: float) -> Result:
    """Call an action again after passing failures, with pauses that double.

    Raises:
        Failure: The last one, when the retries are used up or another try cannot help.
    """
    for attempt in range(retries + 1):
        try:
            return action()
        except Failure as failure:
            if attempt == retries or not failure.passing:
                raise
            # Workers that failed together must not come back together.
            pause = pause_seconds * 2**attempt * random.uniform(0.5, 1.5)
            pause = min(MAX_PAUSE_SECONDS, max(pause, failure.wait_seconds or 0.0))
            logger.info(
                "%s; trying again in %.1f s (%d of %d)", failure, pause, attempt + 1, retries
            )
        time.sleep(pause)
    raise ValueError(f"{retries} retries. The number cannot be negative.")
