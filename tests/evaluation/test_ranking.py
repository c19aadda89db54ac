"""Ranks against published tables, scipy and hand-made cases."""

import numpy as np
import pytest
from scipy import stats

from vismae.core.errors import DataError
from vismae.evaluation.ranking import rank_starts, ranking_stability


def test_the_critical_difference_is_demsars() -> None:
    # Demsar 2006, table 5 and section 3.2.4: q 2.569 for 4 classifiers; 1.25 on 14 data sets.
    scores = np.random.default_rng(0).random((14, 4))
    critical = rank_starts(scores, "abcd").critical_difference
    assert critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert critical == pytest.approx(1.25, abs=0.01)


def test_friedmans_p_is_scipys_and_ranks_count_ties_half() -> None:
    scores = np.array([[0.8, 0.7, 0.7], [0.9, 0.5, 0.6], [0.7, 0.6, 0.9], [0.8, 0.3, 0.2]])
    ranking = rank_starts(scores, ["ours", "scratch", "imagenet"])
    assert ranking.starts == ("ours", "imagenet", "scratch")
    assert ranking.mean_rank == pytest.approx((1.25, 2.125, 2.625))
    assert ranking.p_value == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert ranking.n_blocks == 4


def test_groups_are_the_bars_within_the_critical_difference() -> None:
    # 30 blocks: a is always first, d always last, b and c take turns.
    scores = np.array([[4, 3, 2, 1], [4, 2, 3, 1]] * 15, dtype=float)
    ranking = rank_starts(scores, ["a", "b", "c", "d"])
    assert ranking.critical_difference == pytest.approx(0.856, abs=0.01)
    assert ranking.groups == (("b", "c"),)
    few = rank_starts(scores[:2], ["a", "b", "c", "d"])
    assert few.groups == (("a", "b", "c", "d"),)


def test_equal_starts_do_not_differ() -> None:
    ranking = rank_starts(np.ones((5, 3)), "abc")
    assert ranking.p_value == 1.0
    assert ranking.groups == (("a", "b", "c"),)


def test_too_little_for_a_test_is_undefined_or_refused() -> None:
    two = rank_starts(np.array([[0.2, 0.4], [np.nan, 0.4], [0.3, 0.1]]), ["a", "b"])
    assert two.n_blocks == 2
    assert np.isnan(two.p_value)
    assert np.isnan(rank_starts(np.array([[0.2, 0.4]]), ["a", "b"]).critical_difference)
    with pytest.raises(DataError, match="finish the runs"):
        rank_starts(np.full((2, 2), np.nan), ["a", "b"])
    with pytest.raises(DataError, match="each with a name"):
        rank_starts(np.ones((2, 2)), ["a"])


def test_a_clear_order_is_stable_and_a_tie_is_shared() -> None:
    rng = np.random.default_rng(1)
    patients = rng.normal(0.6, 0.1, (3, 25))
    close = rng.normal(0, 0.02, (2, 3, 25))
    tasks = {
        task: np.stack([patients - 0.2, patients + close[0], patients + close[1]])
        for task in ("liver", "heart")
    }
    frame = ranking_stability(tasks, ["scratch", "a", "b"], n=500)
    assert frame["start"].iloc[-1] == "scratch"
    last = frame.iloc[-1]
    assert (last["mean_rank"], last["low"], last["high"], last["first_share"]) == (3, 3, 3, 0)
    assert frame["first_share"].sum() == pytest.approx(1)
    assert (frame["first_share"].iloc[:2] > 0).all()
    assert list(frame["rank in liver"]) == list(frame["rank in heart"])


def test_stability_asks_for_every_start_in_every_task() -> None:
    with pytest.raises(DataError, match="'liver' has 2 starts, 3 are named"):
        ranking_stability({"liver": np.ones((2, 1, 5))}, ["a", "b", "c"])
    values = np.stack([np.ones((1, 5)), np.full((1, 5), np.nan)])
    with pytest.raises(DataError, match=r"no score of \['b'\]"):
        ranking_stability({"liver": values}, ["a", "b"])
