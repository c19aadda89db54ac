"""Tasks on a real Dask cluster of several processes, some of which are killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import troublesome_tasks as tasks
from troublesome_tasks import is_running, wait_until
from vismae.core.errors import SettingError, UnreadableFileError, VismaeError
from vismae.core.executor import Limits, Lost, open_executor

pytest.importorskip("distributed", reason="needs the extra cluster")

import dask
from distributed import Client, LocalCluster

from vismae.core import dask_executor

LIMITS = Limits(30.0, 1.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {
        "distributed.scheduler.allowed-failures": 1,
        # A LocalCluster gives a worker up that is not there some time after a death of its; here
        # workers die so often that it may just be dead again.
        "distributed.deploy.lost-worker-timeout": "1h",
    }
    with (
        dask.config.set(settings),
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
        results = executor.run(tasks.refuse_three, [(tmp_path, number) for number in range(30)])
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        assert wait_until(lambda: any(tmp_path.iterdir()))
        with pytest.raises(UnreadableFileError, match="three") as caught:
            next(results)
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


def test_tasks_that_stood_beside_it_are_done(where) -> None:
    with open_executor(where, 1, LIMITS) as executor:
        outcomes = list(executor.run(tasks.kill_the_worker_beside_others, range(6)))
    assert outcomes.pop(1) == Lost(1, None, "died", "2 Dask workers died of it")
    assert outcomes == [0, 2, 3, 4, 5]


def test_workers_with_another_version_of_vismae_are_refused(where, tmp_path) -> None:
    (tmp_path / "vismae-0.0.1.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: vismae\nVersion: 0.0.1\n"
    (tmp_path / "vismae-0.0.1.dist-info" / "METADATA").write_text(metadata)
    with Client(where.removeprefix("dask://"), set_as_default=False) as client:
        client.run(tasks.prepend_to_path, str(tmp_path))
        try:
            with (
                pytest.raises(SettingError, match=r"other versions of vismae .*'0\.0\.1'"),
                open_executor(where, 1, LIMITS),
            ):
                pass
        finally:
            client.run(tasks.remove_from_path, str(tmp_path))


def test_a_scheduler_that_does_not_answer_is_a_setting_error(monkeypatch) -> None:
    monkeypatch.setattr(dask_executor, "_CONNECT_SECONDS", 1.0)
    with (
        pytest.raises(SettingError, match=r"No Dask scheduler answers at dask://127\.0\.0\.1:9 "),
        open_executor("dask://127.0.0.1:9", 1, LIMITS),
    ):
        pass


def test_a_scheduler_that_dies_in_the_middle_is_an_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dask_executor, "_CONNECT_SECONDS", 2.0)
    known = tmp_path / "scheduler.json"
    scheduler = start("dask_scheduler", "--port", "0", "--host", "127.0.0.1", known)
    worker = start("dask_worker", "--nthreads", "1", "--no-nanny", "--death-timeout", "30", known)
    try:
        assert wait_until(lambda: known.is_file() and known.stat().st_size > 0)
        address = json.loads(known.read_text())["address"]
        with open_executor(f"dask://{address}", 1, LIMITS) as executor:
            results = executor.run(tasks.sleep_then_return, [0.1] * 1000)
            assert next(results) == 0.1
            scheduler.kill()
            with pytest.raises(VismaeError, match="is gone"):
                list(results)
            # A client that has given up by now must not turn the way out into another error.
            assert wait_until(lambda: executor._client.status == "closed")
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


def start(program: str, *options: object) -> "subprocess.Popen[bytes]":
    *others, known = map(str, options)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", f"distributed.cli.{program}", "--no-dashboard"),
            *(*others, "--scheduler-file", known),
        ],
        cwd=Path(known).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
