"""The encoder on visible tokens only: hidden patches cost nothing until their stage is dense.

As GreenMIM (Huang et al. 2022, arXiv 2205.13515) does for Swin: while a mask unit is a square of
whole tokens, merging stays inside units, and attention is restricted to the visible tokens of
each window. Linear layers, norms and MLPs then run on the visible tokens alone; between ``qkv``
and ``proj`` the tokens stand at their true places in their windows, and keys that are not visible
are left out. Every image has the same number of visible units, so all shapes are known beforehand
and nothing waits for a GPU. Where a unit is no longer a whole square of tokens the grid is filled
with a learned token and the remaining stages are dense.

Weights are those of ``SwinEncoder``, under the same names.

Shapes: B batch, H×W pixels, K image channels, h×w token grid of a stage, C channels, U visible
units of an image, V visible tokens of an image, M window side, N = M·M tokens of a window, n
windows of an image.
"""

from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vismae.core.errors import ModelError, SettingError
from vismae.models.backbone import Grid, SwinEncoder, SwinStage
from vismae.models.made_again import made_again, product_input
from vismae.models.swin import PatchMerging, SwinBlock
from vismae.models.windows import shift_attention_mask

# Added to the logits of keys that are not visible: their share of the softmax is exactly 0, and a
# window without any visible token still gives finite numbers, which nobody reads.
_NOT_VISIBLE = -1e4


def visible_stages(unit: int, stages: int) -> int:
    """Stages, from the first, in which a mask unit is a whole square of tokens.

    Args:
        unit: Patches at the side of a mask unit.
        stages: Stages of the encoder.
    """
    count = 1
    while count < stages and unit % 2**count == 0:
        count += 1
    return count


def encode_visible(
    encoder: SwinEncoder,
    images: Float[Tensor, "B K H W"],
    hidden: Bool[Tensor, "B L"],
    unit: int,
    count: int | None,
    mask_token: Float[Tensor, "1 1 C"],
) -> Float[Tensor, "B h w C"]:
    """Encode images from their visible tokens and return the last stage's whole grid.

    Args:
        encoder: Computes ``visible_stages`` stages on visible tokens and the others densely.
        images: Sides are multiples of a mask unit.
        hidden: True where a patch is hidden, in whole units.
        unit: Patches at the side of a mask unit.
        count: U, the same for all images; counted if None, which waits for a GPU.
        mask_token: Takes the hidden tokens' places after the last visible stage.

    Raises:
        SettingError: The images are no whole number of units, or none is visible.
        ModelError: ``hidden`` was counted and holds parts of units, or images differ.
    """
    config = encoder.config
    rows, columns = config.patch_grid(*images.shape[2:])
    unit_px = unit * config.patch_size
    if images.shape[2] % unit_px or images.shape[3] % unit_px:
        raise SettingError(
            f"The images have {images.shape[2]} × {images.shape[3]} pixels, no whole number of "
            f"mask units of {unit_px} px, which encoder_input 'visible' needs. Change "
            "data.image_size or model.mask_unit_px, or use encoder_input 'dense'."
        )
    if count is None:
        count = count_visible_units(hidden, (rows, columns), unit)
    if count < 1:
        raise SettingError(
            f"All mask units of the images ({rows // unit} × {columns // unit}) are hidden, so an "
            "encoder of visible tokens has nothing to read. Lower model.mask_ratio, or use "
            "smaller units (model.mask_unit_px) or larger images."
        )
    shown = _visible_units(hidden.view(-1, rows, columns)[:, ::unit, ::unit], count)
    stages = [cast("SwinStage", stage) for stage in encoder.layers]
    last = visible_stages(unit, len(stages)) - 1
    places = _token_places(shown, (rows, columns), unit, last)
    tokens = _embed(encoder, images, places)
    for number, stage in enumerate(stages[: last + 1]):
        if number > 0:
            # Four tokens that merge stand next to each other, in the order merging wants.
            merging = cast("PatchMerging", stages[number - 1].downsample)
            tokens = merging.merge(tokens.unflatten(1, (-1, 4)).flatten(2))
            grid = (rows >> number, columns >> number)
            places = _token_places(shown, grid, unit >> number, last - number)
        tokens = _run_blocks(stage, tokens, places)
    x = _fill_grid(tokens, places, mask_token)
    merging = stages[last].downsample
    if merging is not None:
        x = merging(x)
    for stage in stages[last + 1 :]:
        x = stage(x)
    return x


