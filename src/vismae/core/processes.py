"""Starting processes that work wherever vismae is called from, and under whatever scheduler."""

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import ModuleType


@contextmanager
def spawning_without_main() -> Generator[None]:
    """Let processes spawned inside begin without importing the caller's script again.

    Python imports the main script in each spawned process, so a script that calls vismae without
    an ``if __name__ == "__main__"`` guard, or one read from standard input, would fail there. Our
    processes need only vismae, never the script.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# A terminal sends the first to all processes of a command, a scheduler all three to all of a job.
_STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_TIME_UP_SIGNAL: int | None = getattr(signal, "SIGUSR1", None)
_LEAVE_SECONDS = 60
# A thirtieth of libgomp's default (its manual, GOMP_SPINCOUNT); a step of training on idle cores
# was measured as fast with either (docs/performance.md).
_SPINS = 10_000


def let_children_outlive_time_up() -> None:
    """Ignore SIGUSR1 here, and so in all programs started from here, until training listens to it.

    SLURM sends it to every process of a job before the time is up, and most would die of it.
    """
    if threading.current_thread() is not threading.main_thread() or _TIME_UP_SIGNAL is None:
        return
    if signal.getsignal(_TIME_UP_SIGNAL) == signal.SIG_DFL:
        signal.signal(_TIME_UP_SIGNAL, signal.SIG_IGN)


@contextmanager
def stop_signals_held() -> Generator[None]:
    """Keep signals to stop waiting; a process started inside begins with them waiting too."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python starts it with the first process otherwise, and then lets these signals through.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_stop_signals() -> None:
    """Let this process, which serves another one, be ended by that one and not by signals to all.

    The other one may need it to finish a step. Should it be forgotten, it ends a minute later.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _TIME_UP_SIGNAL is not None:
        signal.signal(_TIME_UP_SIGNAL, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_LEAVE_SECONDS))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def let_waiting_threads_sleep() -> None:
    """Let torch's threads sleep soon where one waits for another, here and in what is started here.

    GNU's OpenMP lets them spin first. Where other processes want the same cores, those that wait
    then keep the one that is waited for off them. Read when torch is loaded; what the user says
    about it in the environment stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
