"""The queue in front of the guarded process."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from vismae.core.errors import ModelError
from vismae.core.guarded_process import GuardedProcess, Limits
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


def test_a_process_that_dies_of_a_job_is_replaced(
    queue: JobQueue, model_folders: dict[str, Path]
) -> None:
    # No memory for any thread: the process ends in the middle of it.
    dying = JobQueue(GuardedProcess(Limits(0.001, 4), ("vismae.web.child",)), 1)
    try:
        with pytest.raises(JobLostError, match="took too long"):
            slot(dying).start(asked(*model_folders.values())).outcome.result(120)
        with pytest.raises(JobLostError):
            slot(dying).start(asked(*model_folders.values())).outcome.result(120)
    finally:
        dying.stop()
    assert queue.idle
