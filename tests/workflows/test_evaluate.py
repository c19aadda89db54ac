"""Evaluation end to end: scores against hand computation, and what is not scored in silence."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import vismae
import vismae.workflows.evaluate as workflow
from factories import write_nifti
from stores import classification_store, disc, record, segmentation_store
from vismae.core.config import EvaluateConfig, FinetuneConfig
from vismae.core.errors import DataError, ModelError, PreprocessingError
from vismae.core.model_card import FingerprintCard, ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit
from vismae.data.fingerprint import fingerprint
from vismae.data.store import Store, StoreWriter
from vismae.models import SwinClassifier, SwinUNet, architecture_of, save_model
from vismae.workflows.evaluate import EvaluateResult, evaluate
from vismae.workflows.evaluation_report import CASES_PICTURE, _fullest
from vismae.workflows.finetune import finetune

MakeConfig = Callable[..., FinetuneConfig]

CONTRACT = Preprocessing(image_size=(32, 32), in_channels=1)


def constant_model(
    folder: Path,
    outputs: tuple[float, ...],
    segments: bool = True,
    preprocessing: Preprocessing = CONTRACT,
    training: dict[str, FingerprintCard] | None = None,
    **task: Any,
) -> Path:
    """A model folder whose network gives the same logits whatever it is shown."""
    kind = SwinUNet if segments else SwinClassifier
    network = kind.from_size("nano", in_channels=1, num_classes=len(outputs))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor(outputs))
    if segments:
        facts = {"classes": ("background", "disc"), "label_values": {0: 0, 1: 1}}
    else:
        facts = {"classes": ("bright", "dark")}
    card = ModelCard(
        kind="segmenter" if segments else "classifier",
        architecture=architecture_of(network),
        preprocessing=preprocessing,
        task=TaskCard(**{**facts, **task}),
        training=training or {},
    )
    save_model(network, card, folder)
    return folder


class Brightness(nn.Module):
    """Finds what is bright: all of a disc of ``segmentation_store`` and nothing else."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.card = card
        self.threshold = nn.Parameter(torch.tensor((0.5 - 0.223) / 0.202))

    def forward(self, images: Tensor) -> Tensor:
        excess = images[:, 0] - self.threshold
        return torch.stack([-excess, excess], dim=1)


def score(model: Path, store: Path, out: Path, **settings: Any) -> EvaluateResult:
    options = {
        "model": model,
        "out": out,
        "data": {"sources": [store], "batch_size": 4},
        "report": False,
        "bootstrap": 100,
        "device": "cpu",
        **settings,
    }
    return evaluate(EvaluateConfig.model_validate(options))


def patient_values(result: EvaluateResult, metric: str) -> dict[str, float]:
    table = pd.read_parquet(result.folder / "scores.parquet")
    chosen = table[(table["metric"] == metric) & (table["class_name"] == "disc")]
    return dict(zip(chosen["patient_id"], chosen["value"], strict=True))


def test_dice_and_iou_are_those_of_pixels_pooled_over_a_volume(discs: Path, tmp_path: Path) -> None:
    model = constant_model(tmp_path / "model", (0.0, 1.0))
    result = score(model, discs, tmp_path / "out")
    store = Store(discs)
    dice, iou = {}, {}
    for patient, rows in store.index.groupby("patient_id").groups.items():
        # Everything is called disc: all true pixels are found, all others are false.
        truth = sum(int((store.read(int(row)).label_map > 0).sum()) for row in rows)
        dice[patient] = 2 * truth / (truth + len(rows) * 32 * 32)
        iou[patient] = truth / (len(rows) * 32 * 32)
    assert patient_values(result, "dice") == pytest.approx(dice)
    assert patient_values(result, "iou") == pytest.approx(iou)
    assert result.primary.estimate == pytest.approx(np.mean(list(dice.values())))
    assert result.primary.low < result.primary.estimate < result.primary.high
    assert (result.primary.n, result.unit) == (10, "patient")
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    row = summary[(summary["class_name"] == "disc") & (summary["metric"] == "dice")].iloc[0]
    assert row["estimate"] == pytest.approx(np.mean(list(dice.values())), abs=1e-6)
    assert row["n"] == 10
    assert len(pd.read_csv(tmp_path / "out" / "scores.csv")) == len(
        pd.read_parquet(tmp_path / "out" / "scores.parquet")
    )


