"""A training step asks for no value, so that the host runs ahead of a GPU."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vismae.core.augment_section import AugmentSettings
from vismae.core.preprocessing import Preprocessing
from vismae.core.sections import OptimizerSettings
from vismae.core.task_section import TaskSettings
from vismae.data.augment_labelled import UNCHANGED
from vismae.models import HybridUNet, SwinClassifier, SwinMAE, SwinSimCLR
from vismae.models.backbone import config_for_size
from vismae.training.callbacks import AveragedWeights
from vismae.training.modality_losses import ModalityLosses
from vismae.training.modules import (
    Batch,
    ContrastiveModule,
    FinetuneModule,
    PretrainModule,
    TrainingModule,
    augmented,
    classification_objective,
    segmentation_objective,
)

CONTRACT = Preprocessing(image_size=(32, 48), in_channels=1)

ASKS_FOR_VALUES = {
    "_local_scalar_dense",  # .item(), float(), bool(), if
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "nonzero_numpy",
    "unique_consecutive",
    "unique_dim",
    "_unique",
    "_unique2",
}
"""Operations whose answer, or whose answer's shape, depends on values."""

STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "random"},
    {"strategy": "block", "drop_path": 0.3},
    {"strategy": "foreground", "background_weight": 0.2, "normalise_patches": True},
]


class AskedForAValueError(AssertionError):
    """The step had to wait."""


class NoValues(TorchDispatchMode):
    """Refuses operations for which the host waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_truth = any(index is not None and index.dtype == torch.bool for index in indices)
        if name in ASKS_FOR_VALUES or by_truth:
            raise AskedForAValueError(name)
        if name == "repeat_interleave" and (kwargs or {}).get("output_size") is None:
            raise AskedForAValueError(name)
        return func(*args, **(kwargs or {}))


class NoCopies(TorchFunctionMode):
    """Refuses what brings values from the host to the device and waits for it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            self._refuse(func.__name__, made)
        if func in (torch.Tensor.to, torch.Tensor.copy_, torch.Tensor.cuda):
            sources = [arg for arg in args if isinstance(arg, torch.Tensor)]
            from_host = sources[-1].device.type == "cpu"
            if from_host and not (kwargs or {}).get("non_blocking"):
                self._refuse(func.__name__, made)
        return made

    def _refuse(self, name: str, made: torch.Tensor) -> None:
        if made.device.type != "cpu":
            raise AskedForAValueError(name)


def modules() -> dict[str, Callable[[], TrainingModule]]:
    """What is trained: every kind of network, and settings that change what a step computes."""

    def masked(**settings: Any) -> Callable[[], TrainingModule]:
        checkpointing = settings.pop("checkpointing", False)

        def make() -> TrainingModule:
            model = SwinMAE.from_size("nano", in_channels=1, **settings)
            model.set_checkpointing(checkpointing)
            return PretrainModule(model, OptimizerSettings(), lr=1e-3, total_steps=10)

        return make

    def contrastive() -> TrainingModule:
        model = SwinSimCLR.from_size("nano", in_channels=1, drop_path=0.2)
        return ContrastiveModule(model, OptimizerSettings(), lr=1e-3, total_steps=10)

    def finetuned(model: Callable[[], nn.Module], loss: Any, **augment: Any) -> Any:
        prepare = augmented(CONTRACT, AugmentSettings(**augment))
        return lambda: FinetuneModule(
            loss, prepare, model(), OptimizerSettings(), lr=1e-3, total_steps=10
        )

    def segmenter() -> nn.Module:
        return HybridUNet(config_for_size("nano", in_channels=1), 3)

    def classifier() -> nn.Module:
        return SwinClassifier(config_for_size("nano", in_channels=1), 3)

    several = TaskSettings(kind="segment", focal_weight=0.3, tversky_weight=0.3)
    weighed = classification_objective(TaskSettings(kind="classify"), torch.ones(3))
    strategies = {
        f"{settings['strategy']} {encoder_input}": masked(encoder_input=encoder_input, **settings)
        for settings in STRATEGIES
        for encoder_input in ("dense", "visible")
    }
    return {
        **strategies,
        "squares": masked(normalise_patches=True, normalise_side_px=16),
        "convolutional": masked(decoder_kind="convolutional"),
        "checkpointing": masked(checkpointing=True, drop_path=0.2),
        "contrastive": contrastive,
        "segmenter": finetuned(segmenter, segmentation_objective(several)),
        "classifier": finetuned(classifier, weighed, mixup=0.4),
    }


