"""What is made again for the backward pass: the same gradients to the bit, and less is kept."""

import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vismae.models import SwinMAE, made_again, swin, visible
from vismae.models.made_again import keeping_all


def gradients(encoder_input: str, bf16: bool, checkpointing: bool = False) -> list[Tensor]:
    torch.manual_seed(0)
    model = SwinMAE.from_size(
        "nano", in_channels=1, mask_unit_px=8, encoder_input=encoder_input, drop_path=0.1
    )
    model.set_checkpointing(checkpointing)
    images = torch.randn(3, 1, 64, 64)
    torch.manual_seed(1)  # of drop path
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(images, keys=torch.arange(3)).loss
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("encoder_input", ["dense", "visible"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_the_same_to_the_bit(
    encoder_input: str, bf16: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = gradients(encoder_input, bf16, checkpointing)
    for module in (swin, visible):
        monkeypatch.setattr(module, "made_again", lambda *_: nullcontext())
    expected = gradients(encoder_input, bf16)
    assert len(found) == len(expected) > 20
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


class Counted:
    """A GELU that counts its calls."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return F.gelu(self.x)


def product(x: Tensor, weight: Tensor) -> tuple[Tensor, Counted, "weakref.ref[Tensor]"]:
    """Multiply a GELU by a weight; tell how it was made and whether it still lives."""
    make = Counted(x)
    active = F.gelu(x)
    with made_again.made_again(active, make):
        out = F.linear(active, weight)
    return out, make, weakref.ref(active)


def test_the_result_is_freed_and_made_once_in_the_backward_pass() -> None:
    x = torch.randn(2, 5, 8)
    weight = torch.randn(3, 8, requires_grad=True)
    out, make, active = product(x, weight)
    assert active() is None
    assert make.calls == 0
    out.sum().backward()
    assert make.calls == 1
    expected = F.gelu(x).flatten(0, 1).sum(dim=0).expand(3, 8)
    torch.testing.assert_close(weight.grad, expected)


def test_nothing_is_made_again_where_all_is_kept() -> None:
    x = torch.randn(2, 5, 8)
    weight = torch.randn(3, 8, requires_grad=True)
    found: list[Counted] = []

    def run(x: Tensor) -> Tensor:
        out, make, _ = product(x, weight)
        found.append(make)
        return out

    keeping_all(run)(x).sum().backward()
    with torch.no_grad():
        run(x)
    assert [make.calls for make in found] == [0, 0]
    run(x).sum().backward()  # and afterwards as before
    assert found[-1].calls == 1


def test_an_exception_does_not_leave_all_kept() -> None:
    def fails(_: Tensor) -> Tensor:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        keeping_all(fails)(torch.zeros(1))
    out, make, _ = product(torch.randn(2, 8), torch.randn(3, 8, requires_grad=True))
    out.sum().backward()
    assert make.calls == 1
