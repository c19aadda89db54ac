"""Scores of image classifiers, per patient wherever patients have one label.

N images, n cases (patients, or images where a patient's images differ in label), K classes.
Ranking scores (AUROC, AUPRC) are one class against the rest. A score that is undefined because a
class has no positive or no negative case is NaN and said so in ``status``; means over classes say
how many classes they are over.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer

from vismae.core.errors import DataError
from vismae.evaluation.calibration import calibration_cases, reliability_curve
from vismae.evaluation.class_metrics import (
    PER_CLASS,
    decide,
    measure,
    one_hot,
    without_lost_means,
)
from vismae.evaluation.statistics import Interval, bootstrap_grouped

MEAN = "mean"
"""``class_name`` of the mean over classes with a value (macro average)."""
ALL = "all"
"""``class_name`` of scores that concern all classes at once."""


@dataclass(frozen=True)
class ClassificationScores:
    """All that a report needs about a classifier on a test set.

    Attributes:
        unit: What one case is. ``patient``: the images of a patient were averaged. ``image``:
            some patients have images of different labels, so images are scored one by one.
        n_cases: Patients or images scored.
        n_groups: Patients.
        n_mixed_groups: Patients whose images differ in label.
        decision: How classes were decided for F1, accuracy, balanced accuracy and the confusion
            matrix: ``largest`` probability, or ``threshold``.
        thresholds: Per class, of sensitivity and specificity; None where decided as the rest.
        table: Columns class_name (a class, ``mean`` or ``all``), metric, value, n_positive (of a
            class), n_classes (in the value), status (``scored``, or why the value is NaN).
        confusion: Single-label (K, K): truth by decision. Multi-label (K, 2, 2).
        roc: Class -> columns false_positive_rate, sensitivity, threshold; empty if undefined.
        reliability: See ``calibration.reliability_curve``.
        probabilities: Of the cases, (n, K).
        truth: Of the cases, (n, K).
        groups: Patient of each case.
    """

    class_names: tuple[str, ...]
    multi_label: bool
    unit: Literal["patient", "image"]
    n_cases: int
    n_groups: int
    n_mixed_groups: int
    decision: Literal["largest", "threshold"]
    thresholds: tuple[float, ...] | None
    table: pd.DataFrame
    confusion: Integer[np.ndarray, "K ..."]
    roc: dict[str, pd.DataFrame]
    reliability: pd.DataFrame
    probabilities: Float[np.ndarray, "n K"]
    truth: Bool[np.ndarray, "n K"]
    groups: np.ndarray

    def intervals(self, n: int = 1000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Return ``table`` with a column interval, from resampling whole patients.

        Means over classes are left out of resamples that lack a class which the data have.

        The calibration error gets no limits: resampling adds noise that it counts as error, so
        its resamples lie above the estimate.

        Args:
            n: Resamples.
            level: Of the intervals.
            seed: Of the resampling.
        """
        whole = measure(self.probabilities, self.truth, self.thresholds, self.multi_label)

        def measure_rows(rows: Integer[np.ndarray, " rows"]) -> list[float]:
            scores = measure(
                self.probabilities[rows], self.truth[rows], self.thresholds, self.multi_label
            )
            scores = without_lost_means(scores, whole, self.multi_label)
            return [value for values in scores.values() for value in values]

        intervals = bootstrap_grouped(measure_rows, self.groups, n=n, level=level, seed=seed)
        nan = float("nan")
        intervals = [
            Interval(interval.estimate, nan, nan, interval.n) if metric == "ece" else interval
            for interval, metric in zip(intervals, self.table["metric"], strict=True)
        ]
        return self.table.assign(interval=pd.Series(intervals, dtype=object))


