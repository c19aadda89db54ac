"""Every start of a study against the baseline: differences, tests, labels saved, in tables.

Intervals are over runs (label subset, fold and seed) and test patients, paired by both. Permutation
p-values are over patients, of each patient's mean over runs (``TaskScores.swapped``). Holm's
adjustment is over all comparisons of the study but the primary one, which was named before it was
run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from vismae.evaluation.crossed_bootstrap import crossed_interval
from vismae.evaluation.equivalence import Equivalence, equivalence
from vismae.evaluation.label_efficiency import (
    LabelsNeeded,
    area_difference,
    area_interval,
    labels_needed,
    relative_labels,
)
from vismae.evaluation.statistics import Interval, holm, mean_of_defined, paired_permutation
from vismae.evaluation.study_scores import TaskScores

UNDEFINED = Interval(float("nan"), float("nan"), float("nan"), 0)

COMPARED = (
    *("task", "metric", "unit", "budget", "fraction", "labelled_patients", "start", "runs"),
    *("cases", "score", "difference", "paired_runs", "p", "primary"),
)
"""Columns of a comparison before Holm's adjustment, there also where no case has a score."""


@dataclass(frozen=True)
class PrimaryCell:
    """The comparison that was named beforehand: task, start and label budget."""

    task: str
    start: str
    budget: str


def compare_with_baseline(
    scores: Sequence[TaskScores], baseline: str, primary: PrimaryCell | None = None, n: int = 2000
) -> pd.DataFrame:
    """Compare every start with the baseline at every label budget of every task.

    Args:
        scores: Of the tasks.
        baseline: Name of the start that the others are compared with.
        primary: Left out of Holm's adjustment.
        n: Resamples.

    Returns:
        A row for each task, budget and start: task, metric, unit (of a test case), budget,
        fraction, labelled_patients, start, runs, cases, score (``Interval``), difference
        (``Interval``; undefined for the baseline, and where no run of both is there), paired_runs,
        p (permutation), primary, p_holm (NaN for the primary comparison).
    """
    rows: list[dict[str, object]] = []
    for task in scores:
        for place, budget in enumerate(task.budgets):
            for start in task.starts:
                own = task.at(start, budget)
                if not np.isfinite(own).any():
                    continue
                difference, p_value, paired = UNDEFINED, float("nan"), 0
                if start != baseline and baseline in task.starts:
                    gap = own - task.at(baseline, budget)
                    paired = _runs_of(gap)
                    if paired:
                        difference = within_bounds(crossed_interval(gap, n), lowest=-1.0)
                        swapped = task.swapped_at(start, budget) - task.swapped_at(baseline, budget)
                        per_patient = mean_of_defined(swapped)
                        p_value = paired_permutation(per_patient, np.zeros(len(per_patient)))
                rows.append(
                    {
                        "task": task.task,
                        "metric": task.metric,
                        "unit": task.unit,
                        "budget": budget,
                        "fraction": task.fractions[place],
                        "labelled_patients": round(float(task.labels[place])),
                        "start": start,
                        "runs": _runs_of(own),
                        "cases": int(np.isfinite(own).any(axis=0).sum()),
                        "score": within_bounds(crossed_interval(own, n)),
                        "difference": difference,
                        "paired_runs": paired,
                        "p": p_value,
                        "primary": primary == PrimaryCell(task.task, start, budget),
                    }
                )
    table = pd.DataFrame(rows, columns=pd.Index(COMPARED))
    # Of a table without a row, pandas does not know what its columns hold.
    table = table.astype({"primary": bool, "p": float})
    secondary = np.where(table["primary"], np.nan, table["p"].to_numpy(float))
    return table.assign(p_holm=holm(secondary))


def _runs_of(values: Float[np.ndarray, "R P"]) -> int:
    """Return how many runs have scores."""
    return int(np.isfinite(values).any(axis=1).sum())


