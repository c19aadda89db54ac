"""The formulas behind ``classification.py``: from probabilities and truth to numbers.

n cases, K classes; ``truth`` and ``decided`` are one-hot or, with several classes true at once,
any number of them. NaN where a class has no positive or no negative case.
"""

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.stats import rankdata

from vismae.evaluation.calibration import (
    brier_score,
    calibration_cases,
    calibration_error,
    reliability_curve,
)
from vismae.evaluation.statistics import mean_of_defined

PER_CLASS = ("auroc", "auprc", "f1", "sensitivity", "specificity")
"""Scores that each class has of its own; the rest concern all classes at once."""


def auroc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Return the area under the ROC curve; NaN without a positive or a negative case.

    Mann and Whitney's U, ties counted half: far quicker than the curve, for the bootstrap.
    """
    n_positive = int(np.count_nonzero(positive))
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def auprc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Return the average precision (area under precision-recall); NaN without a positive case."""
    n_positive = np.count_nonzero(positive)
    if n_positive == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    # Equal scores cannot be told apart by a threshold: only the last of each counts.
    last = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(positive[order])[last]
    precision = found / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / n_positive)


def one_hot(labels: Integer[np.ndarray, "N ..."], n_classes: int) -> Bool[np.ndarray, "N K"]:
    """Return class numbers as one column for each class; leave columns as they are."""
    return labels.astype(bool) if labels.ndim == 2 else labels[:, None] == np.arange(n_classes)


def decide(
    probabilities: np.ndarray, thresholds: tuple[float, ...] | None, multi_label: bool
) -> Bool[np.ndarray, "n K"]:
    """Return which classes are called present: F1, accuracy and confusion go by this."""
    if multi_label:
        return probabilities >= np.asarray(thresholds or 0.5)
    return one_hot(probabilities.argmax(axis=1), probabilities.shape[1])


def measure(
    probabilities: np.ndarray,
    truth: np.ndarray,
    thresholds: tuple[float, ...] | None,
    multi_label: bool,
) -> dict[str, list[float]]:
    """Return every score by name.

    F1, accuracy, balanced accuracy and exact match go by ``decide``; sensitivity and specificity
    by the thresholds where there are some. Balanced accuracy is the mean sensitivity over the
    classes present, in multi-label the mean of (sensitivity + specificity) / 2. Accuracy in
    multi-label counts each class of each case.

    Args:
        probabilities: (n, K).
        truth: (n, K).
        thresholds: One for each class, or None.
        multi_label: Several classes may be true of one case.

    Returns:
        Metric -> K values and their mean (PER_CLASS), or one value (the rest); the same order and
        lengths whatever the data, as the bootstrap needs.
    """
    decided = decide(probabilities, thresholds, multi_label)
    called = decided if thresholds is None else probabilities >= np.asarray(thresholds)
    n = len(truth)
    positive = truth.sum(axis=0)
    per_class = {
        "auroc": [auroc(p, t) for p, t in zip(probabilities.T, truth.T, strict=True)],
        "auprc": [auprc(p, t) for p, t in zip(probabilities.T, truth.T, strict=True)],
        "f1": _share(2 * (decided & truth).sum(axis=0), positive + decided.sum(axis=0), positive),
        "sensitivity": _share((called & truth).sum(axis=0), positive, positive),
        "specificity": _share((~called & ~truth).sum(axis=0), n - positive, n - positive),
    }
    scores = {
        metric: [*map(float, values), float(mean_of_defined(np.asarray(values)))]
        for metric, values in per_class.items()
    }
    recall = _share((decided & truth).sum(axis=0), positive, positive)
    if multi_label:
        rejection = _share((~decided & ~truth).sum(axis=0), n - positive, n - positive)
        scores["balanced_accuracy"] = [float(mean_of_defined((recall + rejection) / 2))]
        scores["exact_match"] = [float((decided == truth).all(axis=1).mean())]
    else:
        scores["balanced_accuracy"] = [float(mean_of_defined(recall))]
    scores["accuracy"] = [
        float((decided == truth).mean() if multi_label else decided[truth].mean())
    ]
    curve = reliability_curve(*calibration_cases(probabilities, truth, multi_label))
    scores["ece"] = [calibration_error(curve)]
    scores["brier"] = [brier_score(probabilities, truth, multi_label)]
    return scores


def without_lost_means(
    scores: dict[str, list[float]], whole: dict[str, list[float]], multi_label: bool
) -> dict[str, list[float]]:
    """Return the scores of a resample, its means over classes NaN where a class was not drawn.

    A mean over the classes that happen to be there is another quantity: what calls all cases by
    the commonest class would be right always wherever no other was drawn.

    Args:
        scores: Of the resample, as from ``measure``.
        whole: Of all the data; a class that is undefined there is in no mean anyway.
        multi_label: Several classes may be true of one case.
    """

    def defined(of: dict[str, list[float]], metric: str) -> Bool[np.ndarray, " K"]:
        return np.isfinite(of[metric][:-1])

    kept = dict(scores)
    for metric in PER_CLASS:
        if (defined(whole, metric) & ~defined(scores, metric)).any():
            kept[metric] = [*scores[metric][:-1], float("nan")]
    # Sensitivity is defined where a class has a positive case, specificity where a negative one.
    needed, there = defined(whole, "sensitivity"), defined(scores, "sensitivity")
    if multi_label:
        needed &= defined(whole, "specificity")
        there &= defined(scores, "specificity")
    if (needed & ~there).any():
        kept["balanced_accuracy"] = [float("nan")]
    return kept


def _share(part: np.ndarray, whole: np.ndarray, needed: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=needed > 0)
