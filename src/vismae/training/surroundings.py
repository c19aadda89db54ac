"""What surrounds a training in its process: Lightning's news, and signals."""

import logging
import signal
import threading
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from vismae.core.errors import TimeUpError

# Sent by schedulers some time before they end a job; not known everywhere.
TIME_UP_SIGNAL: int | None = getattr(signal, "SIGUSR1", None)
StopHandlers = Mapping[int, Any]
"""Signal number -> what ``signal.getsignal`` returns for it."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([TIME_UP_SIGNAL] if TIME_UP_SIGNAL else []))


class StopRequest(BaseException):
    """A signal asked the run to stop.

    Like ``KeyboardInterrupt`` no ordinary error, so that nobody takes it for one and goes on.

    Args:
        number: The signal.
        agreed: All processes stop after the same step.
    """

    def __init__(self, number: int = signal.SIGINT, agreed: bool = False) -> None:
        super().__init__()
        self.number = number
        self.agreed = agreed


@contextmanager
def quiet_lightning() -> Generator[None]:
    """Keep Lightning's news and advice from users while inside; what matters is in our lines."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Our loaders are endless, seeded and resumable by position; Lightning's advice on
            # worker counts and resumable loaders does not apply to them.
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


@contextmanager
def signals_given_back() -> Generator[None]:
    """Restore the handlers of the signals that stop a run at its end.

    After an ordinary error they stay, for ``together`` to restore: torchrun and SLURM send SIGTERM
    as soon as one process is gone, and the default would end this one before it has said why.

    Raises:
        TimeUpError: In place of ``StopRequest``, where SIGUSR1 asked for it.
        KeyboardInterrupt: The same for Ctrl-C and SIGTERM.
    """
    handlers = stop_handlers()
    failed = False
    try:
        yield
    except StopRequest as stop:
        if stop.number == TIME_UP_SIGNAL:
            raise TimeUpError(
                "stopped on SIGUSR1, as before the end of a job's time. The same command with "
                "--resume goes on."
            ) from None
        raise KeyboardInterrupt from None
    except Exception:
        failed = True
        raise
    finally:
        if not failed:
            give_back(handlers)


def stop_handlers() -> StopHandlers:
    """Return what handles the signals that stop a run now."""
    return {number: signal.getsignal(number) for number in STOP_SIGNALS}


def give_back(handlers: StopHandlers) -> None:
    """Let these handle the signals again; nothing happens outside the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
