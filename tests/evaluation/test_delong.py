"""DeLong against the sum over all pairs, scikit-learn, and simulation."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from vismae.core.errors import DataError
from vismae.evaluation.delong import (
    auroc_interval,
    compare_auroc,
    compare_auroc_by_class,
    delong,
)


def two_classifiers(n: int, seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3 == 0
    scores = truth + rng.normal(0, 1, n) + rng.normal(0, [[0.5], [1.5]], (2, n))
    return (np.round(scores) if ties else scores), truth


def by_all_pairs(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong 1988, equations 3 to 5, over every pair of a positive and a negative case."""
    positive, negative = scores[:, truth, None], scores[:, None, ~truth]
    wins = (positive > negative) + 0.5 * (positive == negative)
    v10, v01 = wins.mean(axis=2), wins.mean(axis=1)
    return wins.mean(axis=(1, 2)), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [7, 60, 301])
def test_midranks_agree_with_all_pairs_and_scikit_learn(n: int, ties: bool) -> None:
    scores, truth = two_classifiers(n, n, ties)
    result = delong(scores, truth)
    auroc, covariance = by_all_pairs(scores, truth)
    np.testing.assert_allclose(result.auroc, auroc, atol=1e-12)
    np.testing.assert_allclose(result.covariance, covariance, atol=1e-12)
    reference = [roc_auc_score(truth, row) for row in scores]
    np.testing.assert_allclose(result.auroc, reference, atol=1e-12)


def test_patients_with_copies_of_one_case_count_once() -> None:
    scores, truth = two_classifiers(40, 0, ties=False)
    once = delong(scores, truth)
    copied = delong(np.repeat(scores, 5, axis=1), np.repeat(truth, 5), np.repeat(np.arange(40), 5))
    np.testing.assert_allclose(copied.auroc, once.auroc)
    np.testing.assert_allclose(copied.covariance, once.covariance)
    assert copied.n_patients == 40


def test_the_clustered_variance_is_that_of_repeated_studies() -> None:
    # Patients of 4 cases, both classes in one patient, half of the noise shared within a patient.
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(50), 4)
    truth = np.tile([True, False, False, True], 50)
    found, estimated = [], []
    for _ in range(400):
        scores = truth * (1 + rng.normal(size=50)[patients]) + rng.normal(size=200)
        result = delong(scores[None], truth, patients)
        found.append(result.auroc[0])
        estimated.append(result.covariance[0, 0])
    assert np.mean(estimated) == pytest.approx(np.var(found), rel=0.2)


@pytest.mark.parametrize("n", [12, 90])
def test_the_paired_test_takes_what_the_cases_of_both_classes_say_by_cochrans_levels(
    n: int,
) -> None:
    scores, truth = two_classifiers(n, 1, ties=True)
    positive, negative = scores[:, truth, None], scores[:, None, ~truth]
    wins = (positive > negative) + 0.5 * (positive == negative)
    gap = wins[0] - wins[1]
    sides = [gap.mean(axis=1), gap.mean(axis=0)]
    parts = np.array([np.var(side, ddof=1) / len(side) for side in sides])
    levels = stats.t.isf(0.025, np.array([len(side) - 1 for side in sides]))
    half = (parts @ levels) / parts.sum() * np.sqrt(parts.sum())
    result = compare_auroc(scores[0], scores[1], truth).difference
    assert result.estimate == pytest.approx(gap.mean())
    limits = max(gap.mean() - half, -1.0), min(gap.mean() + half, 1.0)
    assert (result.low, result.high) == pytest.approx(limits)


@pytest.mark.parametrize("others", [15, 100])
def test_two_patients_of_a_class_do_not_make_chance_a_finding(others: int) -> None:
    rng = np.random.default_rng(9)
    truth = np.arange(2 + others) < 2
    draws = rng.normal(size=(1000, 2, 2 + others))
    found = [compare_auroc(first, second, truth) for first, second in draws]
    p_values = np.array([one.p_value for one in found])
    # The normal distribution calls 17 % and 6 % of them different, and one level at Satterthwaite's
    # degrees of freedom 11 % and 4 % where the others are many.
    assert np.mean(p_values < 0.05) < 0.08
    assert np.mean(p_values < 0.001) < 0.015
    assert all(-1 <= one.difference.low <= one.difference.high <= 1 for one in found)


