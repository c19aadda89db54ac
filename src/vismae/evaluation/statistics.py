"""Intervals and tests over patients.

Patients are the unit that is resampled: slices and volumes of one patient are alike, and treating
them as independent makes every interval too narrow. Scores that are undefined for a patient (NaN,
class absent) are left out and not counted in ``n``. Random numbers come from the given seed only.

Bootstrap: Efron and Tibshirani 1993; runs and patients at once: ``crossed_bootstrap``.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy.special import ndtr, ndtri, stdtrit

from vismae.core.errors import DataError

Statistic = Callable[..., np.ndarray | np.floating]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: On the data themselves; NaN where undefined.
        low, high: Limits; NaN where they cannot be computed: fewer than two patients, or values
            that are all (or nearly all) alike, as where every case is right, which say nothing of
            the spread.
        n: Patients (groups) behind it.
    """

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 3) -> str:
        """Return ``mean [low, high]``, with a dash for what is undefined."""
        if np.isnan(self.estimate):
            return "–"
        if np.isnan(self.low) or np.isnan(self.high):
            return f"{self.estimate:z.{digits}f} [–]"
        # z: what rounds to 0 has no sign.
        return f"{self.estimate:z.{digits}f} [{self.low:z.{digits}f}, {self.high:z.{digits}f}]"


def p_text(p_value: float) -> str:
    """Return a p-value as papers print it."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def mean_of_defined(values: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "..."]:
    """Return the mean over the first axis without NaN; NaN where nothing is defined."""
    defined = np.isfinite(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def bootstrap_interval(
    values: Sequence[float] | Float[np.ndarray, " n"],
    statistic: Statistic = np.mean,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a statistic of one value per patient with its bootstrap interval.

    Bias-corrected and accelerated (BCa); percentile where BCa is undefined, as for a statistic
    that takes few values. Taken at the level of Student's t (``expanded_tail``): without that, 95 %
    intervals of a mean over 30 patients hold the truth in 92.5 to 92.8 % of studies.

    Args:
        values: One for each patient; NaN is left out.
        statistic: Takes an array and ``axis``.
        n: Resamples.
        level: Share of repeated studies whose interval should hold the truth.
        seed: Of the resampling.
    """
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    if len(array) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    estimate = float(statistic(array, axis=-1))
    if len(array) < 2:
        return Interval(estimate, float("nan"), float("nan"), len(array))
    generator = np.random.default_rng(seed)
    resamples = array[generator.integers(len(array), size=(n, len(array)))]
    distribution = np.asarray(statistic(resamples, axis=-1))
    tail = expanded_tail((1.0 - level) / 2, len(array))
    tails = _bca_tails(array, statistic, distribution, estimate, tail)
    low, high = limits_at(distribution, (tail, 1.0 - tail) if tails is None else tails)
    return Interval(estimate, low, high, len(array))


def limits_at(
    distribution: Float[np.ndarray, " resamples"], tails: tuple[float, float]
) -> tuple[float, float]:
    """Return two quantiles of resamples as the limits of an interval.

    Args:
        distribution: The resamples, one or more.
        tails: Which quantiles.

    Returns:
        NaN where the limits are one value: resamples are all alike, or all but a few, and an
        interval without width would claim a certainty that nobody has.
    """
    low, high = np.quantile(distribution, tails)
    if high - low < 1e-12:
        return float("nan"), float("nan")
    return float(low), float(high)


def expanded_tail(tail: float, n: int) -> float:
    """Return the share of resamples to leave out at either end so that n values are not too few.

    A resample's spread is too small by (n - 1)/n, and knows nothing of its own uncertainty
    (Hesterberg 2015, doi 10.1080/00031305.2015.1089789, expanded percentile interval).

    Args:
        tail: Share wanted at either end of an interval, such as 0.025.
        n: Values, two or more.
    """
    return float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail)))


def _bca_tails(
    array: Float[np.ndarray, " n"],
    statistic: Statistic,
    distribution: Float[np.ndarray, " resamples"],
    estimate: float,
    tail: float,
) -> tuple[float, float] | None:
    """Return the quantiles of the resamples that BCa takes as limits; None where undefined.

    Efron and Tibshirani 1993, section 14.3.
    """
    below = np.mean(distribution < estimate) + np.mean(distribution == estimate) / 2
    left_out = np.array([statistic(np.delete(array, i), axis=-1) for i in range(len(array))])
    influence = left_out.mean() - left_out
    spread = np.sum(influence**2)
    if spread == 0 or not 0 < below < 1:
        return None
    acceleration = np.sum(influence**3) / (6 * spread**1.5)
    bias = ndtri(below)
    reach = ndtri(tail)
    shifted = bias + np.array([reach, -reach])
    denominator = 1 - acceleration * shifted
    if (denominator <= 0).any():  # two or three patients: the limits would change sides
        return None
    low, high = ndtr(bias + shifted / denominator)
    return float(low), float(high)


