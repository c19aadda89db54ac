"""Two one-sided tests against scipy's one-sided t-tests and the interval they stand for."""

import numpy as np
import pytest
from scipy import stats

from vismae.core.errors import DataError, SettingError
from vismae.evaluation.equivalence import equivalence


def pair(shift: float, n: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    second = rng.beta(8, 2, n)
    return second + rng.normal(shift, 0.03, n), second


@pytest.mark.parametrize("shift", [-0.03, 0.0, 0.012])
def test_p_is_the_larger_of_scipys_one_sided_tests(shift: float) -> None:
    first, second = pair(shift)
    result = equivalence(first, second, margin=0.02)
    difference = first - second
    greater = stats.ttest_1samp(difference, -0.02, alternative="greater").pvalue
    less = stats.ttest_1samp(difference, 0.02, alternative="less").pvalue
    assert result.p_value == pytest.approx(max(greater, less), rel=1e-9)
    assert result.p_not_inferior == pytest.approx(greater, rel=1e-9)
    limits = stats.ttest_1samp(difference, 0).confidence_interval(0.9)
    assert (result.difference.low, result.difference.high) == pytest.approx(tuple(limits))


@pytest.mark.parametrize("runs", [0, 4])
def test_the_tests_agree_with_the_inclusion_of_the_interval(runs: int) -> None:
    outcomes = set()
    for seed in range(40):
        first, second = pair(0.008, n=12, seed=seed)
        if runs:
            noise = np.random.default_rng(seed).normal(0, 0.01, (runs, 12))
            first, second = first + noise, np.tile(second, (runs, 1))
        result = equivalence(first, second, margin=0.02, n=2000)
        inside = result.difference.low > -0.02 and result.difference.high < 0.02
        assert result.equivalent == inside
        outcomes.add(inside)
    assert outcomes == {True, False}


def test_runs_that_disagree_widen_the_interval() -> None:
    first, second = pair(0.0)
    alone = equivalence(first, second, margin=0.02)
    runs = np.array([-0.05, 0.0, 0.05])[:, None]
    spread = equivalence(first + runs, np.tile(second, (3, 1)), margin=0.02)
    assert alone.equivalent
    assert not spread.equivalent
    assert spread.difference.estimate == pytest.approx(alone.difference.estimate)


@pytest.mark.parametrize("runs", [1, 3])
def test_a_few_patients_give_no_smaller_p_than_students_t(runs: int) -> None:
    difference = np.array([-0.004, 0.002, 0.009])
    result = equivalence(np.tile(difference, (runs, 1)), np.zeros((runs, 3)), margin=0.02)
    student = stats.ttest_1samp(difference, -0.02, alternative="greater").pvalue
    # No resample of three patients lies beyond the margin.
    assert student / 3 < result.p_not_inferior < 3 * student
    assert result.equivalent


def test_a_start_that_is_far_worse_has_a_p_near_1() -> None:
    first, second = pair(-0.1)
    result = equivalence(first[None], second[None], margin=0.02)
    assert result.p_not_inferior > 0.999
    assert not result.not_inferior


def test_the_words_follow_the_outcome() -> None:
    def words(shift: float, margin: float) -> str:
        return equivalence(*pair(shift), margin=margin).text("ours", "scratch", "Dice")

    assert words(0.0, 0.03).startswith("'ours' is as good as 'scratch' within a margin of 0.03")
    assert "90 % interval, 30 patients; p < 0.001" in words(0.0, 0.03)
    assert "is not worse than" in words(0.05, 0.02)
    assert "is worse than 'scratch' by more than 0.02" in words(-0.08, 0.02)
    assert words(0.0, 0.002).startswith("It is not shown that")
    one = equivalence(np.array([0.5]), np.array([0.4]), margin=0.1)
    assert "cannot be tested" in one.text("ours", "scratch", "Dice")


@pytest.mark.parametrize("runs", [(), (3,)])
@pytest.mark.parametrize("shift", [0.0, 0.1, -0.5])
def test_differences_that_are_all_equal_say_nothing_of_other_patients(
    runs: tuple[int, ...], shift: float
) -> None:
    values = np.broadcast_to(np.array([0.3, 0.5, 0.8]), (*runs, 3))
    found = equivalence(values + shift, values, margin=0.02)
    assert np.isnan([found.p_value, found.p_not_inferior]).all()
    assert np.isnan([found.difference.low, found.difference.high]).all()
    assert not found.equivalent
    assert not found.not_inferior
    assert found.text("ours", "scratch", "Dice").startswith("Whether 'ours' is as good")


def test_missing_scores_are_left_out() -> None:
    first, second = pair(0.0)
    gaps = np.append(first, np.nan), np.append(second, 0.5)
    assert equivalence(*gaps, margin=0.02) == equivalence(first, second, margin=0.02)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingError, match="must be above 0"):
        equivalence(*pair(0.0), margin=0.0)
    with pytest.raises(DataError, match="same order"):
        equivalence(np.zeros(3), np.zeros(4), margin=0.1)
