"""The label curve: area under it, and an inverse power law through it.

score = a - b · n^-c, with n labelled patients: a the score with endless labels, b and c how far
and how fast it is approached (Cortes et al. 1993; Figueroa et al. 2012, doi 10.1186/1472-6947-12-8;
review: Viering and Loog 2022, arXiv 2103.10948).

For a given c the law is linear in a and b, so least squares has a closed form and only c is
searched (variable projection, Golub and Pereyra 1973): no starting values, no local minima, and
thousands of resampled curves in one go.

D curves (resamples), F label counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from vismae.core.errors import DataError

SLOWEST, FASTEST = 0.02, 4.0
"""Bounds of c. Slower than the first is a straight line in log n; faster is a jump."""
USUAL_POWER = 0.5
"""c where too few label counts are there to fit it: the rate of an error that falls as 1/sqrt n."""
HORIZON = 100.0
"""Label counts beyond this many times the largest measured one count as not reached."""


def label_curve_area(
    labels: Sequence[float] | Float[np.ndarray, " F"], scores: Float[np.ndarray, "F *rest"]
) -> Float[np.ndarray, "*rest"]:
    """Return the area under score against log labels, divided by the width.

    It is the mean height of the curve, in units of the score, by the trapezoid rule. It is linear
    in the scores, so it may be taken for each run and patient and averaged after.

    Args:
        labels: Rising label fractions or numbers of labelled patients, above 0.
        scores: At each of them; NaN makes the area NaN.

    Raises:
        DataError: Fewer than two label counts, or they do not rise from above 0.
    """
    counts = _checked(labels, scores.shape[0], at_least=2)
    place = np.log(counts)
    return np.asarray(np.trapezoid(scores, place, axis=0) / (place[-1] - place[0]))


def _checked(
    labels: Sequence[float] | Float[np.ndarray, " F"], scores: int, at_least: int
) -> Float[np.ndarray, " F"]:
    counts = np.asarray(labels, dtype=float)
    if len(counts) != scores:
        raise DataError(f"{len(counts)} label counts but {scores} scores; one score each is needed")
    if len(counts) < at_least or counts[0] <= 0 or (np.diff(counts) <= 0).any():
        raise DataError(
            f"Label counts {counts.tolist()}: at least {at_least}, above 0 and rising, are needed."
        )
    return counts


@dataclass(frozen=True)
class LearningCurves:
    """Fitted laws of D curves that were measured at the same label counts.

    Attributes:
        a, b, c: Of each curve; NaN where a score of the curve was NaN.
        labels: Where the curves were measured.
        law: ``power``: all three fitted. ``fixed power``: fewer than four label counts, so c is
            ``USUAL_POWER``.
    """

    a: Float[np.ndarray, " D"]
    b: Float[np.ndarray, " D"]
    c: Float[np.ndarray, " D"]
    labels: Float[np.ndarray, " F"]
    law: Literal["power", "fixed power"]

    def score(self, labels: float) -> Float[np.ndarray, " D"]:
        """Return the score of each curve at a number of labels."""
        return self.a - self.b * labels**-self.c

    def labels_needed(self, quality: float | Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
        """Return the labels at which each curve reaches a score.

        Args:
            quality: One for all curves, or one for each.

        Returns:
            Never below the smallest measured count, where the law says nothing; infinite where
            the curve levels off below, or gets there only beyond ``HORIZON`` times the largest
            count; NaN where the curve is.
        """
        gap = self.a - quality
        # A flat curve (b = 0) above the quality needs no more than the smallest count.
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            needed = np.where(gap > 0, (self.b / gap) ** (1 / self.c), np.inf)
        # At an equal height a flat curve is there already.
        needed = np.where((self.b == 0) & (gap >= 0), 0.0, needed)
        needed = np.where(needed > HORIZON * self.labels[-1], np.inf, needed)
        return np.where(np.isnan(gap), np.nan, np.maximum(needed, self.labels[0]))


def fit_learning_curves(
    labels: Sequence[float] | Float[np.ndarray, " F"],
    scores: Float[np.ndarray, "D F"],
    ceiling: float = 1.0,
) -> LearningCurves:
    """Fit the inverse power law to each curve by least squares.

    Bounds: a at most ``ceiling``, b at least 0 (more labels never hurt: a falling curve is fitted
    by its mean), c from ``SLOWEST`` to ``FASTEST``. With two or three label counts three numbers
    cannot be told apart, and c is fixed.

    Args:
        labels: Rising numbers of labelled patients, above 0.
        scores: Of each curve at each of them; higher is better.
        ceiling: Largest score there can be.

    Raises:
        DataError: Fewer than two label counts, or they do not rise from above 0.
    """
    counts = _checked(labels, scores.shape[1], at_least=2)
    if len(counts) < 4:
        c = np.full(len(scores), USUAL_POWER)
        a, b, _ = _given_power(counts, scores, c, ceiling)
        return LearningCurves(a, b, c, counts, "fixed power")
    c = _best_power(counts, scores, ceiling)
    a, b, _ = _given_power(counts, scores, c, ceiling)
    return LearningCurves(a, b, c, counts, "power")


def measured_labels_needed(
    labels: Float[np.ndarray, " F"],
    scores: Float[np.ndarray, "D F"],
    quality: Float[np.ndarray, " D"],
) -> Float[np.ndarray, " D"]:
    """Return the labels at which each curve, as it was measured, reaches a score.

    Between two label counts along the rising curve nearest to the scores (isotonic regression:
    more labels never hurt), straight in the logarithm of the labels.

    Args:
        labels: Rising numbers of labelled patients, above 0.
        scores: Of each curve at each of them.
        quality: One for each curve.

    Returns:
        Infinite where the largest count does not reach it; NaN where a score is.
    """
    rising = _rising(scores)
    # A curve reaches its own scores, whatever the order in which means were added up.
    reached = rising >= quality[:, None] - 1e-9
    first = reached.argmax(axis=1)
    curves, before = np.arange(len(scores)), np.maximum(first - 1, 0)
    low, high = rising[curves, before], rising[curves, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(np.where(high > low, (quality - low) / (high - low), 1.0), 0.0, 1.0)
    place = np.log(labels)
    between = np.exp(place[before] + share * (place[first] - place[before]))
    between = np.minimum(between, labels[first])  # exp(log(n)) may be more than n
    needed = np.where(reached.any(axis=1), np.where(first == 0, labels[0], between), np.inf)
    return np.where(np.isnan(scores).any(axis=1) | np.isnan(quality), np.nan, needed)


def _rising(scores: Float[np.ndarray, "D F"]) -> Float[np.ndarray, "D F"]:
    """Return the rising curve nearest to each by least squares.

    At each place the largest, over where a stretch may begin, of the smallest mean over where it
    may end (Barlow et al. 1972, the max-min formula); label counts are few.
    """
    count = scores.shape[1]
    sums = np.concatenate([np.zeros((len(scores), 1)), np.cumsum(scores, axis=1)], axis=1)
    rising = np.empty_like(scores, dtype=float)
    for place in range(count):
        smallest = [
            np.min(
                [
                    (sums[:, end + 1] - sums[:, begin]) / (end + 1 - begin)
                    for end in range(place, count)
                ],
                axis=0,
            )
            for begin in range(place + 1)
        ]
        rising[:, place] = np.max(smallest, axis=0)
    return rising


def _best_power(
    counts: Float[np.ndarray, " F"], scores: Float[np.ndarray, "D F"], ceiling: float
) -> Float[np.ndarray, " D"]:
    """Search c on a grid, then on a finer one around the best, which takes it to 1e-4 of c."""
    curves = len(scores)
    low, high = np.full(curves, np.log(SLOWEST)), np.full(curves, np.log(FASTEST))
    best = low
    for steps in (40, 12, 12, 12):
        grid = np.linspace(low, high, steps)  # (steps, D)
        error = np.stack([_given_power(counts, scores, np.exp(row), ceiling)[2] for row in grid])
        at = np.where(np.isnan(error), np.inf, error).argmin(axis=0)
        step = (high - low) / (steps - 1)
        best = grid[at, np.arange(curves)]
        low = np.maximum(best - step, np.log(SLOWEST))
        high = np.minimum(best + step, np.log(FASTEST))
    return np.exp(best)


def _given_power(
    counts: Float[np.ndarray, " F"],
    scores: Float[np.ndarray, "D F"],
    c: Float[np.ndarray, " D"],
    ceiling: float,
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Return a, b and the sum of squares of the best fit for a given c."""
    # Counted from the smallest one, so that no c makes the column vanish.
    shrinking = (counts / counts[0]) ** -c[:, None]  # (D, F)
    middle, mean = shrinking.mean(axis=1), scores.mean(axis=1)
    centred = shrinking - middle[:, None]
    b = -(centred * scores).sum(axis=1) / (centred**2).sum(axis=1)
    b = np.maximum(b, 0.0)
    a = mean + b * middle
    # Above the ceiling the best fit has a at the ceiling, and b from what is left.
    above = a > ceiling
    at_ceiling = ((ceiling - scores) * shrinking).sum(axis=1) / (shrinking**2).sum(axis=1)
    a = np.where(above, ceiling, a)
    b = np.where(above, np.maximum(at_ceiling, 0.0), b)
    residual = scores - (a[:, None] - b[:, None] * shrinking)
    return a, b * counts[0] ** c, (residual**2).sum(axis=1)
