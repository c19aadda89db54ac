"""From the rows of ``scores.parquet`` to scores of tasks and to comparisons with the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vismae.core.study_config import StudyConfig
from vismae.evaluation.statistics import Interval
from vismae.evaluation.study_comparison import PrimaryCell, compare_with_baseline
from vismae.evaluation.study_scores import TaskScores, task_scores
from vismae.workflows.label_study.plan import Cell, primary_budget
from vismae.workflows.label_study.tasks import PreparedTask


def scores_of_tasks(rows: pd.DataFrame, config: StudyConfig) -> dict[str, TaskScores]:
    """Return the scores of every task that has any.

    Args:
        rows: Of ``scores.parquet``.
        config: The study.
    """
    return {
        name: task_scores(part, list(config.starts), task.kind)
        for name, task in config.tasks.items()
        if not (part := rows[rows["task"] == name]).empty
    }


def compare_starts(rows: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """Return each start's score and its difference from the baseline.

    Args:
        rows: Of ``scores.parquet``.
        config: The study.

    Returns:
        As from ``compare_with_baseline``.
    """
    budget, named = primary_budget(config), config.primary
    primary = None
    if budget is not None and named is not None:
        primary = PrimaryCell(named.task, named.start, budget.name)
    scores = list(scores_of_tasks(rows, config).values())
    return compare_with_baseline(scores, config.baseline, primary, config.bootstrap)


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with intervals as columns of numbers."""
    columns: dict[str, object] = {}
    for name in table.columns:
        values = table[name].tolist()
        if any(isinstance(value, Interval) for value in values):
            columns[name] = [value.estimate for value in values]
            columns[f"{name}_low"] = [value.low for value in values]
            columns[f"{name}_high"] = [value.high for value in values]
        else:
            columns[name] = values
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class Found:
    """What a study has found so far: all that a report is made from.

    Attributes:
        config: The study.
        folder: Its folder.
        rows: Of ``scores.parquet``.
        comparison: As from ``compare_starts``.
        tasks: By name.
        cells: The finished runs.
        runs: Of ``runs.csv``.
        labels_known: Sentences on starts that had been fine-tuned on training patients before.
    """

    config: StudyConfig
    folder: Path
    rows: pd.DataFrame
    comparison: pd.DataFrame
    tasks: Mapping[str, PreparedTask]
    cells: Sequence[Cell]
    runs: pd.DataFrame
    labels_known: Sequence[str] = ()
