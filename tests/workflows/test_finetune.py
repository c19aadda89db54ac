"""Fine-tuning end to end: it learns, starts where it is told to, and resumes exactly."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vismae.workflows.finetune as workflow
from stores import classification_store, segmentation_store
from vismae.core.config import FinetuneConfig
from vismae.core.errors import ModelError, PreprocessingError, SettingError
from vismae.models import SwinClassifier, SwinMAE, SwinUNet, save_reference_checkpoint
from vismae.models.weights import load_model
from vismae.training.callbacks import ResumePoint
from vismae.workflows.finetune import finetune

MakeConfig = Callable[..., FinetuneConfig]

NO_CHANGES = {
    "augment.probability": 0.0,
    "augment.intensity_probability": 0.0,
    "model.drop_path": 0.0,
}
FAST = {**NO_CHANGES, "optimizer.lr": 3e-3, "data.batch_size": 8}
STILL = {"optimizer.lr": 1e-12, "trainer.max_steps": 1}


def test_it_learns_to_find_a_bright_disc(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    steps = {"trainer.max_steps": 40, "trainer.validate_every": 20}
    result = finetune(finetune_config("segment", tmp_path / "run", discs, **FAST, **steps))
    assert result.metric == "mean Dice"
    assert result.validation > 0.85
    assert "best at step" in result.summary()


def test_it_learns_to_tell_bright_from_dark(
    shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    steps = {"trainer.max_steps": 20, "trainer.validate_every": 10}
    result = finetune(finetune_config("classify", tmp_path / "run", shades, **FAST, **steps))
    assert result.metric == "balanced accuracy"
    assert result.validation == 1.0
    card = load_model(result.model).card
    assert card is not None
    assert card.task is not None
    assert card.task.thresholds is not None
    assert len(card.task.thresholds) == 2


def test_it_learns_several_classes_of_one_image(
    finetune_config: MakeConfig, tmp_path: Path
) -> None:
    labels = ("bright|left", "left", "bright", None)
    store = classification_store(tmp_path / "store", patients=24, labels=labels).folder
    settings = {"task.multi_label": True, "trainer.max_steps": 40, "trainer.validate_every": 20}
    result = finetune(finetune_config("classify", tmp_path / "run", store, **FAST, **settings))
    assert result.validation > 0.9
    assert result.metric == "mean AUROC"
    card = load_model(result.model).card
    assert card is not None
    assert card.task is not None
    assert (card.task.classes, card.task.multi_label) == (("bright", "left"), True)


def test_fewer_images_than_a_batch_are_enough(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {"label_fraction": 0.01, "data.batch_size": 16, "trainer.max_epochs": 20}
    result = finetune(finetune_config("segment", tmp_path / "run", discs, **settings))
    assert result.steps == 2  # 20 epochs of 2 images
    assert (tmp_path / "run" / "training_patients.csv").read_text().count("patient0") == 1


def test_a_run_leaves_one_model_and_its_record(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = {"trainer.max_steps": 5, "trainer.validate_every": 2, "trainer.log_every": 3}
    result = finetune(finetune_config("segment", out, discs, **settings))
    assert result.model == out / "model"
    assert [p.parent for p in out.rglob("model.safetensors")] == [out / "model"]
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # The end of the run is validated too.
    validated = [int(row["step"]) for row in rows if row["validation mean Dice"]]
    assert validated == [2, 4, 5]
    assert [int(row["step"]) for row in rows if row["loss"]] == [3, 5]
    card = load_model(result.model).card
    assert card is not None
    assert card.training["finetune"].patients == 8
    assert card.provenance["best_step"] == result.best_step


def test_a_finished_run_is_left_as_it_is(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = finetune(finetune_config("segment", out, discs))
    before = (out / "model" / "model.safetensors").stat().st_mtime_ns
    again = finetune(finetune_config("segment", out, discs, resume=True))
    assert again.already_finished
    assert (again.best_step, again.validation) == (first.best_step, first.validation)
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == before


class _Killed(BaseException):
    """Ends a training as abruptly as an exception can."""


def test_a_resumed_run_ends_with_the_very_weights_of_an_uninterrupted_one(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "trainer.max_steps": 6,
        "trainer.accumulate": 2,
        "trainer.validate_every": 2,
        "trainer.checkpoint_every": 3,
        "trainer.ema_decay": 0.5,
        "model.drop_path": 0.3,
        "optimizer.layer_decay": 0.7,
    }
    whole = finetune(finetune_config("segment", tmp_path / "whole", discs, **settings))
    before = ResumePoint.on_train_batch_end

    def end_in_step_5(self: Any, trainer: Any, *rest: Any) -> None:
        before(self, trainer, *rest)
        if trainer.global_step == 4:
            raise _Killed

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(ResumePoint, "on_train_batch_end", end_in_step_5)
        with pytest.raises(_Killed):
            finetune(finetune_config("segment", out, discs, **settings))
    resumed = finetune(finetune_config("segment", out, discs, **settings, resume=True))
    assert (resumed.best_step, resumed.validation) == (whole.best_step, whole.validation)
    expected = load_file(whole.model / "model.safetensors")
    found = load_file(resumed.model / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    tables = [
        [
            (row["step"], row["loss"], row["validation mean Dice"])
            for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())
        ]
        for run in (tmp_path / "whole", out)
    ]
    assert tables[0] == tables[1]


def same(part: str, one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first = {name: p for name, p in one.named_parameters() if name.startswith(part)}
    second = dict(other.named_parameters())
    assert first
    return all(torch.allclose(p, second[name], atol=1e-6) for name, p in first.items())


def test_a_segmenter_takes_encoder_and_decoder_and_a_classifier_the_encoder(
    pretrained: Path, discs: Path, shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    source = load_model(pretrained)
    start = {**STILL, "init": pretrained}
    paper = {**start, "model.network": "swin_unet"}
    unet = load_model(finetune(finetune_config("segment", tmp_path / "a", discs, **paper)).model)
    assert same("encoder.", source, unet)
    assert same("decoder.", source, unet)
    assert unet.card is not None
    assert source.card is not None
    assert unet.card.training["pretrain"] == source.card.training["pretrain"]
    assert "decoder" in unet.card.provenance["transfer"]
    assert (tmp_path / "a" / "figures" / "pretraining_fill_in.png").is_file()
    kept = json.loads((tmp_path / "a" / "transfer.json").read_text())
    assert kept["audit"]["encoder_arrived"] == 1.0
    assert kept["audit"]["feature_difference"] < 1e-4
    assert kept["preprocessing"]["start"]["mean"] == kept["preprocessing"]["run"]["mean"]
    fresh = {**paper, "model.decoder": "scratch"}
    unet = load_model(finetune(finetune_config("segment", tmp_path / "b", discs, **fresh)).model)
    assert same("encoder.", source, unet)
    assert not same("decoder.", source, unet)
    classifier = finetune(finetune_config("classify", tmp_path / "c", shades, **start)).model
    assert same("encoder.", source, load_model(classifier))


def test_the_head_starts_at_the_shares_of_the_classes(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    paper = {**STILL, "model.network": "swin_unet"}
    model = load_model(finetune(finetune_config("segment", tmp_path / "a", discs, **paper)).model)
    assert isinstance(model, SwinUNet)
    shares = model.head.bias.detach().exp()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-4)
    assert 0.05 < float(shares[1]) < 0.25


def test_a_linear_probe_leaves_the_encoder_as_it_was(
    pretrained: Path, shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    probe = {"init": pretrained, "model.train": "head", "optimizer.lr": 0.01}
    steps = {"trainer.max_steps": 30, "trainer.validate_every": 10, "model.drop_path": 0.5}
    result = finetune(finetune_config("classify", tmp_path / "run", shades, **probe, **steps))
    source, model = load_model(pretrained), load_model(result.model)
    for name, value in source.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(model.state_dict()[name], value), name
    assert isinstance(model, SwinClassifier)
    assert model.config.drop_path == 0
    assert result.validation > 0.5


def test_official_and_plain_checkpoints_are_starts_too(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    source = SwinMAE.from_size("nano", in_channels=3)
    save_reference_checkpoint(source, tmp_path / "mae.pth")
    save_file(dict(source.state_dict()), tmp_path / "mae.safetensors")
    for name in ("mae.pth", "mae.safetensors"):
        settings = {**STILL, "init": tmp_path / name, "model.network": "swin_unet"}
        result = finetune(finetune_config("segment", tmp_path / f"run {name}", discs, **settings))
        model = load_model(result.model)
        assert same("encoder.", source, model)
        assert same("decoder.", source, model)
        assert model.preprocessing is not None
        assert model.preprocessing.in_channels == 3
        # Only the official file says how its images were prepared.
        assert model.preprocessing.fit == ("stretch" if name.endswith(".pth") else "pad")


def test_a_start_with_three_channels_serves_a_task_with_one(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    source = SwinMAE.from_size("nano", in_channels=3)
    save_reference_checkpoint(source, tmp_path / "mae.pth")
    settings = {**STILL, "init": tmp_path / "mae.pth", "model.in_channels": 1}
    result = finetune(finetune_config("segment", tmp_path / "run", discs, **settings))
    stem = load_model(result.model).state_dict()["encoder.patch_embed.proj.weight"]
    expected = source.state_dict()["encoder.patch_embed.proj.weight"].sum(1, keepdim=True)
    assert torch.allclose(stem, expected, atol=1e-6)
    assert "summed over 3 image channels" in (tmp_path / "run" / "log.txt").read_text()


def test_images_prepared_in_another_way_are_refused_by_field(
    pretrained: Path, discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    wish = {"init": pretrained, "preprocessing.fit": "stretch"}
    with pytest.raises(PreprocessingError, match=r"preprocessing\.fit.*pad.*stretch"):
        finetune(finetune_config("segment", tmp_path / "run", discs, **wish))


def test_a_start_that_is_no_checkpoint_is_refused(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "notes.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"notes\.pth"):
        finetune(finetune_config("segment", tmp_path / "run", discs, init=tmp_path / "notes.pth"))


def test_sizes_that_are_not_square_work(finetune_config: MakeConfig, tmp_path: Path) -> None:
    store = segmentation_store(tmp_path / "store", patients=4, size=(30, 52)).folder
    result = finetune(
        finetune_config("segment", tmp_path / "run", store, **{"data.image_size": [32, 52]})
    )
    model = load_model(result.model)
    assert model.preprocessing is not None
    assert model.preprocessing.image_size == (32, 52)


def test_without_validation_patients_the_last_weights_are_the_model(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = workflow.open_task_data

    def without_val(*arguments: Any) -> Any:
        return replace(opened(*arguments), val=np.array([], dtype=int))

    monkeypatch.setattr(workflow, "open_task_data", without_val)
    settings = {"trainer.max_steps": 3, "trainer.validate_every": 1}
    result = finetune(finetune_config("segment", tmp_path / "run", discs, **settings))
    assert result.best_step == 3
    assert result.validation != result.validation
    assert "no validation score" in result.summary()


def test_the_average_is_what_is_validated_and_kept(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {
        "trainer.ema_decay": 0.9,
        "trainer.max_steps": 3,
        # Looked at once, at the end: of two looks the better one is kept, and which one that is
        # hangs on the processor's arithmetic.
        "trainer.validate_every": 3,
        "optimizer.lr": 0.01,
    }
    result = finetune(finetune_config("segment", tmp_path / "run", discs, **settings))
    point = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    name = "encoder.patch_embed.proj.weight"
    kept = load_file(result.model / "model.safetensors")[name]
    assert torch.equal(kept, point["callbacks"]["AveragedWeights"][f"module.{name}"])
    assert not torch.equal(kept, point["state_dict"][f"model.{name}"])


def test_mixing_and_a_waiting_encoder_go_through_a_whole_run(
    pretrained: Path, shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {
        "init": pretrained,
        "augment.mixup": 0.2,
        "optimizer.head_first_fraction": 0.5,
        "trainer.max_steps": 4,
    }
    result = finetune(finetune_config("classify", tmp_path / "run", shades, **settings))
    assert result.steps == 4


def test_a_network_without_an_encoder_has_nothing_above_it(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    for name in ("head_first_fraction", "head_lr_factor"):
        wish = {"model.network": "unet", "model.width": 8, f"optimizer.{name}": 0.5}
        with pytest.raises(SettingError, match=rf"{name} is 0\.5, but unet has no encoder"):
            finetune(finetune_config("segment", tmp_path / name, discs, **wish))


def test_continuing_from_a_fine_tuned_model_keeps_its_history(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    first = finetune(finetune_config("segment", tmp_path / "a", discs, licence="CC-BY-4.0"))
    other = segmentation_store(tmp_path / "store", patients=5, seed=9).folder
    second = finetune(finetune_config("segment", tmp_path / "b", other, init=first.model))
    before, after = load_model(first.model).card, load_model(second.model).card
    assert before is not None
    assert after is not None
    assert after.licence == "CC-BY-4.0"
    assert after.training["earlier finetune"] == before.training["finetune"]
