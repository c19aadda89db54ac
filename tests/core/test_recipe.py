"""The recipe: what is set stays, the rest follows from task and start, and the plan is YAML."""

from pathlib import Path
from typing import Any

import pytest

from vismae.core.config import FinetuneConfig
from vismae.core.errors import SettingError
from vismae.core.recipe import CHOSEN, Fingerprint, StartFacts, plan_finetuning
from vismae.core.settings import build_config, setting_names

HEART = Fingerprint(
    kind="segment",
    images=54,
    patients=3,
    validation_images=90,
    height=256,
    width=216,
    colour=False,
    modalities=("mr",),
    physical=False,
    shares={"background": 0.96, "RV": 0.01, "myocardium": 0.01, "LV": 0.02},
)
CHEST = Fingerprint(
    kind="classify",
    images=4000,
    patients=4000,
    validation_images=400,
    height=180,
    width=120,
    colour=False,
    modalities=("xr",),
    physical=False,
    shares={"normal": 0.8, "pneumonia": 0.2},
)
MAE = StartFacts("mae", "swin_mae", 1, (112, 112))


def config(kind: str, **settings: Any) -> FinetuneConfig:
    options = {"task.kind": kind, "out": "run", "data.sources": ["data"], **settings}
    return build_config(FinetuneConfig, "finetune", options=options)


def chosen(made: FinetuneConfig, name: str) -> Any:
    section, _, last = name.partition(".")
    return getattr(getattr(made, section), last)


def test_every_choice_is_a_setting_that_may_be_unset():
    assert set(CHOSEN) <= set(setting_names(FinetuneConfig))
    plain = config("classify")
    assert [name for name in CHOSEN if chosen(plain, name) is not None] == []
    assert set(plan_finetuning(plain, CHEST, None).reasons) == set(CHOSEN)


def test_segmentation_from_a_pretrained_model():
    made = plan_finetuning(config("segment", init="model"), HEART, MAE).config
    assert made.model.network == "hybrid"
    assert (made.optimizer.lr, made.optimizer.layer_decay) == (1e-3, 0.85)
    assert (made.data.image_size, made.model.in_channels) == ((112, 112), 1)
    assert made.trainer.max_steps == 2000
    assert made.augment.rotate == 30


def test_from_scratch_nothing_is_held_back_and_images_decide_the_size():
    made = plan_finetuning(config("segment"), HEART, None).config
    assert made.optimizer.layer_decay == 1
    assert made.data.image_size == (224, 224)
    made = plan_finetuning(config("classify"), CHEST, None).config
    assert made.data.image_size == (192, 192)
    assert made.optimizer.lr == 5e-4
    assert made.trainer.max_steps == 10_000
    assert made.task.class_weights == "sqrt"
    assert made.augment.rotate == 15


@pytest.mark.parametrize("start", [None, MAE])
def test_thin_structures_want_a_finer_grid_than_usual_but_no_finer_than_the_images(
    start: StartFacts | None,
):
    vessels = Fingerprint(**{**vars(HEART), "height": 584, "width": 565, "detail_side_px": 320})
    plan = plan_finetuning(config("segment"), vessels, start)
    assert plan.config.data.image_size == (320, 320)
    assert "lose more than 5% of its Dice; otherwise" in plan.reasons["data.image_size"]
    small = Fingerprint(**{**vars(vessels), "height": 100, "width": 120})
    assert plan_finetuning(config("segment"), small, start).config.data.image_size == (128, 128)
    thick = Fingerprint(**{**vars(vessels), "detail_side_px": 64})
    size = (224, 224) if start is None else start.image_size
    assert plan_finetuning(config("segment"), thick, start).config.data.image_size == size
    asked = config("segment", **{"data.image_size": 96})
    assert plan_finetuning(asked, vessels, start).config.data.image_size == (96, 96)


@pytest.mark.parametrize("network", ["swin_unet", "hybrid", "swin_unet_conv"])
def test_an_adapted_start_keeps_its_own_network(network: str):
    start = StartFacts("segmenter", network, 3, (320, 320))
    made = plan_finetuning(config("segment", init="model"), HEART, start).config
    assert made.model.network == network
    assert made.model.in_channels == 3