def within_bounds(interval: Interval, lowest: float = 0.0, highest: float = 1.0) -> Interval:
    """Cut the limits of a score to 0 and 1, beyond which there is none.

    Args:
        interval: Of a score or of a difference of two.
        lowest: -1 for differences. Of two runs an interval may reach beyond all of these.
        highest: Infinite for distances.
    """
    low, high = np.clip((interval.low, interval.high), lowest, highest)
    return Interval(interval.estimate, float(low), float(high), interval.n)


@dataclass(frozen=True)
class LabelUse:
    """What one start makes of labels on one task, beside the baseline.

    Attributes:
        task, metric, unit, start: Which; the unit is what a test case is.
        runs: Runs with every label budget, of this start and the baseline.
        area: Under the label curve.
        area_difference: From the baseline's; undefined for the baseline.
        relative: Labels for what the baseline reaches with the most; None for the baseline.
        needed: Score -> labels to reach it.
        as_good: Budget -> the test against the baseline with the most labels, in the order of the
            tests: from many labels to few, up to the first that fails.
    """

    task: str
    metric: str
    unit: str
    start: str
    runs: int
    area: Interval
    area_difference: Interval
    relative: LabelsNeeded | None
    needed: Mapping[float, LabelsNeeded]
    as_good: Mapping[str, Equivalence]

    def fewest_as_good(self) -> str | None:
        """Return the smallest budget shown to be as good; None if none is.

        From many labels to few, each test made only if the one before succeeded: such a sequence
        needs no further adjustment (Maurer, Hothorn and Lehmacher 1995).
        """
        shown = [budget for budget, test in self.as_good.items() if test.not_inferior]
        return shown[-1] if shown else None


def label_use(
    scores: TaskScores,
    baseline: str,
    qualities: Sequence[float],
    margin: float,
    n: int = 2000,
) -> list[LabelUse]:
    """Return what every start makes of labels; nothing where there is no label curve.

    Only runs that a start has at every budget count. There is no curve of a single budget, nor of
    budgets whose mean number of patients does not rise, as when a fold has failed at one of them.

    Args:
        scores: Of the task.
        baseline: Name of the start that the others are compared with.
        qualities: Scores whose price in labels is asked for.
        margin: Largest difference that does not matter.
        n: Resamples.
    """
    if len(scores.budgets) < 2 or (np.diff(scores.labels) <= 0).any():
        return []
    found: list[LabelUse] = []
    for start in scores.starts:
        own = scores.of(start)
        compared = start != baseline and baseline in scores.starts
        reference = scores.of(baseline) if compared else own
        whole = np.isfinite(own + reference).any(axis=2).all(axis=0)
        if not whole.any():
            continue
        own, reference = own[:, whole], reference[:, whole]
        found.append(
            LabelUse(
                task=scores.task,
                metric=scores.metric,
                unit=scores.unit,
                start=start,
                runs=int(whole.sum()),
                area=within_bounds(area_interval(scores.labels, own, n)),
                area_difference=(
                    within_bounds(area_difference(scores.labels, own, reference, n), lowest=-1.0)
                    if compared
                    else UNDEFINED
                ),
                relative=relative_labels(scores.labels, own, reference, n=n) if compared else None,
                needed={q: labels_needed(scores.labels, own, q, n=n) for q in qualities},
                as_good=_as_good(scores.budgets, own, reference[-1], margin) if compared else {},
            )
        )
    return found


def _as_good(
    budgets: Sequence[str],
    own: Float[np.ndarray, "B R P"],
    goal: Float[np.ndarray, "R P"],
    margin: float,
) -> dict[str, Equivalence]:
    tests: dict[str, Equivalence] = {}
    for place in reversed(range(len(budgets))):
        test = equivalence(own[place], goal, margin)
        test = replace(test, difference=within_bounds(test.difference, lowest=-1.0))
        tests[budgets[place]] = test
        if not test.not_inferior:
            break
    return tests
