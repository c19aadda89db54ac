"""Tasks on a real Dask cluster of several processes, some of which are killed."""

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest
import troublesome_tasks as tasks
from troublesome_tasks import is_running, wait_until

from vismae.core.errors import SettingError, UnreadableFileError
from vismae.core.executor import Limits, Lost, open_executor

pytest.importorskip("distributed", reason="needs the extra cluster")

import dask
from distributed import Client, LocalCluster

LIMITS = Limits(30.0, 1.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def where(cluster) -> str:
    """Address for the executor; the workers' processes are all there again."""
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    return "dask://" + cluster.scheduler_address.removeprefix("tcp://")


def workers_of(where: str) -> set[int]:
    with Client(where.removeprefix("dask://"), set_as_default=False) as client:
        return set(client.run(os.getpid).values())


def test_results_come_in_order_from_children_of_all_workers_that_are_kept(where) -> None:
    with open_executor(where, 1, LIMITS) as executor:
        assert list(executor.run(tasks.double, iter(range(60)))) == list(range(0, 120, 2))
        children = set(executor.run(tasks.nap_and_name_process, [0.3] * 16))
        assert len(children) == 4
        assert set(executor.run(tasks.process_id, range(30))) <= children
        assert not children & workers_of(where)
    assert wait_until(lambda: not any(is_running(child) for child in children))


def test_tasks_are_taken_only_when_there_is_room(where) -> None:
    taken = 0

    def counted() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with open_executor(where, 1, LIMITS) as executor:
        results = executor.run(tasks.double, counted())
        for received in range(1, 20):
            assert next(results) == 2 * received
            assert taken <= received - 1 + 8  # Twice the four threads.


def test_limits_hold_on_the_cluster(where) -> None:
    work = ["even 2", "sleep", "crash", "even 4", "hog", "even 6"]
    before = workers_of(where)
    with open_executor(where, 1, Limits(1.5, 0.5), preload=["numpy"]) as executor:
        assert list(executor.run(tasks.do, work)) == [
            2,
            Lost("sleep", "sleep", "time", "more than 1.5 s"),
            Lost("crash", "crash", "died", "signal SIGSEGV"),
            4,
            Lost("hog", "hog", "memory", "more than 0.5 GiB"),
            6,
        ]
    assert workers_of(where) == before


def test_an_error_arrives_with_its_class_and_stops_the_others(where, tmp_path) -> None:
    with open_executor("dask://tcp://" + where.removeprefix("dask://"), 1, LIMITS) as executor:
        with pytest.raises(UnreadableFileError, match="three") as caught:
            for outcome in executor.run(tasks.refuse_three, [(tmp_path, n) for n in range(30)]):
                assert outcome != 2 or wait_until(lambda: any(tmp_path.iterdir()))
        assert "in refuse_three" in str(caught.value.__cause__)
        assert list(executor.run(tasks.double, [1, 2])) == [2, 4]
        assert wait_until(
            lambda: not any(is_running(int(path.name)) for path in tmp_path.iterdir()), 5
        )


def test_tasks_of_a_worker_that_is_killed_are_done_by_others(where, tmp_path) -> None:
    before = workers_of(where)
    work = [(tmp_path / "killed", number) for number in range(40)]
    with open_executor(where, 1, LIMITS) as executor:
        outcomes = list(executor.run(tasks.kill_the_worker_once, work))
    assert outcomes == list(range(0, 80, 2))
    assert (tmp_path / "killed").exists()
    assert workers_of(where) != before


def test_a_task_that_kills_worker_after_worker_is_lost_alone(where) -> None:
    with open_executor(where, 1, LIMITS) as executor:
        first, second, third = executor.run(tasks.kill_the_worker, [0, 1, 2])
    assert (first, third) == (0, 2)
    assert second == Lost(1, None, "died", "2 Dask workers died of it")


def test_a_scheduler_that_does_not_answer_is_a_setting_error() -> None:
    began = time.monotonic()
    with (
        pytest.raises(SettingError, match=r"No Dask scheduler answers at dask://127\.0\.0\.1:9 "),
        open_executor("dask://127.0.0.1:9", 1, LIMITS),
    ):
        pass
    assert time.monotonic() - began < 30
