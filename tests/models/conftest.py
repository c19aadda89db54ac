"""Fixtures of the tests of the networks."""

import pytest
import torch

from vismae.models import SwinConfig


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def small() -> SwinConfig:
    """A network of two stages that runs in milliseconds."""
    return SwinConfig(
        in_channels=1,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        drop_path=0.0,
    )
