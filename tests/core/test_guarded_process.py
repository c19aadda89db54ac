"""A guarded child works, is lost in every way, and leaves nothing behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest

import troublesome_tasks as tasks
from troublesome_tasks import is_running, wait_until
from vismae.core.errors import UnreadableFileError, VismaeError
from vismae.core.guarded_child import Failure, RemoteTraceback
from vismae.core.guarded_process import GuardedProcess, Guards, Limits, Loss

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory limits and the end of orphans need Linux"
)


@pytest.fixture
def started() -> Iterator[Callable[..., GuardedProcess]]:
    guards: list[GuardedProcess] = []

    def start(
        seconds: float | None = 30.0, memory_gib: float | None = None, **settings: Any
    ) -> GuardedProcess:
        guards.append(GuardedProcess(Limits(seconds, memory_gib), **settings))
        return guards[-1]

    yield start
    for guard in guards:
        guard.stop()


def answer(guard: GuardedProcess, function: Callable[..., Any], task: object) -> Any:
    outcome = guard.call(pickle.dumps((function, task)))
    return pickle.loads(outcome) if isinstance(outcome, bytes) else outcome


def test_calls_run_in_one_child_that_is_kept(started) -> None:
    guard = started()
    assert answer(guard, tasks.double, 21) == 42
    child = answer(guard, tasks.process_id, None)
    assert child not in (os.getpid(), None)
    assert answer(guard, tasks.process_id, None) == child


def test_a_sleeping_call_is_lost_with_its_step_and_another_child_takes_over(started) -> None:
    guard = started(seconds=0.5)
    first = answer(guard, tasks.process_id, None)
    began = time.monotonic()
    lost = answer(guard, tasks.sleep_unless_even, 7)
    assert lost == Loss("task 7", "time", "more than 0.5 s")
    assert 0.5 <= time.monotonic() - began < 5
    assert not is_running(first)
    assert answer(guard, tasks.process_id, None) != first


def test_the_clock_starts_again_with_each_step(started) -> None:
    guard = started(seconds=0.8)
    assert answer(guard, tasks.sleep_in_steps, (5, 0.3)) == 5
    assert answer(guard, tasks.sleep_in_steps, (1, 5.0)) == Loss("nap 0", "time", "more than 0.8 s")


def test_a_hang_in_foreign_code_that_blocks_all_signals_ends(started) -> None:
    lost = answer(started(seconds=0.5), tasks.compute_without_listening, 0)
    assert lost == Loss("sum", "time", "more than 0.5 s")


def test_starting_and_preloading_do_not_count_as_time_of_the_call(
    started, tmp_path, monkeypatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(2)")
    monkeypatch.syspath_prepend(tmp_path)
    assert answer(started(seconds=1.5, preload=["slow_to_import"]), tasks.double, 1) == 2


def test_a_module_that_cannot_be_preloaded_is_a_failure(started) -> None:
    failure = answer(started(preload=["no_such_module"]), tasks.double, 1)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        failure.reraise()


def test_memory_is_limited_above_what_the_child_uses_at_its_start(started) -> None:
    guard = started(memory_gib=0.25, preload=["numpy"])
    assert answer(guard, tasks.take_memory, 150) == 150 * 2**20
    assert answer(guard, tasks.take_memory, 300) == Loss("300 MiB", "memory", "more than 0.25 GiB")
    assert answer(guard, tasks.take_memory, 150) == 150 * 2**20


def test_a_child_that_keeps_memory_is_replaced_before_another_call_pays_for_it(started) -> None:
    guard = started(memory_gib=0.25, preload=["numpy"])
    children = [answer(guard, tasks.leak_memory, 60) for _ in range(7)]
    assert all(isinstance(child, int) for child in children)
    assert len(set(children)) == 3


@pytest.mark.parametrize(
    ("function", "task", "loss"),
    [
        (tasks.crash, None, Loss("crash", "died", "signal SIGSEGV")),
        (tasks.leave, 3, Loss(None, "died", "exit code 3")),
        (tasks.leave_politely, 4, Loss(None, "died", "exit code 4")),
    ],
)
def test_a_death_is_reported_and_another_child_takes_over(started, function, task, loss) -> None:
    guard = started()
    assert answer(guard, function, task) == loss
    assert answer(guard, tasks.double, 4) == 8


def test_a_child_that_was_killed_between_calls_is_replaced_quietly(started) -> None:
    guard = started()
    child = answer(guard, tasks.process_id, None)
    os.kill(child, signal.SIGKILL)
    assert wait_until(lambda: not is_running(child))
    assert answer(guard, tasks.process_id, None) not in (child, None)


def test_an_idle_child_ends_by_itself_and_the_next_call_has_another(started) -> None:
    guard = started(idle_seconds=0.4)
    child = answer(guard, tasks.process_id, None)
    assert wait_until(lambda: not is_running(child))
    assert answer(guard, tasks.double, 3) == 6


def test_an_error_of_our_own_arrives_with_class_words_and_the_traceback_of_the_child(
    started,
) -> None:
    failure = answer(started(), tasks.refuse, "a.dcm")
    with pytest.raises(UnreadableFileError, match=r"^a\.dcm: holds no pixels\.$") as caught:
        failure.reraise()
    assert caught.value.reason == "no-pixels"
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in refuse" in str(caught.value.__cause__)


def test_an_error_that_cannot_travel_arrives_by_name(started) -> None:
    guard = started()
    with pytest.raises(RuntimeError, match=r"^StubbornError: does not travel$"):
        answer(guard, tasks.fail_stubbornly, None).reraise()
    assert isinstance(answer(guard, tasks.return_a_lambda, None), Failure)
    assert answer(guard, tasks.double, 1) == 2


def test_large_results_arrive_whole(started) -> None:
    array = answer(started(), tasks.large_array, 4_000_000)
    assert np.array_equal(array, np.arange(4_000_000))


def test_a_stopped_process_loses_the_call_under_way_and_all_later_ones(started, tmp_path) -> None:
    guard = started()

    def stop_once_asleep() -> None:
        wait_until(lambda: any(tmp_path.iterdir()), 60)
        guard.stop()

    threading.Thread(target=stop_once_asleep).start()
    lost = answer(guard, tasks.write_process_id_and_sleep, (tmp_path, 60.0))
    assert (lost.step, lost.cause, lost.detail) == ("asleep", "died", "signal SIGKILL")
    assert not is_running(int(next(tmp_path.iterdir()).name))
    assert answer(guard, tasks.double, 1) == Loss(None, "died", "stopped")


def test_a_child_that_cannot_start_is_an_error_with_its_exit_code(started, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(VismaeError, match=r"ended while it started \(exit code 1\)"):
        answer(started(), tasks.double, 1)


def test_each_thread_has_a_child_of_its_own() -> None:
    guards = Guards(Limits(30.0))
    call = pickle.dumps((tasks.process_id, None))
    with ThreadPoolExecutor(2) as pool:
        both = threading.Barrier(2)

        def ask(_: int) -> set[Any]:
            both.wait(20)
            return {pickle.loads(cast(bytes, guards.call(call))) for _ in range(3)}

        first, second = pool.map(ask, range(2))
        assert len(first) == len(second) == 1
        assert first != second
        guards.stop()
        assert guards.call(call) == Loss(None, "died", "stopped")
    assert not any(is_running(child) for child in first | second)


HOLDER = """
import pickle, sys, threading
from pathlib import Path
import troublesome_tasks as tasks
from vismae.core.guarded_process import GuardedProcess, Limits
function = getattr(tasks, sys.argv[1])
guard = GuardedProcess(Limits(), preload=["troublesome_tasks"])
if sys.argv[1] == "double":
    print(pickle.loads(guard.call(pickle.dumps((tasks.process_id, None)))), flush=True)
    input()
guard.call(pickle.dumps((function, (Path(sys.argv[2]), 60.0))))
"""


@pytest.mark.parametrize("function", ["double", "hang_noted"])
def test_nothing_is_left_of_a_parent_that_was_killed(function, tmp_path) -> None:
    """The child is idle in the first case, and blocks every signal in the second."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, function, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        if function == "double":
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
        else:
            assert wait_until(lambda: any(tmp_path.iterdir()))
            child = int(next(tmp_path.iterdir()).name)
        assert is_running(child)
        parent.kill()
    assert wait_until(lambda: not is_running(child))


def test_children_write_nothing_to_the_terminal() -> None:
    program = (
        "import pickle, troublesome_tasks as tasks\n"
        "from vismae.core.guarded_process import GuardedProcess, Limits\n"
        "print(pickle.loads(GuardedProcess(Limits()).call(pickle.dumps((tasks.make_noise, 0)))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("quiet\n", "")
