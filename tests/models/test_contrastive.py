"""SimCLR: the loss is equation 1 of the paper, over one process or several, and it learns."""

import math
import tempfile
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed
from torch.nn import functional as F

from vismae.core.errors import SettingError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models import (
    HybridUNet,
    SwinClassifier,
    SwinConfig,
    SwinMAE,
    SwinSimCLR,
    architecture_of,
    load_model,
    nt_xent,
    save_model,
    transfer,
)


def by_hand(first: Tensor, second: Tensor, temperature: float) -> float:
    """Equation 1 of arXiv 2002.05709, pair by pair."""
    views = [*first, *second]
    count = len(first)
    total = 0.0
    for i, own in enumerate(views):
        similar = [float(F.cosine_similarity(own, other, dim=0)) / temperature for other in views]
        others = sum(math.exp(s) for k, s in enumerate(similar) if k != i)
        total -= math.log(math.exp(similar[(i + count) % (2 * count)]) / others)
    return total / len(views)


def test_the_loss_is_equation_1_of_the_paper():
    first, second = torch.randn(5, 7), torch.randn(5, 7)
    found = float(nt_xent(first, second, 0.3))
    assert found == pytest.approx(by_hand(first, second, 0.3), abs=1e-5)


def test_projections_that_tell_nothing_cost_the_logarithm_of_the_others():
    same = torch.ones(4, 6)
    assert float(nt_xent(same, same, 0.1)) == pytest.approx(math.log(7), abs=1e-5)


def test_the_loss_is_computed_in_float32_under_any_autocast():
    first, second = torch.randn(6, 8), torch.randn(6, 8)
    expected = nt_xent(first, second, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nt_xent(first, second, 0.05), expected)


def test_settings_out_of_range_are_refused(small: SwinConfig):
    with pytest.raises(SettingError, match="temperature 0"):
        SwinSimCLR(small, temperature=0.0)
    with pytest.raises(SettingError, match="projection_dim is 1"):
        SwinSimCLR(small, projection_dim=1)
    with pytest.raises(SettingError, match="projection_dim is 1000000000"):
        SwinSimCLR(small, projection_dim=10**9)


def test_it_learns_to_find_the_partner_of_each_view(small: SwinConfig):
    torch.manual_seed(0)
    model = SwinSimCLR(small, projection_dim=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images = torch.rand(8, small.in_channels, 16, 16)
    losses = []
    for _ in range(40):
        loss = model.loss(images, (images + 0.1 * torch.randn_like(images)).flip(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 2.0
    assert losses[-1] < losses[0] / 2


def test_a_model_folder_gives_it_back_and_any_network_takes_its_encoder(
    small: SwinConfig, tmp_path: Path
):
    model = SwinSimCLR(small, projection_dim=16, temperature=0.2).eval()
    preprocessing = Preprocessing(image_size=(16, 16), in_channels=small.in_channels)
    card = ModelCard(
        kind="contrastive", architecture=architecture_of(model), preprocessing=preprocessing
    )
    save_model(model, card, tmp_path / "model")
    again = load_model(tmp_path / "model")
    images = torch.randn(2, small.in_channels, 16, 16)
    assert isinstance(again, SwinSimCLR)
    assert torch.equal(again(images), model(images))
    assert again.temperature == 0.2
    for target in (SwinMAE(small), HybridUNet(small, 2), SwinClassifier(small, 3)):
        transfer(again, target)
        target.eval()
        found = target.encoder(images).tokens
        assert torch.allclose(found, model.encoder(images).tokens, atol=1e-6)


def _rank(rank: int, folder: str, first: Tensor, second: Tensor) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    own = slice(3 * rank, 3 * rank + 3)
    weight = torch.eye(4).requires_grad_()
    loss = nt_xent(first[own] @ weight, second[own] @ weight, 0.2)
    loss.backward()
    assert weight.grad is not None
    both = torch.cat([loss.detach()[None], weight.grad.flatten()])
    distributed.all_reduce(both)
    if rank == 0:
        torch.save(both / 2, f"{folder}/found.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradient_of_one():
    first, second = torch.randn(6, 4), torch.randn(6, 4)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (folder, first, second), nprocs=2)
        found = torch.load(f"{folder}/found.pt", weights_only=True)
    weight = torch.eye(4).requires_grad_()
    loss = nt_xent(first @ weight, second @ weight, 0.2)
    loss.backward()
    assert weight.grad is not None
    expected = torch.cat([loss.detach()[None], weight.grad.flatten()])
    assert torch.allclose(found, expected, atol=1e-6)
