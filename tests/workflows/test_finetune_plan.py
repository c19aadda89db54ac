"""``vismae finetune --plan``: what is looked at, what is written, and that a run takes it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from factories import write_png
from stores import classification_store
from vismae.core.config import FinetuneConfig
from vismae.core.errors import RunFolderError
from vismae.core.settings import build_config
from vismae.models.weights import load_model
from vismae.workflows.finetune import finetune
from vismae.workflows.finetune_plan import fingerprint_of, plan_recipe
from vismae.workflows.task_data import open_task_data

MakeConfig = Callable[..., FinetuneConfig]


def test_a_plan_is_written_and_trained_from(
    pretrained: Path, discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    asked = finetune_config("segment", tmp_path / "plan", discs, init=pretrained)
    result = plan_recipe(asked)
    assert result.path == tmp_path / "plan" / "plan.yaml"
    assert "model.network: hybrid" in result.summary()
    config = build_config(
        FinetuneConfig, "finetune", result.path, options={"out": tmp_path / "run"}
    )
    model = load_model(finetune(config).model)
    assert model.card is not None
    assert model.card.task is not None
    assert model.card.task.network == "hybrid"
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["optimizer"]["layer_decay"] == 0.85
    assert kept["data"]["image_size"] == [32, 32]


def test_the_saved_settings_are_the_chosen_ones_and_a_resume_takes_them(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    asked = finetune_config("segment", tmp_path / "run", discs)
    assert asked.optimizer.lr is None
    first = finetune(asked)
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["optimizer"]["lr"] == 1e-3
    assert finetune(asked.model_copy(update={"resume": True})).steps == first.steps
    other = finetune_config("segment", tmp_path / "run", discs, resume=True, **{"optimizer.lr": 1})
    with pytest.raises(RunFolderError, match=r"optimizer\.lr was 0\.001, now 1"):
        finetune(other)


def test_the_fingerprint_is_of_the_training_images_alone(
    finetune_config: MakeConfig, tmp_path: Path
) -> None:
    store = classification_store(tmp_path / "store", patients=12).folder
    config = finetune_config("classify", tmp_path / "run", store, label_fraction=0.5)
    data = open_task_data(config, tmp_path)
    found = fingerprint_of(config, data)
    assert found.images == len(data.train)
    assert found.validation_images == len(data.val)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert not found.colour


def test_a_class_without_a_training_image_is_named(
    finetune_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels, splits = ("bright", "dark", "left"), ("train", "train", "test", "val", "val", "test")
    store = classification_store(tmp_path / "store", labels=labels, splits=splits).folder
    with caplog.at_level("WARNING"):
        plan_recipe(finetune_config("classify", tmp_path / "plan", store))
    assert "no training image shows left, so it cannot be learnt" in caplog.text


@pytest.mark.parametrize("asked", [None, 64])
def test_thin_structures_are_looked_for_where_no_size_is_asked_for(
    asked: int | None, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    rows, columns = np.mgrid[:256, :256]
    lines = np.where((rows + columns) % 16 == 0, 255, 0).astype(np.uint8)
    for number in range(4):
        write_png(tmp_path / "d" / "images" / f"{number}.png", lines + np.uint8(number))
        write_png(tmp_path / "d" / "labels" / f"{number}.png", lines)
    size = {"data.image_size": asked}
    config = finetune_config("segment", tmp_path / "plan", tmp_path / "d", **size)

    plan = plan_recipe(config).plan

    assert plan.fingerprint.detail_side_px == (256 if asked is None else None)
    assert plan.config.data.image_size == ((256, 256) if asked is None else (64, 64))
