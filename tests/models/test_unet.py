import pytest
import torch

from vismae.core.errors import ModelError, SettingError
from vismae.models.segmentation_loss import segmentation_loss
from vismae.models.unet import SwinUNet


def test_odd_sizes_and_one_channel_work():
    unet = SwinUNet.from_size("nano", in_channels=1, num_classes=4)
    logits = unet(torch.randn(2, 1, 50, 83))
    assert logits.shape == (2, 4, 50, 83)
    segmentation_loss(logits, torch.randint(0, 4, (2, 50, 83))).backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())


def test_skips_reach_the_decoder_stage_on_the_same_grid():
    unet = SwinUNet.from_size("nano", in_channels=1, num_classes=2).eval()
    images = torch.randn(1, 1, 64, 64)
    before = unet(images)
    for layer in unet.skip_connection_layers:
        dim = layer.out_features
        layer.weight.data = torch.cat((torch.eye(dim), torch.zeros(dim, dim)), dim=1)
        layer.bias.data.zero_()
    # Now the skips are switched off, and only the deepest tokens may matter.
    tokens, skips = unet.encoder(images)
    without = unet(images)
    grids = [(skip.shape[1], skip.shape[2]) for skip in skips]
    plain = unet.final_patch_expanding(unet.decoder(tokens, grids))
    torch.testing.assert_close(without, unet.head(plain).permute(0, 3, 1, 2))
    assert not torch.allclose(before, without)


def test_head_starts_at_the_class_shares():
    unet = SwinUNet.from_size("nano", in_channels=1, num_classes=3)
    unet.head.weight.data.zero_()
    unet.set_class_shares([0.97, 0.03, 0.0])
    probabilities = unet(torch.randn(1, 1, 32, 32)).softmax(1)[0, :, 0, 0]
    assert probabilities.tolist() == pytest.approx([0.97, 0.03, 0.0001], rel=1e-3)
    with pytest.raises(ModelError, match="2 class shares for 3"):
        unet.set_class_shares([0.5, 0.5])
    with pytest.raises(ModelError, match="no bias"):
        SwinUNet.from_size("nano", num_classes=2, head_bias=False).set_class_shares([0.9, 0.1])


def test_overfits_eight_images():
    unet = SwinUNet.from_size("nano", in_channels=1, num_classes=2, drop_path=0.0)
    place = torch.arange(32)
    centres = torch.linspace(8, 24, 8)[:, None, None]
    distance = (place[None, :, None] - centres) ** 2 + (place[None, None] - 16) ** 2
    label_map = (distance < 25).long()
    images = label_map[:, None] + 0.3 * torch.randn(8, 1, 32, 32)
    unet.set_class_shares([0.93, 0.07])
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        logits = unet(images)
        segmentation_loss(logits, label_map).backward()
        optimizer.step()
    predicted = logits.argmax(1)
    dice = 2 * (predicted * label_map).sum() / (predicted.sum() + label_map.sum())
    assert dice > 0.9


def test_bfloat16_autocast_works():
    unet = SwinUNet.from_size("nano", in_channels=1, num_classes=2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = segmentation_loss(unet(torch.randn(1, 1, 32, 32)), torch.ones(1, 32, 32).long())
    assert loss.dtype == torch.float32
    loss.backward()


def test_wrong_settings_are_errors():
    with pytest.raises(ModelError, match="num_classes is 1"):
        SwinUNet.from_size("nano", num_classes=1)
    with pytest.raises(SettingError, match="Did you mean head_bias"):
        SwinUNet.from_size("nano", num_classes=2, headbias=False)


def test_convolutional_head_sees_what_lies_inside_a_patch():
    settings = {"in_channels": 1, "num_classes": 2, "head_kind": "convolutional"}
    unet = SwinUNet.from_size("nano", **settings).eval()
    torch.nn.init.zeros_(unet.final_patch_expanding.norm.weight)  # the tokens fall silent
    images = torch.randn(1, 1, 37, 50)
    before = unet(images)
    assert before.shape == (1, 2, 37, 50)
    images[0, 0, 20, 20] += 5.0
    changed = (unet(images) - before).abs().sum(dim=1)[0] > 1e-6
    assert changed[20, 20]
    unet.set_class_shares([0.9, 0.1])
    assert float(unet.head.predict.bias.detach().exp()[1]) == pytest.approx(0.1)
    with pytest.raises(ModelError, match="head_kind is 'deep'"):
        SwinUNet.from_size("nano", num_classes=2, head_kind="deep")


def test_the_linear_head_is_the_default_and_has_the_official_names():
    plain = SwinUNet.from_size("nano", num_classes=2, head_bias=False)
    assert [name for name in plain.state_dict() if name.startswith("head")] == ["head.weight"]
    assert (plain.network, plain.head_kind) == ("swin_unet", "linear")
