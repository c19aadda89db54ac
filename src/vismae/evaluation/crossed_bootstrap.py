"""Resampling runs and patients at once, as two crossed factors.

A run is a label subset with its seed. Every run is scored on the same test patients, so one
patient's bad luck in five runs is one piece of evidence, not five (Owen 2007, arXiv 0712.1111).
One run and one patient fewer are drawn than there are: with as many, the variance of a mean over
n comes out too small by (n - 1)/n, which matters with three runs (Rao and Wu 1988, JASA 83:231).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy import stats

from vismae.core.errors import DataError
from vismae.evaluation.statistics import Interval, limits_at, mean_of_defined


def crossed_interval(
    values: Float[np.ndarray, "runs patients"], n: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the mean over runs and patients with its interval over both.

    The resamples give the shape, ``two_way_error`` the width: resamples of two crossed factors
    count what is left over of single cells twice, and know nothing of how uncertain a variance of
    three runs is.

    Args:
        values: One for each run and patient, such as paired differences; NaN is left out.
        n: Resamples.
        level: Of the interval.
        seed: Of the resampling.

    Returns:
        Its n are the patients with a value. With one run the limits say nothing of other label
        subsets; with one patient, or values that are all alike, they are NaN.

    Raises:
        DataError: There is no run or no patient.
    """
    estimate, draws = calibrated_draws(values, n, level, seed)
    patients = int(np.isfinite(values).any(axis=0).sum())
    low = high = float("nan")
    if len(draws):
        low, high = limits_at(draws, ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate, low, high, patients)


def calibrated_draws(
    values: Float[np.ndarray, "runs patients"], n: int, level: float, seed: int
) -> tuple[float, Float[np.ndarray, " draws"]]:
    """Return the mean, and resamples whose quantiles are its limits at a level.

    Args:
        values: One for each run and patient; NaN is left out, and so are runs and patients
            without any value.
        n: Resamples.
        level: Of the interval whose width is to be right.
        seed: Of the resampling.

    Returns:
        No resamples where an interval is undefined (fewer than two patients).

    Raises:
        DataError: There is no run or no patient.
    """
    defined = np.isfinite(values)
    if values.size and defined.any():
        values = values[defined.any(axis=1)][:, defined.any(axis=0)]
    all_draws = crossed_draws(values, n, seed)
    estimate, draws = float(all_draws[0]), all_draws[1:][np.isfinite(all_draws[1:])]
    two_way = two_way_error(values)
    if not np.isfinite(two_way.error) or len(draws) == 0:
        return estimate, np.empty(0)
    spread = draws.std()
    if spread == 0:
        return estimate, draws
    tail = (1 - level) / 2
    width = two_way.standard_errors(tail) / stats.norm.isf(tail) * two_way.error / spread
    return estimate, estimate + (draws - estimate) * width


@dataclass(frozen=True)
class TwoWayError:
    """Standard error of a mean over runs and patients, and Student's level for it."""

    error: float
    """NaN with fewer than two patients that have a value."""
    shares: tuple[float, ...]
    """Of patients, and of runs where there are several, in the level; they add up to 1."""
    freedoms: tuple[float, ...]
    """Degrees of freedom of each."""

    def standard_errors(self, tail: float) -> float:
        """Return how many standard errors leave this share of one tail outside.

        The levels of a few runs and of many patients are weighted by how much each adds to the
        variance (Cochran 1964, Biometrics 20:191). One level at Satterthwaite's degrees of freedom
        is too sure of itself with two or three runs: by chance they lie close together, and then
        seem to add nothing.
        """
        levels = (
            share * float(stats.t.isf(tail, freedom))
            for share, freedom in zip(self.shares, self.freedoms, strict=True)
        )
        return sum(levels)


def two_way_error(values: Float[np.ndarray, "runs patients"]) -> TwoWayError:
    """Return the standard error of a mean over runs and patients.

    Runs and patients are both random, without a term for their interplay: the variance is
    (MS runs + MS patients - MS rest) / N (Searle, Casella and McCulloch 1992, section 4.3). With
    one run it is that of a mean over patients.

    Args:
        values: One for each run and patient; NaN is left out.
    """
    defined = np.isfinite(values)
    values = values[defined.any(axis=1)][:, defined.any(axis=0)]
    runs, patients = values.shape
    if patients < 2:
        return TwoWayError(float("nan"), (1.0,), (float("nan"),))
    cells = int(np.isfinite(values).sum())
    centred = values - np.nanmean(values)
    of_run, of_patient = mean_of_defined(centred.T), mean_of_defined(centred)
    among_patients = _mean_square(np.isfinite(centred) * of_patient, patients - 1)
    if runs == 1:
        return TwoWayError(float(np.sqrt(among_patients / cells)), (1.0,), (patients - 1.0,))
    among_runs = _mean_square(np.isfinite(centred).T * of_run, runs - 1)
    rest = _mean_square(centred - of_run[:, None] - of_patient, max(cells - runs - patients + 1, 1))
    # By chance the sum can be too small, even negative.
    total = max(among_patients + among_runs - rest, rest)
    both = among_patients + among_runs
    share = among_runs / both if both > 0 else 0.0
    return TwoWayError(
        float(np.sqrt(total / cells)), (1 - share, share), (patients - 1.0, runs - 1.0)
    )


def _mean_square(deviations: Float[np.ndarray, "..."], freedom: float) -> float:
    return float(np.nansum(deviations**2) / freedom)


def crossed_draws(
    values: Float[np.ndarray, "*points runs patients"], n: int = 2000, seed: int = 0
) -> Float[np.ndarray, "draws *points"]:
    """Return the mean over runs and patients, on the data and on resamples.

    All points of a draw are of the same runs and patients, and the same seed gives the same draws
    for the same numbers of them: what is compared stays paired.

    Args:
        values: One for each point, run and patient; NaN is left out.
        n: Resamples.
        seed: Of the resampling.

    Returns:
        1 + n means of each point; row 0 is of the data themselves. NaN where a draw has no value.

    Raises:
        DataError: There is no run or no patient.
    """
    *points, runs, patients = values.shape
    if runs == 0 or patients == 0:
        raise DataError(
            f"Scores of {runs} runs and {patients} patients; at least one of each is needed."
        )
    generator = np.random.default_rng(seed)
    run_weight = _weights(runs, n, generator)
    patient_weight = _weights(patients, n, generator)
    flat = values.reshape(-1, runs, patients)
    draws = np.empty((n + 1, len(flat)))
    for place, point in enumerate(flat):
        defined = np.isfinite(point)
        total = ((run_weight @ np.where(defined, point, 0.0)) * patient_weight).sum(axis=1)
        count = ((run_weight @ defined.astype(float)) * patient_weight).sum(axis=1)
        draws[:, place] = np.divide(total, count, out=np.full(n + 1, np.nan), where=count > 0)
    return draws.reshape(n + 1, *points)


def _weights(
    size: int, n: int, generator: np.random.Generator
) -> Integer[np.ndarray, "draws size"]:
    """Return how often each is drawn; row 0 takes each once."""
    drawn = generator.multinomial(max(size - 1, 1), np.full(size, 1 / size), size=n)
    return np.vstack([np.ones((1, size), dtype=drawn.dtype), drawn])
