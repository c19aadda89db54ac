import pytest
import torch
from torch.nn import functional as F

from vismae.core.errors import ModelError, SettingError
from vismae.core.types import IGNORED_LABEL
from vismae.models.unet import SwinUNet, segmentation_loss, soft_dice


def confident(label_map: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits that are all but certain of these labels."""
    return 100.0 * F.one_hot(label_map.clamp(min=0), classes).permute(0, 3, 1, 2).float()


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


def test_soft_dice_by_hand():
    label_map = torch.tensor([[[0, 1], [1, 2]]])
    logits = torch.tensor([[[0.5, 0.2], [0.1, 0.2]], [[0.3, 0.7], [0.6, 0.2]],
                           [[0.2, 0.1], [0.3, 0.6]]]).log()[None]  # fmt: skip
    one = 2 * (0.7 + 0.6) / ((0.3 + 0.7 + 0.6 + 0.2) + 2)
    two = 2 * 0.6 / ((0.2 + 0.1 + 0.3 + 0.6) + 1)
    assert soft_dice(logits, label_map) == pytest.approx((one + two) / 2)


def test_absent_class_scores_neither_one_nor_zero():
    label_map = torch.zeros(1, 4, 4, dtype=torch.long)
    label_map[:, 2:] = 1
    for classes in (2, 5):
        assert soft_dice(confident(label_map, classes), label_map) == pytest.approx(1.0)
    wrong = confident(1 - label_map, 5)
    assert soft_dice(wrong, label_map) == pytest.approx(0.0, abs=1e-6)


def test_dice_pools_the_batch():
    label_map = torch.zeros(2, 2, 8, dtype=torch.long)
    label_map[0] = 1  # 16 pixels, found; 1 pixel in the other image, missed
    prediction = label_map.clone()
    label_map[1, 0, 0] = 1
    assert soft_dice(confident(prediction, 2), label_map) == pytest.approx(2 * 16 / (16 + 17))


def test_ignored_pixels_count_nowhere():
    label_map = torch.randint(0, 3, (2, 6, 6))
    logits = torch.randn(2, 3, 6, 6)
    padded_labels = F.pad(label_map, (0, 3, 0, 2), value=IGNORED_LABEL)
    padded_logits = F.pad(logits, (0, 3, 0, 2), value=9.0)
    expected = segmentation_loss(logits, label_map)
    torch.testing.assert_close(segmentation_loss(padded_logits, padded_labels), expected)


def test_loss_without_foreground_is_the_weighted_cross_entropy():
    logits, label_map = torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    expected = 0.4 * F.cross_entropy(logits, label_map)
    torch.testing.assert_close(segmentation_loss(logits, label_map), expected)
    assert segmentation_loss(logits, torch.full_like(label_map, IGNORED_LABEL)) == 0.0


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
