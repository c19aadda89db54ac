"""Processes start from scripts of every kind; threads that wait leave their cores."""

import os
import subprocess
import sys

import pytest

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


WAITING = """
import os, sys
sys.argv = ["vismae", "--version"]
from vismae.cli import main
assert "torch" not in sys.modules, "too late: OpenMP reads its settings when it is loaded"
try:
    main()
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_the_command_lets_waiting_threads_sleep_unless_told_otherwise(
    said: dict[str, str], expected: str
) -> None:
    silent = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_WAIT", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", WAITING],
        env=silent | said,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == expected, done.stderr
