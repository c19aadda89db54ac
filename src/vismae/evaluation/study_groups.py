"""A study's scores by class, by modality and by subgroup of the test patients."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vismae.evaluation.crossed_bootstrap import crossed_interval
from vismae.evaluation.delong import AurocComparison, compare_auroc
from vismae.evaluation.statistics import holm
from vismae.evaluation.study_comparison import UNDEFINED, within_bounds
from vismae.evaluation.study_scores import TaskScores

_SHOWN = {"dice": "Dice", "nsd": "surface Dice", "hd95": "HD95"}


def by_class(
    rows: pd.DataFrame, starts: Sequence[str], baseline: str, budget: str, n: int = 2000
) -> pd.DataFrame:
    """Return the scores of every class of a segmentation at one label budget.

    Args:
        rows: Of the task, as in ``scores.parquet``.
        starts: In the order wanted.
        baseline: Start that the others are compared with.
        budget: Label budget.
        n: Resamples.

    Returns:
        Columns class, metric, start, n (patients with a value), score and difference
        (``Interval`` over runs and patients). HD95 is in mm, or in pixels where no spacing is
        known; fewer is better.
    """
    chosen = rows[
        (rows["budget"] == budget) & rows["metric"].isin(_SHOWN) & (rows["class_name"] != "mean")
    ]
    table: list[dict[str, object]] = []
    for (name, metric, unit), part in chosen.groupby(
        ["class_name", "metric", "unit"], sort=False, dropna=False
    ):
        arms = {start: _by_run(part[part["start"] == start]) for start in starts}
        for start, values in arms.items():
            if values.empty:
                continue
            score = crossed_interval(values.to_numpy(float), n)
            bounded = metric != "hd95"
            table.append(
                {
                    "class": name,
                    "metric": f"HD95 ({unit})" if metric == "hd95" else _SHOWN[str(metric)],
                    "start": start,
                    "n": score.n,
                    "score": within_bounds(score) if bounded else score,
                    "difference": _difference(values, arms[baseline], n, start == baseline),
                }
            )
    return pd.DataFrame(table)


def _by_run(part: pd.DataFrame) -> pd.DataFrame:
    """Return runs by patients."""
    return part.pivot_table(index="run", columns="patient_id", values="value", dropna=False)


def _difference(own: pd.DataFrame, other: pd.DataFrame, n: int, is_baseline: bool):
    if is_baseline:
        return UNDEFINED
    gap = (own - other).dropna(axis="index", how="all").dropna(axis="columns", how="all")
    return crossed_interval(gap.to_numpy(float), n) if gap.size else UNDEFINED


def by_group(
    scores: TaskScores, groups: pd.Series, baseline: str, budget: str, n: int = 2000
) -> pd.DataFrame:
    """Return the scores of every group of test patients at one label budget.

    Args:
        scores: Of the task.
        groups: Patient -> group, such as a modality or a scanner.
        baseline: Start that the others are compared with.
        budget: Label budget.
        n: Resamples.

    Returns:
        Columns group, n, start, score, difference; an interval of fewer than two patients is a
        dash. Groups were not planned: their differences are no tests.
    """
    of_patient = groups.reindex(list(scores.patients)).fillna("not known").to_numpy(str)
    rows: list[dict[str, object]] = []
    for name in sorted(set(of_patient)):
        within = of_patient == name
        for start in scores.starts:
            own = scores.at(start, budget)[:, within]
            if not np.isfinite(own).any():
                continue
            difference = UNDEFINED
            if start != baseline and baseline in scores.starts:
                gap = own - scores.at(baseline, budget)[:, within]
                if np.isfinite(gap).any():
                    difference = crossed_interval(gap, n)
            score = within_bounds(crossed_interval(own, n))
            rows.append(
                {
                    "group": name,
                    "n": score.n,
                    "start": start,
                    "score": score,
                    "difference": difference,
                }
            )
    return pd.DataFrame(rows)


def aurocs_by_class(
    rows: pd.DataFrame, starts: Sequence[str], baseline: str, budget: str
) -> pd.DataFrame:
    """Compare the AUROC of every class against the rest with the baseline's, after DeLong.

    Of a start's runs the mean AUROC is taken; its interval is over patients. Holm's adjustment is
    over the classes and starts of the table.

    Args:
        rows: Of the task, as in ``scores.parquet``.
        starts: In the order wanted.
        baseline: Start that the others are compared with.
        budget: Label budget.

    Returns:
        Columns class, start, n, AUROC and difference (``Interval``), p, p (Holm).
    """
    chosen = rows[(rows["metric"] == "probability") & (rows["budget"] == budget)].copy()
    chosen["case"] = chosen.groupby(["start", "run", "class_name"]).cumcount()
    table: list[dict[str, object]] = []
    for name, part in chosen.groupby("class_name", sort=False):
        one = part.drop_duplicates("case").set_index("case").sort_index()
        truth, patients = one["truth"].to_numpy(bool), one["patient_id"].to_numpy(str)
        arms = {
            start: part[part["start"] == start].pivot(index="run", columns="case", values="value")
            for start in starts
        }
        for start, values in arms.items():
            if values.empty:
                continue
            shared = values.index.intersection(arms[baseline].index)
            is_alone = start == baseline or shared.empty
            first = values if is_alone else values.loc[shared]
            second = first if is_alone else arms[baseline].loc[shared]
            found = compare_auroc(first.to_numpy(float), second.to_numpy(float), truth, patients)
            table.append(_auroc_row(str(name), start, found, is_alone))
    frame = pd.DataFrame(table)
    if not frame.empty:
        frame["p (Holm)"] = holm(frame["p"].to_numpy(float))
    return frame


def _auroc_row(name: str, start: str, found: AurocComparison, is_alone: bool) -> dict[str, object]:
    return {
        "class": name,
        "start": start,
        "n": found.first.n,
        "AUROC": found.first,
        "difference": UNDEFINED if is_alone else found.difference,
        "p": float("nan") if is_alone else found.p_value,
    }
