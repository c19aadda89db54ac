"""A training step asks for no value, so that the host runs ahead of a GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from vismae.core.sections import OptimizerSettings
from vismae.models import SwinMAE
from vismae.training.callbacks import AveragedWeights
from vismae.training.modality_losses import ModalityLosses
from vismae.training.modules import Batch, PretrainModule

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


def step_of(device: str, encoder_input: str, settings: dict[str, Any]) -> Callable[[], None]:
    """All of a training step: losses by modality, gradients, clipping, optimiser, schedule."""
    model = SwinMAE.from_size("nano", in_channels=1, encoder_input=encoder_input, **settings)
    module = PretrainModule(model.to(device), OptimizerSettings(), lr=1e-3, total_steps=10)
    module.to(device).train()
    made: dict[str, Any] = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    losses = ModalityLosses()
    module.gives_image_losses = True
    host: Batch = {
        "image": torch.randn(4, 1, 64, 96),
        "key": torch.arange(4),
        "modality": torch.tensor([0, 1, 1, 2]),
    }
    batch = {name: value.to(device) for name, value in host.items()}

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = module.training_step(batch, 0)
        loss.backward()
        module.configure_gradient_clipping(optimizer, 1.0, "norm")
        assert module.last_image_losses is not None
        losses.add(batch["modality"], module.last_image_losses)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    return step


@pytest.mark.parametrize("settings", STRATEGIES, ids=lambda settings: settings["strategy"])
@pytest.mark.parametrize("encoder_input", ["dense", "visible"])
def test_a_step_asks_for_no_value(encoder_input: str, settings: dict[str, Any]) -> None:
    step = step_of("cpu", encoder_input, settings)
    step()  # what is cached once may wait once
    with NoValues():
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", STRATEGIES, ids=lambda settings: settings["strategy"])
@pytest.mark.parametrize("encoder_input", ["dense", "visible"])
def test_a_step_never_waits_for_a_gpu(encoder_input: str, settings: dict[str, Any]) -> None:
    step = step_of("cuda", encoder_input, settings)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