def score_classification(
    probabilities: Float[np.ndarray, "N K"],
    labels: Integer[np.ndarray, " N"] | Integer[np.ndarray, "N K"],
    group_ids: Sequence[Hashable] | np.ndarray,
    class_names: Sequence[str],
    multi_label: bool = False,
    thresholds: Sequence[float] | None = None,
) -> ClassificationScores:
    """Score a classifier's probabilities.

    Args:
        probabilities: Of each image: rows that sum to 1 (single-label), or each of its own.
        labels: Class number of each image, or 0 and 1 for each class (multi-label).
        group_ids: Patient of each image.
        class_names: K names.
        multi_label: Several classes may be true of one image.
        thresholds: Probability from which a class counts as present, chosen on validation data
            (``choose_thresholds``). None: the largest probability decides (single-label), or 0.5.

    Raises:
        DataError: Sizes, names, probabilities or labels do not fit together.
    """
    probabilities = np.asarray(probabilities, dtype=float)
    truth = _check(probabilities, labels, group_ids, class_names, multi_label, thresholds)
    groups, membership = np.unique(np.asarray(group_ids), return_inverse=True)
    size = np.bincount(membership)
    share = np.stack([np.bincount(membership, weights=t) for t in truth.T], axis=1) / size[:, None]
    mixed = int(((share > 0) & (share < 1)).any(axis=1).sum())
    if mixed == 0:
        sums = [np.bincount(membership, weights=p) for p in probabilities.T]
        cases, truth, case_groups = np.stack(sums, axis=1) / size[:, None], share > 0.5, groups
    else:
        cases, case_groups = probabilities, groups[membership]
    cut = tuple(map(float, thresholds)) if thresholds is not None else None
    measured = measure(cases, truth, cut, multi_label)
    return ClassificationScores(
        class_names=tuple(class_names),
        multi_label=multi_label,
        unit="image" if mixed else "patient",
        n_cases=len(cases),
        n_groups=len(groups),
        n_mixed_groups=mixed,
        decision="threshold" if multi_label else "largest",
        thresholds=cut,
        table=_table(measured, truth, class_names, multi_label),
        confusion=_confusion(decide(cases, cut, multi_label), truth, multi_label),
        roc={name: _roc(cases[:, k], truth[:, k]) for k, name in enumerate(class_names)},
        reliability=reliability_curve(*calibration_cases(cases, truth, multi_label)),
        probabilities=cases,
        truth=truth,
        groups=case_groups,
    )


def choose_thresholds(
    probabilities: Float[np.ndarray, "N K"],
    labels: Integer[np.ndarray, " N"] | Integer[np.ndarray, "N K"],
) -> tuple[float, ...]:
    """Return for each class the threshold with the largest sensitivity + specificity - 1.

    Youden 1950. Half way between the two probabilities it separates; the lower of equally good
    ones, for sensitivity. To be called on validation data, never on test data.

    Args:
        probabilities: Of each case.
        labels: Class numbers, or 0 and 1 for each class.

    Returns:
        K thresholds; 0.5 for a class without a positive or a negative case, about which the data
        say nothing.
    """
    from sklearn.metrics import roc_curve

    truth = one_hot(np.asarray(labels), probabilities.shape[1])
    chosen: list[float] = []
    for scores, positive in zip(np.asarray(probabilities, float).T, truth.T, strict=True):
        if positive.all() or not positive.any():
            chosen.append(0.5)
            continue
        false_positive_rate, sensitivity, levels = roc_curve(
            positive, scores, drop_intermediate=False
        )
        youden = sensitivity - false_positive_rate
        # Levels fall, so the last of the best is the lowest.
        best = int(np.flatnonzero(youden > youden.max() - 1e-12)[-1])
        below = levels[best + 1] if best + 1 < len(levels) else 0.0
        chosen.append(float((min(levels[best], 1.0) + below) / 2))
    return tuple(chosen)


