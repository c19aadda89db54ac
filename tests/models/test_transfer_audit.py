"""The audit of a transfer: same features when nothing was adapted, an error when they differ."""

import pytest
import torch

from vismae.core.errors import ModelError
from vismae.models import HybridUNet, SwinClassifier, SwinMAE
from vismae.models.trainable import choose_trainable
from vismae.models.transfer import transfer
from vismae.models.transfer_audit import audit_transfer


def test_a_whole_transfer_gives_the_same_features():
    source = SwinMAE.from_size("nano", in_channels=1)
    target = HybridUNet.from_size("nano", 1, num_classes=2)
    report = transfer(source, target)
    audit = audit_transfer(source, target, torch.randn(1, 1, 32, 32), report)
    assert audit.encoder_arrived == 1.0
    assert audit.feature_difference < 1e-5
    assert audit.expected_same
    assert "100.0%" in audit.text()


def test_low_rank_changes_do_not_hide_what_arrived():
    source = SwinMAE.from_size("nano", in_channels=1)
    target = SwinClassifier.from_size("nano", 1, num_classes=2)
    report = transfer(source, target)
    choose_trainable(target, "lora")
    audit = audit_transfer(source, target, torch.randn(1, 1, 32, 32), report)
    assert audit.encoder_arrived == 1.0
    assert audit.feature_difference < 1e-5


def test_a_start_of_three_channels_sees_the_same_grey_image():
    source = SwinMAE.from_size("nano", in_channels=3)
    target = SwinClassifier.from_size("nano", 1, num_classes=2)
    report = transfer(source, target)
    audit = audit_transfer(source, target, torch.randn(1, 1, 32, 32), report)
    assert not audit.expected_same
    assert audit.feature_difference < 1e-4


def test_an_encoder_that_computes_something_else_is_refused():
    source = SwinMAE.from_size("nano", in_channels=1)
    target = SwinClassifier.from_size("nano", 1, num_classes=2)
    report = transfer(source, target)
    with torch.no_grad():
        target.encoder.layers[0].blocks[0].norm1.weight.mul_(1.5)
    with pytest.raises(ModelError, match="does not compute what"):
        audit_transfer(source, target, torch.randn(1, 1, 32, 32), report)
