import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss
from torch.nn import functional as F

from vismae.core.types import IGNORED_LABEL
from vismae.models.segmentation_loss import (
    focal_loss,
    labels_at,
    segmentation_loss,
    soft_dice,
    soft_tversky,
)


def confident(label_map: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits that are all but certain of these labels."""
    return 100.0 * F.one_hot(label_map.clamp(min=0), classes).permute(0, 3, 1, 2).float()


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels in which every class is present."""
    label_map = torch.randint(0, 3, (2, 9, 7))
    return torch.randn(2, 3, 9, 7), label_map


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


def test_dice_is_that_of_monai_where_all_classes_are_present():
    logits, label_map = drawn()
    settings = {"softmax": True, "to_onehot_y": True, "batch": True, "include_background": False}
    theirs = DiceLoss(**settings, smooth_nr=0.0, smooth_dr=0.0)(logits, label_map[:, None])
    torch.testing.assert_close(1 - soft_dice(logits, label_map), theirs)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7), (0.9, 0.2)])
def test_tversky_is_that_of_monai_where_all_classes_are_present(alpha: float, beta: float):
    logits, label_map = drawn()
    settings = {"softmax": True, "to_onehot_y": True, "batch": True, "include_background": False}
    reference = TverskyLoss(**settings, alpha=alpha, beta=beta, smooth_nr=0.0, smooth_dr=0.0)
    ours = 1 - soft_tversky(logits, label_map, alpha, beta)
    torch.testing.assert_close(ours, reference(logits, label_map[:, None]))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_is_that_of_monai_times_the_classes(gamma: float):
    """MONAI's mean also runs over the classes that a pixel is not of, which count 0."""
    logits, label_map = drawn()
    reference = FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True)
    theirs = 3 * reference(logits, label_map[:, None])
    torch.testing.assert_close(focal_loss(logits, label_map, gamma), theirs)


def test_focal_loss_without_focus_is_the_cross_entropy():
    logits, label_map = drawn()
    expected = F.cross_entropy(logits, label_map)
    torch.testing.assert_close(focal_loss(logits, label_map, 0.0), expected)
    torch.testing.assert_close(focal_loss(logits, label_map, 1e-9), expected)


def test_focal_and_tversky_leave_out_ignored_pixels_and_absent_classes():
    logits, label_map = drawn()
    padded_labels = F.pad(label_map, (0, 3, 0, 2), value=IGNORED_LABEL)
    padded_logits = F.pad(logits, (0, 3, 0, 2), value=9.0)
    weights = {"dice_weight": 0.0, "ce_weight": 0.0, "focal_weight": 0.5, "tversky_weight": 0.5}
    expected = segmentation_loss(logits, label_map, **weights)
    torch.testing.assert_close(segmentation_loss(padded_logits, padded_labels, **weights), expected)
    absent = torch.cat((logits, torch.full_like(logits[:, :1], -50.0)), dim=1)
    torch.testing.assert_close(segmentation_loss(absent, label_map, **weights), expected)


def test_a_pixel_that_is_certain_gives_the_focal_loss_a_finite_gradient():
    logits = torch.tensor([[100.0, -100.0]]).view(1, 2, 1, 1).requires_grad_()
    focal_loss(logits, torch.zeros(1, 1, 1, dtype=torch.long), 0.5).backward()
    assert torch.isfinite(logits.grad).all()


def test_coarser_outputs_count_half_and_are_judged_at_their_own_resolution():
    fine, label_map = drawn()
    coarse = torch.randn(2, 3, 5, 4)
    expected = segmentation_loss(fine, label_map) + 0.5 * segmentation_loss(
        coarse, labels_at(label_map, 5, 4)
    )
    torch.testing.assert_close(segmentation_loss((fine, coarse), label_map), expected / 1.5)


def test_labels_keep_their_values_at_another_resolution():
    label_map = torch.full((1, 8, 8), IGNORED_LABEL)
    label_map[:, :4] = 200
    small = labels_at(label_map, 4, 2)
    assert small[0, :2].unique().tolist() == [200]
    assert small[0, 2:].unique().tolist() == [IGNORED_LABEL]
