"""Masked pre-training on the task's own images first: whose images, resumed, and recorded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from factories import write_png
from stores import segmentation_store
from vismae.core.config import FinetuneConfig
from vismae.core.errors import SettingError
from vismae.data.fingerprint import FINGERPRINT_COLUMNS, overlap
from vismae.data.splits import patients_of, split_patients
from vismae.models import SwinMAE
from vismae.models.weights import load_model
from vismae.workflows.finetune import finetune

MakeConfig = Callable[..., FinetuneConfig]


def test_all_training_patients_are_learnt_from_and_nobody_else(
    pretrained: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    splits = ("train", "val", "test", "train")
    store = segmentation_store(tmp_path / "store", patients=8, splits=splits, unlabelled=4)
    settings = {"init": pretrained, "task_pretrain_steps": 2, "label_fraction": 0.3}
    config = finetune_config("segment", tmp_path / "run", store.folder, **settings)
    model = load_model(finetune(config).model)
    assert model.card is not None
    index = store.columns([*FINGERPRINT_COLUMNS, "split"])
    learnt = model.card.training["pretrain"]
    patients = split_patients(store.index)
    seen = overlap(learnt, index).same_id
    assert set(seen) <= set(patients_of(patients, ["train"]))
    assert not set(seen) & set(patients_of(patients, ["val", "test"]))
    # With those whose labels are set aside, half of the eight, and two that have none.
    assert learnt.patients == len(seen) == 6
    assert "earlier pretrain" in model.card.training
    assert model.card.provenance["settings"]["task_pretrain_steps"] == 2


def test_the_masks_are_those_of_the_start_and_its_weights_move_on(
    pretrained: Path, discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {"init": pretrained, "task_pretrain_steps": 2}
    finetune(finetune_config("segment", tmp_path / "run", discs, **settings))
    before = load_model(pretrained)
    after = load_model(tmp_path / "run" / "task_pretraining" / "model")
    assert isinstance(before, SwinMAE)
    assert isinstance(after, SwinMAE)
    assert after.mask_ratio == before.mask_ratio
    assert not torch.equal(
        after.state_dict()["decoder_pred.weight"], before.state_dict()["decoder_pred.weight"]
    )


def test_it_begins_at_random_weights_without_a_start_and_is_not_repeated_on_resume(
    shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    config = finetune_config("classify", tmp_path / "run", shades, task_pretrain_steps=2)
    result = finetune(config)
    weights = tmp_path / "run" / "task_pretraining" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = finetune(config.model_copy(update={"resume": True}))
    assert again.already_finished
    assert again.best_step == result.best_step
    assert weights.stat().st_mtime_ns == before


def test_it_goes_on_in_a_run_folder_that_has_moved(
    finetune_config: MakeConfig, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        write_png(tmp_path / "images" / f"class{number % 2}" / f"{number}.png", pixels)
    config = finetune_config(
        "classify", tmp_path / "run", tmp_path / "images", task_pretrain_steps=2
    )
    result = finetune(config)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    again = finetune(config.model_copy(update={"out": moved, "resume": True}))
    assert again.already_finished
    assert again.best_step == result.best_step


def test_a_network_without_a_swin_encoder_cannot(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    wish = {"model.network": "unet", "model.width": 8, "task_pretrain_steps": 2}
    with pytest.raises(SettingError, match="no Swin encoder"):
        finetune(finetune_config("segment", tmp_path / "run", discs, **wish))
