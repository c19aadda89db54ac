"""One thing at a time: a bounded queue in front of the process that reads and computes.

A place is taken before an upload is received, so that what is on the disk is bounded too; when none
is free the answer is "busy" at once.
"""

import logging
import pickle
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from vismae.core.errors import VismaeError
from vismae.core.guarded_child import Failure
from vismae.core.guarded_process import GuardedProcess, Loss
from vismae.web.work import run

logger = logging.getLogger(__name__)

_WHY_LOST = {
    "time": "it took too long ({detail} for one step)",
    "memory": "it needs too much memory ({detail})",
    "died": "the program that reads it crashed ({detail})",
}


class JobLostError(VismaeError):
    """The process that worked on an upload died of it."""

    code = "lost"


class Job:
    """Something to compute, and what came of it.

    Attributes:
        number: Counted from 1, for the log.
        outcome: Its result, or the error.
    """

    def __init__(self, queue: "JobQueue", number: int, task: Any) -> None:
        self._queue = queue
        self._task = task
        self.number = number
        self.outcome: Future[Any] = Future()

    @property
    def place(self) -> int:
        """How many jobs come before it; 0 once it is its turn."""
        return self._queue.place(self)

    def cancel(self) -> bool:
        """Take it out of the queue; False if it has been begun."""
        return self._queue.cancel(self)

    def compute(self, guard: GuardedProcess) -> None:
        """Compute it, and keep what came of it."""
        # From here on nobody can cancel the outcome under the hands of what computes it.
        if not self.outcome.set_running_or_notify_cancel():
            return
        started = time.monotonic()
        try:
            result = self._result(guard)
        # Whatever it is, such as a process that the system does not start: it belongs to whoever
        # asked, and the thread goes on to the next job.
        except Exception as error:
            self._log(getattr(error, "code", type(error).__name__), started)
            self.outcome.set_exception(error)
        else:
            self._log("done", started)
            self.outcome.set_result(result)

    def _result(self, guard: GuardedProcess) -> Any:
        found = guard.call(pickle.dumps((run, self._task)))
        if isinstance(found, Loss):
            why = _WHY_LOST[found.cause].format(detail=found.detail)
            raise JobLostError(
                f"The file could not be worked on: {why}. Try a smaller one, or another copy."
            )
        if isinstance(found, Failure):
            found.reraise()
        return pickle.loads(found)

    def _log(self, state: str, started: float) -> None:
        # Only codes: messages name files, and files may name patients.
        logger.info("job %d: %s after %.1f s", self.number, state, time.monotonic() - started)


class Slot:
    """A place in the queue, taken before there is anything to compute."""

    def __init__(self, queue: "JobQueue") -> None:
        self._queue = queue
        self._held = True

    def start(self, task: Any) -> Job:
        """Queue a task; the place is given back when it is done."""
        self._held = False
        return self._queue.add(task)

    def release(self) -> None:
        """Give the place back, unless a job has it."""
        if self._held:
            self._held = False
            self._queue.give_back()


class JobQueue:
    """Jobs in the order they came, worked on by one thread.

    Args:
        guard: The process that does the work.
        capacity: Places: uploads on their way, jobs that wait, and the one under way.
    """

    def __init__(self, guard: GuardedProcess, capacity: int) -> None:
        self._guard = guard
        self._free = capacity
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._number = 0
        self._stopped = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="vismae-jobs", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether nothing is computed or waits to be."""
        with self._change:
            return self._current is None and not self._waiting

    def reserve(self) -> Slot | None:
        """Take a place; None if there is none."""
        with self._change:
            if self._free == 0 or self._stopped:
                return None
            self._free -= 1
        return Slot(self)

    def give_back(self) -> None:
        """Give a place back."""
        with self._change:
            self._free += 1

    def add(self, task: Any) -> Job:
        """Queue a task that has a place."""
        with self._change:
            self._number += 1
            job = Job(self, self._number, task)
            self._waiting.append(job)
            self._change.notify()
        return job

    def place(self, job: Job) -> int:
        """Return how many jobs come before one."""
        with self._change:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._current is not None)

    def cancel(self, job: Job) -> bool:
        """Take a job out of the queue; False if it has been begun."""
        with self._change, suppress(ValueError):
            self._waiting.remove(job)
            self._free += 1
            job.outcome.cancel()
            return True
        return False

    def stop(self) -> None:
        """End the process and the thread; jobs under way are lost."""
        with self._change:
            self._stopped = True
            self._change.notify()
        self._guard.stop()
        self._thread.join(10.0)

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._stopped:
                    self._change.wait()
                if self._stopped:
                    for job in self._waiting:
                        job.outcome.cancel()
                    return
                self._current = self._waiting.popleft()
            try:
                self._current.compute(self._guard)
            finally:
                with self._change:
                    self._current = None
                    self._free += 1
