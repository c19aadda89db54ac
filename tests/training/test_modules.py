"""The losses that modules hand to the trainer are those of the models, with the task's weights."""

import torch
from torch.nn import functional

from vismae.core.augment_section import AugmentSettings
from vismae.core.preprocessing import Preprocessing
from vismae.core.task_section import TaskSettings
from vismae.data.augment_labelled import UNCHANGED
from vismae.models import segmentation_loss
from vismae.training.modules import augmented, classification_objective, segmentation_objective


def test_segmentation_weighs_dice_and_cross_entropy_as_set():
    logits = torch.randn(2, 3, 4, 4)
    label_map = torch.randint(0, 3, (2, 4, 4))
    task = TaskSettings(kind="segment", dice_weight=0.0, cross_entropy_weight=2.0)
    found = segmentation_objective(task)(logits, {"label_map": label_map})
    assert torch.allclose(found, 2 * functional.cross_entropy(logits, label_map))
    usual = segmentation_objective(TaskSettings(kind="segment"))(logits, {"label_map": label_map})
    assert torch.allclose(usual, segmentation_loss(logits, label_map))


def test_classification_weighs_rare_classes_more():
    logits = torch.zeros(3, 2)
    logits[0, 0] = 2.0
    labels = torch.tensor([0, 0, 1])
    task = TaskSettings(kind="classify")
    weights = torch.tensor([0.5, 2.0])
    found = classification_objective(task, weights)(logits, {"label": labels})
    assert torch.allclose(found, functional.cross_entropy(logits, labels, weight=weights))


def test_several_labels_are_yes_or_no_questions():
    logits = torch.randn(3, 2)
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    task = TaskSettings(kind="classify", multi_label=True)
    found = classification_objective(task, None)(logits, {"label": labels})
    assert torch.allclose(found, functional.binary_cross_entropy_with_logits(logits, labels))


def test_a_batch_is_changed_then_normalised_and_mixed_only_where_asked():
    contract = Preprocessing(image_size=(8, 8), in_channels=1, mean=0.5, std=0.25)
    batch = {
        "image": torch.rand(4, 1, 8, 8),
        "label": torch.tensor([0, 1, 2, 3]),
        "changes": torch.tensor(UNCHANGED).repeat(4, 1),
    }
    plain = augmented(contract, AugmentSettings())(batch)
    assert torch.allclose(plain["image"], (batch["image"] - 0.5) / 0.25, atol=1e-5)
    assert "share" not in plain
    torch.manual_seed(0)
    both = augmented(contract, AugmentSettings(mixup=0.4))(batch)
    share, other = both["share"], both["mixed_label"]
    expected = share * plain["image"] + (1 - share) * plain["image"][other]
    assert torch.allclose(both["image"], expected, atol=1e-5)


def test_a_mixed_batch_is_judged_by_both_labels():
    logits = torch.randn(3, 3)
    labels, other = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    batch = {"label": labels, "mixed_label": other, "share": torch.tensor(0.7)}
    found = classification_objective(TaskSettings(kind="classify"), None)(logits, batch)
    targets = 0.7 * functional.one_hot(labels, 3) + 0.3 * functional.one_hot(other, 3)
    assert torch.allclose(found, functional.cross_entropy(logits, targets))
