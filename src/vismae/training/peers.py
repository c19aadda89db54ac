"""Processes that train together notice at once when one of them fails, and why.

Collective operations only wait: for a process that was killed they end with a riddle, for a
machine that was cut off they do not end for many minutes. So every process keeps a connection to
the first one and sends a sign of life. A failure is told to all in its own words; a connection
that breaks, or is silent for too long, is a process that was lost.
"""

import hmac
import json
import logging
import multiprocessing
import os
import platform
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from vismae.core.errors import TrainingError
from vismae.core.launch import Launch

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
# A process that has learnt of a failure gets so long to end by itself.
GRACE_SECONDS = 10.0
_JOIN_SECONDS = 60.0
_HELLO_SECONDS = 10.0
_open_to_the_end: list[socket.socket] = []
_LOOPBACKS = ("localhost", "127.0.0.1", "::1")

Share = Callable[[Any], Any]
"""Gives every process what the first one passes in."""


class PeerLostError(TrainingError):
    """Another process of the same training failed or was lost."""


@dataclass(frozen=True)
class Cause:
    """Why a training of several processes ends.

    Attributes:
        rank: Process that failed first.
        host: Its machine.
        why: What became of it.
    """

    rank: int
    host: str
    why: str

    def sentence(self, world: int) -> str:
        """Say it to a person."""
        return (
            f"Process {self.rank + 1} of {world} (rank {self.rank} on {self.host}) {self.why} All "
            "processes of this training stop; --resume goes on from the last resume point."
        )


@dataclass
class _Line:
    """A connection to one other process."""

    connection: socket.socket
    rank: int
    host: str
    seen: float = field(default_factory=time.monotonic)
    rest: bytes = b""
    leaving: bool = False

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; one that cannot go out is a matter of the watching thread."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the messages that came in, and whether the line is still open."""
        try:
            content = self.connection.recv(1 << 16)
        except BlockingIOError:
            return [], True
        except OSError:
            return [], False
        *lines, self.rest = (self.rest + content).split(b"\n")
        self.seen = time.monotonic()
        return [json.loads(line) for line in lines], bool(content)