def test_a_perfect_model_has_perfect_scores(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = constant_model(tmp_path / "model", (0.0, 1.0))
    card = workflow.load_model(folder).card
    assert card is not None
    monkeypatch.setattr(workflow, "load_model", lambda _: Brightness(card))
    result = score(folder, discs, tmp_path / "out")
    assert set(patient_values(result, "dice").values()) == {1.0}
    assert set(patient_values(result, "nsd").values()) == {1.0}
    assert set(patient_values(result, "hd95").values()) == {0.0}


def test_a_class_that_is_nowhere_is_counted_and_not_scored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(4):
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            label_map = disc((32, 32), (16, 16), 6) * np.uint8(number < 3)
            writer.add(record(f"p{number}", pixels), pixels, label_map)
    result = score(constant_model(tmp_path / "m", (1.0, 0.0)), tmp_path / "store", tmp_path / "o")
    dice = patient_values(result, "dice")
    assert [dice[f"p{number}"] for number in range(3)] == [0, 0, 0]
    assert np.isnan(dice["p3"])
    table = result.summary_table
    row = table[(table["class_name"] == "disc") & (table["metric"] == "dice")].iloc[0]
    assert (row["n_missed"], row["n_absent"], row["interval"].n) == (3, 1, 3)


def test_a_report_without_a_case_to_show_has_all_else(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(3):
            pixels = np.full((32, 32), 40 + number, np.uint8)
            writer.add(record(f"p{number}", pixels), pixels, np.zeros((32, 32), np.uint8))
    model = constant_model(tmp_path / "m", (1.0, 0.0))
    result = score(model, tmp_path / "store", tmp_path / "o", report=True)
    page = (result.folder / "report" / "index.html").read_text()
    assert "No case is shown: none has a class" in page
    assert "Settings of this" in page
    assert not (result.folder / CASES_PICTURE).exists()


def test_the_test_split_is_scored_where_there_is_one(tmp_path: Path) -> None:
    splits = ("train", "test", "val", "test")
    store = segmentation_store(tmp_path / "store", patients=8, splits=splits).folder
    model = constant_model(tmp_path / "model", (0.0, 1.0))
    assert set(patient_values(score(model, store, tmp_path / "a"), "dice")) == {
        f"patient0-{number}" for number in (1, 3, 5, 7)
    }
    val = score(model, store, tmp_path / "b", split="val")
    assert set(patient_values(val, "dice")) == {"patient0-2", "patient0-6"}
    with pytest.raises(DataError, match=r"split pretrain; found test \(8 images\), train"):
        score(model, store, tmp_path / "c", split="pretrain")
    untested = segmentation_store(tmp_path / "store2", patients=4, splits=("train", "val")).folder
    with pytest.raises(DataError, match="no labelled image is in split test"):
        score(model, untested, tmp_path / "d")


@pytest.mark.parametrize("label_fraction", [0.3, 1.0])
def test_patients_of_the_training_are_left_out_whatever_share_was_used(
    label_fraction: float, discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {"label_fraction": label_fraction, "task.classes": "disc"}
    run = finetune_config("segment", tmp_path / "run", discs, **settings)
    model = finetune(run).model
    splits = pd.read_csv(tmp_path / "run" / "splits.csv")
    tested = set(splits.loc[splits["split"] == "test", "patient_id"])
    result = score(model, discs, tmp_path / "out")
    assert set(patient_values(result, "dice")) == tested
    everything = score(model, discs, tmp_path / "all", allow_training_rows=True, report=True)
    assert len(patient_values(everything, "dice")) == 10
    page = (tmp_path / "all" / "report" / "index.html").read_text()
    assert "these scores are no estimate for new patients" in page


def test_training_rows_are_refused_when_asked_for_by_name(
    finetune_config: MakeConfig, tmp_path: Path
) -> None:
    splits = ("train", "train", "val", "test")
    store = segmentation_store(tmp_path / "store", patients=8, splits=splits).folder
    model = finetune(finetune_config("segment", tmp_path / "run", store)).model
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"were in the fine-tuning data.*allow_training_rows"):
            score(model, store, tmp_path / split, split=split)


def test_a_model_that_knows_every_patient_cannot_be_scored_on_them(
    discs: Path, tmp_path: Path
) -> None:
    known = {"finetune": fingerprint(Store(discs).index)}
    model = constant_model(tmp_path / "model", (0.0, 1.0), training=known)
    with pytest.raises(DataError, match="none is left to score"):
        score(model, discs, tmp_path / "out")


def test_images_of_the_pre_training_are_refused(discs: Path, tmp_path: Path) -> None:
    for stage in ("pretrain", "earlier pretrain"):
        known = {stage: fingerprint(Store(discs).index.iloc[:4])}
        model = constant_model(tmp_path / stage, (0.0, 1.0), training=known)
        with pytest.raises(DataError, match=r"2 of 10 patients.*in the .*pre-training data"):
            score(model, discs, tmp_path / f"out {stage}")


def test_a_shared_id_or_look_is_only_warned_of(
    discs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = Store(discs).index
    others = segmentation_store(tmp_path / "others", patients=3, seed=4).index
    same_id = others.assign(patient_id=index["patient_id"].iloc[: len(others)].to_numpy())
    model = constant_model(
        tmp_path / "model", (0.0, 1.0), training={"pretrain": fingerprint(same_id)}
    )
    with caplog.at_level(logging.INFO, "vismae"):
        result = score(model, discs, tmp_path / "out", report=True)
    assert len(patient_values(result, "dice")) == 10
    assert "3 patients or groups (patient0-0, patient0-1, patient0-2) share an id" in caplog.text
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "share an id or a look" in page


@pytest.mark.parametrize("value", [1, 255])
def test_one_class_means_the_same_whatever_its_value(value: int, tmp_path: Path) -> None:
    store = segmentation_store(tmp_path / "store", patients=3, value=value).folder
    model = constant_model(tmp_path / "model", (0.0, 1.0), label_values={0: 0, 255: 1})
    values = patient_values(score(model, store, tmp_path / "out", report=True), "dice")
    assert all(0 < value < 1 for value in values.values())


def test_a_value_that_was_mapped_keeps_its_meaning(tmp_path: Path) -> None:
    # The model's task took 1 for background; a store with nothing else is no disc anywhere.
    store = segmentation_store(tmp_path / "store", patients=2, value=1).folder
    mapping = {0: 0, 1: 0, 2: 1}
    model = constant_model(tmp_path / "model", (1.0, 0.0), label_values=mapping)
    values = patient_values(score(model, store, tmp_path / "out"), "dice")
    assert np.isnan(list(values.values())).all()


def test_the_slice_that_is_shown_has_most_of_the_classes_whatever_else_it_marks(
    tmp_path: Path,
) -> None:
    pixels = np.zeros((32, 32), np.uint8)
    with StoreWriter(tmp_path / "store") as writer:
        for number, (value, radius) in enumerate([(5, 12), (1, 4), (1, 3)]):
            facts = record(f"i{number}", pixels, patient_id="a", volume_id="v", slice_index=number)
            writer.add(facts, pixels, value * disc((32, 32), (16, 16), radius))
    row, truth = _fullest(Store(tmp_path / "store"), np.arange(3), {0: 0, 1: 1, 5: 0})
    assert row == 1
    assert truth.sum() == disc((32, 32), (16, 16), 4).sum()


def test_a_value_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        label_map = disc((32, 32), (10, 10), 4) + 11 * disc((32, 32), (24, 24), 4)
        writer.add(record("p", pixels), pixels, label_map.astype(np.uint8))
    with pytest.raises(DataError, match="value 11"):
        score(constant_model(tmp_path / "m", (0.0, 1.0)), tmp_path / "store", tmp_path / "out")


def test_pixels_that_nobody_annotated_are_not_scored_as_a_class(tmp_path: Path) -> None:
    label_map = (disc((32, 32), (10, 10), 4) + 2 * disc((32, 32), (24, 24), 4))[..., None]
    write_nifti(tmp_path / "d/imagesTs/c_0000.nii.gz", label_map.astype(np.int16))
    write_nifti(tmp_path / "d/labelsTs/c.nii.gz", label_map)
    (tmp_path / "d/dataset.json").write_text('{"labels": {"x": 1, "ignore": 2}}')
    vismae.ingest(tmp_path / "d", store=tmp_path / "store", executor="here")

    model = constant_model(tmp_path / "a", (0.0, 1.0), label_values={0: 0, 1: 0, 2: 1})
    with pytest.raises(DataError, match="the value 2 of the label maps is called 'ignore'"):
        score(model, tmp_path / "store", tmp_path / "out a")
    model = constant_model(tmp_path / "b", (0.0, 1.0), label_values={0: 0, 1: 1, 2: 0})
    assert patient_values(score(model, tmp_path / "store", tmp_path / "out b"), "dice")


def test_a_store_without_labels_is_refused(unlabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image has a label to score against"):
        score(constant_model(tmp_path / "a", (0.0, 1.0)), unlabelled, tmp_path / "out a")
    several = constant_model(tmp_path / "b", (0.0, 1.0), segments=False, multi_label=True)
    with pytest.raises(DataError, match="no image has a label to score against"):
        score(several, unlabelled, tmp_path / "out b")


def test_images_in_another_unit_are_refused_by_field(discs: Path, tmp_path: Path) -> None:
    contract = CONTRACT.model_copy(update={"pixel_units": {Modality.XR: (PixelUnit.HU,)}})
    model = constant_model(tmp_path / "model", (0.0, 1.0), preprocessing=contract)
    with pytest.raises(PreprocessingError, match=r"preprocessing\.pixel_units\.xr"):
        score(model, discs, tmp_path / "out")
    wish = {"preprocessing": {"fit": "stretch"}}
    with pytest.raises(PreprocessingError, match=r"preprocessing\.fit"):
        score(constant_model(tmp_path / "m", (0.0, 1.0)), discs, tmp_path / "out2", **wish)


def test_a_masked_autoencoder_has_nothing_to_score(
    pretrained: Path, discs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="Fine-tune it first"):
        score(pretrained, discs, tmp_path / "out")


def of(result: EvaluateResult, class_name: str, metric: str) -> float:
    table = result.summary_table
    chosen = table[(table["class_name"] == class_name) & (table["metric"] == metric)]
    return float(chosen["value"].iloc[0])


def test_the_thresholds_of_validation_decide_sensitivity(shades: Path, tmp_path: Path) -> None:
    # One half for both classes: above the threshold of bright, below that of dark.
    model = constant_model(tmp_path / "model", (0.0, 0.0), segments=False, thresholds=(0.25, 0.75))
    result = score(model, shades, tmp_path / "out", report=True)
    assert (of(result, "bright", "sensitivity"), of(result, "bright", "specificity")) == (1, 0)
    assert (of(result, "dark", "sensitivity"), of(result, "dark", "specificity")) == (0, 1)
    assert of(result, "mean", "auroc") == 0.5
    assert of(result, "all", "balanced_accuracy") == 0.5
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "0.25, 0.75" in page
    assert "Images with the least probability for their true class" in page
    assert "patients, probabilities averaged over the images of each. 95 % intervals" in page
    assert "Scores are of all of them together; intervals" in page
    assert "A score is computed for each" not in page


def test_a_patient_of_two_classes_is_scored_image_by_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [("a", "bright"), ("a", "dark"), ("b", "dark"), ("c", "bright"), ("c", "bright")]
    with StoreWriter(tmp_path / "store") as writer:
        for number, (patient, label) in enumerate(labels):
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            facts = record(f"i{number}", pixels, patient_id=patient, label=f" {label} ")
            writer.add(facts, pixels)
    model = constant_model(tmp_path / "model", (0.0, 0.1), segments=False)
    result = score(model, tmp_path / "store", tmp_path / "out", report=True)
    assert of(result, "all", "accuracy") == pytest.approx(2 / 5)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "1 of 3 patients hold images of different classes" in page
    assert "5 images. 95 % intervals" in page
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert len(table) == 10
    assert table["truth"].sum() == 5


def test_several_classes_of_one_image_are_scored_each(tmp_path: Path) -> None:
    labels = ("bright|left", "left", None, "left")
    store = classification_store(tmp_path / "store", patients=8, labels=labels).folder
    model = constant_model(
        tmp_path / "model",
        (-1.0, 1.0),
        segments=False,
        multi_label=True,
        classes=("bright", "left"),
    )
    result = score(model, store, tmp_path / "out", report=True)
    # left is called always and true of three quarters, bright never and true of one quarter.
    assert of(result, "left", "sensitivity") == 1
    assert of(result, "bright", "sensitivity") == 0
    assert of(result, "all", "accuracy") == pytest.approx(0.75)
    assert "Cases" not in (tmp_path / "out" / "report" / "index.html").read_text()


def test_the_report_asks_nothing_of_any_network_and_shows_the_training(
    discs: Path, pretrained: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    run = finetune_config("segment", tmp_path / "run", discs, init=pretrained)
    result = score(finetune(run).model, discs, tmp_path / "out", report=True)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#|data:)", page)
    assert not re.search(r"@import|url\((?!#|[\"']?data:)|<script|<iframe", page)
    for text in ("Best, median and worst", "What pre-training learnt", "Settings of this", "loss"):
        assert text in page
    assert result.summary().startswith("Mean Dice 0.")
    assert str(tmp_path / "out" / "report" / "index.html") in result.summary()
