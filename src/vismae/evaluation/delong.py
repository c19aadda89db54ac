"""AUROC with its variance, and two classifiers compared on the same cases.

DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837) by the midranks of Sun and Xu 2014 (IEEE
Signal Processing Letters 21:1389), O(n log n). Several cases of one patient are alike; their
structural components are added up within the patient as in Obuchowski 1997 (Biometrics 53:567),
which is DeLong's own variance where every patient has one case.

That variance is estimated from the patients of each class. Where one class has few, its estimate is
as uncertain as that of a mean over few. Limits and p-values therefore take Student's levels of the
patients of both classes, weighted by what each adds to the variance (Cochran 1964, Biometrics
20:191). By the normal distribution two equally good classifiers would differ at 5 % in 17 % of
studies with 2 and 15 patients of the classes, and at 0.1 % in 6 %. By one level at Satterthwaite's
degrees of freedom they would in 11 % with 2 and 100 patients, and at 0.1 % in 4 %: two patients may
lie close together by chance, and then seem to add nothing. With these levels it is 5 and 0.5 %.

M classifiers, n cases, K classes. Higher scores speak for the positive class.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.optimize import root_scalar
from scipy.special import expit, logit, stdtrit
from scipy.stats import rankdata

from vismae.core.errors import DataError
from vismae.evaluation.statistics import Interval

_SMALLEST_P = 1e-100


@dataclass(frozen=True)
class Aurocs:
    """AUROC of classifiers on the same cases.

    Attributes:
        auroc: Of each classifier; NaN where all cases are of one class.
        covariance: Between classifiers; NaN with fewer than two patients of either class.
        n_patients: Patients behind it.
        parts: What of the covariance comes from the patients of the positive and of the negative
            class; the rest is of patients who have both.
        patients_of: How many patients have a positive, and a negative case.
    """

    auroc: Float[np.ndarray, " M"]
    covariance: Float[np.ndarray, "M M"]
    n_patients: int
    parts: tuple[Float[np.ndarray, "M M"], Float[np.ndarray, "M M"]]
    patients_of: tuple[int, int]

    def standard_errors(self, weights: Float[np.ndarray, " M"], tail: float) -> float:
        """Return how many standard errors of a weighted sum of the AUROCs leave a tail outside.

        Args:
            weights: Of the sum.
            tail: Share of one tail.
        """
        parts = np.array([float(weights @ part @ weights) for part in self.parts])
        if not parts.sum() > 0:
            return float("nan")
        # The lower tail keeps its digits where it is very small.
        levels = -stdtrit(np.array(self.patients_of) - 1.0, tail)
        return float(parts @ levels / parts.sum())

    def two_sided_p(self, weights: Float[np.ndarray, " M"], errors: float) -> float:
        """Return the p-value of a weighted sum that lies so many standard errors from 0."""

        def beyond(log_p: float) -> float:
            return self.standard_errors(weights, float(np.exp(log_p)) / 2) - errors

        # Levels fall from infinity to 0 where p rises to 1.
        smallest = float(np.log(_SMALLEST_P))
        if not beyond(smallest) > 0:
            return _SMALLEST_P if np.isfinite(beyond(smallest)) else float("nan")
        root = root_scalar(beyond, bracket=(smallest, 0.0), method="brentq", xtol=1e-12).root
        return float(np.exp(root))


@dataclass(frozen=True)
class AurocComparison:
    """Two classifiers on the same cases.

    Attributes:
        first, second: AUROC of each, limits on the logit scale.
        difference: First minus second, limits symmetric but not beyond -1 and 1.
        p_value: Two-sided; NaN where the variance is undefined.
    """

    first: Interval
    second: Interval
    difference: Interval
    p_value: float


def delong(
    scores: Float[np.ndarray, "M n"],
    truth: Bool[np.ndarray, " n"],
    patients: Sequence[Hashable] | np.ndarray | None = None,
) -> Aurocs:
    """Return AUROC and its covariance for classifiers scored on the same cases.

    Args:
        scores: One row for each classifier, finite; ties count half.
        truth: True for positive cases.
        patients: Patient of each case; None where every case is a patient.

    Raises:
        DataError: The numbers of cases differ, or a score is not finite.
    """
    n_models, n_cases = scores.shape
    names = np.arange(n_cases) if patients is None else np.asarray(patients)
    if len(truth) != n_cases or len(names) != n_cases:
        raise DataError(
            f"{n_cases} scores, {len(truth)} true labels and {len(names)} patients: one of each "
            "is needed for every case."
        )
    if not np.isfinite(scores).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(scores))} scores are NaN or infinite; AUROC needs a "
            "finite score for every case. Leave out cases without a prediction in all classifiers."
        )
    membership = np.unique(names, return_inverse=True)[1].reshape(-1)
    n_patients = int(membership.max(initial=-1)) + 1
    n_positive = int(truth.sum())
    n_negative = n_cases - n_positive
    undefined = np.full((n_models, n_models), np.nan)
    if n_positive == 0 or n_negative == 0:
        empty = np.full(n_models, np.nan)
        return Aurocs(empty, undefined, n_patients, (undefined, undefined), (0, 0))
    components = _components(scores, truth)
    auroc = components[:, truth].mean(axis=1)
    positive = _sum_by_patient(components - auroc[:, None], membership, truth, n_patients)
    negative = _sum_by_patient(components - auroc[:, None], membership, ~truth, n_patients)
    with_positive = len(np.unique(membership[truth]))
    with_negative = len(np.unique(membership[~truth]))
    patients_of = (with_positive, with_negative)
    if min(patients_of) < 2:
        return Aurocs(auroc, undefined, n_patients, (undefined, undefined), patients_of)
    both = positive @ negative.T
    parts = (
        with_positive / (with_positive - 1) * (positive @ positive.T) / n_positive**2,
        with_negative / (with_negative - 1) * (negative @ negative.T) / n_negative**2,
    )
    shared = n_patients / (n_patients - 1) * (both + both.T) / (n_positive * n_negative)
    return Aurocs(auroc, parts[0] + parts[1] + shared, n_patients, parts, patients_of)


def _components(
    scores: Float[np.ndarray, "M n"], truth: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "M n"]:
    """Return for each case the share of the other class that it is ranked rightly against."""
    n_positive = int(truth.sum())
    n_negative = truth.size - n_positive
    among_all = rankdata(scores, axis=1)
    components = np.empty(scores.shape)
    own_positive = rankdata(scores[:, truth], axis=1)
    own_negative = rankdata(scores[:, ~truth], axis=1)
    components[:, truth] = (among_all[:, truth] - own_positive) / n_negative
    components[:, ~truth] = 1 - (among_all[:, ~truth] - own_negative) / n_positive
    return components


def _sum_by_patient(
    components: Float[np.ndarray, "M n"],
    membership: Integer[np.ndarray, " n"],
    chosen: Bool[np.ndarray, " n"],
    n_patients: int,
) -> Float[np.ndarray, "M patients"]:
    return np.stack(
        [np.bincount(membership[chosen], row[chosen], minlength=n_patients) for row in components]
    )


def auroc_interval(
    scores: Float[np.ndarray, " n"],
    truth: Bool[np.ndarray, " n"],
    patients: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    """Return the AUROC of one classifier with limits from the logit scale.

    On the logit scale limits stay in 0 to 1 (Pepe 2003, section 5.2). An AUROC of exactly 0 or 1
    has no limits, since its estimated variance is 0.

    Args:
        scores: Of the cases; higher speaks for the positive class.
        truth: True for positive cases.
        patients: Patient of each case; None where every case is a patient.
        level: Of the interval.

    Raises:
        DataError: The numbers of cases differ, or a score is not finite.
    """
    return _on_logit_scale(delong(scores[None], truth, patients), np.ones(1), level)


def _on_logit_scale(result: Aurocs, weights: Float[np.ndarray, " M"], level: float) -> Interval:
    auroc, n = float(weights @ result.auroc), result.n_patients
    variance = float(weights @ result.covariance @ weights)
    if not 0 < auroc < 1 or not variance > 0:
        return Interval(auroc, float("nan"), float("nan"), n)
    reach = result.standard_errors(weights, (1 - level) / 2)
    half = reach * np.sqrt(variance) / (auroc * (1 - auroc))
    middle = logit(auroc)
    return Interval(auroc, float(expit(middle - half)), float(expit(middle + half)), n)


def compare_auroc(
    first: Float[np.ndarray, "*runs n"],
    second: Float[np.ndarray, "*runs n"],
    truth: Bool[np.ndarray, " n"],
    patients: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
) -> AurocComparison:
    """Return DeLong's paired test of two classifiers on the same cases.

    Of several runs of a classifier the mean AUROC is taken; its variance, which follows from the
    covariance of all runs, is over patients and says nothing of further runs.

    Args:
        first: Scores of one classifier, or of its runs, one row each.
        second: Scores of the other, same runs and cases in the same order.
        truth: True for positive cases.
        patients: Patient of each case; None where every case is a patient.
        level: Of the intervals.

    Raises:
        DataError: The numbers of cases differ, or a score is not finite.
    """
    if first.shape != second.shape:
        raise DataError(
            f"The classifiers have scores of shape {first.shape} and {second.shape}; the same runs "
            "and cases in the same order are needed."
        )
    stacked = np.concatenate([np.atleast_2d(first), np.atleast_2d(second)])
    result = delong(stacked, truth, patients)
    runs = len(stacked) // 2
    weights = np.repeat(np.eye(2), runs, axis=1) / runs  # (2, 2 R): the mean of each one's runs
    own = [_on_logit_scale(result, of_one, level) for of_one in weights]
    contrast = weights[0] - weights[1]
    difference = float(contrast @ result.auroc)
    variance = float(contrast @ result.covariance @ contrast)
    low = high = p_value = float("nan")
    # Rounding leaves a variance of some 1e-18 where both rank all cases alike.
    if np.isfinite(variance):
        error = np.sqrt(variance) if variance > 1e-15 else 0.0
        if error > 0:
            half = result.standard_errors(contrast, (1 - level) / 2) * error
            low, high = max(difference - half, -1.0), min(difference + half, 1.0)
            p_value = result.two_sided_p(contrast, abs(difference) / error)
        elif abs(difference) < 1e-12:
            p_value = 1.0
    return AurocComparison(
        own[0], own[1], Interval(difference, low, high, result.n_patients), p_value
    )


def compare_auroc_by_class(
    first: Float[np.ndarray, "n K"],
    second: Float[np.ndarray, "n K"],
    truth: Bool[np.ndarray, "n K"],
    class_names: Sequence[str],
    patients: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
) -> dict[str, AurocComparison]:
    """Return the comparison of two classifiers for each class against the rest.

    The p-values are not adjusted for the number of classes; see ``statistics.holm``.

    Args:
        first: Scores of one classifier.
        second: Scores of the other, same cases and classes.
        truth: Membership, one-hot or multi-label.
        class_names: Of the columns.
        patients: Patient of each case; None where every case is a patient.
        level: Of the intervals.

    Raises:
        DataError: The shapes differ, or a score is not finite.
    """
    if not first.shape == second.shape == truth.shape or first.shape[1] != len(class_names):
        raise DataError(
            f"Scores {first.shape} and {second.shape}, truth {truth.shape} and "
            f"{len(class_names)} class names; the same cases and classes are needed in all."
        )
    return {
        name: compare_auroc(first[:, k], second[:, k], truth[:, k], patients, level)
        for k, name in enumerate(class_names)
    }
