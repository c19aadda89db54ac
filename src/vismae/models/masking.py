"""Which patches are hidden from the encoder: mask units, an exact ratio, strategies by name.

Units of several patches: VIS-MAE (arXiv 2402.01034) and SimMIM (arXiv 2111.09886) hide squares of
16 to 32 pixels, since a hidden 4-pixel patch is guessed from its neighbours. Blocks: BEiT (arXiv
2106.08254).

Randomness is counter-based: a hash of (key of the sample, number of the unit). A sample's hidden
patches therefore depend on its key alone, not on its batch mates, the device or the worker.
Everything stays on the device and has a shape known beforehand, so nothing waits for a GPU.

Shapes: B batch, h×w patch grid, L = h·w patches row by row, u×v grid of units, U = u·v units.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vismae.core.errors import SettingError
from vismae.models.backbone import Grid, nearest

STRATEGIES = ("random", "block", "foreground")
"""Names for ``sample_hidden`` and for the setting ``strategy`` of a masked autoencoder."""

# A block is drawn as this many rectangles; 64 cover about nine tenths of any grid.
_RECTANGLES = 64
# A unit is foreground if it is at least this bright, relative to the mean of its image.
_FOREGROUND_BRIGHTNESS = 0.25


def keys_from_generator(
    batch: int, generator: torch.Generator | None, device: torch.device
) -> Int[Tensor, " B"]:
    """Draw one key per sample.

    Args:
        batch: Keys to draw.
        generator: Source of randomness; None takes torch's own of ``device``.
        device: Where the keys are needed.
    """
    source = device if generator is None else generator.device
    keys = torch.randint(
        -(2**63), 2**63 - 1, (batch,), generator=generator, device=source, dtype=torch.int64
    )
    return keys.to(device, non_blocking=True)


def unit_grid(grid: Grid, unit: int) -> Grid:
    """Rows and columns of mask units over a patch grid; ragged units at the edge count."""
    return -(-grid[0] // unit), -(-grid[1] // unit)


def hidden_count(units: int, ratio: float) -> int:
    """Units that are hidden of ``units``: the nearest whole number, ties to even.

    Raises:
        SettingError: Nothing or everything would be hidden, or the ratio is not between 0 and 1.
    """
    if not 0.0 < ratio < 1.0:
        raise SettingError(f"mask_ratio is {ratio}; use a number between 0 and 1, such as 0.75.")
    count = round(ratio * units)
    if count in (0, units):
        what, cure = ("none", "higher") if count == 0 else ("all", "lower")
        raise SettingError(
            f"mask_ratio {ratio} of {units} mask units hides {what}. Use larger images, smaller "
            f"units (mask_unit_px) or a {cure} ratio."
        )
    return count


def sample_hidden(
    keys: Int[Tensor, " B"],
    grid: Grid,
    unit: int,
    ratio: float,
    strategy: str = "random",
    foreground: Bool[Tensor, "B U"] | None = None,
) -> Bool[Tensor, "B L"]:
    """Choose the hidden patches of each sample.

    Exactly ``round(ratio · U)`` units are hidden in every sample, under every strategy.

    Args:
        keys: One per sample; the same key gives the same answer. On the device of the answer.
        grid: Rows and columns of patches that hold at least one real pixel.
        unit: Patches at the side of a mask unit; units at the right and bottom may be smaller.
        ratio: Share of units to hide, between 0 and 1.
        strategy: ``random`` units; ``block``, rectangles of units; ``foreground``, random units
            with the same ratio inside the foreground as outside.
        foreground: True where a unit shows the body, for the strategy of that name.

    Returns:
        True where hidden, row by row.

    Raises:
        SettingError: The strategy is unknown or lacks its foreground; nothing would be hidden.
    """
    if strategy not in STRATEGIES:
        raise SettingError(
            f"mask strategy '{strategy}' is unknown. {nearest(strategy, STRATEGIES)} "
            f"Strategies: {', '.join(STRATEGIES)}."
        )
    units = unit_grid(grid, unit)
    count = hidden_count(units[0] * units[1], ratio)
    if strategy == "foreground":
        if foreground is None:
            raise SettingError(
                "mask strategy 'foreground' was given no foreground. Pass foreground (see "
                "foreground_units), or use strategy 'random'."
            )
        hidden = _foreground(keys, foreground, ratio, count)
    elif strategy == "block":
        hidden = _lowest(_block_order(keys, units), count)
    else:
        counters = torch.arange(units[0] * units[1], device=keys.device)
        hidden = _lowest(noise(keys, counters), count)
    return units_to_patches(hidden, grid, unit)


def units_to_patches(values: Bool[Tensor, "B U"], grid: Grid, unit: int) -> Bool[Tensor, "B L"]:
    """Give each patch the value of its unit."""
    values = values.view(-1, *unit_grid(grid, unit))
    values = values.repeat_interleave(unit, dim=1).repeat_interleave(unit, dim=2)
    return values[:, : grid[0], : grid[1]].flatten(1)


def foreground_units(images: Float[Tensor, "B K H W"], unit_px: int) -> Bool[Tensor, "B U"]:
    """Tell body from empty background, for images whose background is their darkest grey.

    A unit is foreground if its mean brightness above the image's minimum reaches a quarter of the
    image's own mean brightness above it; a blank image is all background.

    Args:
        images: Any linear scale.
        unit_px: Side of a unit in pixels; ragged units at the edge average what they have.
    """
    grey = images.float().mean(dim=1, keepdim=True)
    grey = grey - grey.amin(dim=(2, 3), keepdim=True)
    units = F.avg_pool2d(grey, unit_px, ceil_mode=True, count_include_pad=False).flatten(1)
    mean = grey.mean(dim=(2, 3))
    return (units >= _FOREGROUND_BRIGHTNESS * mean) & (mean > 0)


def noise(keys: Int[Tensor, " B"], counters: Int[Tensor, " N"]) -> Int[Tensor, "B N"]:
    """Independent uniform integers in [0, 2^62), one for each key and counter.

    Two rounds of the SplitMix64 finaliser (Steele et al. 2014, doi 10.1145/2660193.2660195), the
    key mixed before the counter enters, so that neighbouring keys have nothing in common.
    """
    return _noise(keys, counters)


@torch.library.custom_op("vismae::noise", mutates_args=())
def _noise(keys: Tensor, counters: Tensor) -> Tensor:
    """Hash as one operation, which torch.compile calls but does not rewrite.

    As C++ loops the products of ``counters`` are arithmetic on the loop's own counter, whose
    overflow is undefined there: the compiled loop was seen to write beyond its memory (torch
    2.13, ``test_masking.py``).
    """
    return _shift_right(_mix(_mix(keys)[:, None] + counters[None, :] * _GOLDEN), 2)


@_noise.register_fake
def _(keys: Tensor, counters: Tensor) -> Tensor:
    return keys.new_empty(len(keys), len(counters))


# SplitMix64's constants as signed 64-bit numbers; products wrap round on every device.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _mix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Shift as if unsigned; torch's own shift copies the sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def _lowest(score: Tensor, count: int) -> Tensor:
    """True for the ``count`` lowest of each row; ties go to the first, so the count is exact."""
    order = score.argsort(dim=1, stable=True)
    first = torch.arange(score.shape[1], device=score.device) < count
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, order, first.expand_as(order))


def _block_order(keys: Tensor, units: Grid) -> Tensor:
    """Score units by the first of many random rectangles that covers them.

    Taking the lowest scores takes whole rectangles one after the other; the last one is cut row
    by row to the exact count.
    """
    total = units[0] * units[1]
    counters = torch.arange(4 * _RECTANGLES + total, device=keys.device)
    draws, order = noise(keys, counters).split((4 * _RECTANGLES, total), dim=1)
    draws = draws.reshape(-1, 4, _RECTANGLES, 1)  # (B, 4, R, 1)
    covers = torch.ones((), dtype=torch.bool, device=keys.device)
    place = torch.arange(total, device=keys.device)
    rows = place.div(units[1], rounding_mode="floor")
    for axis, coordinate in enumerate((rows, place % units[1])):
        length = units[axis]
        # Sides from 2 units to a third of the grid; a rectangle may hang over the border, so
        # that the middle is covered no more often than the edge.
        longest = max(2, -(-length // 3))
        side = draws[:, 2 * axis] % (longest - 1) + 2
        start = draws[:, 2 * axis + 1] % (length + side - 1) - (side - 1)
        covers = covers & (coordinate >= start) & (coordinate < start + side)  # (B, R, U)
    number = torch.arange(_RECTANGLES, device=keys.device)[:, None]
    first = torch.where(covers, number, _RECTANGLES).amin(dim=1)  # (B, U)
    return first * total + torch.where(first < _RECTANGLES, place, order % total)


def _foreground(keys: Tensor, foreground: Tensor, ratio: float, count: int) -> Tensor:
    """Hide the same share of foreground units as of background units, ``count`` in all."""
    units = foreground.shape[1]
    score = noise(keys, torch.arange(units, device=keys.device))
    inside = (foreground.sum(dim=1, keepdim=True).double() * ratio).round().long()  # (B, 1)
    hidden = torch.zeros_like(foreground)
    for region, wanted in ((foreground, inside), (~foreground, count - inside)):
        # Units of the other region go last, above any noise; no region is asked for more than
        # it has, since both shares are rounded from the same ratio.
        order = torch.where(region, score, 2**62).argsort(dim=1, stable=True)
        first = torch.arange(units, device=keys.device) < wanted
        hidden = hidden | torch.zeros_like(foreground).scatter(1, order, first)
    return hidden
