"""Intervals and tests against scipy, hand-computed values and simulation."""

import numpy as np
import pytest
from scipy import stats

from vismae.core.errors import DataError
from vismae.evaluation.class_metrics import auroc
from vismae.evaluation.statistics import (
    Interval,
    bootstrap_grouped,
    bootstrap_interval,
    expanded_tail,
    holm,
    mean_of_defined,
    paired_bootstrap,
    paired_permutation,
    smallest_permutation_p,
)


@pytest.mark.parametrize("statistic", [np.mean, np.std, np.median])
def test_the_interval_agrees_with_scipys_bca_at_the_level_for_few_patients(statistic) -> None:
    values = np.random.default_rng(0).beta(8, 1.5, size=31)
    ours = bootstrap_interval(values, statistic, n=20_000)
    level = 1 - 2 * expanded_tail(0.025, 31)
    theirs = stats.bootstrap(
        (values,), statistic, n_resamples=20_000, method="BCa", rng=1, confidence_level=level
    )
    low, high = theirs.confidence_interval
    tolerance = 0.04 * (high - low)
    assert ours.estimate == pytest.approx(statistic(values))
    assert ours.low == pytest.approx(low, abs=tolerance)
    assert ours.high == pytest.approx(high, abs=tolerance)


def test_the_expanded_level_gives_the_width_of_students_t() -> None:
    # Of a normal resample with the spread of n values divided by n, as Student's of n - 1.
    for n in (2, 5, 30, 1000):
        reach = -stats.norm.ppf(expanded_tail(0.025, n)) * np.sqrt((n - 1) / n)
        assert reach == pytest.approx(stats.t.ppf(0.975, n - 1))
    assert expanded_tail(0.025, 10**8) == pytest.approx(0.025)


def test_the_interval_of_a_normal_mean_is_close_to_students() -> None:
    values = np.random.default_rng(1).normal(10, 2, size=200)
    interval = bootstrap_interval(values, n=5000)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert interval.low == pytest.approx(low, abs=0.03)
    assert interval.high == pytest.approx(high, abs=0.03)


def test_undefined_values_are_left_out_and_not_counted() -> None:
    values = [0.8, float("nan"), 0.9, 0.7]
    assert bootstrap_interval(values) == bootstrap_interval([0.8, 0.9, 0.7])
    assert bootstrap_interval(values).n == 3


def test_fewer_than_two_patients_have_no_interval() -> None:
    one = bootstrap_interval([0.8])
    none = bootstrap_interval([float("nan")])
    assert one.estimate == 0.8
    assert np.isnan([one.low, one.high, none.estimate, none.low]).all()
    assert (one.n, none.n) == (1, 0)


@pytest.mark.parametrize("values", [[0.1, 0.9], [0.0, 0.1, 0.9], [0.5, 0.5, 0.6, 0.9]])
def test_very_few_patients_have_the_widest_interval_there_is(values) -> None:
    interval = bootstrap_interval(values, n=2000)
    assert (interval.low, interval.high) == pytest.approx((min(values), max(values)), abs=0.03)


def test_equal_values_say_nothing_of_their_spread_and_have_no_limits() -> None:
    interval = bootstrap_interval([0.3] * 7)
    assert interval.estimate == pytest.approx(0.3)
    assert np.isnan([interval.low, interval.high]).all()
    [right] = bootstrap_grouped(lambda rows: [1.0], np.arange(10))
    assert right.text() == "1.000 [–]"


def test_the_seed_decides_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=12)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_an_interval_reads_mean_low_high() -> None:
    assert str(Interval(0.8124, 0.78, 0.8411, 12)) == "0.812 [0.780, 0.841]"
    assert Interval(2.0, float("nan"), float("nan"), 1).text(1) == "2.0 [–]"
    assert Interval(-1e-5, -4e-4, 6e-4, 9).text() == "0.000 [0.000, 0.001]"
    assert Interval(*[float("nan")] * 3, 0).text() == "–"


def test_mean_of_defined_is_numpys_without_its_warning() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]])
    np.testing.assert_array_equal(mean_of_defined(values), [2.0, 4.0, np.nan])