def _check(
    probabilities: np.ndarray,
    labels: np.ndarray,
    group_ids: Sequence[Hashable] | np.ndarray,
    class_names: Sequence[str],
    multi_label: bool,
    thresholds: Sequence[float] | None,
) -> Bool[np.ndarray, "N K"]:
    """Return the labels one-hot, or say what does not fit."""
    labels = np.asarray(labels)
    n, k = len(labels), len(class_names)
    if n == 0 or probabilities.shape != (n, k) or len(group_ids) != n:
        raise DataError(
            f"Probabilities of shape {probabilities.shape}, {n} labels, {len(group_ids)} group ids "
            f"and {k} class names do not fit; (images, classes) with at least one image is needed."
        )
    if thresholds is not None and len(thresholds) != k:
        raise DataError(f"{len(thresholds)} thresholds for {k} classes; give one for each class.")
    if len({*class_names, MEAN, ALL}) != k + 2:
        raise DataError(
            f"Class names {list(class_names)}: each is needed once, and none called '{MEAN}' or "
            f"'{ALL}'."
        )
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or probabilities.max() > 1:
        raise DataError("Probabilities must lie between 0 and 1; apply softmax or sigmoid first.")
    if labels.dtype.kind not in "biu":
        raise DataError(f"Labels are {labels.dtype} values; class numbers are needed.")
    if labels.ndim != (2 if multi_label else 1) or (multi_label and labels.shape != (n, k)):
        raise DataError(
            f"Labels have shape {labels.shape}; "
            + (f"({n}, {k}) is needed with multi_label." if multi_label else "one number each.")
        )
    largest = 1 if multi_label else k - 1
    if labels.min() < 0 or labels.max() > largest:
        raise DataError(
            f"Labels range from {labels.min()} to {labels.max()}; 0 to {largest} are possible."
        )
    if not multi_label and np.abs(probabilities.sum(axis=1) - 1).max() > 0.01:
        raise DataError(
            "The probabilities of an image do not sum to 1. Apply softmax first, or set "
            "multi_label if several classes may be true at once."
        )
    return one_hot(labels, k)


def _table(
    measured: dict[str, list[float]],
    truth: np.ndarray,
    class_names: Sequence[str],
    multi_label: bool,
) -> pd.DataFrame:
    positive = truth.sum(axis=0)
    rows: list[dict[str, Any]] = []
    for metric, values in measured.items():
        if metric in PER_CLASS:
            for name, value, n_positive in zip(class_names, values, positive, strict=False):
                reason = "no positive case" if n_positive == 0 else "no negative case"
                rows.append(_row(name, metric, value, int(n_positive), 1, reason))
            n_classes = int(np.isfinite(values[:-1]).sum())
            rows.append(_row(MEAN, metric, values[-1], None, n_classes, "undefined"))
        else:
            # In multi-label a class needs negative cases too, for its specificity.
            usable = (positive > 0) & ((positive < len(truth)) | (not multi_label))
            n_classes = int(usable.sum()) if metric == "balanced_accuracy" else len(positive)
            rows.append(_row(ALL, metric, values[0], None, n_classes, "undefined"))
    return pd.DataFrame(rows).astype({"n_positive": "Int64"})


def _row(
    class_name: str,
    metric: str,
    value: float,
    n_positive: int | None,
    n_classes: int,
    reason: str,
) -> dict[str, Any]:
    return {
        "class_name": class_name,
        "metric": metric,
        "value": value,
        "n_positive": n_positive,
        "n_classes": n_classes,
        "status": "scored" if np.isfinite(value) else reason,
    }


def _confusion(decided: np.ndarray, truth: np.ndarray, multi_label: bool) -> np.ndarray:
    if not multi_label:
        return truth.T.astype(int) @ decided.astype(int)
    return np.stack(
        [
            np.bincount(2 * t.astype(int) + d, minlength=4).reshape(2, 2)
            for t, d in zip(truth.T, decided.T, strict=True)
        ]
    )


def _roc(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    from sklearn.metrics import roc_curve

    columns = ("false_positive_rate", "sensitivity", "threshold")
    if positive.all() or not positive.any():
        return pd.DataFrame(columns=pd.Index(columns), dtype=float)
    return pd.DataFrame(dict(zip(columns, roc_curve(positive, scores), strict=True)))
