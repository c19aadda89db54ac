"""Starting processes that work wherever vismae is called from."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
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


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