def test_what_is_set_stays():
    asked = {
        "model.network": "unet",
        "optimizer.lr": 0.5,
        "trainer.max_steps": 7,
        "trainer.ema_decay": None,
        "data.image_size": 64,
    }
    made = plan_finetuning(config("segment", **asked), HEART, None)
    assert made.config.model.network == "unet"
    assert made.config.optimizer.lr == 0.5
    assert (made.config.trainer.max_steps, made.config.trainer.validate_every) == (7, 7)
    assert "optimizer.lr" not in made.reasons


def test_passes_over_the_images_replace_steps():
    made = plan_finetuning(config("segment", **{"trainer.max_epochs": 3}), HEART, None).config
    assert made.trainer.max_steps is None
    assert made.trainer.validate_every is not None


@pytest.mark.parametrize("devices", [1, 4])
def test_validations_are_counted_in_steps_of_all_processes(devices: int):
    few = Fingerprint(**{**vars(HEART), "images": 16_000, "validation_images": 1})
    asked = config("segment", **{"trainer.max_epochs": 4, "trainer.devices": devices})
    made = plan_finetuning(asked, few, None).config
    assert made.trainer.validate_every == 4 * 16_000 / 16 / devices / 20


def test_validation_takes_at_most_a_tenth_of_the_time():
    made = plan_finetuning(config("segment"), HEART, None).config
    assert made.trainer.validate_every == 100
    batch = made.data.batch_size
    many = Fingerprint(**{**vars(HEART), "validation_images": 10_000})
    every = plan_finetuning(config("segment"), many, None).config.trainer.validate_every
    assert every is not None
    assert 0.11 * every * batch >= 10_000 / 3


def test_a_pretrained_classifier_learns_slower_than_a_segmenter():
    for train, lr in (("all", 3e-4), ("last_2", 3e-4), ("lora", 1e-3), ("head", 3e-3)):
        asked = config("classify", **{"init": "model", "model.train": train})
        made = plan_finetuning(asked, CHEST, MAE).config.optimizer
        assert made.lr == lr
        assert made.head_lr_factor == (10 if lr == 3e-4 else 1)
    scratch = plan_finetuning(config("classify"), CHEST, None).config.optimizer
    assert scratch.head_lr_factor == 1
    given = config("classify", init="model", **{"optimizer.lr": 1e-4})
    assert plan_finetuning(given, CHEST, MAE).config.optimizer.head_lr_factor == 1
    again = StartFacts("classifier", "swin", 1, (112, 112))
    further = plan_finetuning(config("classify", init="model"), CHEST, again).config.optimizer
    assert further.head_lr_factor == 1
    assert plan_finetuning(config("segment"), HEART, MAE).config.optimizer.head_lr_factor is None


def test_frozen_features_are_seen_place_by_place():
    made = plan_finetuning(config("classify", init="model"), CHEST, MAE).config
    assert made.model.place_grid == 0
    probe = {"init": "model", "model.train": "head"}
    assert plan_finetuning(config("classify", **probe), CHEST, MAE).config.model.place_grid == 3
    published = config("classify", **probe, **{"model.place_grid": 0})
    assert plan_finetuning(published, CHEST, MAE).config.model.place_grid == 0
    other = config("classify", **{"model.network": "resnet18"})
    assert plan_finetuning(other, CHEST, None).config.model.place_grid is None
    with pytest.raises(SettingError, match="place_grid does not go with network hybrid"):
        config("segment", **{"model.network": "hybrid", "model.place_grid": 3})


def test_even_classes_weigh_alike():
    even = Fingerprint(**{**vars(CHEST), "shares": {"a": 0.45, "b": 0.55}})
    assert plan_finetuning(config("classify"), even, None).config.task.class_weights == "none"


def test_the_plan_is_yaml_that_gives_the_same_settings_back(tmp_path: Path):
    plan = plan_finetuning(config("segment", init="model"), HEART, MAE)
    text = plan.to_yaml()
    (tmp_path / "plan.yaml").write_text(text)
    again = build_config(FinetuneConfig, "finetune", tmp_path / "plan.yaml", options={"out": "run"})
    assert again == plan.config
    assert "  network: hybrid  # Swin encoder with convolutions at full resolution" in text
    assert "# images: 54" in text
    for name, why in plan.reasons.items():
        assert f"# {why}" in text, name
