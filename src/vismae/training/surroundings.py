"""What surrounds a training in its process: Lightning's news, its variables, and signals."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import torch

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_LAUNCH_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class StopRequest(BaseException):
    """A signal asked the run to stop.

    Like ``KeyboardInterrupt`` no ordinary error, so that nobody takes it for one and goes on.
    """


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
def own_launch() -> Generator[None]:
    """Undo what Lightning leaves in this process when it has started others.

    Its variables and process group would make the next training wait for processes long gone.
    """
    before = {name: os.environ.get(name) for name in _LAUNCH_VARIABLES}
    had_group = _has_process_group()
    try:
        yield
    finally:
        if _has_process_group() and not had_group:
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def signals_given_back() -> Generator[None]:
    """Restore the handlers of Ctrl-C and SIGTERM at the end.

    Raises:
        KeyboardInterrupt: In place of ``StopRequest``.
    """
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    except StopRequest:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _has_process_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
