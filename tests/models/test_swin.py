import itertools

import pytest
import torch

from vismae.models.swin import (
    DropPath,
    PatchExpanding,
    PatchMerging,
    SwinBlock,
    WindowAttention,
)
from vismae.models.windows import UNRELATED


def naive_attention(block: SwinBlock, x: torch.Tensor) -> torch.Tensor:
    """Shifted-window attention of one image, token by token, from the paper's words.

    Tokens share a window if their rolled places do; rolled tokens relate only to those that
    crossed the same borders.
    """
    side, shift, attention = block.window_size, block.shift, block.attn
    height, width, channels = x.shape
    padded_height, padded_width = -(-height // side) * side, -(-width // side) * side
    tokens = {
        (r, c): x[r, c] if r < height and c < width else torch.zeros(channels)
        for r in range(padded_height)
        for c in range(padded_width)
    }

    def place(r: int, c: int) -> tuple[int, int, bool, bool]:
        rolled = (r - shift) % padded_height, (c - shift) % padded_width
        return (*rolled, r < shift, c < shift)

    heads = attention.num_heads
    depth = channels // heads
    qkv = {at: attention.qkv(token).view(3, heads, depth) for at, token in tokens.items()}
    result = torch.zeros_like(x)
    for r, c in itertools.product(range(height), range(width)):
        row, column, *crossed = place(r, c)
        values, logits = [], []
        for at in tokens:
            other_row, other_column, *other_crossed = place(*at)
            if (other_row // side, other_column // side) != (row // side, column // side):
                continue
            bias = attention.relative_position_bias_table[
                (row % side - other_row % side + side - 1) * (2 * side - 1)
                + column % side
                - other_column % side
                + side
                - 1
            ]
            logit = (qkv[r, c][0] * qkv[at][1]).sum(-1) * depth**-0.5 + bias
            logits.append(logit + (0.0 if crossed == other_crossed else UNRELATED))
            values.append(qkv[at][2])
        weights = torch.stack(logits).softmax(0)[:, :, None]  # (tokens, heads, 1)
        result[r, c] = attention.proj((weights * torch.stack(values)).sum(0).flatten())
    return result


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", [(8, 12), (5, 7), (3, 3)])
@pytest.mark.parametrize("learning", [False, True])
def test_attention_equals_a_naive_loop(shifted: bool, grid: tuple[int, int], learning: bool):
    block = SwinBlock(8, num_heads=2, window_size=4, shifted=shifted)
    x = torch.randn(2, *grid, 8)
    with torch.set_grad_enabled(learning):  # the two ways of computing attention on a CPU
        result = block._attend(x)
    x = block.norm1(x)
    with torch.no_grad():
        expected = torch.stack([naive_attention(block, image) for image in x])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_single_window_is_shifted_or_shrunk_as_set():
    reference = SwinBlock(8, 2, 4, shifted=True)
    microsoft = SwinBlock(8, 2, 4, shifted=True, shift_single_window=False)
    plain = SwinBlock(8, 2, 4, shifted=False)
    for block in (microsoft, plain):
        block.load_state_dict(reference.state_dict())
    whole, small = torch.randn(1, 4, 4, 8), torch.randn(1, 3, 3, 8)
    torch.testing.assert_close(microsoft(whole), plain(whole))
    assert not torch.allclose(reference(whole), plain(whole))
    # A window shrunk to three tokens has no padded tokens to look at.
    assert not torch.allclose(microsoft(small), plain(small))


def test_smaller_window_uses_the_middle_of_the_bias_table():
    attention = WindowAttention(8, window_size=4, num_heads=2)
    whole = attention.position_bias(4).view(2, 4, 4, 4, 4)
    part = attention.position_bias(3).view(2, 3, 3, 3, 3)
    assert torch.equal(part, whole[:, :3, :3, :3, :3])


def test_merging_takes_neighbours_in_the_official_order_and_pads_odd_grids():
    merging = PatchMerging(1)
    merging.norm = torch.nn.Identity()
    merging.reduction = torch.nn.Identity()
    x = torch.arange(6.0).view(1, 2, 3, 1)
    assert merging(x).tolist() == [[[[0, 3, 1, 4], [2, 5, 0, 0]]]]


def test_expanding_spreads_channels_over_a_square():
    expanding = PatchExpanding(4, 2, 1)
    expanding.norm = torch.nn.Identity()
    expanding.expand = torch.nn.Identity()
    x = torch.arange(8.0).view(1, 1, 2, 4)
    assert expanding(x)[0, :, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 2, 3)
    y = drop(x).flatten(1)
    assert ((y == 0).all(1) | (y == 1 / 0.75).all(1)).all()
    assert y.mean() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(x), x)
