"""Processes start from scripts of every kind."""

import subprocess
import sys

SCRIPT = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import neg
from vismae.core.processes import spawning_without_main
with ProcessPoolExecutor(1, get_context("spawn")) as pool:
    with spawning_without_main():
        future = pool.submit(neg, 41)
    print(future.result())
"""


def test_a_script_without_a_guard_read_from_standard_input_can_spawn() -> None:
    done = subprocess.run(
        [sys.executable, "-"], input=SCRIPT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "-41\n", done.stderr


def test_a_script_file_without_a_guard_can_spawn(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "-41\n", done.stderr
