import shutil
from contextlib import nullcontext

import pytest
import torch

from vismae.core.errors import ModelError, SettingError
from vismae.models import swin, visible
from vismae.models.backbone import SwinConfig
from vismae.models.mae import DECODERS, MAEOutput, SwinMAE
from vismae.models.reconstruction import (
    patchify,
    reconstruction_loss,
    square_statistics,
    unpatchify,
)


def test_background_weighs_less_when_asked():
    mae = SwinMAE.from_size("nano", in_channels=1, background_weight=0.0, drop_path=0.0).eval()
    images = torch.zeros(1, 1, 64, 64)
    images[:, :, :16, :16] = 1.0
    output = mae(images, hidden=torch.ones(1, 256, dtype=torch.bool))
    only_body = torch.zeros(1, 16, 16, dtype=torch.bool)
    only_body[:, :4, :4] = True
    expected = reconstruction_loss(output.prediction, images, only_body.flatten(1))
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("decoder_kind", DECODERS)
@pytest.mark.parametrize("strategy", ["random", "block", "foreground"])
def test_odd_sizes_and_one_channel_work(strategy: str, decoder_kind: str):
    settings = {"strategy": strategy, "normalise_patches": True, "decoder_kind": decoder_kind}
    mae = SwinMAE.from_size("nano", in_channels=1, **settings)
    output = mae(torch.randn(2, 1, 50, 83))
    assert output.prediction.shape == (2, 13 * 21, 16)
    assert output.loss.isfinite()
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in mae.parameters())


@pytest.mark.parametrize("decoder_kind", DECODERS)
def test_hidden_pixels_cannot_be_seen(decoder_kind: str):
    mae = SwinMAE.from_size("nano", in_channels=1, decoder_kind=decoder_kind).eval()
    images = torch.randn(1, 1, 64, 64)
    output = mae(images, keys=torch.tensor([5]))
    noise = unpatchify(output.hidden[:, :, None] * torch.randn(1, 256, 16), 4, 64, 64)
    again = mae(images + noise, keys=torch.tensor([5]))
    torch.testing.assert_close(again.prediction, output.prediction)


def test_samples_are_hidden_by_key_whatever_the_batch():
    mae = SwinMAE.from_size("nano", in_channels=1)
    images = torch.randn(4, 1, 64, 64)
    keys = torch.tensor([7, 1, 9, 3])
    together = mae(images, keys=keys).hidden
    assert torch.equal(mae(images[2:3], keys=keys[2:3]).hidden[0], together[2])
    assert (together.sum(1) == 12 * 16).all()
    draws = [mae(images, generator=torch.Generator().manual_seed(2)).hidden for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("decoder_kind", DECODERS)
def test_forward_never_waits_for_a_value(decoder_kind: str):
    # Tensors on the meta device have shapes but no values: anything that would make the computer
    # wait for a GPU's answer fails there.
    settings = {"strategy": "foreground", "background_weight": 0.5, "decoder_kind": decoder_kind}
    mae = SwinMAE.from_size("nano", in_channels=1, **settings)
    output = mae.to("meta")(torch.empty(2, 1, 50, 64, device="meta"))
    output.loss.backward()
    assert output.hidden.shape == (2, 13 * 16)


def test_bfloat16_autocast_gives_nearly_the_same_loss_in_float32():
    mae = SwinMAE.from_size("nano", in_channels=1, drop_path=0.0)
    images, keys = torch.randn(4, 1, 64, 64), torch.arange(4)
    expected = mae(images, keys=keys).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = mae(images, keys=keys).loss
    assert loss.dtype == torch.float32
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0.0)


