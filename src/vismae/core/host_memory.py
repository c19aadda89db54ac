"""The host's allocator, told to keep what is freed and to keep it whole.

glibc gives every large block back to the system when it is freed and asks for it anew the next
time, and the system clears each page again. Training on a CPU frees and asks for the same blocks
in every step: the dense ``vismae`` network at 224 px was measured 1.2 times as fast in float32
when the pages stay (``benchmarks/pretraining_step.py``), predicting with it 1.2 times. A reader of
512×512 slices frees and asks for half a megabyte several times for each of them, a seventh of its
time.

What is kept must also serve again. torch asks for aligned blocks; glibc cuts them out of larger
ones and puts the slivers before and behind aside for the next small object. Once one lies there, a
freed block no longer joins its slivers and is a few bytes too short for the same request: a
quarter of the memory of a training step was lost so.
"""

import ctypes
import os
import sys

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_IN_HEAP_BYTES = 1 << 30
_NEVER = -1
_TUNABLES = "GLIBC_TUNABLES"
# Nothing freed is put aside: every sliver joins what is free beside it at once.
_SLIVERS_JOIN = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"


def keep_freed_memory(
    at_most_bytes: int | None = None, largest_bytes: int = _LARGEST_IN_HEAP_BYTES
) -> bool:
    """Let this process keep freed memory for its next allocations.

    For the whole process and for good; what stays is at most what was in use at one time.

    Args:
        at_most_bytes: Of free memory at the end of the heap, more than this goes back to the
            system; below 2 GiB. None keeps all.
        largest_bytes: Blocks above this go back to the system as before, such as whole volumes.

    Returns:
        Whether it was done: only glibc on Linux has this switch.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    in_heap = mallopt(_M_MMAP_THRESHOLD, largest_bytes)
    kept = _NEVER if at_most_bytes is None else at_most_bytes
    return bool(in_heap and mallopt(_M_TRIM_THRESHOLD, kept))


def start_with_whole_blocks() -> None:
    """Start the running program anew with an allocator that joins freed slivers at once.

    glibc reads this from the environment when a process begins, so the program takes its own
    place: the same process, arguments and files, some 50 ms later. Programs started from it begin
    so too. Nothing happens where ``GLIBC_TUNABLES`` is set, without glibc, or under a debugger,
    which would lose the program.
    """
    if _TUNABLES in os.environ or not _is_glibc() or sys.gettrace() is not None:
        return
    os.environ[_TUNABLES] = _SLIVERS_JOIN
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:
        # More memory is needed, no more.
        del os.environ[_TUNABLES]


def _is_glibc() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False
