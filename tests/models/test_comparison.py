import copy
import sys

import pytest
import torch
from learning import bright_squares, dice_after
from torch.nn import functional as F

from vismae.core.errors import ModelError, SettingError
from vismae.models import ComparisonClassifier, ComparisonSegmenter, plan_network, segmentation_loss
from vismae.models.comparison_plan import (
    CLASSIFIERS,
    SEGMENTERS,
    ComparisonConfig,
    dynunet_strides,
)


def segmenter(network: str, classes: int = 2, **settings) -> ComparisonSegmenter:
    width = 12 if network == "swin_unetr" else 8
    return ComparisonSegmenter(
        network, plan_network(network, 1, (32, 32), width), classes, **settings
    )


@pytest.mark.parametrize("network", SEGMENTERS)
def test_any_size_works_and_starts_near_the_class_shares(network: str):
    model = segmenter(network, classes=3)
    model.set_class_shares([0.96, 0.02, 0.02])
    for height, width in ((50, 83), (9, 17)):
        logits = model(torch.randn(2, 1, height, width))
        assert logits.shape == (2, 3, height, width)
        assert logits.softmax(dim=1)[:, 0].mean().item() > 0.75
    segmentation_loss(logits, torch.randint(0, 3, (2, 9, 17))).backward()


@pytest.mark.parametrize("network", SEGMENTERS)
def test_overfits_eight_images(network: str):
    steps = 12 if network == "swin_unetr" else 25
    assert dice_after(segmenter(network), steps, lr=5e-3) > 0.9


def test_dynunet_learns_from_coarser_outputs_and_can_be_copied_afterwards():
    model = segmenter("dynunet", deep_supervision=True)
    assert dice_after(model, steps=25, lr=5e-3) > 0.9
    images, _ = bright_squares()
    outputs = model.train()(images)
    assert len(outputs) == len(model.config.strides) - 2
    assert all(output.shape == (8, 2, 32, 32) for output in outputs)
    again = copy.deepcopy(model).eval()
    torch.testing.assert_close(again(images), model.eval()(images))


def test_dynunet_has_the_strides_of_nnunets_plan():
    """224 px halve five times, to 7; the short axis stops first."""
    assert dynunet_strides((224, 224)) == ((1, 1), *[(2, 2)] * 5)
    assert dynunet_strides((512, 512)) == ((1, 1), *[(2, 2)] * 7)
    assert dynunet_strides((320, 40)) == ((1, 1), (2, 2), (2, 2), (2, 2), (2, 1), (2, 1), (2, 1))
    assert len(dynunet_strides((8, 8))) == 4
    plan = plan_network("dynunet", 1, (224, 224))
    model = ComparisonSegmenter("dynunet", plan, 2)
    state = model.state_dict()
    levels = [f"body.skip_layers.{'next_layer.' * level}" for level in range(5)]
    widths = [state[f"{level}downsample.conv1.conv.weight"].shape[0] for level in levels]
    assert widths == [32, 64, 128, 256, 512]
    assert state[f"{levels[4]}next_layer.conv1.conv.weight"].shape[0] == 512
    assert plan.total_stride() == (32, 32)


@pytest.mark.parametrize("network", CLASSIFIERS)
def test_classifiers_learn_bright_from_dark(network: str):
    model = ComparisonClassifier(network, plan_network(network, 1, (32, 32), 8), 2)
    labels = torch.arange(8) % 2
    images = labels.view(-1, 1, 1, 1) + 0.3 * torch.randn(8, 1, 40, 33)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert model(images).argmax(1).equal(labels)
    assert model.features(images).shape == (8, model.head.in_features)


def test_a_frozen_encoder_keeps_the_statistics_of_its_norms():
    model = ComparisonClassifier("resnet18", plan_network("resnet18", 1, (32, 32), 8), 2)
    model.encoder.requires_grad_(False)
    before = model.encoder.bn1.running_mean.clone()
    model.train()(torch.randn(4, 1, 32, 32) + 3)
    assert torch.equal(model.encoder.bn1.running_mean, before)
    model.encoder.requires_grad_(True)
    model.train()(torch.randn(4, 1, 32, 32) + 3)
    assert not torch.equal(model.encoder.bn1.running_mean, before)


@pytest.mark.parametrize("network", ["resnet18", "densenet121"])
def test_one_small_image_is_no_batch_to_learn_from(network: str):
    model = ComparisonClassifier(network, plan_network(network, 1, (32, 32), 8), 2)
    image = torch.zeros(1, 1, 32, 32)
    with pytest.raises(ModelError, match=r"32×32 pixels .* Set data\.batch_size to 2"):
        model.train()(image)
    assert model.eval()(image).shape == (1, 2)


def test_without_monai_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(SettingError, match=r"pip install 'vismae\[compare\]'"):
        segmenter("unet")


def test_wrong_settings_are_errors():
    plan = plan_network("unet", 1, (32, 32), 8)
    with pytest.raises(ModelError, match="network is 'unett'"):
        ComparisonSegmenter("unett", plan, 2)
    with pytest.raises(ModelError, match="only dynunet"):
        ComparisonSegmenter("unet", plan, 2, deep_supervision=True)
    with pytest.raises(ModelError, match="dropout 1"):
        ComparisonClassifier("resnet18", plan, 2, dropout=1.0)
    with pytest.raises(SettingError, match="multiple of 12"):
        plan_network("swin_unetr", 1, (32, 32), 40)
    with pytest.raises(SettingError, match="'vgg' is no network"):
        plan_network("vgg", 1, (32, 32))
    with pytest.raises(ModelError, match="expects"):
        ComparisonSegmenter("unet", plan, 2)(torch.randn(1, 3, 32, 32))
    with pytest.raises(ModelError, match="depth is unknown"):
        ComparisonConfig.from_dict({**plan.to_dict(), "depth": 3})
    with pytest.raises(ModelError, match="wrong type"):
        ComparisonConfig.from_dict({"in_channels": 1})
    with pytest.raises(ModelError, match="1 or more"):
        ComparisonConfig(1, 0)
