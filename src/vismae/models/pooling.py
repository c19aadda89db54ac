"""The mean of an encoder's tokens over an image alone, not over what it was padded with.

An image that is not square lies top left on the canvas, and padding fills the rest. A mean over all
positions counts the padding, so that it follows the image's shape before anything else.

Shapes: B batch, H×W pixels of the canvas, h×w token grid, C channels, s pixels on a token's side.
"""

import torch
from jaxtyping import Float, Real
from torch import Tensor


def mean_over_image(
    tokens: Float[Tensor, "B h w C"],
    extents: Real[Tensor, "B 2"],
    canvas: tuple[int, int],
    token_side: int,
) -> Float[Tensor, "B C"]:
    """Return the mean of each image's tokens in float32, weighted by the share that is image.

    A token counts with the share of its cell on the canvas that the image covers. So an image that
    fills the canvas gives the plain mean, and the first token of any image counts with more than 0,
    however narrow the image is.

    Args:
        tokens: Of a grid that begins at the canvas's top left.
        extents: Height and width in pixels that each image covers, from the top left; at least 1.
        canvas: H, W.
        token_side: s; the last row and column may reach beyond the canvas.
    """
    sizes = extents.to(tokens.device, torch.float32)
    rows = _shares(sizes[:, 0], canvas[0], token_side)
    columns = _shares(sizes[:, 1], canvas[1], token_side)
    weights = (rows[:, :, None] * columns[:, None, :])[..., None]  # (B, h, w, 1)
    # Not a matrix product: autocast would round that to 16 bits.
    return (tokens.float() * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))


def mean_of_cells(
    tokens: Float[Tensor, "B h w C"], cells: int
) -> Float[Tensor, "B {cells} {cells} C"]:
    """Return the mean of the tokens in each cell of a grid laid over all of them.

    A token on the border of two cells counts in each with the share that lies there.

    Args:
        tokens: Of any grid.
        cells: Rows and columns of the grid.
    """
    rows = _cell_weights(tokens.shape[1], cells, tokens)
    columns = _cell_weights(tokens.shape[2], cells, tokens)
    return torch.einsum("bhwc,ih,jw->bijc", tokens, rows, columns)


def spread_over_cells(
    tokens: Float[Tensor, "B h w C"], weight: Float[Tensor, "K cells cells C"]
) -> Float[Tensor, "B h w K"]:
    """Return what each token adds to a linear layer on ``mean_of_cells``: their mean is its output.

    Args:
        tokens: Of any grid.
        weight: Of the layer.
    """
    height, width, cells = tokens.shape[1], tokens.shape[2], weight.shape[1]
    rows = _cell_weights(height, cells, tokens) * height
    columns = _cell_weights(width, cells, tokens) * width
    return torch.einsum("bhwc,ih,jw,kijc->bhwk", tokens, rows, columns, weight)


def _cell_weights(length: int, cells: int, like: Tensor) -> Float[Tensor, "cells length"]:
    """Return what each position along an axis weighs in each cell's mean."""
    # On a scale where a cell is ``length`` long and a position ``cells``, all bounds are whole.
    starts = torch.arange(length, device=like.device) * cells
    borders = torch.arange(cells, device=like.device)[:, None] * length
    ends = torch.minimum(starts + cells, borders + length)
    shared = (ends - torch.maximum(starts, borders)).clamp(min=0)
    return shared.to(like.dtype) / length


def _shares(
    lengths: Float[Tensor, " B"], canvas: int, token_side: int
) -> Float[Tensor, "B {-(-canvas//token_side)}"]:
    """Return the share of each cell along an axis that the images cover, 0 to 1."""
    starts = torch.arange(0, canvas, token_side, dtype=torch.float32, device=lengths.device)
    on_canvas = (canvas - starts).clamp(max=token_side)
    covered = (lengths[:, None] - starts).clamp(min=0.0)
    return torch.minimum(covered, on_canvas) / on_canvas
