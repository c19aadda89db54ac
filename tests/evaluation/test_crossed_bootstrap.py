"""Crossed resampling against the variance that theory gives."""

import numpy as np
import pytest
from scipy import stats

from vismae.core.errors import DataError
from vismae.evaluation.crossed_bootstrap import (
    crossed_draws,
    crossed_interval,
    two_way_error,
)


def test_the_first_row_is_the_plain_mean_without_what_is_undefined() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 9))
    values[1, 2, 5] = np.nan
    draws = crossed_draws(values, n=10)
    assert draws.shape == (11, 4)
    np.testing.assert_allclose(draws[0], np.nanmean(values, axis=(1, 2)))


def test_the_spread_over_patients_is_the_unbiased_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=(1, 6))
    draws = crossed_draws(values, n=60_000)[1:]
    assert draws.std() == pytest.approx(values.std(ddof=1) / np.sqrt(6), rel=0.02)


def test_the_spread_over_three_runs_is_the_unbiased_standard_error() -> None:
    values = np.array([[0.1], [0.5], [0.6]]) * np.ones((3, 20))
    draws = crossed_draws(values, n=60_000)[1:]
    assert draws.std() == pytest.approx(values[:, 0].std(ddof=1) / np.sqrt(3), rel=0.02)


def test_points_of_one_draw_are_of_the_same_runs_and_patients() -> None:
    values = np.random.default_rng(2).normal(size=(3, 8))
    draws = crossed_draws(np.stack([values, values + 0.25]), n=50, seed=4)
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 0.25)
    np.testing.assert_array_equal(draws[:, 0], crossed_draws(values, n=50, seed=4))


def test_the_interval_counts_patients_with_a_value() -> None:
    values = np.random.default_rng(3).normal(size=(2, 12))
    values[:, 4] = np.nan
    interval = crossed_interval(values)
    assert interval.n == 11
    assert interval.low < interval.estimate < interval.high
    assert np.isnan(crossed_interval(values[:, :1]).low)


def test_with_one_run_the_interval_is_students() -> None:
    values = np.random.default_rng(4).normal(size=(1, 25))
    interval = crossed_interval(values, n=40_000)
    low, high = stats.t.interval(0.95, 24, values.mean(), stats.sem(values[0]))
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_the_error_of_two_factors_is_that_of_the_analysis_of_variance() -> None:
    values = np.random.default_rng(5).normal(size=(4, 9))
    runs, patients = values.mean(axis=1), values.mean(axis=0)
    of_runs = 9 * runs.var(ddof=1)
    of_patients = 4 * patients.var(ddof=1)
    rest = values - runs[:, None] - patients + values.mean()
    of_rest = (rest**2).sum() / (3 * 8)
    total = max(of_runs + of_patients - of_rest, of_rest)
    two_way = two_way_error(values)
    assert two_way.error == pytest.approx(np.sqrt(total / 36))
    levels = stats.t.isf(0.025, 8) * of_patients + stats.t.isf(0.025, 3) * of_runs
    assert two_way.standard_errors(0.025) == pytest.approx(levels / (of_patients + of_runs))


def test_runs_that_lie_close_by_chance_still_count_as_few() -> None:
    patients = np.random.default_rng(6).normal(size=30)
    apart = np.stack([patients - 0.3, patients + 0.3])
    # Two runs that alone decide the mean leave Student's t of one degree of freedom.
    assert two_way_error(apart * 1e-3 + [[-9], [9]]).standard_errors(0.025) > 12
    level = two_way_error(apart).standard_errors(0.025)
    assert stats.t.isf(0.025, 29) < level < stats.t.isf(0.025, 1)


def test_runs_that_disagree_widen_the_interval() -> None:
    patients = 0.01 * (np.arange(30) % 3)
    same = np.tile(patients, (5, 1))
    apart = same + 0.3 * np.arange(-2, 3)[:, None]
    narrow, wide = crossed_interval(same), crossed_interval(apart)
    assert narrow.estimate == pytest.approx(wide.estimate)
    assert wide.high - wide.low > 20 * (narrow.high - narrow.low)


def test_equal_values_say_nothing_of_their_spread_and_have_no_limits() -> None:
    interval = crossed_interval(np.full((3, 8), 0.25))
    assert interval.estimate == 0.25
    assert np.isnan([interval.low, interval.high]).all()
    assert interval.text() == "0.250 [–]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spread_of_runs", "runs"), [(0.0, 1), (0.0, 3), (0.5, 2), (0.5, 3), (0.5, 5), (1.0, 2)]
)
def test_intervals_over_runs_and_patients_cover_the_truth(spread_of_runs: float, runs: int) -> None:
    hits = []
    for seed in range(800):
        rng = np.random.default_rng(seed)
        values = rng.normal(0, spread_of_runs, (runs, 1)) + rng.normal(size=(1, 30))
        interval = crossed_interval(values + rng.normal(size=(runs, 30)), n=600, seed=seed)
        hits.append(interval.low <= 0 <= interval.high)
    assert 0.92 < np.mean(hits) < 0.98


def test_no_run_is_refused() -> None:
    with pytest.raises(DataError, match="0 runs and 5 patients"):
        crossed_draws(np.zeros((0, 5)))
