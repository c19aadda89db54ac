"""What a start saves in labels: area under the label curve, labels needed, forecasts, in words.

A label curve is an array of scores, one for each label count, run and test patient. A run is one
nested draw of label subsets with its seed, the same run at every label count. Intervals resample
runs and patients (``crossed_bootstrap``) and fit the law of ``learning_curve`` to each resample.
Where the resampled curve itself reaches a score with fewer labels than its law says, that counts:
a law that fits badly must not deny what was measured.

F label counts, R runs, P test patients; higher scores are better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vismae.core.errors import DataError
from vismae.evaluation.crossed_bootstrap import crossed_draws, crossed_interval
from vismae.evaluation.learning_curve import (
    HORIZON,
    fit_learning_curves,
    label_curve_area,
    measured_labels_needed,
)
from vismae.evaluation.statistics import Interval

Labels = Sequence[float] | Float[np.ndarray, " F"]
"""Rising numbers of labelled patients, above 0."""

_WORTH_SAYING = 0.02
"""A law that misses measured scores by less is not spoken of."""


def _share(share: float) -> str:
    """Return a share in per cent; what is neither none nor all is not rounded to it."""
    if 0.0 < share < 0.005:
        return "less than 1 %"
    return "more than 99 %" if 0.995 <= share < 1.0 else f"{100 * share:.0f} %"


@dataclass(frozen=True)
class LabelsNeeded:
    """Labelled patients needed to reach a score.

    The interval comes from a law fitted to few points. How often such intervals hold the truth
    depends on the curve; ``benchmarks/statistics_coverage.py`` measures it.

    Attributes:
        quality: Score to be reached.
        estimate, low, high: Labelled patients; infinite for not reached (``learning_curve``).
            ``smallest`` stands for that count or fewer.
        not_reached: Share of the resamples in which the score is not reached.
        smallest, largest: Measured label counts.
        misfit: Largest distance of the law from a measured mean score.
        level: Of the interval.
    """

    quality: float
    estimate: float
    low: float
    high: float
    not_reached: float
    smallest: float
    largest: float
    misfit: float
    level: float

    def text(self) -> str:
        """Return ``estimate [low, high]`` in patients, ``not reached`` for what is infinite."""
        return self._text(1.0, "")

    def share_text(self) -> str:
        """Return ``estimate [low, high]`` in per cent of the largest label count."""
        return self._text(100.0 / self.largest, " %")

    def _text(self, scale: float, unit: str) -> str:
        def one(value: float, unit: str) -> str:
            if np.isnan(value):
                return "–"
            if np.isinf(value):
                return "not reached"
            sign = "≤ " if value <= self.smallest else ""
            return f"{sign}{round(value * scale):d}{unit}"

        if np.isinf((self.estimate, self.low, self.high)).all():
            return "not reached"
        # The unit stands once, at the first number there is.
        of_limits = "" if np.isfinite(self.estimate) else unit
        return f"{one(self.estimate, unit)} [{one(self.low, of_limits)}, {one(self.high, '')}]"

    def _doubt(self) -> str:
        if self.not_reached == 0 or np.isinf(self.estimate):
            return ""
        return f"; not reached in {_share(self.not_reached)} of the resamples"

    def _beyond(self) -> str:
        """Say how far to trust the law where nothing was measured."""
        if not self.misfit > _WORTH_SAYING:
            return ""
        return (
            f" The law behind this misses the measured scores by up to {self.misfit:.2f}, so what "
            "it says beyond them is a guess."
        )

    def claim(self, start: str, reference: str, whole: str = "100 % of the labels") -> str:
        """Return the sentence on a start that is measured by the best-labelled result of another.

        Args:
            start: Its name.
            reference: Name of the other.
            whole: The largest label count in words.
        """
        goal = f"the result of '{reference}' with {whole}"
        if np.isnan(self.estimate):
            return f"Whether '{start}' reaches {goal} cannot be said from these runs."
        if np.isinf(self.estimate):
            return (
                f"'{start}' does not reach {goal} (not reached in {_share(self.not_reached)} of "
                f"the resamples).{self._beyond()}"
            )
        further = self.estimate > self.largest
        return (
            f"'{start}' reaches {goal} with {self.share_text()} of them "
            f"({100 * self.level:g} % interval{self._doubt()})"
            f"{', beyond the labels there are' if further else ''}."
            f"{self._beyond() if further else ''}"
        )

    def forecast(self, metric: str, unit: str = "patient") -> str:
        """Return the sentence on how many more patients must be labelled to reach the score.

        Args:
            metric: Of the score.
            unit: What is labelled.
        """
        goal = f"{metric} {self.quality:{'.2f' if round(self.quality, 2) == self.quality else 'g'}}"
        have = f"{self.largest:.0f}"
        if np.isnan(self.estimate):
            return f"What {goal} needs cannot be said from these runs."
        if np.isinf(self.estimate):
            least = (
                f"; the {100 * self.level:g} % interval begins at "
                f"{round(self.low - self.largest):d} more {unit}s"
                if self.largest < self.low < np.inf
                else ""
            )
            return (
                f"{goal} is not in reach by more labels alone: the curve levels off below it, or "
                f"gets there only beyond {HORIZON:g} times the labels (so in "
                f"{_share(self.not_reached)} of the resamples){least}.{self._beyond()}"
            )
        if self.estimate <= self.largest:
            return (
                f"{goal} is reached with {self.text()} of the {have} labelled {unit}s "
                f"({100 * self.level:g} % interval{self._doubt()})."
            )
        low = max(round(self.low - self.largest), 0)
        high = "no limit" if np.isinf(self.high) else f"{round(self.high - self.largest):d}"
        return (
            f"To reach {goal} you need about {round(self.estimate - self.largest):d} more {unit}s "
            f"[{low:d}, {high}] than the {have} labelled so far ({100 * self.level:g} % interval"
            f"{self._doubt()}); this is extrapolated.{self._beyond()}"
        )


def area_interval(
    labels: Labels,
    scores: Float[np.ndarray, "F R P"],
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the area under a label curve with its interval over runs and patients.

    Args:
        labels: Label counts.
        scores: A patient with NaN at any count of a run is left out of that run.
        n: Resamples.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        DataError: The label counts do not fit, or there is no run or patient.
    """
    return crossed_interval(label_curve_area(labels, scores), n, level, seed)


