"""A study's scores by class, by modality and by subgroup of the test patients."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vismae.evaluation.crossed_bootstrap import crossed_interval
from vismae.evaluation.delong import AurocComparison, compare_auroc
from vismae.evaluation.statistics import Interval, holm
from vismae.evaluation.study_comparison import UNDEFINED, within_bounds
from vismae.evaluation.study_scores import Kind, task_scores

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
            difference = _difference(values, arms[baseline], n, start == baseline)
            if metric == "hd95":
                score = within_bounds(score, highest=float("inf"))
            else:
                score, difference = within_bounds(score), within_bounds(difference, lowest=-1.0)
            table.append(
                {
                    "class": name,
                    "metric": f"HD95 ({unit})" if metric == "hd95" else _SHOWN[str(metric)],
                    "start": start,
                    "n": score.n,
                    "score": score,
                    "difference": difference,
                }
            )
    return pd.DataFrame(table)


def _by_run(part: pd.DataFrame) -> pd.DataFrame:
    """Return runs by patients."""
    return part.pivot_table(index="run", columns="patient_id", values="value", dropna=False)


def _difference(own: pd.DataFrame, other: pd.DataFrame, n: int, is_baseline: bool) -> Interval:
    return UNDEFINED if is_baseline else crossed_interval((own - other).to_numpy(float), n)


def by_group(
    rows: pd.DataFrame,
    starts: Sequence[str],
    kind: Kind,
    groups: pd.Series,
    baseline: str,
    budget: str,
    n: int = 2000,
) -> pd.DataFrame:
    """Return the scores of every group of test patients at one label budget.

    Args:
        rows: Of the task, as in ``scores.parquet``.
        starts: In the order wanted.
        kind: Of the task.
        groups: Patient -> group, such as a modality or a scanner.
        baseline: Start that the others are compared with.
        budget: Label budget.
        n: Resamples.

    Returns:
        Columns group, n, start, score, difference; an interval of fewer than two patients is a
        dash. Groups were not planned: their differences are no tests.
    """
    chosen = rows[rows["budget"] == budget]
    group = chosen["patient_id"].astype(str).map(groups).fillna("not known")
    table: list[dict[str, object]] = []
    # Anew from the rows of a group: a balanced accuracy is no mean over any part of the patients.
    for name, part in chosen.groupby(group.to_numpy(str)):
        scores = task_scores(part, starts, kind)
        for start in scores.starts:
            own = scores.at(start, budget)
            if not np.isfinite(own).any():
                continue
            difference = UNDEFINED
            if start != baseline and baseline in scores.starts:
                gap = crossed_interval(own - scores.at(baseline, budget), n)
                difference = within_bounds(gap, lowest=-1.0)
            score = within_bounds(crossed_interval(own, n))
            table.append(
                {
                    "group": name,
                    "n": score.n,
                    "start": start,
                    "score": score,
                    "difference": difference,
                }
            )
    return pd.DataFrame(table)


def aurocs_by_class(
    rows: pd.DataFrame, starts: Sequence[str], baseline: str, budget: str
) -> pd.DataFrame:
    """Compare the AUROC of every class against the rest with the baseline's, after DeLong.

    Of a start's runs the mean AUROC is taken; its interval is over patients. Holm's adjustment is
    over the classes and starts of the table; two classes count as one.

    Args:
        rows: Of the task, as in ``scores.parquet``.
        starts: In the order wanted.
        baseline: Start that the others are compared with.
        budget: Label budget.

    Returns:
        Columns class, start, n (patients), positive (those with a case of the class), AUROC and
        difference (``Interval``), p, p (Holm).
    """
    chosen = rows[(rows["metric"] == "probability") & (rows["budget"] == budget)].copy()
    key = ["start", "run", "class_name"]
    # Runs may list their cases in another order; the images of one patient keep theirs.
    chosen = chosen.sort_values("patient_id", kind="stable")
    chosen["case"] = chosen.groupby(key).cumcount()
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
            positive = len(np.unique(patients[truth]))
            table.append(_auroc_row(str(name), start, positive, found, is_alone))
    frame = pd.DataFrame(table)
    return frame if frame.empty else _adjusted(frame)


def _adjusted(frame: pd.DataFrame) -> pd.DataFrame:
    """Add p (Holm); of two classes one is tested, for the other has the same AUROC."""
    classes = frame["class"].unique()
    counted = (frame["class"] == classes[0]) | (len(classes) != 2)
    frame["p (Holm)"] = holm(frame["p"].where(counted).to_numpy(float))
    if len(classes) == 2:
        frame["p (Holm)"] = frame.groupby("start")["p (Holm)"].transform("first")
    return frame


def _auroc_row(
    name: str, start: str, positive: int, found: AurocComparison, is_alone: bool
) -> dict[str, object]:
    return {
        "class": name,
        "start": start,
        "n": found.first.n,
        "positive": positive,
        "AUROC": found.first,
        "difference": UNDEFINED if is_alone else found.difference,
        "p": float("nan") if is_alone else found.p_value,
    }
