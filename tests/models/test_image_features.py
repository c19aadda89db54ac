"""One vector per image from every kind of network."""

import pytest
import torch

from vismae.core.errors import ModelError
from vismae.models import (
    ComparisonClassifier,
    ComparisonSegmenter,
    HybridUNet,
    SwinClassifier,
    SwinMAE,
    SwinSimCLR,
    SwinUNet,
    plan_network,
)
from vismae.models.backbone import SwinEncoder, config_for_size
from vismae.models.features import image_features, pooled_features, require_features


@pytest.fixture
def encoder() -> SwinEncoder:
    torch.manual_seed(0)
    return SwinEncoder(config_for_size("nano", in_channels=1, drop_path=0.5))


def test_a_feature_is_the_mean_of_the_normalised_tokens(encoder: SwinEncoder):
    images = torch.randn(2, 1, 32, 48)
    tokens = encoder.eval()(images).tokens
    spread = tokens.var(dim=-1, correction=0, keepdim=True).add(1e-5).sqrt()
    expected = ((tokens - tokens.mean(dim=-1, keepdim=True)) / spread).mean(dim=(1, 2))
    assert torch.allclose(pooled_features(encoder, images), expected, atol=1e-5)


@pytest.mark.parametrize("network", [SwinMAE, SwinUNet, HybridUNet])
def test_every_network_on_a_swin_encoder_gives_its_pooled_features(network: type) -> None:
    more = {} if network is SwinMAE else {"num_classes": 3}
    model = network.from_size("nano", in_channels=1, **more).eval()
    images = torch.randn(2, 1, 40, 33)
    with torch.inference_mode():
        assert torch.equal(image_features(model, images), pooled_features(model.encoder, images))


def test_the_features_of_a_classifier_are_what_its_last_layer_sees() -> None:
    images = torch.randn(2, 1, 64, 48)
    swin = SwinClassifier.from_size("nano", in_channels=1, num_classes=2).eval()
    resnet = ComparisonClassifier("resnet18", plan_network("resnet18", 1, (64, 64)), 2).eval()
    with torch.inference_mode():
        for model in (swin, resnet):
            assert torch.equal(model.head(image_features(model, images)), model(images))


def test_the_features_of_a_contrastive_network_are_what_its_projection_sees() -> None:
    images = torch.randn(2, 1, 64, 48)
    model = SwinSimCLR.from_size("nano", in_channels=1).eval()
    torch.nn.init.uniform_(model.norm.weight)
    with torch.inference_mode():
        assert torch.equal(model.projection(image_features(model, images)), model(images))


def test_a_network_without_an_encoder_of_its_own_is_refused_by_name() -> None:
    model = ComparisonSegmenter("unet", plan_network("unet", 1, (32, 32), 8), 2)
    with pytest.raises(ModelError, match=r"unet has no encoder .* swin_unet"):
        require_features(model)
    with pytest.raises(ModelError, match="unet has no encoder"):
        image_features(model, torch.randn(1, 1, 32, 32))
