"""Functions for executors: ones that work, and ones that take their process down in every way."""

import ctypes
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.core.guarded_child import Step


def double(task: int, step: Step) -> int:
    step(f"double {task}")
    return 2 * task


def process_id(task: object, step: Step) -> int:
    return os.getpid()


def nap_and_name_process(seconds: float, step: Step) -> int:
    time.sleep(seconds)
    return os.getpid()


def write_process_id_and_sleep(task: tuple[Path, float], step: Step) -> int:
    folder, seconds = task
    step("asleep")
    # After it, so that who sees the file knows that the step was told.
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)
    return os.getpid()


def sleep_in_steps(task: tuple[int, float], step: Step) -> int:
    count, seconds = task
    for number in range(count):
        step(f"nap {number}")
        time.sleep(seconds)
    return count


def sleep_then_return(seconds: float, step: Step) -> float:
    time.sleep(seconds)
    return seconds


def sleep_unless_even(task: int, step: Step) -> int:
    step(f"task {task}")
    if task % 2:
        time.sleep(60)
    return task


def compute_without_listening(task: int, step: Step) -> float:
    """Stay in foreign code for hours, with every signal blocked that can be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    step("sum")
    return float(np.broadcast_to(np.ones(1), (10**7, 10**6)).sum())


def hang_noted(task: tuple[Path, float], step: Step) -> float:
    (task[0] / str(os.getpid())).touch()
    return compute_without_listening(0, step)


def take_memory(mebibytes: int, step: Step) -> int:
    step(f"{mebibytes} MiB")
    return int(np.ones(mebibytes * 2**20, np.uint8).sum())


def do(task: str, step: Step) -> int | None:
    step(task)
    word, _, number = task.partition(" ")
    if word == "sleep":
        time.sleep(60)
    if word == "crash":
        ctypes.string_at(0)
    if word == "hog":
        return np.ones(2**30, np.uint8).size
    return int(number)


def refuse_three(task: tuple[Path, int], step: Step) -> int:
    folder, number = task
    if number == 3:
        raise UnreadableFileError("no-pixels", "three is left out")
    if number > 3:
        (folder / str(os.getpid())).touch()
        time.sleep(60)
    return number


LEAK: list[np.ndarray] = []


def leak_memory(mebibytes: int, step: Step) -> int:
    LEAK.append(np.ones(mebibytes * 2**20, np.uint8))
    return os.getpid()


def crash(task: object, step: Step) -> None:
    step("crash")
    ctypes.string_at(0)


def leave(code: int, step: Step) -> None:
    os._exit(code)


def leave_politely(code: int, step: Step) -> None:
    sys.exit(code)


def refuse(task: str, step: Step) -> None:
    raise UnreadableFileError("no-pixels", f"{task}: holds no pixels.")


class StubbornError(Exception):
    """Cannot be unpickled: its initialiser wants more than its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def fail_stubbornly(task: object, step: Step) -> None:
    raise StubbornError("does not ", "travel")


def return_a_lambda(task: object, step: Step) -> object:
    return lambda: task


def large_array(length: int, step: Step) -> np.ndarray:
    return np.arange(length, dtype=np.int64)


def make_noise(task: object, step: Step) -> str:
    warnings.warn("an ordinary thing", stacklevel=1)
    print("to standard output")
    print("to standard error", file=sys.stderr)
    os.write(2, b"from a C library\n")
    return "quiet"


def kill_the_worker_once(task: tuple[Path, int], step: Step) -> int:
    """Kill the process that holds this child when the first task of its kind comes by."""
    marker, number = task
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return 2 * number


def kill_the_worker(number: int, step: Step) -> int:
    if number == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return number


def kill_the_worker_beside_others(number: int, step: Step) -> int:
    """Number 1 kills the process that holds this child while the others are under way."""
    time.sleep(0.5)
    if number == 1:
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.5)
    return number


def prepend_to_path(folder: str) -> None:
    sys.path.insert(0, folder)


def remove_from_path(folder: str) -> None:
    sys.path.remove(folder)


def is_running(process_id: int) -> bool:
    """Tell whether a process lives; one that is dead and only not yet waited for does not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.split()[0] != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
