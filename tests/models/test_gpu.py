"""Checks that need a CUDA device."""

import pytest
import torch

from vismae.models import SwinMAE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_hidden_patches_are_the_same_as_on_the_cpu() -> None:
    model = SwinMAE.from_size("nano", in_channels=1).eval()
    images, keys = torch.randn(3, 1, 48, 64), torch.arange(3)
    on_cpu = model(images, keys=keys).hidden
    on_gpu = model.cuda()(images.cuda(), keys=keys.cuda()).hidden
    assert torch.equal(on_cpu, on_gpu.cpu())
