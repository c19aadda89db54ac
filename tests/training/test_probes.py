"""Nearest neighbours and a linear probe, on patients they have not learnt from."""

from pathlib import Path

import numpy as np
import pytest

from stores import classification_store, record
from vismae.core.errors import DataError
from vismae.data.store import Store, StoreWriter
from vismae.training.probes import (
    balanced_accuracy,
    knn_accuracy,
    labelled_halves,
    linear_accuracy,
)


def clouds(count: int, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes whose means lie this far apart, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    points = rng.normal(size=(count, 6))
    points[:, 0] += distance * classes
    return points + 3.0, classes


def store_of(folder: Path, *facts: tuple[str, str, str | None]) -> Store:
    """A store of one image for each patient, label and split."""
    with StoreWriter(folder) as writer:
        for number, (patient, label, split) in enumerate(facts):
            pixels = np.full((8, 8), number, dtype=np.uint8)
            made = record(f"image{number}", pixels, patient_id=patient, label=label, split=split)
            writer.add(made, pixels)
    return Store(folder)


@pytest.mark.parametrize("seed", range(3))
def test_patients_are_never_divided_and_both_halves_hold_both_classes(seed: int, tmp_path: Path):
    store = classification_store(tmp_path / "store", patients=14, images=3)
    halves = labelled_halves(store, 1000, seed)
    patients = store.index["patient_id"].to_numpy()
    assert not set(patients[halves.learn_rows]) & set(patients[halves.judge_rows])
    assert len(halves.rows) == len(set(halves.rows)) == 42
    assert set(halves.learn_classes) == set(halves.judge_classes) == {0, 1}
    labels = store.index["label"].to_numpy()
    assert [halves.classes[c] for c in halves.judge_classes] == list(labels[halves.judge_rows])


def test_the_choice_follows_from_the_seed_and_keeps_to_the_number_of_images(tmp_path: Path):
    store = classification_store(tmp_path / "store", patients=14, images=3)
    first, again, other = (labelled_halves(store, 20, seed) for seed in (0, 0, 1))
    assert len(first.learn_rows) == len(first.judge_rows) == 10
    assert np.array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, other.rows)


def test_given_splits_are_kept_and_test_is_not_looked_at(tmp_path: Path):
    splits = ("train", "train", "val", "val", "test", "test", None, None)
    store = classification_store(tmp_path / "store", patients=16, splits=splits)
    halves = labelled_halves(store, 1000)
    split = store.index["split"].to_numpy()
    assert set(split[halves.learn_rows]) == {"train"}
    assert set(split[halves.judge_rows]) == {"val"}
    untested = classification_store(
        tmp_path / "other", patients=16, splits=("train", "train", "test", "test")
    )
    split = untested.index["split"].to_numpy()
    assert set(split[labelled_halves(untested, 1000).rows]) == {"train"}


def test_a_class_of_one_patient_is_left_out(tmp_path: Path):
    common = [(f"P{number}", "ab"[number % 2], None) for number in range(8)]
    store = store_of(tmp_path / "store", *common, ("P9", "c", None), ("P9", "c", None))
    halves = labelled_halves(store, 1000)
    assert halves.classes == ("a", "b")
    assert len(halves.rows) == 8


def test_a_store_without_two_classes_is_refused(tmp_path: Path):
    store = classification_store(tmp_path / "store", labels=("bright",))
    with pytest.raises(DataError, match=r"1 classes with at least two patients.*monitor\.data"):
        labelled_halves(store, 100)
    unlabelled = classification_store(tmp_path / "other", labels=(None,))
    with pytest.raises(DataError, match="0 classes"):
        labelled_halves(unlabelled, 100)


def test_halves_that_tell_nothing_apart_are_refused_before_the_run(tmp_path: Path):
    of_one_class = [(f"P{number}", "a", "train") for number in range(4)]
    judged = [(f"V{number}", "ab"[number % 2], "val") for number in range(8)]
    with pytest.raises(DataError, match=r"2 classes 1 are among the 4 images to learn from"):
        labelled_halves(store_of(tmp_path / "store", *of_one_class, *judged), 100)


def test_a_patient_in_both_splits_is_refused(tmp_path: Path):
    facts = [(f"P{number}", "ab"[number % 2], "train") for number in range(4)]
    store = store_of(tmp_path / "store", *facts, ("P0", "a", "val"), ("P1", "b", "val"))
    with pytest.raises(DataError, match="must not share patients"):
        labelled_halves(store, 100)


@pytest.mark.parametrize("accuracy", [knn_accuracy, linear_accuracy])
def test_what_can_be_told_apart_is_and_what_cannot_is_chance(accuracy):
    learn, judge = clouds(200, 8.0, 0), clouds(100, 8.0, 1)
    assert accuracy(*learn, *judge) == 1.0
    learn, judge = clouds(400, 0.0, 0), clouds(400, 0.0, 1)
    assert abs(accuracy(*learn, *judge) - 0.5) < 0.1
    constant = np.ones((20, 4)), np.arange(20) % 2
    assert accuracy(*constant, *constant) == 0.5


def test_neighbours_vote_by_their_cosine_distance():
    learn, learn_classes = clouds(60, 1.5, 0)
    judge, judge_classes = clouds(50, 1.5, 1)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (learn, judge)]
    distance = 1.0 - unit[1] @ unit[0].T
    nearest = np.argsort(distance, axis=1)[:, :20]
    weight = 1.0 / np.take_along_axis(distance, nearest, axis=1)
    votes = [(weight * (learn_classes[nearest] == c)).sum(axis=1) for c in (0, 1)]
    expected = balanced_accuracy(judge_classes, np.argmax(votes, axis=0))
    assert knn_accuracy(learn, learn_classes, judge, judge_classes) == pytest.approx(expected)


def test_fewer_images_than_neighbours_all_vote():
    learn, judge = clouds(6, 9.0, 0), clouds(4, 9.0, 1)
    assert 0.5 <= knn_accuracy(*learn, *judge) <= 1.0


def test_balanced_accuracy_weighs_classes_alike_and_counts_unknown_answers_as_wrong():
    classes = np.array([0] * 9 + [1])
    assert balanced_accuracy(classes, np.zeros(10)) == 0.5
    assert balanced_accuracy(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])) == 0.75
