"""Features of whole images, and the number of directions they use."""

import numpy as np
import pytest
import torch

from vismae.models.backbone import SwinEncoder, config_for_size
from vismae.models.features import pooled_features
from vismae.training.features import effective_rank, features_of


@pytest.fixture
def encoder() -> SwinEncoder:
    torch.manual_seed(0)
    return SwinEncoder(config_for_size("nano", in_channels=1, drop_path=0.5))


def test_features_that_collapsed_have_rank_1_and_those_that_spread_evenly_the_full_rank():
    one = np.random.default_rng(0).normal(size=(1, 12))
    assert effective_rank(np.repeat(one, 30, axis=0)) == pytest.approx(1.0)
    directions, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))
    assert effective_rank(directions[:, :5]) == pytest.approx(5.0)


def test_the_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values():
    features = np.diag([6.0, 3.0, 1.0])
    entropy = -(0.6 * np.log(0.6) + 0.3 * np.log(0.3) + 0.1 * np.log(0.1))
    assert effective_rank(features) == pytest.approx(np.exp(entropy))
    assert effective_rank(1000.0 * features) == pytest.approx(np.exp(entropy))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_features_without_any_direction_have_no_rank(value: float):
    assert np.isnan(effective_rank(np.full((4, 3), value)))


def test_an_encoder_in_training_is_looked_at_without_drop_path_and_left_in_training(
    encoder: SwinEncoder,
):
    images = torch.randn(3, 1, 32, 32)
    extents = torch.tensor([[32, 32], [32, 16], [16, 32]])
    expected = pooled_features(encoder.eval(), images, extents)
    before = torch.get_rng_state()
    (found,) = features_of(encoder.train(), [(images, extents)])
    assert encoder.training
    assert torch.equal(before, torch.get_rng_state())
    # The attention of the two modes of autograd adds up in another order.
    assert np.allclose(found, expected.detach().numpy(), atol=1e-5)
