"""Runs one function over many tasks: in this process, in guarded ones, or on a Dask cluster.

Results come in the order of the tasks. Tasks are taken only when there is room for them, so memory
does not grow with their number. A task that hangs, fills the memory or crashes comes back as
``Lost``; an exception is raised here and ends the run.
"""

import pickle
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from vismae.core.errors import SettingError
from vismae.core.guarded_child import Failure, Step
from vismae.core.guarded_process import Cause, Guards, Limits, Loss

__all__ = ["Executor", "Limits", "Lost", "Step", "open_executor"]

T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F")

CLUSTER_PREFIX = "dask://"
# While the oldest result is awaited, every worker has one task and one more to go on with.
TASKS_PER_WORKER = 2


@dataclass(frozen=True)
class Lost(Generic[T]):
    """A task that came to nothing because it took its process down.

    Attributes:
        task: As it was given.
        step: The last step that it began; None if it began none.
        cause: Its process died by itself, it was too slow, or wanted too much memory.
        detail: The limit, the exit code or the name of the signal.
    """

    task: T
    step: str | None
    cause: Cause
    detail: str


class Executor(Protocol):
    """What runs tasks; see ``open_executor``."""

    def run(self, function: Callable[[T, Step], R], tasks: Iterable[T]) -> Iterator[R | Lost[T]]:
        """Yield ``function(task, step)`` for every task, in order; one run at a time.

        Args:
            function: A function of an importable module. It may tell ``step`` the name of each
                piece that it begins. On a cluster it may run again, or twice at once, when a
                machine is lost, so it must leave whole results or none.
            tasks: Taken in the calling thread, a few ahead of the results.

        Raises:
            Exception: What a task, or ``tasks``, raised; what is under way is stopped.
        """
        ...


@contextmanager
def open_executor(
    where: str, workers: int, limits: Limits, preload: Sequence[str] = ()
) -> Generator[Executor]:
    """Open what runs tasks, and end its processes afterwards.

    Args:
        where: ``here`` in this process, without limits; ``processes`` of this machine;
            ``dask://host:port``, the scheduler of a Dask cluster whose machines have vismae and
            see the same files.
        workers: Processes; on a cluster, the fewest tasks kept going (it is used whole).
        limits: Of each task.
        preload: Modules that the function needs, imported before its time counts.

    Raises:
        SettingError: No such place, no scheduler answers there, or Dask is not installed.
    """
    if workers < 1:
        raise SettingError(f"workers is {workers}. Give 1 or more.")
    if where == "here":
        yield _Here()
        return
    executor = _open_queued(where, workers, limits, preload)
    try:
        yield executor
    finally:
        executor.close()


def _open_queued(
    where: str, workers: int, limits: Limits, preload: Sequence[str]
) -> "QueuedExecutor[Any]":
    if where == "processes":
        return _Processes(workers, limits, preload)
    address = where.removeprefix(CLUSTER_PREFIX)
    if address in ("", where):
        raise SettingError(
            f"executor {where!r} is not known. Give processes, here, or dask://host:port."
        )
    try:
        from vismae.core.dask_executor import DaskExecutor
    except ModuleNotFoundError as error:
        raise SettingError(
            f"executor {where} needs Dask ({error.name} is not installed). Install it with "
            "pip install 'vismae[cluster]', or use the executor processes."
        ) from error
    return DaskExecutor(address, workers, limits, preload)


class _Here:
    def run(self, function: Callable[[T, Step], R], tasks: Iterable[T]) -> Iterator[R | Lost[T]]:
        for task in tasks:
            yield function(task, _no_step)


def _no_step(name: str) -> None:
    """Take no notice: nothing is timed here."""


class QueuedExecutor(ABC, Generic[F]):
    """Keeps a window of calls going (F, such as futures) and hands out results in order."""

    _closed = False

    def run(self, function: Callable[[T, Step], R], tasks: Iterable[T]) -> Iterator[R | Lost[T]]:
        """Yield results in order; see ``Executor.run``."""
        ahead = iter(tasks)
        waiting: deque[tuple[T, F]] = deque()
        try:
            while True:
                for task in islice(ahead, max(0, self.room() - len(waiting))):
                    pickled = pickle.dumps((function, task), pickle.HIGHEST_PROTOCOL)
                    waiting.append((task, self.submit(pickled)))
                if not waiting:
                    return
                # No name here holds on to a result while the caller works on it.
                yield self._next(waiting)
        finally:
            if waiting and not self._closed:
                self.abort([call for _, call in waiting])

    def _next(self, waiting: deque[tuple[T, F]]) -> Any:
        task, call = waiting[0]
        outcome = self.take(call)
        waiting.popleft()
        if isinstance(outcome, Loss):
            return Lost(task, outcome.step, outcome.cause, outcome.detail)
        if isinstance(outcome, Failure):
            outcome.reraise()
        return pickle.loads(outcome)

    @abstractmethod
    def room(self) -> int:
        """Return how many calls may be under way."""

    @abstractmethod
    def submit(self, pickled: bytes) -> F:
        """Hand over a pickled pair (function, task)."""

    @abstractmethod
    def take(self, call: F) -> bytes | Loss | Failure:
        """Wait for a call that was handed over."""

    @abstractmethod
    def abort(self, calls: list[F]) -> None:
        """Stop calls that nobody waits for any more."""

    def close(self) -> None:
        """End all processes; a run that is not finished yields no more."""
        self._closed = True
        self.end()

    @abstractmethod
    def end(self) -> None:
        """End all processes."""


class _Processes(QueuedExecutor[Future[bytes | Loss | Failure]]):
    """Guarded processes of this machine, each with a thread that waits for it."""

    def __init__(self, workers: int, limits: Limits, preload: Sequence[str]) -> None:
        self._workers = workers
        self._limits = limits
        self._preload = preload
        self._threads = ThreadPoolExecutor(workers, "guard")
        self._guards = Guards(limits, preload)

    def room(self) -> int:
        return TASKS_PER_WORKER * self._workers

    def submit(self, pickled: bytes) -> Future[bytes | Loss | Failure]:
        return self._threads.submit(self._guards.call, pickled)

    def take(self, call: Future[bytes | Loss | Failure]) -> bytes | Loss | Failure:
        return call.result()

    def abort(self, calls: list[Future[bytes | Loss | Failure]]) -> None:
        self._guards.stop()
        wait(calls)
        self._guards = Guards(self._limits, self._preload)

    def end(self) -> None:
        self._guards.stop()
        self._threads.shutdown()
