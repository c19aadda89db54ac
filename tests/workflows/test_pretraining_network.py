"""``vismae pretrain --method simclr``: trained, resumed exactly, continued, and a start for all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vismae.core.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from vismae.core.errors import ModelError, SettingError
from vismae.models import HybridUNet, SwinMAE, SwinSimCLR
from vismae.models.weights import load_model
from vismae.training.callbacks import ResumePoint
from vismae.workflows.evaluate import evaluate
from vismae.workflows.finetune import finetune
from vismae.workflows.plan import plan
from vismae.workflows.pretrain import pretrain
from vismae.workflows.pretraining_network import build_pretraining, start_from

MakePretrain = Callable[..., PretrainConfig]
MakeFinetune = Callable[..., FinetuneConfig]

SIMCLR = {"method": "simclr", "data.blur": 1.0, "contrastive.projection_dim": 16}


class _Killed(BaseException):
    """Ends a training as abruptly as an exception can."""


def test_a_resumed_contrastive_run_ends_with_the_very_same_weights(
    unlabelled: Path, pretrain_config: MakePretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SIMCLR, "trainer.checkpoint_every": 2, "trainer.ema_decay": 0.5}
    whole = pretrain(pretrain_config(tmp_path / "whole", unlabelled, **settings))
    before = ResumePoint.on_train_batch_end

    def end_in_step_3(self: Any, trainer: Any, *rest: Any) -> None:
        before(self, trainer, *rest)
        if trainer.global_step == 3:
            raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(ResumePoint, "on_train_batch_end", end_in_step_3)
        with pytest.raises(_Killed):
            pretrain(pretrain_config(tmp_path / "run", unlabelled, **settings))
    resumed = pretrain(pretrain_config(tmp_path / "run", unlabelled, **settings, resume=True))
    expected = load_file(whole.model / "model.safetensors")
    found = load_file(resumed.model / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not (tmp_path / "run" / "figures" / "fill_in.png").exists()


def test_a_contrastive_model_goes_on_and_starts_any_adaptation(
    unlabelled: Path,
    discs: Path,
    pretrain_config: MakePretrain,
    finetune_config: MakeFinetune,
    tmp_path: Path,
) -> None:
    still = {"optimizer.lr": 1e-12, "trainer.max_steps": 1}
    first = pretrain(pretrain_config(tmp_path / "first", unlabelled, **SIMCLR, **still))
    source = load_model(first.model)
    assert isinstance(source, SwinSimCLR)
    assert source.card is not None
    assert source.card.training["pretrain"].images == 12
    more = {**SIMCLR, **still, "init": first.model}
    again = load_model(pretrain(pretrain_config(tmp_path / "on", unlabelled, **more)).model)
    assert torch.allclose(
        again.state_dict()["projection.0.weight"], source.state_dict()["projection.0.weight"]
    )
    start = {**still, "init": first.model, "model.network": "hybrid"}
    network = load_model(finetune(finetune_config("segment", tmp_path / "f", discs, **start)).model)
    assert isinstance(network, HybridUNet)
    images = torch.randn(1, 1, 32, 32)
    assert torch.allclose(network.encoder(images).tokens, source.encoder(images).tokens, atol=1e-5)


def test_a_contrastive_model_has_nothing_to_evaluate(
    unlabelled: Path, discs: Path, pretrain_config: MakePretrain, tmp_path: Path
) -> None:
    run = pretrain(pretrain_config(tmp_path / "run", unlabelled, **SIMCLR))
    config = EvaluateConfig.model_validate(
        {"model": run.model, "out": tmp_path / "out", "data": {"sources": [discs]}}
    )
    with pytest.raises(ModelError, match="only pre-trained"):
        evaluate(config)


def test_contrast_needs_images_to_compare(
    unlabelled: Path, pretrain_config: MakePretrain, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="simclr compares images"):
        pretrain_config(tmp_path / "run", unlabelled, **SIMCLR, **{"data.batch_size": 1})


def test_a_contrastive_run_can_be_planned(
    unlabelled: Path, pretrain_config: MakePretrain, tmp_path: Path
) -> None:
    found = plan(pretrain_config(tmp_path / "run", unlabelled, **SIMCLR))
    assert found.flops_per_image > 0
    assert found.images_per_second > 0


@pytest.mark.parametrize(
    ("normalised", "said"), [(True, "the same task goes on"), (False, "with other targets")]
)
def test_a_decoder_goes_on_as_the_start_s(
    unlabelled: Path, pretrain_config: MakePretrain, tmp_path: Path, normalised: bool, said: str
) -> None:
    source = SwinMAE.from_size(
        "nano",
        in_channels=1,
        decoder_kind="convolutional",
        decoder_width=24,
        decoder_branch=False,
        normalise_patches=normalised,
    )
    settings = {"model.normalise_patches": True}
    model = build_pretraining(pretrain_config(tmp_path, unlabelled, **settings), source)
    assert isinstance(model, SwinMAE)
    assert f"decoder_pred copied: {said}" in start_from(source, model)
    assert (model.decoder_width, model.decoder_branch) == (24, False)
