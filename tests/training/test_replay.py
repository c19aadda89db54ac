"""A kept step, run again, says where it first is not finite."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from vismae.core.errors import ModelError, TrainingError
from vismae.core.rundir import CHECKPOINT
from vismae.core.sections import OptimizerSettings
from vismae.models.contrastive import SwinSimCLR
from vismae.models.mae import SwinMAE
from vismae.training.modules import ContrastiveModule, PretrainModule
from vismae.training.nonfinite import FiniteLoss
from vismae.training.replay import ReplayResult, replay_step

CPU = torch.device("cpu")


def train_until_kept(
    folder: Path,
    model: SwinMAE | ContrastiveModule,
    images: torch.Tensor,
    second: torch.Tensor | None = None,
    **trainer,
) -> None:
    """Train on one batch until the guard stops it."""
    batch = {
        "image": images,
        "key": torch.arange(len(images)),
        "modality": torch.zeros(len(images), dtype=torch.int64),
        "row": 10 + torch.arange(len(images)),
    }
    if second is not None:
        batch["second"] = second
    batches: Any = [batch] * 4
    settings = OptimizerSettings(lr=1e-3, warmup_fraction=0.0)
    module = model
    if isinstance(module, SwinMAE):
        module = PretrainModule(module, settings, 1e-3, 2)
    L.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FiniteLoss(folder)],
        **trainer,
    ).fit(module, DataLoader(batches, batch_size=None))


def kept_step(folder: Path, model: SwinMAE, images: torch.Tensor, **trainer) -> ReplayResult:
    with pytest.raises(TrainingError, match="not a finite number"):
        train_until_kept(folder, model, images, **trainer)
    return replay_step(folder / "nan_step", CPU)


@pytest.fixture
def model() -> SwinMAE:
    torch.manual_seed(0)
    return SwinMAE.from_size("nano", in_channels=1, normalise_patches=False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore")
def test_a_planted_weight_is_named_and_so_is_the_first_layer_that_shows_it(
    model: SwinMAE, images: torch.Tensor, tmp_path: Path
):
    name = "decoder.layers_up.0.blocks.0.mlp.fc1"
    with torch.no_grad():
        model.get_submodule(name).weight[3, 5] = torch.nan  # pyright: ignore[reportIndexIssue]
    found = kept_step(tmp_path, model, images)
    assert found.weights == (f"{name}.weight",)
    assert found.layer == name
    assert found.layer_input_finite
    assert not found.images
    assert f"First output that is not finite: {name} (its input is finite)" in found.summary()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved", [False, True])
def test_a_resume_point_is_named_only_where_there_is_one(
    saved: bool, model: SwinMAE, images: torch.Tensor, tmp_path: Path
):
    point = tmp_path / CHECKPOINT
    if saved:
        point.parent.mkdir()
        point.touch()
    images[1, 0, 4, 4] = torch.inf
    with pytest.raises(TrainingError) as caught:
        train_until_kept(tmp_path, model, images)
    assert (str(point) in str(caught.value)) == saved
    assert ("--resume" in str(caught.value)) == saved
    assert ("There is no resume point" in str(caught.value)) != saved
    assert "lower optimizer.lr" in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_planted_pixel_is_named_by_the_row_of_its_image(
    model: SwinMAE, images: torch.Tensor, tmp_path: Path
):
    images[1, 0, 4, 4] = torch.inf
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = kept_step(tmp_path, model, images)
    assert found.images == (11,)
    assert not found.weights
    assert "images of rows 11." in found.summary()
    # The bad step has not touched the weights, neither kept nor in the model.
    kept = load_file(tmp_path / "nan_step" / "weights.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(kept[name], before[name]), name
        assert torch.equal(value, before[name]), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_overflows_under_a_finite_loss_is_named(
    clip: float | None, model: SwinMAE, images: torch.Tensor, tmp_path: Path
):
    with torch.no_grad():
        model.decoder_pred.weight.mul_(1e18)  # outputs of 1e18: squares of 1e36 are finite
        model.decoder.norm_up.weight.mul_(1e-12)
        model.decoder_pred.weight.mul_(1e12)
    found = kept_step(tmp_path, model, images, gradient_clip_val=clip)
    assert abs(found.loss) < float("inf")
    assert not found.layer
    assert found.gradient
    assert f"First gradient that is not finite: {found.gradient}." in found.summary()


@pytest.mark.filterwarnings("ignore")
def test_a_step_that_is_finite_this_time_is_said_to_be(
    model: SwinMAE, images: torch.Tensor, tmp_path: Path
):
    images[0, 0, 0, 0] = torch.nan
    kept_step(tmp_path, model, images)
    path = tmp_path / "nan_step" / "batch.safetensors"
    save_file({name: value.nan_to_num() for name, value in load_file(path).items()}, path)
    found = replay_step(tmp_path / "nan_step", CPU)
    assert found.finite
    assert "Everything is finite this time" in found.summary()


@pytest.mark.filterwarnings("ignore")
def test_a_pixel_of_the_second_view_is_named_too(images: torch.Tensor, tmp_path: Path):
    torch.manual_seed(0)
    second = images.clone()
    second[2, 0, 1, 1] = torch.nan
    module = ContrastiveModule(
        SwinSimCLR.from_size("nano", in_channels=1), OptimizerSettings(), 1e-3, 2
    )
    with pytest.raises(TrainingError, match="--replay"):
        train_until_kept(tmp_path, module, images, second=second)
    assert replay_step(tmp_path / "nan_step", CPU).images == (12,)


def test_of_several_processes_the_one_whose_loss_was_bad_is_named_and_kept(
    model: SwinMAE, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stale = tmp_path / "nan_step" / "rank_0"
    stale.mkdir(parents=True)
    monkeypatch.setattr(
        "vismae.training.nonfinite._from_all", lambda mine: [mine, (False, [70, 71])]
    )
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, op: tensor.zero_())
    # The exchanged gradient is bad here too; this process's own loss is not.
    module = PretrainModule(model, OptimizerSettings(), 1e-3, 2)
    module.last_loss, module.last_gradient_norm = torch.tensor(0.5), torch.tensor(torch.nan)
    trainer: Any = SimpleNamespace(
        accumulate_grad_batches=1, world_size=2, global_step=4, precision="32-true"
    )
    batch = {"image": images, "row": torch.tensor([1, 2, 3])}
    with pytest.raises(TrainingError, match=r"loss of step 4 in rank 1 of 2 .* rows 70, 71 of"):
        FiniteLoss(tmp_path).on_train_batch_end(trainer, module, None, batch, 0)
    assert not stale.exists()
    assert not list((tmp_path / "nan_step").glob("*"))


def test_a_folder_without_a_step_is_refused(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"step\.json is missing"):
        replay_step(tmp_path, CPU)
    (tmp_path / "step.json").write_text('{"format_version": 99}')
    with pytest.raises(TrainingError, match="no format_version 1"):
        replay_step(tmp_path, CPU)
    (tmp_path / "step.json").write_text('{"format_version": 1}')
    with pytest.raises(ModelError, match="does not exist"):
        replay_step(tmp_path, CPU)
