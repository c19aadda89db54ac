"""Is one start as good as another, within a stated margin?

A large p-value of a difference is no evidence of equality. Two one-sided tests are (Schuirmann
1987, J Pharmacokinet Biopharm 15:657): at 5 % they call two starts equivalent exactly when the
90 % interval of the difference lies within the margin on both sides. Not inferior asks for the
lower side alone. The margin must be chosen before the scores are seen.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.optimize import brentq

from vismae.core.errors import DataError, SettingError
from vismae.evaluation.crossed_bootstrap import TwoWayError, calibrated_draws, two_way_error
from vismae.evaluation.statistics import Interval, p_text

# Differences of equal scores are some 1e-17 apart by rounding.
_ALIKE = 1e-12
_SMALLEST_P = 1e-9


@dataclass(frozen=True)
class Equivalence:
    """Outcome of the two one-sided tests.

    Attributes:
        difference: Mean of first minus second; limits at level 1 - 2 alpha.
        margin: Largest difference that does not matter, in the unit of the score.
        alpha: Of each one-sided test.
        p_value: Of equivalence: the larger of the two one-sided ones. NaN where undefined.
        p_not_inferior: That first is worse than second by the margin or more.
    """

    difference: Interval
    margin: float
    alpha: float
    p_value: float
    p_not_inferior: float

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be within the margin on both sides."""
        return self.p_value < self.alpha

    @property
    def not_inferior(self) -> bool:
        """Whether first is shown not to be worse than second by the margin."""
        return self.p_not_inferior < self.alpha

    def text(self, first: str, second: str, metric: str, unit: str = "patient") -> str:
        """Return the sentence for a report, such as ``'ours, 50 % of the labels' is as good …``.

        Args:
            first: Name of the one that is tested.
            second: Of the other.
            metric: Of the scores.
            unit: What a test case is.
        """
        level = f"{100 * (1 - 2 * self.alpha):g} % interval"
        facts = f"difference {self.difference.text()}, {level}, {self.difference.n} {unit}s"
        within = f"within a margin of {self.margin:g} {metric}"
        if np.isnan(self.p_value):
            return f"Whether '{first}' is as good as '{second}' {within} cannot be tested: {facts}."
        if self.equivalent:
            return f"'{first}' is as good as '{second}' {within} ({facts}; {p_text(self.p_value)})."
        if self.not_inferior:
            return (
                f"'{first}' is not worse than '{second}' {within} "
                f"({facts}; {p_text(self.p_not_inferior)}), and may be better by more than that."
            )
        if self.difference.high < -self.margin:
            return f"'{first}' is worse than '{second}' by more than {self.margin:g} ({facts})."
        return (
            f"It is not shown that '{first}' is as good as '{second}' {within} "
            f"({facts}; {p_text(self.p_value)})."
        )


def equivalence(
    first: Float[np.ndarray, "*runs patients"],
    second: Float[np.ndarray, "*runs patients"],
    margin: float,
    alpha: float = 0.05,
    n: int = 10_000,
    seed: int = 0,
) -> Equivalence:
    """Test whether paired scores differ by less than a margin.

    One score for each patient: Student's t of the differences. One for each run and patient: the
    crossed bootstrap of runs and patients, so that it also speaks for other label subsets; a
    p-value is then the level whose one-sided limit lies at the margin. Limits and p-values are NaN
    where all differences are equal, as when both call all of a few test patients right: that says
    nothing of others.

    Args:
        first: Scores of one start; patients with NaN in either are left out.
        second: Of the other, same runs and patients in the same order.
        margin: Above 0, in the unit of the score.
        alpha: Of each one-sided test.
        n: Resamples with runs.
        seed: Of the resampling.

    Raises:
        DataError: The shapes differ, or are neither patients nor runs by patients.
        SettingError: The margin is not above 0.
    """
    if first.shape != second.shape or first.ndim not in (1, 2):
        raise DataError(
            f"Scores of shape {first.shape} and {second.shape}; one score for each patient, or for "
            "each run and patient, in the same order is needed in both."
        )
    if not margin > 0:
        raise SettingError(
            f"The margin of equivalence is {margin}; it must be above 0, in the unit of the score."
        )
    difference = first - second
    if difference.ndim == 1:
        return _by_student(difference[np.isfinite(difference)], margin, alpha)
    return _by_resampling(difference, margin, alpha, n, seed)


def _by_student(difference: Float[np.ndarray, " n"], margin: float, alpha: float) -> Equivalence:
    n = len(difference)
    estimate = float(difference.mean()) if n else float("nan")
    nan = float("nan")
    if n < 2 or np.ptp(difference) < _ALIKE:
        return Equivalence(Interval(estimate, nan, nan, n), margin, alpha, nan, nan)
    error = float(difference.std(ddof=1) / np.sqrt(n))
    half = stats.t.ppf(1 - alpha, n - 1) * error
    above_low, below_high = (
        _one_sided(margin + estimate, error, n),
        _one_sided(margin - estimate, error, n),
    )
    interval = Interval(estimate, float(estimate - half), float(estimate + half), n)
    return Equivalence(interval, margin, alpha, max(above_low, below_high), above_low)


def _one_sided(distance: float, error: float, n: int) -> float:
    """Return p of a mean that lies this far on the good side of the margin."""
    return float(stats.t.sf(distance / error, n - 1))


def _by_resampling(
    difference: Float[np.ndarray, "runs patients"], margin: float, alpha: float, n: int, seed: int
) -> Equivalence:
    patients = int(np.isfinite(difference).any(axis=0).sum())
    estimate, draws = calibrated_draws(difference, n, 1 - 2 * alpha, seed)
    nan = float("nan")
    if len(draws) == 0 or np.ptp(draws) < _ALIKE:
        return Equivalence(Interval(estimate, nan, nan, patients), margin, alpha, nan, nan)
    two_way = two_way_error(difference)
    above_low = _tail(estimate - draws, margin + estimate, two_way, alpha)
    below_high = _tail(draws - estimate, margin - estimate, two_way, alpha)
    low, high = np.quantile(draws, (alpha, 1 - alpha))
    interval = Interval(estimate, float(low), float(high), patients)
    return Equivalence(interval, margin, alpha, max(above_low, below_high), above_low)


def _tail(
    reach: Float[np.ndarray, " draws"], distance: float, two_way: TwoWayError, alpha: float
) -> float:
    """Return the level at which a one-sided limit lies at the margin.

    The share of resamples beyond it would do for a normal distribution alone: few patients have no
    resample there, whatever Student's t with so few degrees of freedom says.

    Args:
        reach: How far resamples lie from the estimate towards the margin; their width is right at
            ``alpha``.
        distance: From the estimate to the margin, below 0 beyond it.
        two_way: Of the standard error.
        alpha: See ``reach``.
    """

    def widening(tail: float) -> float:
        return float(two_way.standard_errors(tail) / stats.norm.isf(tail))

    def beyond(log_tail: float) -> float:
        tail = float(np.exp(log_tail))
        limit = np.quantile(reach, 1 - tail) * widening(tail) / widening(alpha)
        return float(limit - distance)

    smallest, largest = np.log(_SMALLEST_P), np.log(0.49)
    if beyond(largest) >= 0:
        return float(np.mean(reach >= distance))
    if beyond(smallest) <= 0:
        return _SMALLEST_P
    return float(np.exp(cast(float, brentq(beyond, smallest, largest))))
