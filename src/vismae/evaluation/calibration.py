"""Whether a probability of 0.8 comes true in 8 of 10 cases: ECE, Brier score, reliability.

ECE with 15 bins of equal mass: with the few hundred patients of a medical test set most bins of
equal width would be almost empty, and the error is less biased (Roelofs et al. 2022,
arXiv 2012.08668).
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

BINS = 15


def reliability_curve(
    probabilities: Float[np.ndarray, " n"], outcomes: Bool[np.ndarray, " n"], bins: int = BINS
) -> pd.DataFrame:
    """Return predicted and observed frequency in bins that hold about equally many cases.

    Equal probabilities are never divided between bins, so there can be fewer bins.

    Args:
        probabilities: That the outcome is true, 0 to 1.
        outcomes: Whether it is.
        bins: Number of bins.

    Returns:
        Columns probability (mean in the bin), observed (share true), n; rising probability.
    """
    edges = np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, probabilities)
    n = np.bincount(bin_of, minlength=bins)
    predicted = np.bincount(bin_of, weights=probabilities, minlength=bins)
    observed = np.bincount(bin_of, weights=outcomes, minlength=bins)
    held = n > 0
    return pd.DataFrame(
        {
            "probability": predicted[held] / n[held],
            "observed": observed[held] / n[held],
            "n": n[held],
        }
    )


def calibration_error(curve: pd.DataFrame) -> float:
    """Return the expected calibration error of a reliability curve.

    The mean distance between predicted and observed frequency, weighted by cases; 0 is best.
    """
    gap = (curve["probability"] - curve["observed"]).abs()
    return float(np.average(gap, weights=curve["n"]))


def calibration_cases(
    probabilities: Float[np.ndarray, "n K"], truth: Bool[np.ndarray, "n K"], multi_label: bool
) -> tuple[Float[np.ndarray, " cases"], Bool[np.ndarray, " cases"]]:
    """Return the probabilities whose truth calibration asks about, and whether they came true.

    Single-label: the probability of the chosen class (Guo et al. 2017, arXiv 1706.04599).
    Multi-label: every probability of every class.
    """
    if multi_label:
        return probabilities.ravel(), truth.ravel()
    chosen = probabilities.argmax(axis=1)
    rows = np.arange(len(probabilities))
    return probabilities[rows, chosen], truth[rows, chosen]


def brier_score(
    probabilities: Float[np.ndarray, "n K"], truth: Bool[np.ndarray, "n K"], multi_label: bool
) -> float:
    """Return the mean squared error of the probabilities; 0 is best.

    Multi-label: mean over classes, 0 to 1. Single-label: sum over classes, 0 to 2, halved for two
    classes so that it is the usual binary score (scikit-learn's convention).
    """
    squared = (probabilities - truth) ** 2
    if multi_label or probabilities.shape[1] <= 2:
        return float(squared.mean())
    return float(squared.sum(axis=1).mean())
