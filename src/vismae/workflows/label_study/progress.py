"""How far a study is and how long it will take: a bar on a terminal, a log line for each run."""

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from vismae.workflows.label_study.plan import Cell
from vismae.workflows.label_study.run import Outcome

logger = logging.getLogger(__name__)


class StudyProgress:
    """Counts runs, and estimates the rest from runs of the same task and start.

    Args:
        progress: The bar.
        total: Runs of the study.
        workers: Runs at a time.
    """

    def __init__(self, progress: Progress, total: int, workers: int) -> None:
        self._progress = progress
        self._total, self._workers = total, workers
        self._bar: TaskID = progress.add_task("", total=total)
        self._seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self._done = 0

    def known(self, cell: Cell, seconds: float) -> None:
        """Count a run that was finished before."""
        self._seconds[cell.task, cell.start].append(seconds)
        self._done += 1
        self._progress.update(self._bar, completed=self._done, refresh=True)

    def finished(self, outcome: Outcome, still_to_do: Sequence[Cell]) -> None:
        """Count a run that has just ended, and say how long the others will take."""
        if outcome.failure is None:
            cell = outcome.cell
            self._seconds[cell.task, cell.start].append(outcome.seconds)
        self._done += 1
        left = duration(self.seconds_left(still_to_do))
        self._progress.update(
            self._bar, completed=self._done, description=f"about {left} left", refresh=True
        )
        # What has no weights to choose is not validated.
        validated = not math.isnan(outcome.validation)
        done = f"validation {outcome.validation:.3f}" if validated else "done"
        state = "failed" if outcome.failure else done
        # How long a run took that took its process down is not known.
        took = "" if math.isnan(outcome.seconds) else f" in {duration(outcome.seconds)}"
        logger.info(
            "run %d of %d (%s): %s%s; about %s left",
            self._done,
            self._total,
            outcome.cell,
            state,
            took,
            left,
        )

    def seconds_left(self, still_to_do: Sequence[Cell]) -> float:
        """Estimate the time of runs, by the mean of their task and start, else of all."""
        every = [value for values in self._seconds.values() for value in values]
        overall = sum(every) / len(every) if every else 0.0
        own = {key: sum(values) / len(values) for key, values in self._seconds.items()}
        return sum(own.get((c.task, c.start), overall) for c in still_to_do) / self._workers


def duration(seconds: float) -> str:
    """Return a time as people say it: ``41 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def study_progress(total: int, workers: int) -> Iterator[StudyProgress]:
    """Show a bar while inside; on a terminal only."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,
    ) as progress:
        yield StudyProgress(progress, total, workers)