@pytest.mark.parametrize("normalise", [False, True])
def test_fill_in_shows_the_prediction_only_where_hidden(normalise: bool):
    mae = SwinMAE.from_size("nano", in_channels=1, normalise_patches=normalise, normalise_eps=1e-9)
    images = torch.randn(1, 1, 30, 45)
    target = patchify(images, 4)
    output = mae(images)
    picture = mae.fill_in(images, output)
    assert picture.shape == images.shape
    shown = patchify((picture == images).float(), 4)
    assert (
        shown[~output.hidden].sum() == (patchify(torch.ones_like(images), 4)[~output.hidden]).sum()
    )
    perfect = target
    if normalise:
        inside = target.view(1, 8, 12, 16)[:, :7, :11].flatten(1, 2)  # whole patches
        scaled = (inside - inside.mean(-1, keepdim=True)) / inside.std(-1, keepdim=True)
        perfect = torch.zeros_like(target).view(1, 8, 12, 16)
        perfect[:, :7, :11] = scaled.view(1, 7, 11, 16)
        perfect = perfect.flatten(1, 2)
    filled = mae.fill_in(images, MAEOutput(output.loss, perfect, output.hidden))
    torch.testing.assert_close(filled[:, :, :28, :44], images[:, :, :28, :44])


def test_squares_larger_than_patches_are_scaled_whole():
    settings = {"normalise_patches": True, "normalise_eps": 1e-9, "normalise_side_px": 16}
    mae = SwinMAE.from_size("nano", in_channels=1, **settings)
    images = torch.randn(2, 1, 40, 32) * 3 + 1  # the last row of squares is half outside
    output = mae(images)
    scaled = images.clone()
    for top in (0, 16, 32):
        for left in (0, 16):
            square = images[:, :, top : top + 16, left : left + 16]
            mean, spread = square.mean((2, 3), keepdim=True), square.std((2, 3), keepdim=True)
            scaled[:, :, top : top + 16, left : left + 16] = (square - mean) / spread
    perfect = patchify(scaled, 4)
    loss = (output.prediction - perfect)[output.hidden].square().mean()
    torch.testing.assert_close(output.loss, loss, rtol=1e-4, atol=0.0)
    filled = mae.fill_in(images, MAEOutput(output.loss, perfect, output.hidden))
    torch.testing.assert_close(filled, images, rtol=1e-4, atol=1e-4)


def test_a_square_larger_than_the_image_is_the_whole_image():
    images = torch.randn(2, 1, 5, 7) * 3 + 1
    mean, spread = square_statistics(images, 10**6, 1e-9)
    expected = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
    torch.testing.assert_close(mean, expected[0].expand_as(images))
    torch.testing.assert_close(spread, expected[1].expand_as(images))


@pytest.mark.parametrize("patch_size", [1, 2, 8])
def test_a_convolutional_decoder_draws_patches_of_any_size(patch_size: int):
    settings = {"patch_size": patch_size, "mask_unit_px": 8, "decoder_kind": "convolutional"}
    mae = SwinMAE.from_size("nano", in_channels=1, **settings)
    output = mae(torch.randn(1, 1, 18, 24))
    output.loss.backward()
    assert output.prediction.shape[2] == patch_size**2
    assert all(parameter.grad is not None for parameter in mae.parameters())


@pytest.mark.parametrize("decoder_kind", DECODERS)
def test_overfits_eight_images(decoder_kind: str):
    mae = SwinMAE.from_size("nano", in_channels=1, drop_path=0.0, decoder_kind=decoder_kind)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    waves = torch.linspace(0.1, 0.8, 8)[:, None, None]
    images = torch.sin(waves * rows + (1 - waves) * columns)[:, None]
    optimizer = torch.optim.AdamW(mae.parameters(), lr=2e-3)
    keys = torch.arange(8)
    first = mae(images, keys=keys).loss.item()
    for _ in range(80):
        optimizer.zero_grad()
        loss = mae(images, keys=keys).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first


