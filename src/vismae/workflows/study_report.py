"""Comparing the starts of a study, in numbers and on one page."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.settings import to_yaml
from vismae.core.study_config import StudyConfig
from vismae.evaluation.figures import label_efficiency_figure
from vismae.evaluation.report import Report
from vismae.evaluation.statistics import (
    Interval,
    bootstrap_grouped,
    bootstrap_interval,
    two_level_difference,
)

Runs = dict[str, dict[str, float]]
"""Run (seed) -> patient -> score."""


def compare_starts(scores: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """Return each start's score and its difference from the baseline.

    Segmentation is compared by Dice, a mean over classes for each patient. Classification is
    compared by balanced accuracy; its per-patient value is whether the patient was called right,
    weighted so that every class counts alike.

    Args:
        scores: All runs: columns task, start, fraction, seed, patient_id, class_name, metric,
            value, and truth (classification).
        config: The study.

    Returns:
        Columns task, metric, fraction, labelled_patients, start, runs, cases, score (``Interval``
        over patients of the mean over runs), difference (``Interval`` over runs and patients; the
        baseline's own is undefined).
    """
    rows: list[dict[str, object]] = []
    for task, fraction in _pairs(scores):
        part = scores[(scores["task"] == task) & (scores["fraction"] == fraction)]
        is_segmentation = config.tasks[task].kind == "segment"
        per_run = _dice_runs if is_segmentation else _accuracy_runs
        interval = _dice_interval if is_segmentation else _accuracy_interval
        baseline = per_run(part[part["start"] == config.baseline])
        for start in config.starts:
            own = part[part["start"] == start]
            runs = per_run(own)
            if not runs:
                continue
            shared = sorted(set(runs) & set(baseline))
            undefined = Interval(float("nan"), float("nan"), float("nan"), 0)
            difference = undefined
            if start != config.baseline and shared:
                difference = two_level_difference(
                    {run: runs[run] for run in shared},
                    {run: baseline[run] for run in shared},
                    n=config.bootstrap,
                ).interval
            rows.append(
                {
                    "task": task,
                    "metric": "Dice" if is_segmentation else "balanced accuracy",
                    "fraction": fraction,
                    "labelled_patients": int(own["labelled_patients"].median()),
                    "start": start,
                    "runs": len(runs),
                    "cases": len({patient for run in runs.values() for patient in run}),
                    "score": interval(own, config.bootstrap),
                    "difference": difference,
                }
            )
    return pd.DataFrame(rows)


def flat(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the comparison with intervals as columns of numbers."""
    table = comparison.drop(columns=["score", "difference"])
    for name in ("score", "difference"):
        intervals = comparison[name]
        table[name] = [interval.estimate for interval in intervals]
        table[f"{name}_low"] = [interval.low for interval in intervals]
        table[f"{name}_high"] = [interval.high for interval in intervals]
    return table


def _pairs(scores: pd.DataFrame) -> list[tuple[str, float]]:
    pairs = scores[["task", "fraction"]].drop_duplicates()
    return [(str(task), float(fraction)) for task, fraction in pairs.itertuples(index=False)]


def _dice_runs(part: pd.DataFrame) -> Runs:
    chosen = part[(part["metric"] == "dice") & (part["class_name"] == "mean")]
    return _by_run(chosen, lambda run: run.set_index("patient_id")["value"])


def _accuracy_runs(part: pd.DataFrame) -> Runs:
    return _by_run(part[part["metric"] == "probability"], _weighted_hits)


def _by_run(part: pd.DataFrame, values: Callable[[pd.DataFrame], pd.Series]) -> Runs:
    return {
        str(seed): {str(patient): float(value) for patient, value in values(run).items()}
        for seed, run in part.groupby("run")
    }


def _hits(run: pd.DataFrame) -> pd.DataFrame:
    """Return for each case its patient, true class and whether it was called right."""
    # A patient with images of several classes is scored image by image: cases keep their order.
    cases = run.assign(case=run.groupby("class_name").cumcount())
    probability = cases.pivot(index="case", columns="class_name", values="value").to_numpy()
    truth = cases.pivot(index="case", columns="class_name", values="truth").to_numpy(bool)
    patients = cases.drop_duplicates("case").set_index("case")["patient_id"].sort_index()
    own = truth.argmax(axis=1)
    return pd.DataFrame(
        {"patient": patients.astype(str), "own": own, "hit": probability.argmax(axis=1) == own}
    )


def _weighted_hits(run: pd.DataFrame) -> pd.Series:
    """Return for each patient whether it was called right, times its class's weight.

    With weight n / (classes · cases of the class) the mean over cases is the balanced accuracy.
    Images of patients that are scored image by image are added up, so that the mean over patients
    stays the balanced accuracy.
    """
    hits = _hits(run)
    size = hits.groupby("own")["hit"].transform("size")
    weighted = hits["hit"] * len(hits) / (hits["own"].nunique() * size)
    by_patient = weighted.groupby(hits["patient"]).sum()
    return by_patient * len(by_patient) / len(hits)


def _dice_interval(part: pd.DataFrame, resamples: int) -> Interval:
    """Return the mean over patients of each patient's mean over runs."""
    table = pd.DataFrame(_dice_runs(part))
    return bootstrap_interval(table.mean(axis=1).to_numpy(float), n=resamples)


def _accuracy_interval(part: pd.DataFrame, resamples: int) -> Interval:
    """Return the mean over runs of the balanced accuracy, resampling patients.

    It is computed anew for each resample: with the weights of the whole, one that happens to hold
    many cases of a rare class would come out above 1.
    """
    chosen = part[part["metric"] == "probability"]
    # All runs have the same cases, so a class's recall over all of them is its mean over runs.
    hits = pd.concat([_hits(run) for _, run in chosen.groupby("run")])
    own, hit = hits["own"].to_numpy(), hits["hit"].to_numpy(float)

    def balanced_accuracy(rows: np.ndarray) -> list[float]:
        cases = np.bincount(own[rows])
        found = np.bincount(own[rows], weights=hit[rows])
        return [float((found[cases > 0] / cases[cases > 0]).mean())]

    patients = hits["patient"].to_numpy()
    return bootstrap_grouped(balanced_accuracy, patients, n=resamples)[0]


def write_study_report(
    config: StudyConfig, folder: Path, scores: pd.DataFrame, comparison: pd.DataFrame
) -> None:
    """Write ``report/index.html``: curves, the table, validation against test, settings."""
    report = Report("Label-efficiency study", f"compared with '{config.baseline}'")
    add_study(report, config, scores, comparison)
    report.section("Settings")
    report.code(to_yaml(config), "Settings of this study")
    report.write(folder / "report" / "index.html")


def add_study(
    report: Report, config: StudyConfig, scores: pd.DataFrame, comparison: pd.DataFrame
) -> None:
    """Add a study's curves and tables to a report, a section for each task."""
    for task in config.tasks:
        part = comparison[comparison["task"] == task]
        if part.empty:
            continue
        unit = str(scores.loc[scores["task"] == task, "unit_of_cases"].iloc[0])
        metric = str(part["metric"].iloc[0])
        report.section(f"Task: {task}")
        report.figure(
            label_efficiency_figure(
                _curves(part),
                metric,
                points=_points(part, scores, config),
                x_label=f"{unit}s with labels",
            ),
            f"{metric} against the number of labelled {unit}s. Bands: 95 % intervals over test "
            f"{unit}s; dots: single runs.",
        )
        report.table(
            part.drop(columns=["task", "metric"]),
            f"{metric}: mean over runs and test {unit}s [95 % interval over {unit}s]; difference "
            f"from '{config.baseline}' [95 % interval over runs and {unit}s].",
        )
        if len(config.seeds) < 5:
            report.text(
                f"Each point is {len(config.seeds)} runs, so intervals of differences are "
                "somewhat too narrow."
            )


def _curves(part: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": part["start"],
            "labels": part["labelled_patients"],
            "estimate": [interval.estimate for interval in part["score"]],
            "low": [interval.low for interval in part["score"]],
            "high": [interval.high for interval in part["score"]],
        }
    )


def _points(part: pd.DataFrame, scores: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for task, fraction, start, labels in part[
        ["task", "fraction", "start", "labelled_patients"]
    ].itertuples(index=False):
        own = scores[
            (scores["task"] == task) & (scores["fraction"] == fraction) & (scores["start"] == start)
        ]
        per_run = _dice_runs if config.tasks[task].kind == "segment" else _accuracy_runs
        for values in per_run(own).values():
            rows.append(
                {"arm": start, "labels": labels, "value": np.nanmean(list(values.values()))}
            )
    return pd.DataFrame(rows)