def count_visible_units(hidden: Bool[Tensor, "B L"], grid: Grid, unit: int) -> int:
    """Visible mask units of each image; looks at the values, so it waits for a GPU.

    Raises:
        ModelError: Units are hidden in part, or the images differ in number.
    """
    units = hidden.view(-1, grid[0] // unit, unit, grid[1] // unit, unit).transpose(2, 3)
    units = units.flatten(3)
    visible = (~units[..., 0]).flatten(1).sum(dim=1)
    count = int(visible[0])
    whole = bool((units == units[..., :1]).all())
    if not whole or bool((visible != count).any()):
        raise ModelError(
            f"hidden leaves {visible.tolist()} mask units of the images visible"
            f"{'' if whole else ', and parts of others'}. An encoder of visible tokens needs "
            f"whole units of {unit} × {unit} patches and the same number in each image; use "
            "sample_hidden, or encoder_input 'dense'."
        )
    return count


class _Units(NamedTuple):
    """Rows and columns of the visible mask units in the grid of units, each (B, U)."""

    rows: Tensor
    columns: Tensor


class _Places(NamedTuple):
    """Rows and columns of the visible tokens, each (B, V), in a grid of this size."""

    rows: Tensor
    columns: Tensor
    grid: Grid

    def numbers(self) -> Int[Tensor, " BV"]:
        """Where the tokens lie among those of all grids of the batch, row by row."""
        height, width = self.grid
        first = torch.arange(len(self.rows), device=self.rows.device) * (height * width)
        return (self.rows * width + self.columns + first[:, None]).flatten()


def _visible_units(hidden: Bool[Tensor, "B u v"], count: int) -> _Units:
    """Find the visible units, row by row, without asking how many there are."""
    order = hidden.flatten(1).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    width = hidden.shape[2]
    return _Units(order.div(width, rounding_mode="floor"), order % width)


def _token_places(units: _Units, grid: Grid, side: int, merges: int) -> _Places:
    """Place the tokens of visible units, unit after unit.

    Inside a unit, tokens that merge follow each other in the order (row, column): (0,0), (1,0),
    (0,1), (1,1), and so do the fours that merge next, for as many merges as stay in the unit.

    Args:
        units: Visible units.
        grid: Rows and columns of tokens.
        side: Tokens at the side of a unit, a multiple of 2 to the power of ``merges``.
        merges: Merges to come inside a unit.
    """
    device = units.rows.device
    coarse = torch.arange(side >> merges, device=device)
    rows, columns = coarse.repeat_interleave(len(coarse)), coarse.repeat(len(coarse))
    four = torch.arange(4, device=device)
    for _ in range(merges):
        rows = (2 * rows[:, None] + four % 2).flatten()
        columns = (2 * columns[:, None] + four.div(2, rounding_mode="floor")).flatten()
    return _Places(
        (units.rows[:, :, None] * side + rows).flatten(1),
        (units.columns[:, :, None] * side + columns).flatten(1),
        grid,
    )


def _embed(
    encoder: SwinEncoder, images: Float[Tensor, "B K H W"], places: _Places
) -> Float[Tensor, "B V C"]:
    """Embed the visible patches alone."""
    batch, channels = images.shape[:2]
    side = encoder.config.patch_size
    height, width = places.grid
    patches = images.view(batch, channels, height, side, width, side)
    patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)
    patches = patches.index_select(0, places.numbers()).view(batch, -1, channels, side, side)
    return encoder.patch_embed.embed_patches(patches)


class _WindowSlots(NamedTuple):
    """Where visible tokens stand in the windows of a block, for ``_attend``.

    Attributes:
        slots: Place of each visible token among the tokens of all windows, (B·V,).
        key_bias: 0 for visible tokens, ``_NOT_VISIBLE`` for all others, (B·n, N).
        window_size: M.
        attention_mask: From ``shift_attention_mask``, after a shift.
    """

    slots: Tensor
    key_bias: Tensor
    window_size: int
    attention_mask: Tensor | None


def _window_slots(places: _Places, window: int, shift: int) -> _WindowSlots:
    """Find each token's slot in windows over the rolled and padded grid."""
    height, width = (side + -side % window for side in places.grid)
    rows, columns = (places.rows - shift) % height, (places.columns - shift) % width
    windows = _Places(
        rows.div(window, rounding_mode="floor"),
        columns.div(window, rounding_mode="floor"),
        (height // window, width // window),
    )
    inside = (rows % window) * window + columns % window
    slots = windows.numbers() * window**2 + inside.flatten()
    device = slots.device
    key_bias = torch.full((len(rows) * height * width,), _NOT_VISIBLE, device=device)
    key_bias = key_bias.index_fill(0, slots, 0.0).view(-1, window**2)
    attention_mask = None
    if shift:
        attention_mask = shift_attention_mask(height, width, window, shift, device)
    return _WindowSlots(slots, key_bias, window, attention_mask)


def _run_blocks(
    stage: SwinStage, tokens: Float[Tensor, "B V C"], places: _Places
) -> Float[Tensor, "B V C"]:
    """Run a stage's blocks; blocks with the same shift share their slots."""
    known: dict[tuple[int, int], _WindowSlots] = {}
    for block in (cast("SwinBlock", block) for block in stage.blocks):
        windows = block.window_and_shift(*places.grid)
        if windows not in known:
            known[windows] = _window_slots(places, *windows)
        tokens = stage.run(_run_block, block, tokens, known[windows])
    return tokens


def _run_block(
    block: SwinBlock, tokens: Float[Tensor, "B V C"], windows: _WindowSlots
) -> Float[Tensor, "B V C"]:
    normed = product_input(block.norm1, tokens)
    with made_again(normed, lambda: product_input(block.norm1, tokens)):
        attended = _attend(block, normed, windows)
    return block.after_attention(tokens, attended)


def _attend(
    block: SwinBlock, tokens: Float[Tensor, "B V C"], windows: _WindowSlots
) -> Float[Tensor, "B V C"]:
    """Attend among the visible tokens of each window."""
    attention = block.attn
    qkv = attention.qkv(tokens).flatten(0, 1)
    spread = qkv.new_zeros(windows.key_bias.numel(), qkv.shape[1])
    spread = spread.index_copy(0, windows.slots, qkv).view(*windows.key_bias.shape, -1)
    mixed = attention.mix(spread, windows.window_size, windows.attention_mask, windows.key_bias)
    return attention.proj(mixed.flatten(0, 1).index_select(0, windows.slots)).view_as(tokens)


def _fill_grid(
    tokens: Float[Tensor, "B V C"], places: _Places, mask_token: Float[Tensor, "1 1 C"]
) -> Float[Tensor, "B h w C"]:
    """Put visible tokens in their places and the learned token in all others."""
    batch, _, channels = tokens.shape
    height, width = places.grid
    grid = mask_token.to(tokens.dtype).view(1, -1).expand(batch * height * width, -1)
    grid = grid.index_copy(0, places.numbers(), tokens.flatten(0, 1))
    return grid.view(batch, height, width, channels)
