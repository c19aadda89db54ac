"""What pages look at, and when it goes: after a while, or for want of room."""

import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vismae.web.jobs import Job
from vismae.web.studies import Studies, Study


@pytest.fixture
def add(tmp_path: Path) -> Any:
    def add_results(studies: Studies, name: str, size: int, done: bool = True) -> Study:
        folder = tmp_path / name
        (folder / "upload").mkdir(parents=True)
        (folder / "upload" / "file").write_bytes(bytes(10**6))
        (folder / "labels").mkdir()
        (folder / "labels" / "all").write_bytes(bytes(size))
        job = SimpleNamespace(outcome=Future[Any](), place=0, cancel=lambda: False)
        study = studies.add(folder, cast(Job, job))
        if done:
            job.outcome.set_result({})
        return study

    return add_results


def test_results_go_for_want_of_room_those_unasked_for_the_longest_first(add: Any) -> None:
    studies = Studies(3600.0, 250)
    first, second = add(studies, "a", 100), add(studies, "b", 100)
    assert studies.get("a") is first  # asked for later than b
    third = add(studies, "c", 100)
    studies.sweep()
    assert studies.get("b") is None
    assert not second.folder.exists()
    assert (studies.get("a"), studies.get("c")) == (first, third)
    assert not (first.folder / "upload").exists()


def test_what_a_job_works_on_and_the_latest_results_stay_whatever_they_take(add: Any) -> None:
    studies = Studies(3600.0, 250)
    working = add(studies, "a", 10_000, done=False)
    large = add(studies, "b", 10_000)
    studies.sweep()
    assert (studies.get("a"), studies.get("b")) == (working, large)
    assert working.folder.is_dir()
    assert large.folder.is_dir()


def test_results_go_when_nobody_asks_for_them(add: Any) -> None:
    studies = Studies(0.05, 10**9)
    study = add(studies, "a", 100)
    time.sleep(0.1)
    studies.sweep()
    assert studies.get("a") is None
    assert not study.folder.exists()
