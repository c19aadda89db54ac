"""Windows on a grid of tokens: cutting, putting back, relative positions, shifted windows.

Liu et al. 2021 (arXiv 2103.14030). Tensors are channels-last.

Shapes: B batch, h×w token grid, C channels, M window side, N = M·M tokens of a window, n windows
of one image, Bn windows of the whole batch.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# Added to the attention logits of token pairs that the cyclic shift brought together but that are
# no neighbours in the image. Finite, so that no row of a softmax is empty. The reference adds -100:
# exp(-100) is a subnormal number, and products with those were measured 35 times as slow on a CPU.
# Here the share is exactly 0, which is nothing that a float32 next to ordinary shares can hold.
UNRELATED = -1e4


def window_partition(
    x: Float[Tensor, "B h w C"], window_size: int
) -> Float[Tensor, "Bn {window_size} {window_size} C"]:
    """Cut a grid into windows that do not overlap, row by row.

    Args:
        x: Tokens; h and w are multiples of ``window_size``.
        window_size: M, in tokens.

    Returns:
        (B·n, M, M, C), the windows of one image next to each other.
    """
    batch, height, width, channels = x.shape
    x = x.view(
        batch, height // window_size, window_size, width // window_size, window_size, channels
    )
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window_size, window_size, channels)


def window_reverse(
    windows: Float[Tensor, "Bn M M C"], window_size: int, height: int, width: int
) -> Float[Tensor, "B {height} {width} C"]:
    """Put windows back into their grid; the inverse of ``window_partition``.

    Args:
        windows: (B·n, M, M, C).
        window_size: M, in tokens.
        height: h of the grid, a multiple of M.
        width: w of the grid, a multiple of M.
    """
    channels = windows.shape[-1]
    rows, columns = height // window_size, width // window_size
    x = windows.view(-1, rows, columns, window_size, window_size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


def pad_to_multiple(x: Float[Tensor, "B h w C"], multiple: int) -> Float[Tensor, "B h2 w2 C"]:
    """Pad the grid with zeros at the bottom and right to whole multiples."""
    bottom, right = -x.shape[1] % multiple, -x.shape[2] % multiple
    if bottom == 0 and right == 0:
        return x  # F.pad would copy the tensor all the same
    return F.pad(x, (0, 0, 0, right, 0, bottom))


def relative_position_index(window_size: int) -> Int[Tensor, "N N"]:
    """Row of the bias table for each pair of tokens of one window.

    The row for a query that lies (dy, dx) from its key is (dy + M - 1)·(2M - 1) + (dx + M - 1).
    """
    side = torch.arange(window_size)
    rows = side.repeat_interleave(window_size)
    columns = side.repeat(window_size)
    dy = rows[:, None] - rows[None, :] + window_size - 1
    dx = columns[:, None] - columns[None, :] + window_size - 1
    return dy * (2 * window_size - 1) + dx


def shift_attention_mask(
    height: int, width: int, window_size: int, shift: int, device: torch.device
) -> Float[Tensor, "n N N"]:
    """What to add to the attention logits of each window after a cyclic shift.

    0 for tokens that were neighbours before the shift, ``UNRELATED`` for pairs brought together
    from opposite borders. Built from the shape alone, once for each shape and device.

    Args:
        height: h of the padded grid, a multiple of ``window_size``.
        width: w of the padded grid, a multiple of ``window_size``.
        window_size: M, in tokens.
        shift: Tokens by which rows and columns were rolled.
        device: Where the result is needed.
    """
    if torch.compiler.is_compiling():
        # A tracer's stand-in tensor must never reach the cache.
        return _shift_attention_mask(height, width, window_size, shift, device)
    return _cached_shift_attention_mask(height, width, window_size, shift, device)


def _shift_attention_mask(
    height: int, width: int, window_size: int, shift: int, device: torch.device
) -> Tensor:
    def band(length: int) -> Tensor:
        """0 for tokens that stay, 1 for those beside the wrapped ones, 2 for the wrapped ones."""
        place = torch.arange(length, device=device)
        return (place >= length - window_size).long() + (place >= length - shift).long()

    region = 3 * band(height)[:, None] + band(width)[None, :]
    windows = window_partition(region[None, :, :, None].float(), window_size)
    windows = windows.reshape(-1, window_size * window_size)  # (n, N)
    related = windows[:, :, None] == windows[:, None, :]
    zero = torch.zeros((), device=device)
    return torch.where(related, zero, torch.full_like(zero, UNRELATED))


@lru_cache(maxsize=64)
def _cached_shift_attention_mask(
    height: int, width: int, window_size: int, shift: int, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # what prediction builds must also serve later training
        return _shift_attention_mask(height, width, window_size, shift, device)
