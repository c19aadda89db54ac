"""Many tasks on this machine: in order, lazily, under limits, and with nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import troublesome_tasks as tasks
from troublesome_tasks import is_running, wait_until
from vismae.core.errors import SettingError, UnreadableFileError
from vismae.core.executor import Limits, Lost, open_executor

LOCAL = ("here", "processes")


@pytest.mark.parametrize("where", LOCAL)
def test_results_come_in_the_order_of_the_tasks_in_every_run(where) -> None:
    with open_executor(where, 2, Limits(30.0, 2.0)) as executor:
        assert list(executor.run(tasks.sleep_then_return, [0.4, 0.0, 0.2, 0.0])) == [
            *(0.4, 0.0, 0.2, 0.0)
        ]
        assert list(executor.run(tasks.double, iter(range(40)))) == list(range(0, 80, 2))
        assert list(executor.run(tasks.double, [])) == []


def test_here_is_this_process_and_processes_are_others_even_with_one_worker() -> None:
    with open_executor("here", 1, Limits()) as executor:
        assert list(executor.run(tasks.process_id, [0])) == [os.getpid()]
    with open_executor("processes", 1, Limits()) as executor:
        children = set(executor.run(tasks.process_id, range(5)))
    assert len(children) == 1
    assert os.getpid() not in children


def test_workers_work_at_the_same_time_and_are_kept_between_runs(tmp_path) -> None:
    naps = [(tmp_path, 0.5)] * 2
    with open_executor("processes", 2, Limits()) as executor:
        first = set(executor.run(tasks.write_process_id_and_sleep, naps))
        assert len(first) == 2
        assert set(executor.run(tasks.process_id, range(20))) <= first


@pytest.mark.parametrize(("where", "ahead"), [("here", 1), ("processes", 4)])
def test_tasks_are_taken_only_when_there_is_room(where, ahead) -> None:
    taken = 0

    def counted() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with open_executor(where, 2, Limits()) as executor:
        results = executor.run(tasks.double, counted())
        for received in range(1, 30):
            assert next(results) == 2 * received
            assert taken <= received - 1 + ahead


def test_lost_tasks_come_in_their_place_and_all_others_are_done() -> None:
    with open_executor("processes", 2, Limits(1.0, 0.5), preload=["numpy"]) as executor:
        outcomes = list(
            executor.run(tasks.do, ["even 2", "sleep", "crash", "even 4", "hog", "even 6"])
        )
    assert outcomes == [
        2,
        Lost("sleep", "sleep", "time", "more than 1 s"),
        Lost("crash", "crash", "died", "signal SIGSEGV"),
        4,
        Lost("hog", "hog", "memory", "more than 0.5 GiB"),
        6,
    ]


def test_an_error_ends_the_run_after_the_results_before_it_and_stops_the_others(tmp_path) -> None:
    with open_executor("processes", 2, Limits()) as executor:
        results = executor.run(tasks.refuse_three, [(tmp_path, number) for number in range(6)])
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        assert wait_until(lambda: any(tmp_path.iterdir()))
        began = time.monotonic()
        with pytest.raises(UnreadableFileError, match="three") as caught:
            next(results)
        assert "in refuse_three" in str(caught.value.__cause__)
        assert time.monotonic() - began < 10
        assert not any(is_running(int(path.name)) for path in tmp_path.iterdir())
        assert list(executor.run(tasks.double, [1, 2])) == [2, 4]


def test_an_error_of_the_tasks_themselves_stops_what_is_under_way(tmp_path) -> None:
    def failing() -> Iterator[tuple[Path, float]]:
        yield tmp_path, 60.0
        assert wait_until(lambda: any(tmp_path.iterdir()))
        raise OSError("no space left")

    with open_executor("processes", 2, Limits()) as executor:
        with pytest.raises(OSError, match="no space left"):
            list(executor.run(tasks.write_process_id_and_sleep, failing()))
        assert not is_running(int(next(tmp_path.iterdir()).name))


def test_a_run_that_is_left_half_way_stops_and_the_next_one_works(tmp_path) -> None:
    with open_executor("processes", 2, Limits()) as executor:
        naps = ((tmp_path, seconds) for seconds in (0.0, 60.0, 60.0, 60.0))
        for _ in executor.run(tasks.write_process_id_and_sleep, naps):
            break
        assert list(executor.run(tasks.double, range(8))) == list(range(0, 16, 2))


def test_a_function_that_cannot_be_sent_is_an_error_at_once() -> None:
    with (
        open_executor("processes", 1, Limits()) as executor,
        pytest.raises((AttributeError, TypeError)),
    ):
        list(executor.run(lambda task, step: task, [1]))


def test_no_child_outlives_the_executor() -> None:
    with open_executor("processes", 2, Limits()) as executor:
        children = set(executor.run(tasks.process_id, range(8)))
        assert all(is_running(child) for child in children)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.parametrize(
    ("where", "workers", "words"),
    [
        ("moon", 1, "processes, here, or dask://host:port"),
        ("dask://", 1, "dask://host:port"),
        ("dask:localhost:8786", 1, "dask://host:port"),
        ("processes", 0, "workers is 0"),
    ],
)
def test_a_wrong_place_or_number_is_a_setting_error(where, workers, words) -> None:
    with pytest.raises(SettingError, match=words), open_executor(where, workers, Limits()):
        pass


def test_without_dask_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "vismae.core.dask_executor", raising=False)
    with (
        pytest.raises(SettingError, match=r"pip install 'vismae\[cluster\]'"),
        open_executor("dask://127.0.0.1:9", 1, Limits()),
    ):
        pass


# A script without a main guard, as people write them.
SCRIPT = """
import signal
import sys
from pathlib import Path
import troublesome_tasks as tasks
from vismae.core.executor import Limits, open_executor
# Programs started in the background of a shell are told to ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
with open_executor("processes", 2, Limits()) as executor:
    list(executor.run(tasks.write_process_id_and_sleep, [(Path(sys.argv[1]), 60.0)] * 4))
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_after_ctrl_c_or_a_kill(ending, tmp_path) -> None:
    script, notes = tmp_path / "script.py", tmp_path / "notes"
    script.write_text(SCRIPT)
    notes.mkdir()
    with subprocess.Popen(
        [sys.executable, str(script), str(notes)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert wait_until(lambda: len(list(notes.iterdir())) == 2)
        os.killpg(parent.pid, ending)
        _, written = parent.communicate(timeout=20)
    assert parent.returncode == -ending
    assert written.count("Traceback") == (1 if ending == signal.SIGINT else 0)
    children = [int(path.name) for path in notes.iterdir()]
    assert wait_until(lambda: not any(is_running(child) for child in children))
