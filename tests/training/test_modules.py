"""The losses that modules hand to the trainer are those of the models, with the task's weights."""

import torch
from torch.nn import functional

from vismae.core.sections import TaskSettings
from vismae.models import segmentation_loss
from vismae.training.modules import classification_objective, segmentation_objective


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
