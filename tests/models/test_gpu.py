"""Checks that need a CUDA device."""

import pytest
import torch

from vismae.models import SwinMAE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("encoder_input", ["dense", "visible"])
def test_a_training_step_never_waits_for_the_device(encoder_input: str) -> None:
    model = SwinMAE.from_size("nano", in_channels=1, encoder_input=encoder_input).cuda()
    images, keys = torch.randn(4, 1, 64, 64, device="cuda"), torch.arange(4, device="cuda")
    model(images, keys=keys).loss.backward()  # what is cached once may wait once
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(images, keys=keys).loss
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


def test_hidden_patches_are_the_same_as_on_the_cpu() -> None:
    model = SwinMAE.from_size("nano", in_channels=1).eval()
    images, keys = torch.randn(3, 1, 48, 64), torch.arange(3)
    on_cpu = model(images, keys=keys).hidden
    on_gpu = model.cuda()(images.cuda(), keys=keys.cuda()).hidden
    assert torch.equal(on_cpu, on_gpu.cpu())
