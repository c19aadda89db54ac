import pytest
import torch
from torch.nn import functional as F

from vismae.core.errors import ModelError
from vismae.models.classifier import SwinClassifier, classification_loss


def test_odd_sizes_and_one_channel_work():
    classifier = SwinClassifier.from_size("nano", in_channels=1, num_classes=3, dropout=0.2)
    images = torch.randn(2, 1, 50, 83)
    assert classifier.features(images).shape == (2, 128)
    classification_loss(classifier(images), torch.tensor([0, 2])).backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())


def test_evaluation_is_repeatable_and_training_drops():
    classifier = SwinClassifier.from_size("nano", in_channels=1, num_classes=3, dropout=0.5)
    images = torch.randn(2, 1, 32, 32)
    assert not torch.equal(classifier(images), classifier(images))
    classifier.eval()
    assert torch.equal(classifier(images), classifier(images))


def test_places_tell_nothing_at_first_and_can_be_told_apart_later():
    torch.manual_seed(0)
    published = SwinClassifier.from_size("nano", in_channels=1, num_classes=2)
    torch.manual_seed(0)
    placed = SwinClassifier.from_size("nano", in_channels=1, num_classes=2, place_grid=3)
    images = torch.rand(2, 1, 50, 83)
    assert torch.equal(published.eval()(images), placed.eval()(images))
    # Bright to the left against bright to the right, seen by features that are the same for both.
    side = torch.zeros(1, 1, 64, 64)
    side[..., :32] = 1.0
    both = torch.cat([side, side.flip(3)])
    placed.encoder.requires_grad_(False)
    placed.norm.requires_grad_(False)
    optimizer = torch.optim.AdamW(placed.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        classification_loss(placed(both), torch.arange(2)).backward()
        optimizer.step()
    assert placed(both).argmax(dim=1).tolist() == [0, 1]
    assert placed.place_head is not None
    assert placed.place_head.weight.abs().sum() > 0


def test_single_label_loss_is_cross_entropy():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 1])
    weights = torch.tensor([1.0, 2.0, 3.0])
    picked = logits.log_softmax(1)[torch.arange(5), labels]
    expected = -(picked * weights[labels]).sum() / weights[labels].sum()
    torch.testing.assert_close(classification_loss(logits, labels, weights), expected)


def test_multi_label_loss_asks_each_class_by_itself():
    logits = torch.tensor([[0.0, 2.0]])
    labels = torch.tensor([[1.0, 0.0]])
    yes, no = -F.logsigmoid(torch.tensor(0.0)), -F.logsigmoid(torch.tensor(-2.0))
    loss = classification_loss(logits, labels, multi_label=True)
    torch.testing.assert_close(loss, (yes + no) / 2)
    weighted = classification_loss(logits, labels, torch.tensor([3.0, 1.0]), multi_label=True)
    torch.testing.assert_close(weighted, (3 * yes + no) / 2)
    # A negative answer keeps its weight, or a rare class would only be made more important.
    absent = classification_loss(logits, 0 * labels, torch.tensor([3.0, 1.0]), multi_label=True)
    torch.testing.assert_close(absent, classification_loss(logits, 0 * labels, multi_label=True))
    smooth = classification_loss(logits, labels, multi_label=True, label_smoothing=1.0)
    half = classification_loss(logits, torch.full((1, 2), 0.5), multi_label=True)
    torch.testing.assert_close(smooth, half)


def test_labels_of_the_other_kind_are_an_error():
    with pytest.raises(ModelError, match=r"\(4, 3\), expected \(4,\)"):
        classification_loss(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(ModelError, match=r"\(4,\), expected \(4, 3\)"):
        classification_loss(torch.zeros(4, 3), torch.zeros(4).long(), multi_label=True)


def test_overfits_eight_images():
    classifier = SwinClassifier.from_size("nano", in_channels=1, num_classes=2, drop_path=0.0)
    images, labels = torch.randn(8, 1, 32, 32), torch.arange(8) % 2
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        logits = classifier(images)
        classification_loss(logits, labels).backward()
        optimizer.step()
    assert (logits.argmax(1) == labels).all()


def test_wrong_settings_are_errors():
    with pytest.raises(ModelError, match=r"dropout 1.0"):
        SwinClassifier.from_size("nano", num_classes=2, dropout=1.0)
