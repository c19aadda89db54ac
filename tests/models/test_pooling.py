"""The mean over an image alone: which tokens count, and by how much."""

import pytest
import torch

from vismae.models.pooling import mean_of_cells, mean_over_image, spread_over_cells


def test_tokens_count_with_the_share_of_their_cell_that_is_image() -> None:
    tokens = torch.randn(1, 3, 4, 5)
    found = mean_over_image(tokens, torch.tensor([[36, 24]]), (48, 64), token_side=16)
    rows, columns = torch.tensor([1.0, 1.0, 0.25]), torch.tensor([1.0, 0.5, 0.0, 0.0])
    weights = torch.outer(rows, columns)
    expected = torch.einsum("bhwc,hw->bc", tokens, weights) / weights.sum()
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("canvas", [(32, 64), (40, 33), (7, 100)])
def test_an_image_that_fills_the_canvas_gives_the_plain_mean(canvas: tuple[int, int]) -> None:
    tokens = torch.randn(2, -(-canvas[0] // 16), -(-canvas[1] // 16), 5)
    found = mean_over_image(tokens, torch.tensor([canvas, canvas]), canvas, token_side=16)
    assert torch.allclose(found, tokens.mean(dim=(1, 2)), atol=1e-6)


def test_each_image_of_a_batch_has_its_own_extent_and_padding_does_not_count() -> None:
    tokens = torch.randn(2, 4, 4, 5)
    extents = torch.tensor([[64, 32], [16, 64]])
    found = mean_over_image(tokens, extents, (64, 64), token_side=16)
    assert torch.allclose(found[0], tokens[0, :, :2].mean(dim=(0, 1)), atol=1e-6)
    assert torch.allclose(found[1], tokens[1, :1].mean(dim=(0, 1)), atol=1e-6)
    tokens[0, :, 2:] = 1e6
    tokens[1, 1:] = -1e6
    assert torch.equal(mean_over_image(tokens, extents, (64, 64), token_side=16), found)


@pytest.mark.parametrize("extent", [(1, 112), (112, 1), (1, 1), (7, 112)])
def test_an_image_narrower_than_a_token_still_has_tokens(extent: tuple[int, int]) -> None:
    tokens = torch.randn(1, 7, 7, 5)
    found = mean_over_image(tokens, torch.tensor([extent]), (112, 112), token_side=16)
    inside = tokens[:, : -(-extent[0] // 16), : -(-extent[1] // 16)]
    assert torch.allclose(found, inside.mean(dim=(1, 2)), atol=1e-5)


def test_a_mean_is_in_32_bit_under_autocast() -> None:
    tokens, extents = torch.randn(1, 4, 4, 5), torch.tensor([[40, 64]])
    expected = mean_over_image(tokens, extents, (64, 64), token_side=16)
    with torch.autocast("cpu", torch.bfloat16):
        found = mean_over_image(tokens, extents, (64, 64), token_side=16)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("grid", [(6, 9), (7, 7), (2, 5), (1, 1)])
def test_a_token_on_a_border_counts_in_both_cells_with_its_share(grid: tuple[int, int]) -> None:
    tokens = torch.randn(2, *grid, 5, dtype=torch.float64)
    found = mean_of_cells(tokens, 3)
    # Every token cut into 3 by 3 equal ones: then no border goes through one.
    fine = tokens.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    parts = fine.view(2, 3, grid[0], 3, grid[1], 5)
    assert torch.allclose(found, parts.mean(dim=(2, 4)))
    assert torch.allclose(found.mean(dim=(1, 2)), tokens.mean(dim=(1, 2)))


def test_what_tokens_add_to_a_layer_on_cells_has_its_output_as_mean() -> None:
    tokens = torch.randn(2, 7, 5, 4, dtype=torch.float64)
    weight = torch.randn(6, 3, 3, 4, dtype=torch.float64)
    output = mean_of_cells(tokens, 3).flatten(1) @ weight.flatten(1).T
    assert torch.allclose(spread_over_cells(tokens, weight).mean(dim=(1, 2)), output)
