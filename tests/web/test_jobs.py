"""The queue in front of the guarded process."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from models_on_disk import write_contrastive
from vismae.core.errors import ModelError
from vismae.core.guarded_process import GuardedProcess, Limits
from vismae.web.child import do
from vismae.web.jobs import Job, JobLostError, JobQueue, Slot
from vismae.web.work import Served

CAPACITY = 4


def asked(*folders: Path) -> Served:
    models = tuple((folder.parent.name, folder) for folder in folders)
    return Served(models, "cpu", 4, 1, False, ())


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    made = JobQueue(GuardedProcess(Limits(60, 4), ("vismae.web.child",)), CAPACITY)
    yield made
    made.stop()


def slot(queue: JobQueue) -> Slot:
    found = queue.reserve()
    assert found is not None
    return found


def test_jobs_wait_their_turn_and_a_full_queue_takes_no_more(
    queue: JobQueue, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    good = asked(model_folders["organs"])
    jobs: list[Job] = [slot(queue).start(good) for _ in range(2)]
    jobs.append(slot(queue).start(asked(tmp_path / "nothing" / "model")))
    waits = slot(queue)
    assert queue.reserve() is None
    waits.release()
    waits.release()  # once is enough: a second time changes nothing
    jobs.append(slot(queue).start(good))
    assert queue.reserve() is None
    # The first may not have been taken up yet; the others keep their order behind it.
    assert [job.place for job in jobs[1:]] == [1, 2, 3]
    assert jobs[3].cancel()
    with pytest.raises(CancelledError):
        jobs[3].outcome.result(0)
    assert [found["kind"] for found in jobs[0].outcome.result(120)] == ["segmenter"]
    assert jobs[1].outcome.result(60) == jobs[0].outcome.result(0)
    with pytest.raises(ModelError):
        jobs[2].outcome.result(60)
    assert not jobs[0].cancel()
    assert [slot(queue) for _ in range(CAPACITY)]


class Deadly:
    """Ends the process that takes it up."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (3,)


class Unsendable:
    """Cannot be handed to any process."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        raise OSError("no such luck")


def test_a_process_that_dies_of_a_job_is_replaced(
    queue: JobQueue, model_folders: dict[str, Path]
) -> None:
    with pytest.raises(JobLostError, match=r"crashed \(exit code 3\)"):
        slot(queue).start(Deadly()).outcome.result(120)
    [found] = slot(queue).start(asked(model_folders["organs"])).outcome.result(120)
    assert found["kind"] == "segmenter"


def test_what_takes_too_long_is_lost(model_folders: dict[str, Path]) -> None:
    hasty = JobQueue(GuardedProcess(Limits(0.001, 4), ("vismae.web.child",)), 1)
    try:
        with pytest.raises(JobLostError, match="took too long"):
            slot(hasty).start(asked(*model_folders.values())).outcome.result(120)
    finally:
        hasty.stop()


def test_a_job_that_cannot_even_be_begun_costs_only_itself(
    queue: JobQueue, model_folders: dict[str, Path]
) -> None:
    with pytest.raises(OSError, match="no such luck"):
        slot(queue).start(Unsendable()).outcome.result(60)
    [found] = slot(queue).start(asked(model_folders["organs"])).outcome.result(120)
    assert found["kind"] == "segmenter"


def test_a_job_under_way_cannot_be_cancelled_behind_the_back_of_the_queue(
    queue: JobQueue, model_folders: dict[str, Path]
) -> None:
    job = slot(queue).start(asked(*model_folders.values()))
    while not job.outcome.running():
        assert not job.outcome.done()
        time.sleep(0.001)
    assert not job.outcome.cancel()
    assert len(job.outcome.result(120)) == 3
    [found] = slot(queue).start(asked(model_folders["organs"])).outcome.result(120)
    assert found["kind"] == "segmenter"


def test_a_model_that_the_page_cannot_show_is_refused_at_the_start(tmp_path: Path) -> None:
    served = Served((("simclr", write_contrastive(tmp_path / "model")),), "cpu", 1, 1, False, ())
    with pytest.raises(ModelError, match=r"contrastive encoder.*vismae embed"):
        do(served, lambda *_: None)