def bootstrap_grouped(
    metric: Callable[[Integer[np.ndarray, " rows"]], Sequence[float] | Float[np.ndarray, " M"]],
    groups: Sequence[Hashable] | np.ndarray,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Return intervals of metrics that need a whole set of patients, such as AUROC.

    Whole patients are resampled, each with all its rows.

    Args:
        metric: Takes row numbers (repeated as often as drawn), returns M numbers.
        groups: Patient of each row.
        n: Resamples.
        level: Of the intervals.
        seed: Of the resampling.

    Returns:
        M percentile intervals with the number of patients. Resamples in which a metric is
        undefined (no patient of a class was drawn) are left out; where they are half or more, or
        the limits are one value, or there are fewer than two patients, the limits are NaN.
    """
    names, membership = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = len(names)
    estimates = np.atleast_1d(np.asarray(metric(np.arange(len(membership))), dtype=float))
    draws = np.full((n, len(estimates)), np.nan)
    if n_groups > 1:
        rows_of = np.split(
            np.argsort(membership, kind="stable"), np.cumsum(np.bincount(membership))[:-1]
        )
        generator = np.random.default_rng(seed)
        for draw in draws:
            chosen = generator.integers(n_groups, size=n_groups)
            draw[:] = metric(np.concatenate([rows_of[g] for g in chosen]))
    intervals: list[Interval] = []
    for estimate, distribution in zip(estimates, draws.T, strict=True):
        defined = distribution[np.isfinite(distribution)]
        low = high = float("nan")
        if len(defined) > n / 2 and np.isfinite(estimate):
            low, high = limits_at(defined, ((1.0 - level) / 2, (1.0 + level) / 2))
        intervals.append(Interval(float(estimate), low, high, n_groups))
    return intervals


def _paired_differences(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray):
    """Return a - b of the patients with both values."""
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if left.shape != right.shape or left.ndim != 1:
        raise DataError(
            f"Paired values have shapes {left.shape} and {right.shape}; one value for each patient "
            "in the same order is needed in both."
        )
    difference = left - right
    return difference[np.isfinite(difference)]


def paired_bootstrap(
    a: Sequence[float] | Float[np.ndarray, " n"],
    b: Sequence[float] | Float[np.ndarray, " n"],
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``a - b`` over patients with its bootstrap interval.

    Args:
        a: One value for each patient; patients with NaN in either are left out.
        b: The same patients in the same order.
        n: Resamples.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        DataError: The lengths differ.
    """
    return bootstrap_interval(_paired_differences(a, b), n=n, level=level, seed=seed)


def paired_permutation(
    a: Sequence[float] | Float[np.ndarray, " n"],
    b: Sequence[float] | Float[np.ndarray, " n"],
    n: int = 10_000,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of a mean difference, by swapping a and b within patients.

    Exact when the patients have no more than ``n`` swaps between them (13 patients for the
    default); else ``n`` random swaps, with the observed one counted in, so that p is never 0.

    Args:
        a: One value for each patient; patients with NaN in either are left out.
        b: The same patients in the same order.
        n: Largest number of swaps tried.
        seed: Of the random swaps.

    Returns:
        p, or NaN without a patient.

    Raises:
        DataError: The lengths differ.
    """
    difference = _paired_differences(a, b)
    patients = len(difference)
    if patients == 0:
        return float("nan")
    # Sums that are equal in exact arithmetic must count as equal here too.
    observed = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    if 2**patients <= n:
        swaps = np.arange(2**patients)[:, None] >> np.arange(patients) & 1
        return float(np.mean(np.abs((1 - 2 * swaps) @ difference) >= observed))
    generator = np.random.default_rng(seed)
    extreme = 0
    # In pieces, so that thousands of patients do not need gigabytes.
    for start in range(0, n, 500):
        swaps = generator.integers(2, size=(min(500, n - start), patients), dtype=np.int8)
        extreme += np.count_nonzero(np.abs((1 - 2 * swaps) @ difference) >= observed)
    return (extreme + 1) / (n + 1)


def smallest_permutation_p(patients: int) -> float:
    """Return the smallest p-value of swaps within patients, however large the difference.

    The observed swap and its opposite are always as extreme as each other.
    """
    return 2.0 / 2**patients


def holm(p_values: Sequence[float] | Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Return p-values adjusted for their number (Holm 1979, family-wise error).

    Args:
        p_values: One for each comparison; NaN stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    defined = np.flatnonzero(np.isfinite(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    stepped = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
