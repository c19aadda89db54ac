"""One vector per image from every kind of network."""

import pytest
import torch
from torch import Tensor

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


def whole(images: Tensor) -> Tensor:
    """Extents of images that fill the canvas."""
    return torch.tensor([images.shape[2:]] * len(images))


@pytest.fixture
def encoder() -> SwinEncoder:
    torch.manual_seed(0)
    return SwinEncoder(config_for_size("nano", in_channels=1, drop_path=0.5))


def test_a_feature_is_the_mean_of_the_normalised_tokens(encoder: SwinEncoder):
    images = torch.randn(2, 1, 32, 48)
    tokens = encoder.eval()(images).tokens
    spread = tokens.var(dim=-1, correction=0, keepdim=True).add(1e-5).sqrt()
    expected = ((tokens - tokens.mean(dim=-1, keepdim=True)) / spread).mean(dim=(1, 2))
    assert torch.allclose(pooled_features(encoder, images, whole(images)), expected, atol=1e-5)


def test_tokens_of_padding_do_not_count(encoder: SwinEncoder):
    images = torch.randn(2, 1, 64, 64)
    tokens = encoder.eval()(images).tokens
    tokens = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])  # (B, 4, 4, C)
    found = pooled_features(encoder, images, torch.tensor([[64, 32], [8, 64]]))
    assert torch.allclose(found[0], tokens[0, :, :2].mean(dim=(0, 1)), atol=1e-5)
    assert torch.allclose(found[1], tokens[1, :1].mean(dim=(0, 1)), atol=1e-5)


def test_more_padding_beside_an_image_changes_its_features_little(encoder: SwinEncoder):
    images = torch.randn(4, 1, 64, 32)
    padded = torch.nn.functional.pad(images, (0, 32), value=-1.1)
    alone = pooled_features(encoder.eval(), images, whole(images))
    beside = pooled_features(encoder, padded, whole(images))
    counted = pooled_features(encoder, padded, whole(padded))
    assert (beside - alone).norm() < 0.5 * (counted - alone).norm()


@pytest.mark.parametrize("network", [SwinMAE, SwinUNet, HybridUNet])
def test_every_network_on_a_swin_encoder_gives_its_pooled_features(network: type) -> None:
    more = {} if network is SwinMAE else {"num_classes": 3}
    model = network.from_size("nano", in_channels=1, **more).eval()
    images = torch.randn(2, 1, 40, 33)
    with torch.inference_mode():
        extents = torch.tensor([[40, 9], [17, 33]])
        found = image_features(model, images, extents)
        assert torch.equal(found, pooled_features(model.encoder, images, extents))


def test_the_features_of_a_classifier_are_what_its_last_layer_sees() -> None:
    images = torch.randn(2, 1, 64, 48)
    swin = SwinClassifier.from_size("nano", in_channels=1, num_classes=2).eval()
    resnet = ComparisonClassifier("resnet18", plan_network("resnet18", 1, (64, 64)), 2).eval()
    with torch.inference_mode():
        for model in (swin, resnet):
            for extents in (whole(images), torch.tensor([[64, 20], [16, 48]])):
                found = image_features(model, images, extents)
                assert torch.equal(model.head(found), model(images))


def test_the_features_of_a_contrastive_network_are_what_its_projection_sees() -> None:
    images = torch.randn(2, 1, 64, 48)
    model = SwinSimCLR.from_size("nano", in_channels=1).eval()
    torch.nn.init.uniform_(model.norm.weight)
    with torch.inference_mode():
        found = model.projection(image_features(model, images, whole(images)))
        assert torch.allclose(found, model(images), atol=1e-5)
        tokens = model.normalised_tokens(images)
        found = image_features(model, images, torch.tensor([[64, 16], [32, 48]]))
        assert torch.allclose(found[0], tokens[0, :, :1].mean(dim=(0, 1)), atol=1e-5)
        assert torch.allclose(found[1], tokens[1, :2].mean(dim=(0, 1)), atol=1e-5)


def test_a_network_without_an_encoder_of_its_own_is_refused_by_name() -> None:
    model = ComparisonSegmenter("unet", plan_network("unet", 1, (32, 32), 8), 2)
    with pytest.raises(ModelError, match=r"unet has no encoder .* swin_unet"):
        require_features(model)
    with pytest.raises(ModelError, match="unet has no encoder"):
        image_features(model, torch.randn(1, 1, 32, 32), torch.tensor([[32, 32]]))
