import itertools

import torch

from vismae.models.swin import SwinBlock
from vismae.models.windows import (
    UNRELATED,
    relative_position_index,
    shift_attention_mask,
    window_partition,
    window_reverse,
)

CPU = torch.device("cpu")


def test_partition_and_reverse_are_inverse_on_a_grid_that_is_not_square():
    x = torch.randn(2, 8, 20, 3)
    windows = window_partition(x, 4)
    assert windows.shape == (2 * 2 * 5, 4, 4, 3)
    assert torch.equal(windows[1], x[0, :4, 4:8])
    assert torch.equal(windows[5], x[0, 4:, :4])
    assert torch.equal(window_reverse(windows, 4, 8, 20), x)


def test_position_index_is_the_papers_formula():
    side = 3
    index = relative_position_index(side)
    for query, key in itertools.product(range(side**2), repeat=2):
        dy, dx = query // side - key // side, query % side - key % side
        assert index[query, key] == (dy + side - 1) * (2 * side - 1) + dx + side - 1


def test_shift_leaves_wrapped_tokens_unrelated():
    added = shift_attention_mask(8, 8, 4, 2, CPU)
    assert added.shape == (4, 16, 16)
    assert (added[0] == 0).all()  # the first window holds no border
    assert added[1, 0, 2] == UNRELATED  # columns 2 and 3 of the second window came round
    assert added[1, 0, 1] == 0
    assert added[1, 2, 3] == 0
    assert torch.equal(added, added.transpose(1, 2))


def test_attention_mask_is_built_once_for_each_shape():
    first = shift_attention_mask(8, 12, 4, 2, CPU)
    assert shift_attention_mask(8, 12, 4, 2, CPU) is first
    assert shift_attention_mask(12, 8, 4, 2, CPU).shape == first.shape


def test_attention_mask_built_in_prediction_serves_training():
    block = SwinBlock(8, num_heads=2, window_size=4, shifted=True)
    x = torch.randn(1, 16, 24, 8)
    with torch.inference_mode():
        expected = block(x)
    result = block(x)
    result.sum().backward()
    torch.testing.assert_close(result, expected)
