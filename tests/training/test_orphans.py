"""What torchrun started ends with it."""

import subprocess
import sys

ORPHAN = """
import time
from vismae.training.orphans import end_with_parent
end_with_parent()
print("watching", flush=True)
time.sleep(300)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {ORPHAN!r}], start_new_session=True)
"""


def test_a_process_ends_when_the_one_that_started_it_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "watching\n"
        parent.kill()
        # The other end of the pipe is closed when the last process that holds it has ended.
        assert parent.communicate(timeout=60) == ("", None)
