"""Bins, histograms and tallies against numpy and against counting everything."""

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from vismae.core.counting import Bins, Histogram, Tally, added

BINS = Bins(-10.0, 30.0, 8)


def test_bins_agree_with_numpy_and_keep_what_lies_outside() -> None:
    values = np.random.default_rng(0).normal(10, 20, 5000)
    counts = np.bincount(BINS.positions(values), minlength=BINS.count + 2)
    inside = values[(values >= BINS.low) & (values < BINS.high)]
    assert counts[1:-1].tolist() == np.histogram(inside, BINS.edges)[0].tolist()
    assert counts[0] == (values < BINS.low).sum()
    assert counts[-1] == (values >= BINS.high).sum()


def test_a_value_on_a_border_lies_in_the_bin_above() -> None:
    assert BINS.positions(np.array([-10.1, -10.0, -5.0, 29.9, 30.0])).tolist() == [0, 1, 2, 8, 9]


def test_logarithmic_bins_grow_by_one_factor() -> None:
    edges = Bins(0.1, 100.0, 6, log=True).edges
    assert edges[1:] / edges[:-1] == pytest.approx(np.full(6, 10**0.5))
    assert edges[[0, -1]] == pytest.approx([0.1, 100.0])


def test_histograms_add_up_and_survive_json() -> None:
    total = Histogram({0: 2, 9: 1}, unknown=3) + Histogram({4: 5, 9: 1})
    assert total == Histogram({0: 2, 4: 5, 9: 2}, unknown=3)
    assert total.known == 9
    assert total.dense(BINS).tolist() == [2, 0, 0, 0, 5, 0, 0, 0, 0, 2]
    assert Histogram.from_json(json.loads(json.dumps(asdict(total)))) == total


def test_a_tally_keeps_the_commonest_words_and_loses_no_count() -> None:
    rng = np.random.default_rng(1)
    total, truth = Tally(15, {}), Counter[str]()
    for _ in range(50):
        words = Counter(str(word) for word in rng.geometric(0.2, 200))
        truth += words
        total = total + Tally.of(words, 15)
        assert len(total.counts) <= 15 < len(truth)
    assert total.total == truth.total() == 10_000
    assert [word for word, _ in total.commonest(5)] == [word for word, _ in truth.most_common(5)]
    assert Tally.from_json(json.loads(json.dumps(asdict(total)))) == total


def test_words_equally_common_are_kept_in_the_order_of_the_alphabet() -> None:
    assert Tally.of({"c": 1, "b": 1, "a": 1, "z": 2}, 2) == Tally(2, {"a": 1, "z": 2}, further=2)


def test_counts_add_up_in_the_order_of_their_keys() -> None:
    assert list(added({"b": 1, "a": 2}, {"c": 1, "a": 1}).items()) == [("a", 3), ("b", 1), ("c", 1)]