class Peers:
    """The watch that one process keeps over the others, in a thread.

    Args:
        launch: This process's place.
        silence_seconds: A process without a sign of life for so long counts as lost.
        share: Brings the first process's port to the others.

    Raises:
        TrainingError: The processes cannot reach each other.
    """

    def __init__(self, launch: Launch, silence_seconds: float, share: Share) -> None:
        self._launch = launch
        self._silence = silence_seconds
        self._lines: list[_Line] = []
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._turns = 0
        self._closed = False
        self._deadline: float | None = None
        self.cause: Cause | None = None
        self._selector = selectors.DefaultSelector()
        if launch.rank == 0:
            self._gather(share)
        else:
            self._reach(*share(None))
        self._thread = threading.Thread(target=self._watch, name="vismae-peers", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the others go on from ``wait_for_first``; for the first process."""
        self._send_all({"kind": "turn"})

    def wait_for_first(self) -> None:
        """Wait, however long it takes, until the first process has called ``release``.

        Raises:
            PeerLostError: It failed instead.
        """
        with self._changed:
            while self._turns == 0 and self.cause is None:
                self._changed.wait(BEAT_SECONDS)
            if self.cause is not None:
                raise PeerLostError(self.cause.sentence(self._launch.world))
            self._turns -= 1

    def explain(self, seconds: float) -> Cause | None:
        """Wait up to so long for the reason of a failed exchange; None if nobody has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self.cause is not None, seconds)
            return self.cause

    def tell(self, why: str) -> None:
        """Tell all others why this process ends. It has a minute to do so."""
        with self._changed:
            if self.cause is None:
                self.cause = Cause(self._launch.rank, platform.node(), why)
            self._deadline = time.monotonic() + _JOIN_SECONDS
        self._send_all({"kind": "failed", **asdict(self.cause)})

    def close(self, patience_seconds: float = 0.0) -> None:
        """End the watch in good order; the others go on without this process.

        Args:
            patience_seconds: The first process waits so long for the others to end before it. A
                scheduler that sees one process end with a status other than 0 kills the rest.
        """
        self._send_all({"kind": "bye"})
        end = time.monotonic() + patience_seconds
        while self._launch.rank == 0 and self._lines and time.monotonic() < end:
            time.sleep(BEAT_SECONDS / 20)
        self._closed = True
        self._thread.join(_JOIN_SECONDS)
        if self._launch.rank == 0:
            for line in self._lines:
                line.connection.close()
        else:
            # Closed by the system when this process has ended, and no sooner.
            _open_to_the_end.extend(line.connection for line in self._lines)
        self._selector.close()

    def is_spokesman(self, cause: Cause) -> bool:
        """Tell whether this process says the cause on its machine's screen."""
        launch = self._launch
        first = launch.machine * launch.per_machine
        return launch.rank == (first + 1 if cause.rank == first else first)

    def _gather(self, share: Share) -> None:
        """Wait until all others have called; for the first process."""
        launch = self._launch
        at = launch.address if launch.address in _LOOPBACKS else ""
        token = secrets.token_hex(16)
        with socket.create_server((at, 0), backlog=launch.world) as server:
            server.settimeout(_JOIN_SECONDS)
            share((server.getsockname()[1], token, platform.node()))
            while len(self._lines) < launch.world - 1:
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    raise TrainingError(
                        f"Only {len(self._lines) + 1} of {launch.world} processes could reach the "
                        f"first one at {launch.address} within {_JOIN_SECONDS:.0f} s. Processes of "
                        "one training connect at any port: let the machines through to each other."
                    ) from None
                self._greet(connection, token)

    def _greet(self, connection: socket.socket, token: str) -> None:
        """Take a caller in if it is one of ours."""
        connection.settimeout(_HELLO_SECONDS)
        content = b""
        try:
            while b"\n" not in content and len(content) < 4096:
                content += connection.recv(4096) or b"\n"
            first, _, rest = content.partition(b"\n")
            hello = json.loads(first)
            known = hmac.compare_digest(str(hello["token"]), token)
            line = _Line(connection, int(hello["rank"]), str(hello["host"]), rest=rest)
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if known:
            self._add(line)
        else:
            connection.close()

    def _reach(self, port: int, token: str, host: str) -> None:
        """Call the first process."""
        address = self._launch.address
        try:
            connection = socket.create_connection((address, port), timeout=_JOIN_SECONDS)
        except OSError as error:
            raise TrainingError(
                f"The first process cannot be reached at {address}, port {port} ({error}). "
                "Processes of one training connect at any port: let the machines through to each "
                "other."
            ) from error
        line = _Line(connection, 0, host)
        line.send({"token": token, "rank": self._launch.rank, "host": platform.node()})
        self._add(line)

    def _add(self, line: _Line) -> None:
        line.connection.setblocking(False)
        self._selector.register(line.connection, selectors.EVENT_READ, line)
        self._lines.append(line)

    def _send_all(self, message: dict[str, Any]) -> None:
        with self._sending:
            for line in self._lines:
                line.send(message)

    def _watch(self) -> None:
        """Listen and beat until closed; ends the process when it does not end by itself."""
        last = time.monotonic()
        beaten = 0.0
        while not self._closed:
            ready = self._selector.select(BEAT_SECONDS / 4) if self._lines else []
            if not self._lines:
                time.sleep(BEAT_SECONDS / 4)
            for key, _ in ready:
                self._read(key.data)
            now = time.monotonic()
            if now - last > 5 * BEAT_SECONDS:
                # This whole process was stopped for a while, and the others perhaps too.
                for line in self._lines:
                    line.seen = now
            last = now
            if now - beaten >= BEAT_SECONDS:
                beaten = now
                self._send_all({"kind": "beat"})
            silent = [each for each in self._lines if now - each.seen > self._silence]
            for line in [each for each in silent if not each.leaving]:
                why = f"has given no sign of life for {self._silence:.0f} s: its machine or the "
                self._lose(line, f"{why}network is down, or it hangs.")
            if self._deadline is not None and now > self._deadline:
                self._end()

    def _read(self, line: _Line) -> None:
        messages, is_open = line.receive()
        for message in messages:
            if message["kind"] == "turn":
                with self._changed:
                    self._turns += 1
                    self._changed.notify_all()
            elif message["kind"] == "failed":
                self._take(Cause(message["rank"], message["host"], message["why"]))
            elif message["kind"] == "bye":
                line.leaving = True
        if not is_open and line.leaving:
            self._drop(line)
        elif not is_open:
            self._lose(line, "ended without a word: it was killed, for want of memory perhaps.")

    def _drop(self, line: _Line) -> None:
        self._selector.unregister(line.connection)
        with self._sending:
            self._lines.remove(line)
        line.connection.close()

    def _lose(self, line: _Line, why: str) -> None:
        self._drop(line)
        self._take(Cause(line.rank, line.host, why))

    def _take(self, cause: Cause) -> None:
        """Learn of a failure; the first one counts, and the first process passes it on."""
        with self._changed:
            if self.cause is not None:
                return
            self.cause = cause
            self._deadline = time.monotonic() + GRACE_SECONDS
            self._changed.notify_all()
        if self._launch.rank == 0:
            self._send_all({"kind": "failed", **asdict(cause)})

    def _end(self) -> None:
        """End this process, which waits for others that are no more."""
        cause = self.cause
        if cause is not None and cause.rank != self._launch.rank and self.is_spokesman(cause):
            logger.error("%s", cause.sentence(self._launch.world))
        for child in multiprocessing.active_children():
            child.kill()
        logging.shutdown()
        os._exit(1)
