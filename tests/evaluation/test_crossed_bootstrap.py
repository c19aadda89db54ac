"""Crossed resampling against the variance that theory gives."""

import numpy as np
import pytest

from vismae.core.errors import DataError
from vismae.evaluation.crossed_bootstrap import crossed_draws, crossed_interval


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


def test_no_run_is_refused() -> None:
    with pytest.raises(DataError, match="0 runs and 5 patients"):
        crossed_draws(np.zeros((0, 5)))