MODULES = modules()


def step_of(device: str, module: TrainingModule) -> Callable[[], None]:
    """All of a training step: losses by modality, gradients, clipping, optimiser, schedule."""
    module.to(device).train()
    made: dict[str, Any] = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    average = AveragedWeights(module.model, 0.9)
    average.average.to(device)
    losses = ModalityLosses()
    module.gives_image_losses = True
    labels = "label_map" if getattr(module.model, "network", "") == "hybrid" else "label"
    shape = (4, 32, 48) if labels == "label_map" else (4,)
    host: Batch = {
        "image": torch.rand(4, 1, 32, 48),
        "second": torch.rand(4, 1, 32, 48),
        "key": torch.arange(4),
        "modality": torch.tensor([0, 1, 1, 2]),
        "changes": torch.tensor([UNCHANGED] * 4),
        labels: torch.ones(shape, dtype=torch.int64),
    }
    batch = {name: value.to(device) for name, value in host.items()}

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = module.training_step(batch, 0)
        loss.backward()
        module.configure_gradient_clipping(optimizer, 1.0, "norm")
        if module.last_image_losses is not None:
            losses.add(batch["modality"], module.last_image_losses)
        if device != "meta":  # has no fused optimiser, and the other one counts on the host
            optimizer.step()
            schedule.step()
        optimizer.zero_grad()
        average.update(module.model)

    return step


@pytest.mark.parametrize("name", MODULES)
def test_a_step_asks_for_no_value(name: str) -> None:
    step = step_of("cpu", MODULES[name]())
    step()  # what is cached once may wait once
    with NoValues():
        step()


@pytest.mark.parametrize("name", MODULES)
def test_a_step_on_another_device_than_the_host_takes_no_value_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tensors without values take the ways of a GPU, fused attention among them; they know no
    # autocast.
    autocast = torch.autocast

    def known(device: str, *settings: Any, **named: Any) -> AbstractContextManager[object]:
        return nullcontext() if device == "meta" else autocast(device, *settings, **named)

    monkeypatch.setattr(torch, "autocast", known)
    step = step_of("meta", MODULES[name]())
    step()
    with NoCopies():  # they refuse to be asked for values by themselves
        step()


def test_averaging_the_weights_asks_for_no_value_and_is_that_of_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    kept = AveragedWeights(model, 0.4)

    def move(own: Any, new: Any, count: Any) -> None:
        get_ema_multi_avg_fn(min(0.4, (1 + int(count)) / (10 + int(count))))(own, new, count)

    expected = AveragedModel(model, multi_avg_fn=move)
    for _ in range(8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
            model(torch.randn(5, 3))
        with NoValues():
            kept.update(model)
        expected.update_parameters(model)
    found = kept.state_dict()
    assert found.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize(
    "asking",
    [
        lambda x: float(x[0]),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.repeat_interleave(x, torch.ones(3, dtype=torch.int64)),
    ],
)
def test_asking_for_a_value_is_noticed(asking: Callable[[torch.Tensor], object]) -> None:
    with NoValues(), pytest.raises(AskedForAValueError):
        asking(torch.tensor([1.0, -1.0, 2.0]))


@pytest.mark.parametrize(
    "copying",
    [
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.copy_(torch.ones(3)),
    ],
)
def test_copying_to_a_device_is_noticed(copying: Callable[[torch.Tensor], object]) -> None:
    device = torch.empty(3, device="meta")
    with NoCopies():
        torch.ones(3).to("meta", non_blocking=True)
        with pytest.raises(AskedForAValueError):
            copying(device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MODULES)
def test_a_step_never_waits_for_a_gpu(name: str) -> None:
    step = step_of("cuda", MODULES[name]())
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
