"""What all routes share: the models on offer, the queue, the folders, and waiting for an answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

from vismae.core.errors import VismaeError
from vismae.files.reasons import Reason
from vismae.web.folders import PrivateFolder
from vismae.web.jobs import Job, JobQueue
from vismae.web.studies import Studies, described
from vismae.web.work import Action, Served, SliceWanted, UploadTask

Modality = Literal["ct", "mr", "pet", "xr", "us", "other"]

_LOOK_SECONDS = 0.5


class AnswerError(Exception):
    """An answer that is an error: status, code and sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Answering:
    """What all routes share.

    Attributes:
        served: The models on offer.
        described: What each is.
        queue, home, studies: See their classes.
        most_upload_bytes, most_expanded_bytes: Of an upload.
        keep_seconds: How long results stay.
    """

    served: Served
    described: tuple[dict[str, Any], ...]
    queue: JobQueue
    home: PrivateFolder
    studies: Studies
    most_upload_bytes: int
    most_expanded_bytes: int
    keep_seconds: float

    def task(
        self,
        action: Action,
        folder: Path,
        name: str,
        modality: str | None,
        wanted: tuple[int, ...],
        part: SliceWanted | None = None,
    ) -> UploadTask:
        """Return a task for the guarded process."""
        most = self.most_expanded_bytes
        return UploadTask(action, self.served, folder, name, modality, most, wanted, part)

    def models_named(self, names: str) -> tuple[int, ...]:
        """Return the numbers of models named with commas between, or after each.

        An empty text means all of them, a comma alone none.

        Raises:
            AnswerError: One is not on offer.
        """
        if not names.strip():
            return tuple(range(len(self.described)))
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        return tuple(map(self.number_of, wanted))

    def number_of(self, name: str | None, kinds: Sequence[str] = ()) -> int:
        """Return the number of a model by its name, or of the first one of some kinds.

        Raises:
            AnswerError: There is none.
        """
        for number, model in enumerate(self.described):
            if (name is None or model["name"] == name) and (not kinds or model["kind"] in kinds):
                return number
        wanted = " or ".join(kinds) or "model"
        known = ", ".join(f"{model['name']} ({model['kind']})" for model in self.described)
        named = f" named '{name}'" if name is not None else ""
        raise AnswerError(422, "model", f"No {wanted}{named} is on offer. There are: {known}.")

    async def result_of(self, job: Job, request: Request) -> Any:
        """Wait for what a job gives, as long as somebody wants it.

        Raises:
            AnswerError: It gave an error, or the one who asked has gone.
        """
        outcome = asyncio.wrap_future(job.outcome)
        while not outcome.done():
            await asyncio.wait([outcome], timeout=_LOOK_SECONDS)
            if not outcome.done() and await request.is_disconnected():
                job.cancel()
                # asyncio would log an error that nobody takes, and errors name files.
                outcome.cancel()
                raise AnswerError(499, "cancelled", "Nobody waits for the answer.")
        if outcome.cancelled():
            raise AnswerError(503, "stopping", "The server stops.")
        error = outcome.exception()
        if error is None:
            return outcome.result()
        found = described(error)
        raise AnswerError(_status_of(error, found["code"]), found["code"], found["message"])


def _status_of(error: BaseException, code: str) -> int:
    if code == Reason.TOO_LARGE:
        return 413
    return 422 if isinstance(error, VismaeError) else 500


def http_code(error: HTTPException) -> str:
    """Return the word for an error that the framework found."""
    words = {404: "not-found", 405: "method", 408: "slow", 413: "too-large", 503: "busy"}
    return words.get(error.status_code, "request")
