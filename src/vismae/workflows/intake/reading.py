"""All portions read, one after the other or side by side, with what did not survive left out."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from vismae.core.executor import Executor, Lost
from vismae.workflows.intake import results
from vismae.workflows.intake.ledger import Ledger
from vismae.workflows.intake.plan import items_of
from vismae.workflows.intake.portion import (
    PartSettings,
    PortionTask,
    begun,
    read_portion,
    without,
    without_label_maps,
)
from vismae.workflows.intake.progress import ProgressBar
from vismae.workflows.intake.records import ReadSettings
from vismae.workflows.intake.space import SpaceGuard
from vismae.workflows.intake.work import (
    INTAKE_REASONS,
    MOST_CULPRITS,
    Entry,
    LabelFile,
    lost_reason,
)

logger = logging.getLogger(__name__)


def read_portions(
    ledger: Ledger,
    executor: Executor,
    read: ReadSettings,
    write: PartSettings,
    bar: ProgressBar,
    check_space: bool,
) -> None:
    """Read what is not in the store yet; a file that takes its reader down is left out alone.

    Args:
        ledger: Knows the portions, and is told what became of them.
        executor: Reads them.
        read, write: How.
        bar: Told how far the reading is.
        check_space: Refuse to begin where the images are unlikely to fit on the disk.

    Raises:
        DataError: The disk is too full; what was read so far is kept.
    """
    sizes = dict(results.open_portions(ledger))
    guard = SpaceGuard(write.store, sum(sizes.values()) if write.keep_pixels else 0)
    if check_space:
        guard.require_start()
    bar.begin("reading", sum(sizes.values()))
    given: dict[int, PortionTask] = {}
    culprits: Counter[int] = Counter()

    def tasks() -> Iterator[PortionTask]:
        for number, size in sizes.items():
            if write.keep_pixels:
                guard.require(size)
            given[number] = PortionTask(number, tuple(items_of(ledger, number)), read, write)
            yield given[number]

    waiting: Iterable[PortionTask] = tasks()
    while True:
        again: list[PortionTask] = []
        for outcome in executor.run(read_portion, waiting):
            if isinstance(outcome, Lost):
                again.append(_without_culprit(ledger, outcome, culprits))
                given[outcome.task.number] = again[-1]
                continue
            results.enter_result(ledger, given.pop(outcome.number), outcome)
            size = sizes[outcome.number]
            guard.wrote(size, 0 if outcome.part is None else outcome.part.byte_count)
            bar.advance(size)
        if not again:
            return
        waiting = again


def _without_culprit(
    ledger: Ledger, lost: Lost[PortionTask], culprits: Counter[int]
) -> PortionTask:
    """Leave out the file that took its reader down, and return the rest of the portion.

    The whole work item is left out if no single file is to blame, or too many are.

    Args:
        ledger: Is told what was left out.
        lost: The portion.
        culprits: Files left out so far, of each work item; counted on.
    """
    task = lost.task
    item, entry, of_label_map = begun(lost.step) if lost.step else (task.items[0][0], None, False)
    content = dict(task.items)[item]
    culprits[item] += 1
    reason, message = lost_reason(lost)
    if of_label_map:
        by_number = {file.number: file for file in content.entries}
        shared = by_number[entry].row.label_map if entry in by_number else None
        given = [
            file
            for file in content.entries
            if file.row.label_map == shared or culprits[item] > MOST_CULPRITS
        ]
        logger.warning("label maps left out: %d. %s", len(given), INTAKE_REASONS[reason])
        results.leave_out_label_maps(ledger, given, reason.value, message)
        return without_label_maps(task, item, {file.number for file in given})
    files: list[Entry | LabelFile] = [
        file for file in (*content.entries, *content.labels) if file.number == entry
    ]
    if not files or culprits[item] > MOST_CULPRITS:
        files = [*content.entries]
        if len(files) > 1:
            message = f"{len(files)} files are read together, and {message}"
    logger.warning("files left out: %d. %s", len(files), INTAKE_REASONS[reason])
    results.reject_files(ledger, files, reason.value, message)
    return without(task, item, {file.number for file in files})
