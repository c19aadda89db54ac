"""The plain formulation that benchmarks compare with is the same network with the same loss."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from vismae.models import SwinConfig, SwinMAE


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "reference_recipe.py"
    spec = importlib.util.spec_from_file_location("reference_recipe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_weights_of(mae: SwinMAE, plain: nn.Module) -> nn.Module:
    weights: dict[str, Tensor] = {}
    for name, value in mae.state_dict().items():
        weights[name.removeprefix("encoder.").removeprefix("decoder.")] = value
    plain.load_state_dict(weights)
    return plain.to(mae.mask_token.dtype)


@pytest.mark.parametrize("side", [64, 112])  # grids that are padded to windows, and whole ones
def test_same_loss_and_gradients_as_ours(recipe: ModuleType, side: int):
    config = SwinConfig(
        in_channels=3, embed_dim=8, num_heads=(1, 2, 2, 4), window_size=7, drop_path=0.0
    )
    mae = SwinMAE(config).double()
    with torch.no_grad():
        for parameter in mae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    plain = with_weights_of(mae, recipe.ReferenceMAE(config))
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    output = mae(images)
    loss = plain(images, output.hidden)
    # Ours computes the loss itself in float32, whatever the network's arithmetic.
    torch.testing.assert_close(loss.float(), output.loss, atol=0.0, rtol=1e-6)
    loss.backward()
    output.loss.backward()
    ours = {
        name.removeprefix("encoder.").removeprefix("decoder."): parameter.grad
        for name, parameter in mae.named_parameters()
    }
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter.grad, ours[name], atol=1e-8, rtol=1e-5)


def test_hides_whole_units_in_the_exact_ratio_like_ours(recipe: ModuleType):
    plain = recipe.ReferenceMAE(SwinConfig(embed_dim=8, num_heads=(1, 1, 1, 1)))
    hidden = plain.choose_hidden(3, 28, torch.device("cpu"))
    units = hidden.view(3, 7, 4, 7, 4)
    assert torch.equal(units, units[:, :, :1, :, :1].expand_as(units))
    assert (hidden.sum(1) == round(0.75 * 49) * 16).all()


def test_a_step_learns(recipe: ModuleType):
    config = SwinConfig(embed_dim=8, num_heads=(1, 1, 2, 2), drop_path=0.1)
    mae = SwinMAE(config)
    step = recipe.ReferenceStep(with_weights_of(mae, recipe.ReferenceMAE(config)))
    images = torch.randn(2, 3, 32, 32)
    losses = [step(images) for _ in range(8)]
    assert losses[-1] < losses[0]
