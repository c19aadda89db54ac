from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vismae.core.errors import ModelError, SettingError
from vismae.models import SwinClassifier, SwinConfig, SwinMAE, SwinUNet, transfer
from vismae.models.masking import sample_hidden
from vismae.models.swin import SwinBlock
from vismae.models.visible import visible_stages


def build(unit_px: int = 16, **changes: Any) -> SwinMAE:
    settings: dict[str, Any] = {
        "in_channels": 2,
        "embed_dim": 8,
        "depths": (2, 2, 3, 1),
        "num_heads": (2, 2, 4, 4),
        "window_size": 3,
        "drop_path": 0.0,
    }
    config = SwinConfig(**settings | changes)
    mae = SwinMAE(config, mask_unit_px=unit_px, encoder_input="visible").double()
    with torch.no_grad():
        for parameter in mae.parameters():  # far from the start, where much is nearly 0
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mae


def pairs(block: SwinBlock, height: int, width: int) -> tuple[Tensor, Tensor]:
    """For all pairs of tokens: are they in one window, and what is added to their logit."""
    window, shift = block.window_and_shift(height, width)
    bias, together = [], []
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    padded = torch.tensor([height + -height % window, width + -width % window])
    rolled = (place - shift) % padded
    together = (rolled[:, None] // window == rolled[None] // window).all(-1)
    offset = (rolled[:, None] - rolled[None]).clamp(1 - window, window - 1) + window - 1
    middle = block.window_size - window  # a smaller window uses the middle of the table
    index = (offset[..., 0] + middle) * (2 * block.window_size - 1) + offset[..., 1] + middle
    bias = block.attn.relative_position_bias_table[index].permute(2, 0, 1)
    if shift:
        region = (rolled >= padded - window).long() + (rolled >= padded - shift).long()
        bias = bias - 100.0 * (region[:, None] != region[None]).any(-1)
    return together, bias


def restricted(block: SwinBlock, x: Tensor, visible: Tensor) -> Tensor:
    """A block over the whole grid in which nobody looks at a hidden token."""
    batch, height, width, channels = x.shape
    attention = block.attn
    together, bias = pairs(block, height, width)
    qkv = attention.qkv(block.norm1(x)).view(batch, height * width, 3, attention.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    logits = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5 + bias
    seen = together & visible.flatten(1)[:, None, None, :]
    seen = seen | torch.eye(height * width, dtype=torch.bool)  # hidden tokens see themselves
    out = logits.masked_fill(~seen, -torch.inf).softmax(-1) @ value
    x = x + attention.proj(out.transpose(1, 2).reshape(batch, height, width, channels))
    return x + block.mlp(block.norm2(x))


def plain_latent(mae: SwinMAE, images: Tensor, hidden: Tensor) -> Tensor:
    """The encoder of visible tokens as a dense formulation."""
    x = mae.encoder.embed(images)
    visible = ~hidden.view(x.shape[:3])
    stages = visible_stages(mae.mask_unit_px // mae.config.patch_size, len(mae.encoder.layers))
    for number, stage in enumerate(mae.encoder.layers):
        for block in stage.blocks:  # pyright: ignore[reportGeneralTypeIssues]
            x = restricted(block, x, visible) if number < stages else block(x)
        if number == stages - 1:
            x = torch.where(visible[..., None], x, mae.mask_token[:, None])
        if stage.downsample is not None:
            x = stage.downsample(x)  # pyright: ignore[reportCallIssue]
            visible = visible[:, ::2, ::2]
    return x


@pytest.mark.parametrize(
    ("unit_px", "size", "changes"),
    [
        (16, (64, 64), {}),
        (16, (48, 80), {}),  # windows of 3 over 12 × 20, 6 × 10 and 3 × 5 tokens: padded
        (16, (64, 96), {"window_size": 4, "shift_single_window": False}),
        (8, (32, 48), {"window_size": 4}),  # two visible stages, two dense ones
        (12, (48, 36), {}),  # an odd unit: one visible stage
        (24, (48, 72), {}),
        (32, (96, 64), {"window_size": 7}),  # all stages visible
        (16, (64, 64), {"depths": (1, 2, 2), "num_heads": (2, 2, 4)}),
    ],
)
def test_equals_dense_attention_restricted_to_visible_tokens(
    unit_px: int, size: tuple[int, int], changes: dict[str, Any]
):
    mae = build(unit_px, **changes)
    images = torch.randn(3, 2, *size, dtype=torch.float64)
    grid = mae.config.patch_grid(*size)
    hidden = sample_hidden(torch.arange(3), grid, unit_px // 4, 0.6)
    latent = mae.forward_features(images, hidden)
    weights = torch.randn_like(latent)
    gradients = []
    for computed in (latent, plain_latent(mae, images, hidden)):
        torch.testing.assert_close(computed, latent, atol=1e-9, rtol=1e-9)
        mae.zero_grad()
        (computed * weights).sum().backward()
        parameters = [*mae.encoder.parameters(), mae.mask_token]
        gradients.append([parameter.grad for parameter in parameters])
    assert all(gradient is not None for gradient in gradients[0])
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-9, rtol=1e-9)


def test_prediction_and_training_take_different_paths_to_the_same_numbers():
    mae = build()
    images, keys = torch.randn(2, 2, 64, 48, dtype=torch.float64), torch.arange(2)
    learning = mae(images, keys=keys)
    with torch.no_grad():
        looking = mae(images, keys=keys)
    torch.testing.assert_close(looking.loss, learning.loss, atol=1e-12, rtol=1e-12)


def test_known_count_and_counted_units_give_the_same():
    mae = build()
    images = torch.randn(2, 2, 64, 64, dtype=torch.float64)
    output = mae(images, keys=torch.arange(2))
    assert torch.equal(mae(images, hidden=output.hidden).prediction, output.prediction)


def test_hidden_pixels_are_never_read():
    mae = build()
    images = torch.randn(1, 2, 64, 64, dtype=torch.float64)
    hidden = mae(images, keys=torch.tensor([3])).hidden
    pixels = hidden.view(16, 16).repeat_interleave(4, 0).repeat_interleave(4, 1)
    changed = images.masked_fill(pixels, torch.nan)
    assert torch.equal(mae.forward_features(images, hidden), mae.forward_features(changed, hidden))


def test_forward_never_waits_for_a_value():
    # Tensors on the meta device have shapes but no values.
    mae = build().float().to("meta")
    output = mae(torch.empty(2, 2, 64, 48, device="meta"))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in mae.parameters())


@pytest.mark.parametrize("build_target", [SwinUNet, SwinClassifier])
def test_encoder_moves_to_other_models_as_from_a_dense_one(
    build_target: Callable[[SwinConfig, int], SwinUNet | SwinClassifier],
):
    mae = build().float()
    target = build_target(mae.config, 3)
    transfer(mae, target, parts=("encoder",))
    images = torch.randn(1, 2, 64, 64)
    torch.testing.assert_close(target.encoder(images).tokens, mae.encoder(images).tokens)


@pytest.mark.parametrize(
    ("unit", "stages", "expected"), [(4, 4, 3), (4, 3, 3), (1, 4, 1), (6, 4, 2), (8, 4, 4)]
)
def test_stages_stay_visible_while_units_are_whole_tokens(unit: int, stages: int, expected: int):
    assert visible_stages(unit, stages) == expected


def test_uneven_images_and_hidden_patches_are_errors():
    mae = build()
    images = torch.zeros(2, 2, 64, 64, dtype=torch.float64)
    hidden = sample_hidden(torch.arange(2), (16, 16), 4, 0.5)
    with pytest.raises(SettingError, match="40 × 64 pixels, no whole number of mask units of 16"):
        mae(images[:, :, :40])
    ragged = hidden.clone()
    ragged[0, 0] = ~ragged[0, 0]
    with pytest.raises(ModelError, match="parts of others"):
        mae(images, hidden=ragged)
    hidden[1] = sample_hidden(torch.arange(1), (16, 16), 4, 0.25)[0]
    with pytest.raises(ModelError, match=r"\[8, 12\] mask units"):
        mae(images, hidden=hidden)
    with pytest.raises(SettingError, match=r"All mask units of the images \(4 × 4\) are hidden"):
        mae(images, hidden=torch.ones_like(hidden))
    with pytest.raises(SettingError, match="Did you mean visible"):
        SwinMAE(mae.config, encoder_input="visable")
