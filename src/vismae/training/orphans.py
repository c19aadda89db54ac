"""A process that torchrun started does not outlive it.

torchrun gives each of its processes a session of its own, so that kill -9 reaches torchrun alone.
The others would train on, hold the run folder, and at the start wait half an hour for nothing.
"""

import logging
import multiprocessing
import os
import threading
import time

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


def end_with_parent() -> None:
    """End this process at once, as if killed itself, when the one that started it has ended."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    logger.error("torchrun, which started this process, was killed; --resume goes on.")
    for child in multiprocessing.active_children():
        child.kill()
    logging.shutdown()
    os._exit(1)
