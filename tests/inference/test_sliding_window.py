"""The sliding window against MONAI's, and what it must do at the edges."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from vismae.inference.sliding_window import Rows, gaussian_weights, sliding_rows, window_starts


def whole(rows: list[Rows]) -> Tensor:
    """Put rows together, which must follow one another without a gap."""
    tops = [part.top for part in rows]
    ends = [part.top + part.scores.shape[1] for part in rows]
    assert tops == [0, *ends[:-1]]
    return torch.cat([part.scores for part in rows], dim=1)


def network() -> nn.Module:
    """A network that sees its window's edges, so that overlaps differ."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 5, 9, padding=4), nn.Tanh(), nn.Conv2d(5, 3, 9, padding=4)
    ).eval()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
@pytest.mark.parametrize("size", [(32, 48), (100, 71), (33, 160), (64, 48)])
@torch.inference_mode()
def test_blends_as_monai_does(size: tuple[int, int], overlap: float) -> None:
    inferers = pytest.importorskip("monai.inferers")
    window, model = (32, 48), network()
    image = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    expected = inferers.sliding_window_inference(
        image[None], window, 4, model, overlap=overlap, mode="gaussian"
    )[0]
    found = whole(list(sliding_rows(image, window, overlap, model, batch_size=3)))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(20, 90), (90, 20), (10, 10)])
def test_images_smaller_than_the_window_keep_their_size(size: tuple[int, int]) -> None:
    image = torch.rand(1, *size)
    found = whole(list(sliding_rows(image, (32, 32), 0.5, lambda windows: windows, 4)))
    assert torch.allclose(found, image, atol=1e-6)


def test_padding_has_the_wanted_value() -> None:
    seen: list[Tensor] = []

    def remember(windows: Tensor) -> Tensor:
        seen.append(windows)
        return windows

    list(sliding_rows(torch.ones(1, 8, 8), (16, 16), 0.5, remember, 1, padding=-3.0))
    assert seen[0][0, 0, 8:].eq(-3.0).all()
    assert seen[0][0, 0, :, 8:].eq(-3.0).all()


def test_windows_cover_every_pixel_and_end_with_the_image() -> None:
    for length in range(16, 120):
        for overlap in (0.0, 0.3, 0.5, 0.9):
            starts = window_starts(length, 16, overlap)
            assert starts[0] == 0
            assert starts[-1] == length - 16
            assert all(second - first <= 16 for first, second in pairwise(starts))


def test_the_middle_of_a_window_counts_most() -> None:
    weights = gaussian_weights((9, 15))
    assert weights.argmax() == 4 * 15 + 7
    assert float(weights.min()) >= 1e-3