def test_defaults_are_the_papers_and_unknown_settings_name_the_nearest():
    mae = SwinMAE.from_size("vismae")
    assert (mae.mask_ratio, mae.mask_unit_px, mae.config.window_size) == (0.75, 16, 7)
    assert mae.config.drop_path == 0.1
    with pytest.raises(SettingError, match="Did you mean mask_ratio"):
        SwinMAE.from_size("nano", maskratio=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_unit_px": 10}, "multiple of the patch size, 4 px"),
        ({"mask_ratio": 0.0}, "mask_ratio is 0.0"),
        ({"strategy": "grid"}, "strategy 'grid' is unknown"),
        ({"normalise_eps": 0.0}, "normalise_eps is 0.0"),
        ({"normalise_side_px": 1}, "normalise_side_px is 1"),
        ({"normalise_side_px": 16}, "normalise_patches is false"),
        ({"decoder_kind": "unet"}, "decoder_kind 'unet' is unknown"),
        ({"decoder_width": 8}, "decoder_width is 8, but a decoder of the kind 'swin'"),
        ({"decoder_branch": True}, "decoder_branch is True, but a decoder of the kind 'swin'"),
        ({"decoder_kind": "convolutional", "encoder_input": "visible"}, "Use 'dense'"),
    ],
)
def test_settings_outside_their_range_are_errors(settings: dict, message: str):
    with pytest.raises(SettingError, match=message):
        SwinMAE(SwinConfig(), **settings)


@pytest.mark.parametrize("decoder_kind", DECODERS)
def test_hidden_of_another_shape_is_an_error(decoder_kind: str):
    mae = SwinMAE.from_size("nano", in_channels=1, decoder_kind=decoder_kind)
    with pytest.raises(ModelError, match=r"1 × 64 patches"):
        mae(torch.zeros(1, 1, 32, 32), hidden=torch.ones(1, 63, dtype=torch.bool))
    with pytest.raises(ModelError, match="does not cover"):
        reconstruction_loss(torch.zeros(1, 4, 5), torch.zeros(1, 1, 4, 4), torch.ones(1, 4) > 0)


@pytest.mark.parametrize("encoder_input", ["dense", "visible"])
def test_checkpointing_gives_the_same_gradients_with_the_same_dropped_paths(
    encoder_input: str, monkeypatch: pytest.MonkeyPatch
):
    for module in (swin, visible):  # which would hide from the count what it keeps
        monkeypatch.setattr(module, "made_again", lambda *_: nullcontext())
    mae = SwinMAE.from_size("nano", in_channels=1, drop_path=0.5, encoder_input=encoder_input)
    mae.double()
    images, keys = torch.randn(3, 1, 32, 48, dtype=torch.float64), torch.arange(3)
    found = []
    for on in (False, True):
        mae.set_checkpointing(on)
        mae.zero_grad()
        torch.manual_seed(4)
        kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = mae(images, keys=keys).loss
        loss.backward()
        found.append((kept, loss, [parameter.grad for parameter in mae.parameters()]))
    (bytes_before, *before), (bytes_after, *after) = found
    torch.testing.assert_close(before, after, atol=1e-12, rtol=1e-12)
    assert bytes_after < 0.5 * bytes_before


@pytest.mark.parametrize("encoder_input", ["dense", "visible"])
def test_a_step_compiles_to_one_graph_with_the_same_numbers(encoder_input: str):
    mae = SwinMAE(
        SwinConfig(in_channels=1, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4),
        strategy="foreground",
        encoder_input=encoder_input,
    ).eval()
    # This backend takes forward and backward pass apart as the default one does, and needs no
    # C++ compiler; a break in the graph is an error.
    compiled = torch.compile(mae.forward, fullgraph=True, dynamic=False, backend="aot_eager")
    images, keys = torch.randn(2, 1, 32, 32), torch.arange(2)
    found = []
    for forward in (mae.forward, compiled):
        mae.zero_grad()
        loss = forward(images, keys=keys).loss
        loss.backward()
        found.append((loss, [parameter.grad for parameter in mae.parameters()]))
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_step_gives_the_same_numbers():
    mae = SwinMAE.from_size("nano", in_channels=1, drop_path=0.0)
    images, keys = torch.randn(2, 1, 32, 32), torch.arange(2)
    compiled = torch.compile(mae.forward, fullgraph=True, dynamic=False)
    found = []
    for forward in (mae.forward, compiled):
        mae.zero_grad()
        loss = forward(images, keys=keys).loss
        loss.backward()
        found.append((loss, [parameter.grad for parameter in mae.parameters()]))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)
