"""How much may come in: the size of a body and a place in the queue, before anything is parsed."""

import asyncio
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import cast

import anyio.to_thread
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vismae.web.folders import PrivateFolder, safe_name
from vismae.web.gate import problem
from vismae.web.jobs import JobQueue, Slot

SMALL_BODY = 64 * 1024
"""Largest body of a request that is no upload, in bytes."""

_SLOT = "vismae.slot"
# What comes with the file in a multipart body: boundaries and a few short fields.
_AROUND_FILE = 16 * 1024
_SILENCE_SECONDS = 30.0
# An upload holds a place of the queue: by trickles it must not hold it for ever.
_LEAST_PACE = 16 * 1024
_DRAIN_SECONDS = 20.0


class UploadGate:
    """Refuses bodies that are too large (413), and uploads while the queue is full (503).

    Args:
        app: What lies behind.
        paths: Of uploads; all others take small bodies only.
        most_bytes: Of an uploaded file.
        queue: Gives the places.
    """

    def __init__(
        self, app: ASGIApp, paths: Collection[str], most_bytes: int, queue: JobQueue
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._most_bytes = most_bytes
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["method"] == "POST" and scope["path"] in self._paths
        most = self._most_bytes + _AROUND_FILE if is_upload else SMALL_BODY
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            await self._drain(headers, receive)
            refusal = _too_large(self._most_bytes) if is_upload else _no_upload(self._paths)
            await refusal(scope, receive, send)
            return
        slot = None
        if is_upload:
            slot = self._queue.reserve()
            if slot is None:
                await self._drain(headers, receive)
                answer = problem(503, "busy", "The queue is full. Try again in a while.")
                answer.headers["Retry-After"] = "2"
                await answer(scope, receive, send)
                return
            scope[_SLOT] = slot
        try:
            await self._app(scope, _bounded(receive, most), send)
        finally:
            if slot is not None:
                slot.release()

    async def _drain(self, headers: Headers, receive: Receive) -> None:
        """Take in and forget a body, so that its sender comes to read the answer."""
        if headers.get("expect", "").lower() == "100-continue":
            return  # such senders ask first
        taken = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while taken < 2 * self._most_bytes + _AROUND_FILE:
                    message = await receive()
                    taken += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body"):
                        return
        except TimeoutError:
            return


def _too_large(most_bytes: int) -> ASGIApp:
    size = f"{most_bytes / 2**20:.0f} MiB" if most_bytes >= 2**20 else f"{most_bytes} bytes"
    return problem(413, "too-large", f"At most {size} are taken. Send a smaller file.")


def _no_upload(paths: Collection[str]) -> ASGIApp:
    known = ", ".join(sorted(path for path in paths if path.startswith("/v1/")))
    return problem(413, "too-large", f"This address takes no files. They go to {known}.")


def slot_of(request: Request) -> Slot:
    """Return the place that an upload was given."""
    return cast(Slot, request.scope[_SLOT])


async def keep_upload(file: UploadFile, home: PrivateFolder) -> tuple[Path, str]:
    """Put an uploaded file into a folder of its own; return that and the file's harmless name.

    Nothing of it stays where that fails, such as on a full disk.
    """
    folder, name = home.new(), safe_name(file.filename)

    def copy() -> None:
        with (folder / "upload" / name).open("xb") as kept:
            shutil.copyfileobj(file.file, kept, 2**20)

    try:
        await anyio.to_thread.run_sync(copy)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    await file.close()
    return folder, name


def _bounded(receive: Receive, most: int) -> Receive:
    taken = 0
    ended = False
    started = time.monotonic()

    async def receive_bounded() -> Message:
        nonlocal taken, ended
        if ended:
            return await receive()  # waits for the end of the connection
        late = started + _SILENCE_SECONDS + taken / _LEAST_PACE - time.monotonic()
        try:
            async with asyncio.timeout(min(_SILENCE_SECONDS, late)):
                message = await receive()
        except TimeoutError:
            raise HTTPException(
                408, "Nothing came for 30 seconds, or less than 16 KiB a second."
            ) from None
        taken += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if taken > most:
            raise HTTPException(413, "The body is larger than it may be. Send a smaller file.")
        return message

    return receive_bounded
