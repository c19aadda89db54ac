"""Ranks of starts over tasks, which differences between them count, and how stable they are.

Average ranks with Friedman's test and Nemenyi's critical difference: Demsar 2006 (JMLR 7:1).
Stability of the ranks when test patients are resampled: Wiesenfarth et al. 2021 (Scientific
Reports 11:2369, challengeR). Rank 1 is best; ties share the mean of their ranks.

B blocks (tasks, or the patients of one task), S starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from vismae.core.errors import DataError
from vismae.evaluation.crossed_bootstrap import crossed_draws


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of starts over blocks.

    Attributes:
        starts: Names, best mean rank first.
        mean_rank: Of each.
        n_blocks: Blocks behind it.
        p_value: Of Friedman's test that all starts are alike; NaN with fewer than three starts
            or two blocks.
        critical_difference: Nemenyi: mean ranks further apart differ; NaN with fewer than two
            blocks.
        groups: Runs of neighbouring starts within the critical difference, the bars of a
            critical-difference plot; none holds another.
    """

    starts: tuple[str, ...]
    mean_rank: tuple[float, ...]
    n_blocks: int
    p_value: float
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]


def rank_starts(
    scores: Float[np.ndarray, "B S"], starts: Sequence[str], alpha: float = 0.05
) -> Ranking:
    """Rank starts within each block and compare their mean ranks.

    With few blocks (tasks) the critical difference is wide and Friedman's p-value rough; it is a
    chi-squared approximation.

    Args:
        scores: Higher is better; blocks with a NaN are left out.
        starts: Names of the columns.
        alpha: Family-wise error of the critical difference.

    Raises:
        DataError: Names and columns differ in number, fewer than two starts, or no block is whole.
    """
    if scores.shape[1] != len(starts) or len(starts) < 2:
        raise DataError(
            f"Scores of {scores.shape[1]} starts with {len(starts)} names; at least two starts, "
            "each with a name, are needed."
        )
    whole = scores[np.isfinite(scores).all(axis=1)]
    n_blocks, n_starts = whole.shape
    if n_blocks == 0:
        raise DataError("No task (or patient) has a score of every start; finish the runs first.")
    mean = stats.rankdata(-whole, axis=1).mean(axis=0)
    order = np.argsort(mean, kind="stable")
    p_value = critical = float("nan")
    if n_blocks > 1:
        studentized = stats.studentized_range.ppf(1 - alpha, n_starts, np.inf)
        critical = float(studentized * np.sqrt(n_starts * (n_starts + 1) / (12 * n_blocks)))
        if n_starts > 2:
            p_value = _friedman(whole)
    names = tuple(str(starts[i]) for i in order)
    ranks = tuple(float(mean[i]) for i in order)
    return Ranking(names, ranks, n_blocks, p_value, critical, _groups(names, ranks, critical))


def _friedman(scores: Float[np.ndarray, "B S"]) -> float:
    if (scores == scores[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*scores.T).pvalue)


def _groups(
    names: tuple[str, ...], ranks: tuple[float, ...], critical: float
) -> tuple[tuple[str, ...], ...]:
    groups: list[tuple[str, ...]] = []
    reach = 0
    for first in range(len(ranks)):
        last = max(
            i for i in range(first, len(ranks)) if i == first or ranks[i] - ranks[first] <= critical
        )
        if last > first and last > reach:
            groups.append(names[first : last + 1])
            reach = last
    return tuple(groups)


def ranking_stability(
    scores: Mapping[str, Float[np.ndarray, "S runs patients"]],
    starts: Sequence[str],
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how the ranks hold up when runs and test patients of each task are resampled.

    The tasks stay: it says how sure the ranking on these tasks is, not on others.

    Args:
        scores: Task -> scores of every start, on the same runs and patients of that task; higher
            is better, NaN is left out.
        starts: Names, in the order of the first axis.
        n: Resamples.
        level: Of the intervals.
        seed: Of the resampling.

    Returns:
        A row for each start, best mean rank first: start, mean_rank, low, high, first_share (of
        resamples with the best mean rank, ties shared), and ``rank in TASK`` for each task. The
        data of a ranking plot.

    Raises:
        DataError: No task, another number of starts, or a start without any score.
    """
    if not scores:
        raise DataError("There is no task to rank the starts on; at least one is needed.")
    per_task: dict[str, Float[np.ndarray, "draws S"]] = {}
    for task, values in scores.items():
        if len(values) != len(starts):
            raise DataError(
                f"Task '{task}' has {len(values)} starts, {len(starts)} are named: {list(starts)}. "
                "Leave out starts that have not run on all tasks."
            )
        means = crossed_draws(values, n, seed)
        if np.isnan(means[0]).any():
            missing = [s for s, m in zip(starts, means[0], strict=True) if np.isnan(m)]
            raise DataError(f"Task '{task}' has no score of {missing}; leave them or it out.")
        # A resample without a score of some start has no ranks.
        ranks = stats.rankdata(-means, axis=1)
        per_task[task] = np.where(np.isnan(means).any(axis=1, keepdims=True), np.nan, ranks)
    mean_rank = np.mean(list(per_task.values()), axis=0)  # (draws, S)
    resampled = mean_rank[1:][np.isfinite(mean_rank[1:]).all(axis=1)]
    if len(resampled) == 0:
        raise DataError("No resample has scores of all starts; there are too few test patients.")
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail), axis=0)
    best = np.isclose(resampled, resampled.min(axis=1, keepdims=True))
    frame = pd.DataFrame(
        {
            "start": list(starts),
            "mean_rank": mean_rank[0],
            "low": low,
            "high": high,
            "first_share": (best / best.sum(axis=1, keepdims=True)).mean(axis=0),
            **{f"rank in {task}": ranks[0] for task, ranks in per_task.items()},
        }
    )
    return frame.sort_values("mean_rank", kind="stable", ignore_index=True)
