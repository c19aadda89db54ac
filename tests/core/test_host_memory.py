"""What glibc's switch does to the pages of blocks that are freed and asked for again."""

import resource
import subprocess
import sys

import pytest

# Counts how many pages the system has to give while the same block is made and dropped ten times,
# after some rounds in which the heap finds its size.
COUNT = """
import resource, sys
from vismae.core.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch
for _ in range(20):
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_asked_for(word: str) -> int:
    run = [sys.executable, "-c", COUNT, word]
    return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a switch of glibc")
def test_freed_memory_serves_the_next_step_without_asking_the_system():
    block_pages = (1 << 26) // resource.getpagesize()
    assert pages_asked_for("leave") > 5 * block_pages
    assert pages_asked_for("keep") < block_pages


# Counts how much stays with the process when a block far larger than what it may keep is freed.
KEPT = """
import sys
import numpy as np
from vismae.core.host_memory import keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
assert keep_freed_memory(*map(eval, sys.argv[1:]))
before = resident()
block = np.ones(1 << 28, np.uint8)
del block
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a switch of glibc")
@pytest.mark.parametrize("limits", [("1 << 24",), ("None", "1 << 26")])
def test_more_than_may_be_kept_goes_back_to_the_system(limits: tuple[str, ...]):
    run = [sys.executable, "-c", KEPT, *limits]
    kept = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert kept < (1 << 25) // resource.getpagesize()
