"""The host's allocator, told to keep what is freed.

glibc gives every large block back to the system when it is freed and asks for it anew the next
time, and the system clears each page again. Training on a CPU frees and asks for the same blocks
in every step: the dense ``vismae`` network at 224 px was measured 1.2 times as fast in float32
when the pages stay (``benchmarks/pretraining_step.py``), predicting with it 1.1 times. A reader of
512×512 slices frees and asks for half a megabyte several times for each of them, a seventh of its
time.
"""

import ctypes
import sys

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_IN_HEAP_BYTES = 1 << 30
_NEVER = -1


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