def area_difference(
    labels: Labels,
    first: Float[np.ndarray, "F R P"],
    second: Float[np.ndarray, "F R P"],
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return first minus second area under the label curve, paired by run and patient.

    Args:
        labels: Label counts of both.
        first: Scores of one start.
        second: The same counts, runs and patients of the other.
        n: Resamples.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        DataError: The shapes differ, or the label counts do not fit.
    """
    _check_paired(first, second)
    areas = label_curve_area(labels, first) - label_curve_area(labels, second)
    return crossed_interval(areas, n, level, seed)


def _check_paired(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> None:
    if first.shape != second.shape:
        raise DataError(
            f"The starts have scores of shape {first.shape} and {second.shape}; the same label "
            "counts, runs and test patients are needed in both. Leave out what only one has."
        )


def labels_needed(
    labels: Labels,
    scores: Float[np.ndarray, "F R P"],
    quality: float,
    ceiling: float = 1.0,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> LabelsNeeded:
    """Return how many labelled patients a start needs to reach a score.

    Args:
        labels: Label counts.
        scores: Of the start; NaN is left out.
        quality: Score to be reached, as a mean over test patients.
        ceiling: Largest score there can be.
        n: Resamples.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        DataError: The label counts do not fit, or there is no run or patient.
    """
    draws = crossed_draws(scores, n, seed)
    return _needed(labels, draws, np.full(n + 1, quality), ceiling, level)


def relative_labels(
    labels: Labels,
    scores: Float[np.ndarray, "F R P"],
    reference: Float[np.ndarray, "F R P"],
    margin: float = 0.0,
    ceiling: float = 1.0,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> LabelsNeeded:
    """Return the labels a start needs for what another reaches with the largest label count.

    In every resample both are of the same runs and patients, so that a hard test patient counts
    for both.

    Args:
        labels: Label counts of both.
        scores: Of the start.
        reference: Of the other, same counts, runs and patients.
        margin: How far below the reference's result still counts as reaching it.
        ceiling: Largest score there can be.
        n: Resamples.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        DataError: The shapes differ, or the label counts do not fit.
    """
    _check_paired(scores, reference)
    quality = crossed_draws(reference[-1], n, seed) - margin
    return _needed(labels, crossed_draws(scores, n, seed), quality, ceiling, level)


def _needed(
    labels: Labels,
    draws: Float[np.ndarray, "draws F"],
    quality: Float[np.ndarray, " draws"],
    ceiling: float,
    level: float,
) -> LabelsNeeded:
    curves = fit_learning_curves(labels, draws, ceiling)
    measured = measured_labels_needed(curves.labels, draws, quality)
    needed = np.minimum(curves.labels_needed(quality), measured)
    fitted = np.array([curves.score(count)[0] for count in curves.labels])
    resampled = needed[1:][~np.isnan(needed[1:])]
    low = high = not_reached = float("nan")
    if len(resampled) > 0:
        tail = (1 - level) / 2
        # A step function of the draws: infinite ones cannot be interpolated.
        low, high = np.quantile(resampled, (tail, 1 - tail), method="inverted_cdf")
        not_reached = float(np.isinf(resampled).mean())
    return LabelsNeeded(
        quality=float(quality[0]),
        estimate=float(needed[0]),
        low=float(low),
        high=float(high),
        not_reached=not_reached,
        smallest=float(curves.labels[0]),
        largest=float(curves.labels[-1]),
        misfit=float(np.abs(fitted - draws[0]).max()),
        level=level,
    )
