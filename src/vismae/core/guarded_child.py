"""The life of a guarded process: what runs in the child that ``guarded_process`` starts.

The child gets its settings, imports what calls will need, says that it is ready, and then answers
one call after the other. Its messages are pairs: ``("step", name)``, ``("memory", detail)``,
``("failure", Failure)``, or ``("result", is_last)`` followed by the pickled result.
"""

import ctypes
import errno
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

Step = Callable[[str], None]
"""What a task calls with a name when it begins its next piece; that restarts the clock."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ChildSettings:
    """What a child is told before its first call.

    Attributes:
        preload: Modules to import.
        memory_gib: What calls may use above what is used then; None for no limit.
        idle_seconds: After so long without a call it ends.
    """

    preload: tuple[str, ...]
    memory_gib: float | None
    idle_seconds: float


class RemoteTraceback(Exception):
    """The traceback of another process, as text."""

    def __str__(self) -> str:
        """Return the text below a line of its own."""
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Failure:
    """An ordinary exception of a call, pickled, and its traceback as text."""

    error: bytes
    traceback: str

    def reraise(self) -> NoReturn:
        """Raise the exception here, with the traceback of the child as its cause."""
        raise pickle.loads(self.error) from RemoteTraceback(self.traceback)


def serve(descriptor: int) -> None:
    """Answer calls until the parent closes its end or is silent for too long.

    Args:
        descriptor: Of the open socket to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A child that hangs in foreign code would not notice that its parent was killed.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Connection(descriptor) as pipe:
        settings: ChildSettings = pipe.recv()
        try:
            for module in settings.preload:
                import_module(module)
        except Exception as error:
            pipe.send(_failure(error))
            return
        # From here on only decoders write there, about files that are known to be odd.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        allowance = _Allowance(settings.memory_gib)
        pipe.send(None)
        while pipe.poll(settings.idle_seconds):
            try:
                call = pipe.recv_bytes()
            except EOFError:
                return
            _answer(pipe, call, allowance)


def _answer(pipe: Connection, call: bytes, allowance: "_Allowance") -> None:
    def step(name: str) -> None:
        pipe.send(("step", name))

    result = failure = None
    try:
        function, task = pickle.loads(call)
        result = pickle.dumps(function(task, step), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        if not _is_lack_of_memory(error):
            failure = _failure(error)
    # Not inside the handler: there the exception holds on to what filled the memory.
    if failure is not None:
        pipe.send(("failure", failure))
    elif result is not None:
        pipe.send(("result", allowance.is_half_gone()))
        pipe.send_bytes(result)
    else:
        allowance.lift()
        pipe.send(("memory", allowance.text))


def _failure(error: Exception) -> Failure:
    text = "".join(traceback.format_exception(error))
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        # Some exceptions of other libraries do not survive; their name and words do.
        pickled = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return Failure(pickled, text)


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )


class _Allowance:
    """How much memory this process may use above what it uses now (Linux; no limit elsewhere)."""

    def __init__(self, memory_gib: float | None) -> None:
        self._bytes: int | None = None
        self.text = "the machine had no more"
        if memory_gib is None or sys.platform != "linux":
            return
        self._bytes = int(memory_gib * 2**30)
        self._start = _private_bytes()
        self.text = f"more than {memory_gib:g} GiB"
        _set_data_limit(self._start + self._bytes)

    def is_half_gone(self) -> bool:
        """Tell whether earlier calls left so much that later ones would pay for it."""
        return self._bytes is not None and _private_bytes() - self._start > self._bytes / 2

    def lift(self) -> None:
        """Make room for a last message."""
        if self._bytes is not None:
            _set_data_limit(None)


def _private_bytes() -> int:
    """Return the private writable memory of this process: what RLIMIT_DATA counts (proc(5))."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _set_data_limit(limit: int | None) -> None:
    import resource  # Not on every system.

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limit is None or (hard != resource.RLIM_INFINITY and limit > hard):
        limit = hard
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
