"""Who learns, validates and tests, and what the labels mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factories import write_nifti
from stores import classification_store, record, segmentation_store
from vismae.core.config import FinetuneConfig
from vismae.core.errors import DataError
from vismae.data.store import StoreWriter
from vismae.workflows.task_data import TaskData, class_weights, open_task_data, pixel_shares

MakeConfig = Callable[..., FinetuneConfig]


@pytest.fixture
def open_data(finetune_config: MakeConfig, tmp_path: Path) -> Callable[..., TaskData]:
    def make(kind: str, store: Path, **settings: Any) -> TaskData:
        return open_task_data(finetune_config(kind, tmp_path, store, **settings), tmp_path)

    return make


def patients(data: TaskData, rows: np.ndarray) -> set[str]:
    return set(data.store.index["patient_id"].iloc[rows])


def test_patients_are_divided_and_never_shared(
    open_data: Callable[..., TaskData], discs: Path, tmp_path: Path
):
    data = open_data("segment", discs)
    parts = [patients(data, rows) for rows in (data.train, data.val, data.test)]
    assert [len(part) for part in parts] == [7, 1, 2]
    assert len(set.union(*parts)) == 10
    assert len(data.train) == 14
    assert set(pd.read_csv(tmp_path / "training_patients.csv")["patient_id"]) == parts[0]
    assert len(pd.read_csv(tmp_path / "splits.csv")) == 10


def test_label_fractions_are_nested_and_leave_val_and_test_alone(
    open_data: Callable[..., TaskData], discs: Path
):
    found = [open_data("segment", discs, label_fraction=f) for f in (0.2, 0.5, 1.0)]
    trained = [patients(data, data.train) for data in found]
    assert [len(part) for part in trained] == [1, 4, 7]
    assert trained[0] < trained[1] < trained[2]
    for data in found:
        assert data.val.tolist() == found[0].val.tolist()
        assert data.test.tolist() == found[0].test.tolist()
        assert patients(data, data.withheld) == trained[2] - patients(data, data.train)


def test_another_subset_seed_is_another_subset_with_the_same_test_patients(
    open_data: Callable[..., TaskData], discs: Path
):
    found = [open_data("segment", discs, label_fraction=0.4, subset_seed=s) for s in range(4)]
    assert len({frozenset(patients(data, data.train)) for data in found}) > 1
    assert len({frozenset(patients(data, data.test)) for data in found}) == 1


def test_the_five_folds_validate_everybody_once_and_keep_the_test(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    store = segmentation_store(
        tmp_path / "s", patients=12, slices=1, splits=("train", "test", "val")
    ).folder
    found = [open_data("segment", store, fold=fold) for fold in range(1, 6)]
    tests = {frozenset(patients(data, data.test)) for data in found}
    assert len(tests) == 1
    assert len(next(iter(tests))) == 4
    validated = [name for data in found for name in patients(data, data.val)]
    assert len(validated) == len(set(validated)) == 8
    for data in found:
        assert patients(data, data.train) | patients(data, data.val) == set(validated)


def test_a_given_split_is_honoured_and_unlabelled_images_left_out(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    splits = ("train", "train", "val", "test")
    store = segmentation_store(tmp_path / "s", patients=8, splits=splits, unlabelled=4).folder
    data = open_data("segment", store)
    index = data.store.index
    for rows, split in ((data.train, "train"), (data.val, "val"), (data.test, "test")):
        assert set(index["split"].iloc[rows]) == {split}
        assert index["has_label_map"].iloc[rows].all()
    assert len(data.train) + len(data.val) + len(data.test) == 16


@pytest.mark.parametrize("value", [1, 255])
def test_one_class_is_understood_whatever_its_value(
    value: int, open_data: Callable[..., TaskData], tmp_path: Path
):
    store = segmentation_store(tmp_path / "s", patients=4, value=value).folder
    data = open_data("segment", store, **{"task.classes": "disc"})
    assert data.card.classes == ("background", "disc")
    assert data.card.label_values == {0: 0, value: 1}
    shares = pixel_shares(data)
    assert shares.sum() == pytest.approx(1)
    assert 0.05 < shares[1] < 0.25


def test_a_value_that_the_given_mapping_leaves_out_is_named(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    store = segmentation_store(tmp_path / "s", patients=4, value=7).folder
    with pytest.raises(DataError, match=r"does not say what \[7\] mean"):
        open_data("segment", store, **{"task.label_values": {0: 0, 1: 1}})
    mapped = open_data("segment", store, **{"task.label_values": {0: 0, 7: 1}})
    assert mapped.card.label_values == {0: 0, 7: 1}


def test_one_class_saved_in_two_ways_is_told(
    open_data: Callable[..., TaskData], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for number in range(4):
        label_map = np.zeros((32, 32, 1), dtype=np.uint8)
        label_map[8:16, 8:16] = 255 if number % 2 else 1
        write_nifti(tmp_path / f"d/imagesTr/c{number}_0000.nii.gz", label_map.astype(np.int16))
        write_nifti(tmp_path / f"d/labelsTr/c{number}.nii.gz", label_map)

    assert len(open_data("segment", tmp_path / "d").card.classes) == 3
    assert "label maps hold 1 and 255, which become two classes" in caplog.text
    caplog.clear()
    joined = open_data("segment", tmp_path / "d", **{"task.label_values": {0: 0, 1: 1, 255: 1}})
    assert len(joined.card.classes) == 2
    assert "two classes" not in caplog.text


def test_pixels_that_nobody_annotated_are_no_class(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    for number in range(4):
        label_map = np.zeros((32, 32, 1), dtype=np.uint8)
        label_map[8:16, 8:16], label_map[20:] = 1, 2
        write_nifti(tmp_path / f"d/imagesTr/c{number}_0000.nii.gz", label_map.astype(np.int16))
        write_nifti(tmp_path / f"d/labelsTr/c{number}.nii.gz", label_map)
    (tmp_path / "d/dataset.json").write_text('{"labels": {"background": 0, "x": 1, "ignore": 2}}')

    with pytest.raises(DataError, match=r"value 2 .* 'ignore'.* task\.label_values \(2: 0\)"):
        open_data("segment", tmp_path / "d")
    mapped = open_data("segment", tmp_path / "d", **{"task.label_values": {0: 0, 1: 1, 2: 0}})
    assert mapped.card.classes == ("background", "x")
    assert pixel_shares(mapped)[1] == pytest.approx(64 / 1024)


def test_empty_label_maps_are_nothing_to_segment(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    with StoreWriter(tmp_path / "s") as writer:
        for number in range(3):
            pixels = np.full((8, 8), number, np.uint8)
            writer.add(record(f"i{number}", pixels), pixels, np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="nothing to segment"):
        open_data("segment", tmp_path / "s")


def test_images_without_any_label_are_refused(open_data: Callable[..., TaskData], unlabelled: Path):
    with pytest.raises(DataError, match="no image has a label map"):
        open_data("segment", unlabelled)
    with pytest.raises(DataError, match="no image has a label"):
        open_data("classify", unlabelled)
    with pytest.raises(DataError, match="No image has a label"):
        open_data("classify", unlabelled, **{"task.multi_label": True})


def test_one_class_alone_is_nothing_to_tell_apart(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    store = classification_store(tmp_path / "s", labels=("bright",)).folder
    with pytest.raises(DataError, match="'bright', so there is nothing to tell apart"):
        open_data("classify", store)


def test_classes_are_read_and_encoded_for_every_labelled_row(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    store = classification_store(tmp_path / "s", labels=("bright", "dark", None)).folder
    data = open_data("classify", store)
    assert data.card.classes == ("bright", "dark")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, -1] * 4
    assert (data.labels[np.concatenate([data.train, data.val, data.test])] >= 0).all()


def test_several_classes_of_one_image_are_read_and_none_is_possible(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    store = classification_store(tmp_path / "s", labels=("bright|left", "left", None)).folder
    data = open_data("classify", store, **{"task.multi_label": True})
    assert data.card.classes == ("bright", "left")
    assert data.labels is not None
    assert data.labels[:3].tolist() == [[1, 1], [0, 1], [0, 0]]
    assert len(data.train) + len(data.val) + len(data.test) == 12


def test_rare_classes_weigh_more_and_images_weigh_one_on_average(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    labels = ("bright", "dark", "dark", "dark")
    store = classification_store(
        tmp_path / "s", patients=16, labels=labels, splits=("train",) * 14 + ("val", "test")
    ).folder
    data = open_data("classify", store)
    assert data.labels is not None
    counts = np.bincount(data.labels[data.train])
    for scheme, power in (("inverse", 1.0), ("sqrt", 0.5)):
        weights = class_weights(data, scheme)
        assert weights is not None
        assert float(weights[0] / weights[1]) == pytest.approx((counts[1] / counts[0]) ** power)
        assert float((weights.numpy() * counts).sum() / counts.sum()) == pytest.approx(1)
    assert class_weights(data, "none") is None


def test_the_modality_can_be_chosen(open_data: Callable[..., TaskData], discs: Path):
    with pytest.raises(DataError, match="no image of modality ct"):
        open_data("segment", discs, **{"data.modality": "ct"})


@pytest.mark.parametrize("name", ["all", "mean"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_label_that_scores_use_as_a_name_is_refused_before_training(
    name: str, multi_label: bool, open_data: Callable[..., TaskData], tmp_path: Path
):
    store = classification_store(tmp_path / "s", labels=(name, "dark")).folder
    with pytest.raises(DataError, match=f"'{name}' is what scores.*Rename the label"):
        open_data("classify", store, **{"task.multi_label": multi_label})


def test_a_class_that_is_named_twice_is_refused_before_training(
    open_data: Callable[..., TaskData], tmp_path: Path
):
    store = classification_store(tmp_path / "s", labels=("bright", "dark")).folder
    with pytest.raises(DataError, match=r"'dark' is there twice.*task\.classes"):
        open_data("classify", store, **{"task.classes": ["bright", "dark", "dark"]})