def test_grouped_resampling_of_a_mean_is_the_plain_bootstrap() -> None:
    values = np.random.default_rng(2).normal(size=60)
    [ours] = bootstrap_grouped(lambda rows: [values[rows].mean()], np.arange(60), n=4000)
    low, high = np.quantile(
        values[np.random.default_rng(5).integers(60, size=(4000, 60))].mean(axis=1), [0.025, 0.975]
    )
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.03)
    assert ours.n == 60


def test_copies_of_a_patients_image_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(2).normal(size=30)

    def width(copies: int) -> float:
        rows_of = np.repeat(values, copies)
        groups = np.repeat(np.arange(30), copies)
        [interval] = bootstrap_grouped(lambda rows: [rows_of[rows].mean()], groups, n=2000)
        return interval.high - interval.low

    assert width(10) == pytest.approx(width(1))


def test_resamples_without_a_class_are_left_out_up_to_half_of_them() -> None:
    # The last case but one is ranked before a negative one.
    scores = np.linspace(0, 1, 12)[[*range(9), 10, 9, 11]]

    def interval(n_positive: int) -> Interval:
        positive = np.arange(12) >= 12 - n_positive
        return bootstrap_grouped(lambda r: [auroc(scores[r], positive[r])], np.arange(12))[0]

    assert interval(2).low < interval(2).estimate < interval(2).high == 1.0
    assert np.isnan(interval(0).estimate)
    # A single positive patient is missing from about a third of the resamples.
    scores = np.linspace(0, 1, 12)[[*range(9), 9, 11, 10]]
    assert interval(1).low < interval(1).high == 1.0


def test_a_thousand_resamples_of_an_auroc_take_seconds_at_most() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(1000) < 0.3
    scores = rng.normal(size=1000) + positive
    [interval] = bootstrap_grouped(
        lambda rows: [auroc(scores[rows], positive[rows])], rng.integers(400, size=1000), n=1000
    )
    # Hanley and McNeil 1982: standard error near 0.016 here.
    assert interval.low < interval.estimate < interval.high
    assert interval.high - interval.low == pytest.approx(4 * 0.016, rel=0.25)


def test_paired_bootstrap_uses_patients_with_both_values() -> None:
    a = np.array([0.9, 0.8, np.nan, 0.7, 0.95])
    b = np.array([0.8, 0.6, 0.5, np.nan, 0.9])
    interval = paired_bootstrap(a, b)
    assert interval == bootstrap_interval(np.array([0.9, 0.8, 0.95]) - np.array([0.8, 0.6, 0.9]))
    assert interval.n == 3


def test_the_exact_permutation_p_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, size=9), rng.normal(0, 1, size=9)
    theirs = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert paired_permutation(a, b) == pytest.approx(theirs.pvalue)


def test_the_exact_permutation_p_by_hand() -> None:
    # All four differences positive: 2 of 16 sign patterns are as extreme.
    assert paired_permutation([1, 2, 3, 4], [0, 0, 0, 0]) == 2 / 16 == smallest_permutation_p(4)
    assert paired_permutation([0.1 + 0.2, 0.0], [0.0, 0.3]) == 1.0


def test_random_permutations_approach_the_exact_p_and_never_reach_zero() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.8, 1, size=12), np.zeros(12)
    assert paired_permutation(a, b, n=4000) == pytest.approx(paired_permutation(a, b), abs=0.01)
    assert paired_permutation(np.ones(60), np.zeros(60), n=999) == pytest.approx(1 / 1000)


def test_a_permutation_without_patients_has_no_p() -> None:
    assert np.isnan(paired_permutation([float("nan")], [1.0]))
    with pytest.raises(DataError, match="same order"):
        paired_permutation([1.0, 2.0], [1.0])


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1, made to rise.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.02, np.nan, 0.9]), [0.04, np.nan, 0.9])
    assert holm([0.7, 0.8]).tolist() == [1.0, 1.0]


@pytest.mark.slow
def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = 8 / 9.5
    hits = [
        interval.low <= truth <= interval.high
        for interval in (
            bootstrap_interval(rng.beta(8, 1.5, size=30), n=1000, seed=k) for k in range(600)
        )
    ]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_an_interval_without_width_is_none_though_a_few_resamples_differ() -> None:
    # Some seven of the resamples hold one of 50 patients five times or more.
    [few] = bootstrap_grouped(lambda rows: [float((rows == 0).sum() > 4)], np.arange(50), n=2000)
    assert few.text() == "0.000 [–]"
