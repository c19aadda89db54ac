"""Starts against the baseline, on simulated studies with a known truth."""

from dataclasses import replace

import numpy as np
import pytest

from vismae.evaluation.statistics import holm
from vismae.evaluation.study_comparison import PrimaryCell, compare_with_baseline, label_use
from vismae.evaluation.study_scores import TaskScores

LABELS = np.array([2.0, 5.0, 10.0, 20.0])


def study(gain: float, runs: int = 3, patients: int = 30, noise: float = 0.02) -> TaskScores:
    """Two starts on the law 0.9 - 0.5 / sqrt(n); one has ``gain`` times the labels' worth."""
    rng = np.random.default_rng(0)
    worth = np.array([gain, 1.0])[:, None] * LABELS
    means = 0.9 - 0.5 / np.sqrt(worth)
    values = means[:, :, None, None] + rng.normal(0, 0.05, patients)
    values = values + rng.normal(0, noise, (2, 4, runs, patients))
    return TaskScores(
        task="t",
        metric="Dice",
        unit="patient",
        starts=("ours", "scratch"),
        budgets=("10 %", "25 %", "50 %", "100 %"),
        fractions=(0.1, 0.25, 0.5, 1.0),
        labels=LABELS,
        runs=tuple(map(str, range(runs))),
        patients=tuple(map(str, range(patients))),
        values=values,
        swapped=values,
    )


def test_differences_are_paired_and_holm_leaves_the_primary_alone() -> None:
    scores = study(2.0)
    table = compare_with_baseline([scores], "scratch", PrimaryCell("t", "ours", "10 %"), n=500)
    assert len(table) == 8
    ours = table[table["start"] == "ours"].set_index("budget")
    for place, budget in enumerate(scores.budgets):
        gap = (scores.values[0, place] - scores.values[1, place]).mean()
        assert ours.loc[budget, "difference"].estimate == pytest.approx(gap)
        # Half of the scores' spread is of the patient, which pairing takes out.
        score = ours.loc[budget, "score"]
        difference = ours.loc[budget, "difference"]
        assert difference.high - difference.low < 0.7 * (score.high - score.low)
    assert np.isnan(ours.loc["10 %", "p_holm"])
    others = ours.loc[["25 %", "50 %", "100 %"]]
    np.testing.assert_allclose(others["p_holm"], holm(others["p"].to_numpy(float)))
    assert np.isnan(table[table["start"] == "scratch"]["p"]).all()


def test_only_runs_of_both_starts_are_compared() -> None:
    scores = study(2.0)
    values = scores.values.copy()
    values[0, 0, 0] = np.nan
    values[1, 0, 1] = np.nan
    values[0, 1] = np.nan
    scores = replace(scores, values=values, swapped=values)
    table = compare_with_baseline([scores], "scratch", n=100)
    cell = table[(table["start"] == "ours") & (table["budget"] == "10 %")].iloc[0]
    assert (cell["runs"], cell["paired_runs"]) == (2, 1)
    gap = (values[0, 0, 2] - values[1, 0, 2]).mean()
    assert cell["difference"].estimate == pytest.approx(gap)
    # A cell without any run has no row.
    assert len(table) == 7


def test_intervals_of_two_runs_that_disagree_end_where_scores_do() -> None:
    scores = study(2.0, runs=2)
    values = scores.values.copy()
    values[0, 0, 0] -= 0.3
    values[0, 0, 1] += 0.3
    table = compare_with_baseline(
        [replace(scores, values=values, swapped=values)], "scratch", n=200
    )
    cell = table[(table["start"] == "ours") & (table["budget"] == "10 %")].iloc[0]
    assert (cell["difference"].low, cell["difference"].high) == (-1.0, 1.0)
    assert (cell["score"].low, cell["score"].high) == (0.0, 1.0)


def test_labels_saved_are_found_again() -> None:
    ours, scratch = label_use(study(2.0), "scratch", [0.8], margin=0.02, n=500)
    assert ours.relative is not None
    assert ours.relative.low < 10.0 < ours.relative.high
    assert ours.relative.estimate == pytest.approx(10.0, rel=0.2)
    assert ours.area_difference.low > 0
    # 0.9 - 0.5 / sqrt(n) = 0.8 at 25 labels, half of that for the better start.
    assert ours.needed[0.8].estimate == pytest.approx(12.5, rel=0.25)
    assert scratch.needed[0.8].estimate == pytest.approx(25.0, rel=0.25)
    assert scratch.relative is None
    assert scratch.as_good == {}


def test_as_good_is_tested_from_many_labels_to_few_until_it_fails() -> None:
    ours = label_use(study(2.0), "scratch", [], margin=0.02, n=500)[0]
    # Half of the labels give the baseline's result; a quarter are .05 below it.
    assert list(ours.as_good) == ["100 %", "50 %", "25 %"]
    assert ours.fewest_as_good() == "50 %"
    worse = label_use(study(0.25), "scratch", [], margin=0.02, n=500)[0]
    assert list(worse.as_good) == ["100 %"]
    assert worse.fewest_as_good() is None


def test_no_curve_of_a_single_label_budget_or_of_counts_that_do_not_rise() -> None:
    scores = study(2.0)
    values = scores.values[:, :1]
    single = replace(
        scores,
        budgets=("10 %",),
        fractions=(0.1,),
        labels=LABELS[:1],
        values=values,
        swapped=values,
    )
    assert label_use(single, "scratch", [0.8], margin=0.02) == []
    # As when the larger of two folds has failed at 25 %.
    level = replace(scores, labels=np.array([2.0, 2.0, 10.0, 20.0]))
    assert label_use(level, "scratch", [0.8], margin=0.02) == []


def test_the_tests_of_as_good_print_no_difference_that_cannot_be() -> None:
    scores = study(2.0, runs=2, noise=0.0)
    values = scores.values.copy()
    values[0] += np.array([0.5, -0.5])[None, :, None]
    [ours, _] = label_use(replace(scores, values=values), "scratch", [], margin=0.02, n=200)
    for test in ours.as_good.values():
        assert (test.difference.low, test.difference.high) == (-1.0, 1.0)