def test_p_is_where_the_limits_of_that_level_touch_0() -> None:
    rng = np.random.default_rng(3)
    truth = np.arange(23) < 4
    for first, second in truth + rng.normal(size=(20, 2, 23)):
        p_value = compare_auroc(first, second, truth).p_value
        [low, high] = (
            compare_auroc(first, second, truth, level=1 - p_value * factor).difference
            for factor in (1.001, 0.999)
        )
        assert low.low > 0 or low.high < 0
        assert high.low < 0 < high.high


def test_classes_of_equal_size_have_the_p_of_students_t() -> None:
    rng = np.random.default_rng(4)
    truth = np.arange(24) % 2 == 0
    first, second = truth + rng.normal(size=(2, 24))
    auroc, covariance = by_all_pairs(np.stack([first, second]), truth)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    expected = 2 * stats.t.sf(abs(auroc[0] - auroc[1]) / error, 11)
    assert compare_auroc(first, second, truth).p_value == pytest.approx(expected, rel=1e-6)


def test_limits_stay_within_0_and_1_and_are_those_of_the_logit() -> None:
    truth = np.array([False] * 5 + [True] * 5)
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.7, 0.5, 0.8, 0.9, 0.95, 0.99])
    interval = auroc_interval(scores, truth)
    auroc, covariance = by_all_pairs(np.stack([scores, scores]), truth)
    reach = stats.t.isf(0.025, 4)
    half = reach * np.sqrt(covariance[0, 0]) / (auroc[0] * (1 - auroc[0]))
    assert interval.estimate == pytest.approx(0.96)
    logit_of_low = np.log(interval.low / (1 - interval.low))
    assert logit_of_low == pytest.approx(np.log(0.96 / 0.04) - half, abs=1e-5)
    assert 0 < interval.low < interval.high < 1


def test_a_perfect_classifier_has_no_limits_and_equal_ones_have_p_1() -> None:
    truth = np.array([False, False, True, True])
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    perfect = auroc_interval(scores, truth)
    assert perfect.estimate == 1.0
    assert np.isnan([perfect.low, perfect.high]).all()
    noisy, labels = two_classifiers(30, 0, ties=False)
    # Another scale, the same order of cases.
    assert compare_auroc(noisy[0], np.exp(noisy[0]), labels).p_value == 1.0


def test_one_class_alone_is_undefined() -> None:
    result = delong(np.ones((2, 5)), np.ones(5, dtype=bool))
    assert np.isnan(result.auroc).all()
    assert np.isnan(compare_auroc(np.arange(5.0), np.ones(5), np.ones(5, dtype=bool)).p_value)


def test_every_class_is_compared_with_the_rest() -> None:
    rng = np.random.default_rng(5)
    truth = np.eye(3, dtype=bool)[rng.integers(3, size=80)]
    first, second = rng.random((2, 80, 3)) + truth * 0.3
    result = compare_auroc_by_class(first, second, truth, ["a", "b", "c"])
    for k, name in enumerate("abc"):
        assert result[name].first.estimate == pytest.approx(
            roc_auc_score(truth[:, k], first[:, k]), abs=1e-12
        )
        assert result[name] == compare_auroc(first[:, k], second[:, k], truth[:, k])


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(DataError, match="4 scores, 3 true labels"):
        delong(np.zeros((1, 4)), np.zeros(3, dtype=bool))
    with pytest.raises(DataError, match="1 scores are NaN"):
        delong(np.array([[0.1, np.nan]]), np.array([True, False]))


def test_the_same_run_twice_is_that_run() -> None:
    rng = np.random.default_rng(7)
    truth = rng.random(50) < 0.5
    first, second = truth + rng.normal(size=(2, 50))
    once = compare_auroc(first, second, truth)
    twice = compare_auroc(np.stack([first, first]), np.stack([second, second]), truth)
    assert twice.p_value == pytest.approx(once.p_value)
    assert twice.difference.low == pytest.approx(once.difference.low)
    assert twice.first.high == pytest.approx(once.first.high)


def test_the_variance_of_a_mean_over_runs_is_that_of_resampled_patients() -> None:
    rng = np.random.default_rng(8)
    truth = np.arange(80) % 2 == 0
    first, second = truth + rng.normal(size=(2, 3, 80))
    found = compare_auroc(first, second, truth)
    draws = []
    for _ in range(400):
        # Within the classes, as DeLong's variance is for a fixed number of each.
        rows = np.concatenate([rng.choice(np.flatnonzero(truth == k), 40) for k in (True, False)])
        again = [delong(scores[:, rows], truth[rows]).auroc.mean() for scores in (first, second)]
        draws.append(again[0] - again[1])
    half = (found.difference.high - found.difference.low) / 2
    assert half == pytest.approx(1.96 * np.std(draws), rel=0.15)
