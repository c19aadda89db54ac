"""A child process that works on calls under limits of time and memory, and may die of them.

Files from a clinical archive make decoders hang, fill the memory or crash. Such a call must cost
only itself, so it runs in a child of its own: the parent sees a hang or a death, says which step
was lost, and starts another child.

Child and parent speak pickle over one socket pair. The child is a fresh interpreter that imports
functions by name, so it works from scripts without a main guard, beside threads, and in the
daemonic processes of a Dask worker, which may have no children of the ``multiprocessing`` kind.
POSIX only; the memory limit, and the end of a child that hangs when its parent is killed, need
Linux. A child holds its process while idle: about 1 s of imports is paid once, not per call.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Literal

from vismae.core.errors import VismaeError
from vismae.core.guarded_child import ChildSettings, Failure

Cause = Literal["died", "time", "memory"]

# The child takes the module path of its parent, so that it finds the same code.
_PROGRAM = (
    "import sys; descriptor = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; "
    "from vismae.core.guarded_child import serve; serve(descriptor)"
)
_CHILD_ENVIRONMENT = {
    # One child works on one core: threads of libraries would only be in the way.
    "OMP_NUM_THREADS": "1",
    # Memory of one image is used again for the next. Given back and asked for anew, as is the
    # rule for large pieces, its pages cost more time than what is written into them. 32 MiB is the
    # largest piece that every glibc takes; older ones ignore a larger number (mallopt(3)).
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
# Children that a killed client left on somebody's cluster must not stay there.
_IDLE_SECONDS = 600.0
# For a process to end that closed its pipe, or that was killed.
_EXIT_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """What one task may use.

    Attributes:
        seconds: Of each step; None for no limit.
        memory_gib: Above what the process used before its first task; None for no limit.
    """

    seconds: float | None = None
    memory_gib: float | None = None


@dataclass(frozen=True)
class Loss:
    """How a call was lost.

    Attributes:
        step: The last step that it began; None if it began none.
        cause: Its process died by itself, it was too slow, or wanted too much memory.
        detail: The limit, the exit code or the name of the signal.
    """

    step: str | None
    cause: Cause
    detail: str


_STOPPED = Loss(None, "died", "stopped")


class GuardedProcess:
    """One child process that is started when needed and replaced after a loss.

    ``call`` belongs to one thread, and the child dies with that thread; ``stop`` may come from any.

    Args:
        limits: Of each call.
        preload: Modules to import before the clock of the first call starts.
        idle_seconds: After so long without a call the child ends by itself.
    """

    def __init__(
        self, limits: Limits, preload: Sequence[str] = (), idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        self._limits = limits
        self._settings = ChildSettings(tuple(preload), limits.memory_gib, idle_seconds)
        self._lock = threading.Lock()
        self._stopped = False
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._used_at = 0.0

    def call(self, pickled: bytes) -> bytes | Loss | Failure:
        """Run a pickled pair (function, task) as ``function(task, step)`` in the child.

        Returns:
            The pickled result, how it was lost, or the exception that it raised.

        Raises:
            VismaeError: The child cannot be started.
        """
        prepared = self._prepare()
        if not isinstance(prepared, Connection):
            return prepared
        step: str | None = None
        try:
            prepared.send_bytes(pickled)
            while prepared.poll(self._limits.seconds):
                kind, content = prepared.recv()
                if kind == "step":
                    step = content
                    continue
                self._used_at = time.monotonic()
                if kind == "failure":
                    return content
                if kind == "memory":
                    self._end()
                    return Loss(step, "memory", content)
                result = prepared.recv_bytes()
                if content:
                    self._end()
                return result
        except (EOFError, ConnectionError):
            return Loss(step, "died", self._end(_EXIT_SECONDS))
        self._end()
        return Loss(step, "time", f"more than {self._limits.seconds:g} s")

    def stop(self) -> None:
        """Kill the child, with what it is doing, for good: later calls are lost at once."""
        with self._lock:
            self._stopped = True
            child = self._child
        if child is not None:
            _kill(child[0])

    def _prepare(self) -> Connection | Loss | Failure:
        """Return the pipe of a child that waits for a call, or why there is none."""
        if self._child is not None:
            process, pipe = self._child
            # The child waits twice as long, so that it never leaves while a call is on its way.
            idle_seconds = time.monotonic() - self._used_at
            if process.poll() is None and idle_seconds < self._settings.idle_seconds / 2:
                return pipe
            self._end()
        with self._lock:
            if self._stopped:
                return _STOPPED
            self._child = _, pipe = _start_child()
        try:
            pipe.send(self._settings)
            failure: Failure | None = pipe.recv()
        except (EOFError, ConnectionError) as error:
            ended = self._end(_EXIT_SECONDS)
            if self._stopped:
                return _STOPPED
            raise VismaeError(
                f"A worker process ended while it started ({ended}). It runs {sys.executable}, "
                "which must be able to import vismae; see what it wrote above."
            ) from error
        self._used_at = time.monotonic()
        if failure is not None:
            self._end()
            return failure
        return pipe

    def _end(self, grace_seconds: float = 0.0) -> str:
        """Make sure that the child is gone, and return how it ended."""
        if self._child is None:
            return "not started"
        process, pipe = self._child
        self._child = None
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
        _kill(process)
        pipe.close()
        return _ending(process.returncode)


class Guards:
    """One guarded process for each thread that calls; see ``GuardedProcess``."""

    def __init__(self, limits: Limits, preload: Sequence[str] = ()) -> None:
        self._limits = limits
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._stopped = False
        self._of_thread: dict[int, GuardedProcess] = {}

    def call(self, pickled: bytes) -> bytes | Loss | Failure:
        """Run a call in the process of this thread; see ``GuardedProcess.call``."""
        thread = threading.get_ident()
        with self._lock:
            if self._stopped:
                return _STOPPED
            if thread not in self._of_thread:
                self._of_thread[thread] = GuardedProcess(self._limits, self._preload)
            guard = self._of_thread[thread]
        return guard.call(pickled)

    def stop(self) -> None:
        """Kill all processes for good; calls under way are lost, and so are later ones."""
        with self._lock:
            self._stopped = True
        for guard in self._of_thread.values():
            guard.stop()


def _start_child() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            # Warnings are for the one process that a person looks at.
            [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            # In a group of its own, Ctrl-C does not reach it even while it starts.
            process_group=0,
            env={**_CHILD_ENVIRONMENT, **os.environ},
        )
    return process, ours


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    # A process that waits for a dead network disk cannot even be killed; it is left to the system.
    with suppress(subprocess.TimeoutExpired):
        process.wait(_EXIT_SECONDS)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
