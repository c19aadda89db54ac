import pytest
import torch

from vismae.core.errors import ModelError, SettingError
from vismae.models.backbone import SwinConfig
from vismae.models.mae import MAEOutput, SwinMAE, patchify, reconstruction_loss, unpatchify


def test_patches_hold_row_column_channel_and_unpatchify_is_the_inverse():
    images = torch.arange(2 * 3 * 5 * 7.0).view(2, 3, 5, 7)
    patches = patchify(images, 2)
    assert patches.shape == (2, 3 * 4, 12)
    expected = [images[0, channel, row, 2 + column] for row in (0, 1) for column in (0, 1)
                for channel in range(3)]  # fmt: skip
    assert patches[0, 1].tolist() == [value.item() for value in expected]
    assert torch.equal(unpatchify(patches, 2, 5, 7), images)


def test_loss_counts_hidden_patches_only():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    hidden = torch.tensor([[True, False, False, True]])
    prediction = patchify(image, 2)
    prediction[0, 0] += 2.0
    prediction[0, 1] += 100.0
    assert reconstruction_loss(prediction, image, hidden) == pytest.approx((4.0 + 0.0) / 2)


def test_loss_of_scaled_patches_by_hand():
    image = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    hidden = torch.tensor([[True]])
    # mean 3, unbiased variance (4 + 1 + 0 + 9) / 3; predicting 0 leaves the scaled squares.
    expected = (14.0 / 4) / (14.0 / 3 + 0.5)
    loss = reconstruction_loss(torch.zeros(1, 1, 4), image, hidden, True, normalise_eps=0.5)
    assert loss == pytest.approx(expected)


@pytest.mark.parametrize("normalise", [False, True])
def test_padded_pixels_never_count(normalise: bool):
    image = torch.randn(1, 1, 3, 5)
    hidden = torch.ones(1, 6, dtype=torch.bool)
    prediction = torch.randn(1, 6, 4)
    changed = patchify(torch.ones(1, 1, 3, 5), 2)  # 0 where a patch is padded
    wild = prediction + 1000.0 * (1 - changed)
    losses = [reconstruction_loss(p, image, hidden, normalise) for p in (prediction, wild)]
    assert losses[0] == losses[1]
    if not normalise:
        difference = unpatchify(prediction, 2, 3, 5) - image
        assert losses[0] == pytest.approx(difference.square().mean().item(), rel=1e-5)


def test_background_weighs_less_when_asked():
    mae = SwinMAE.from_size("nano", in_channels=1, background_weight=0.0, drop_path=0.0).eval()
    images = torch.zeros(1, 1, 64, 64)
    images[:, :, :16, :16] = 1.0
    output = mae(images, hidden=torch.ones(1, 256, dtype=torch.bool))
    only_body = torch.zeros(1, 16, 16, dtype=torch.bool)
    only_body[:, :4, :4] = True
    expected = reconstruction_loss(output.prediction, images, only_body.flatten(1))
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("strategy", ["random", "block", "foreground"])
def test_odd_sizes_and_one_channel_work(strategy: str):
    mae = SwinMAE.from_size("nano", in_channels=1, strategy=strategy, normalise_patches=True)
    output = mae(torch.randn(2, 1, 50, 83))
    assert output.prediction.shape == (2, 13 * 21, 16)
    assert output.loss.isfinite()
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in mae.parameters())


def test_hidden_pixels_cannot_be_seen():
    mae = SwinMAE.from_size("nano", in_channels=1).eval()
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


def test_forward_never_waits_for_a_value():
    # Tensors on the meta device have shapes but no values: anything that would make the computer
    # wait for a GPU's answer fails there.
    mae = SwinMAE.from_size("nano", in_channels=1, strategy="foreground", background_weight=0.5)
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


def test_overfits_eight_images():
    mae = SwinMAE.from_size("nano", in_channels=1, drop_path=0.0)
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
    ],
)
def test_settings_outside_their_range_are_errors(settings: dict, message: str):
    with pytest.raises(SettingError, match=message):
        SwinMAE(SwinConfig(), **settings)


def test_hidden_of_another_shape_is_an_error():
    mae = SwinMAE.from_size("nano", in_channels=1)
    with pytest.raises(ModelError, match=r"1 × 64 patches"):
        mae(torch.zeros(1, 1, 32, 32), hidden=torch.ones(1, 63, dtype=torch.bool))
    with pytest.raises(ModelError, match="does not cover"):
        reconstruction_loss(torch.zeros(1, 4, 5), torch.zeros(1, 1, 4, 4), torch.ones(1, 4) > 0)
