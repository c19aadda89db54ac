"""Scores of models on stores; the same lines serve validation and evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stores import classification_store, record, segmentation_store
from vismae.core.errors import DataError
from vismae.core.model_card import TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.data.store import PartWriter, Store, StoreWriter, assemble_store
from vismae.evaluation.classification import score_classification
from vismae.inference.predictor import Predictor
from vismae.workflows.scoring import (
    label_values_of,
    mean_dice,
    score_classes,
    score_label_maps,
    score_of_all,
    selection_score,
)

CONTRACT = Preprocessing(image_size=(32, 32), in_channels=1)


class LeftHalf(nn.Module):
    """Calls the left half of every image class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        left = torch.zeros_like(images[:, 0])
        left[:, :, : images.shape[3] // 2] = 1
        return torch.stack([-left, left - 0.5], dim=1) * self.scale


def store_of_volumes(folder: Path) -> Store:
    """Patient a: a volume of 2 slices and one of 1; patient b: one slice without the class."""
    full, quarter = np.ones((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    quarter[:16, :16] = 1
    nothing = np.zeros((32, 32), np.uint8)
    layout = [
        ("a", "a2", 0, quarter),
        ("b", "b1", 0, nothing),
        ("a", "a1", 1, full),
        ("a", "a1", 0, quarter),
    ]
    rng = np.random.default_rng(0)
    with StoreWriter(folder) as writer:
        for number, (patient, volume, place, label_map) in enumerate(layout):
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            facts = record(
                f"i{number}", pixels, patient_id=patient, volume_id=volume, slice_index=place
            )
            writer.add(facts, pixels, label_map)
    return Store(folder)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_validation_and_evaluation_agree_with_a_hand_computation(
    batch_size: int, tmp_path: Path
) -> None:
    store = store_of_volumes(tmp_path / "store")
    predictor = Predictor(LeftHalf(), CONTRACT, batch_size)
    # Found: the left 512 of each slice. a1: 256 + 512 of 256 + 1024; a2: 256 of 256.
    first = 2 * (256 + 512) / (256 + 1024 + 2 * 512)
    second = 2 * 256 / (256 + 512)
    rows = np.arange(4)
    assert mean_dice(predictor, store, rows, {0: 0, 1: 1}, 2) == pytest.approx((first + second) / 2)
    result = score_label_maps(predictor, store, rows, {0: 0, 1: 1}, ("background", "x"), 2.0)
    volumes = result.volumes.set_index("volume_id")["dice"]
    assert volumes["a1"] == pytest.approx(first)
    assert volumes["a2"] == pytest.approx(second)
    assert np.isnan(volumes["b1"])
    dice = result.patients[
        (result.patients["metric"] == "dice") & (result.patients["class_name"] == "x")
    ].set_index("patient_id")["value"]
    assert dice["a"] == pytest.approx((first + second) / 2)


def test_no_class_anywhere_is_no_score(tmp_path: Path) -> None:
    store = store_of_volumes(tmp_path / "store")
    value = mean_dice(Predictor(LeftHalf(), CONTRACT), store, np.array([1]), {0: 0, 1: 1}, 2)
    assert np.isnan(value)


def test_an_unknown_value_names_store_and_row(tmp_path: Path) -> None:
    store = segmentation_store(tmp_path / "store", patients=1, value=5)
    with pytest.raises(DataError, match=r"store, row 0 holds the value 5"):
        mean_dice(Predictor(LeftHalf(), CONTRACT), store, np.array([0]), {0: 0, 1: 1}, 2)


def named_store(folder: Path, names: dict[int, str]) -> Store:
    """A store whose label maps hold some values, with their names."""
    with PartWriter(folder, "000001") as writer:
        for value in names:
            pixels = np.full((8, 8), value, np.uint8)
            writer.add(record(f"i{value}", pixels), pixels, pixels)
        part = writer.finish()
    return assemble_store(folder, [part], encoding="zstd", classes=names)


OWN = TaskCard(classes=("background", "liver", "spleen"), label_values={0: 0, 1: 1, 2: 2})


def test_names_of_classes_decide_over_numbers(tmp_path: Path) -> None:
    """Each store numbers the structures of its own DICOM objects by alphabet."""
    other = named_store(tmp_path / "other", {2: "liver", 4: "spleen"})
    assert label_values_of(OWN, other) == {0: 0, 2: 1, 4: 2}
    more = named_store(tmp_path / "more", {1: "kidney", 2: "liver"})
    with pytest.raises(DataError, match=r"does not: 1 'kidney'. The model's classes are liver,"):
        label_values_of(OWN, more)
    same = named_store(tmp_path / "same", {1: "liver", 2: "spleen"})
    assert label_values_of(OWN, same) == OWN.label_values


def test_classes_under_other_names_are_scored_by_number_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = named_store(tmp_path / "store", {1: "Leber", 2: "spleen"})
    assert label_values_of(OWN, store) == OWN.label_values
    assert "calls value 1 'Leber'; it is scored as the model's class 'liver'" in caplog.text
    plain = segmentation_store(tmp_path / "plain", patients=1)
    assert label_values_of(OWN, plain) == OWN.label_values
    assert caplog.text.count("scored as") == 1


class MeanBrightness(nn.Module):
    """The brighter the image, the more of class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean(dim=(1, 2, 3)) * self.scale
        return torch.stack([level, -level], dim=1)


@pytest.mark.parametrize("multi_label", [False, True])
def test_patients_are_scored_by_the_mean_of_their_images(multi_label: bool, tmp_path: Path) -> None:
    store = classification_store(tmp_path / "store", patients=6, images=3)
    predictor = Predictor(MeanBrightness(), CONTRACT)
    scores = score_classes(
        predictor, store, np.arange(len(store)), ("bright", "dark"), multi_label, None
    )
    assert scores.n_cases == 6
    assert score_of_all(scores, "balanced_accuracy") == 1.0
    images = predictor.probabilities(store, np.arange(3), multi_label)
    assert np.allclose(scores.probabilities[0], images.mean(axis=0))


def test_weights_of_several_rare_classes_are_chosen_by_their_order_not_by_decisions_at_a_half():
    truth = np.zeros((20, 2), np.int64)
    truth[:2, 0] = truth[18:, 1] = 1
    early, late = np.full((20, 2), 0.1), np.where(truth == 1, 0.3, 0.05)
    by_step = [
        score_classification(values, truth, list(range(20)), ("a", "b"), multi_label=True)
        for values in (early, late)
    ]
    assert [score_of_all(scores, "balanced_accuracy") for scores in by_step] == [0.5, 0.5]
    assert [selection_score(scores) for scores in by_step] == [0.5, 1.0]
    one = score_classification(np.eye(2), np.arange(2), ["p", "q"], ("a", "b"))
    assert selection_score(one) == score_of_all(one, "balanced_accuracy") == 1.0
