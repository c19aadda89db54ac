"""How fine a grid label maps need: what shrinking them to a network's input takes from them.

A network that sees an image at a third of its size cannot draw vessels that are two pixels wide,
whatever it learns. nnU-Net cuts patches at full resolution instead; here whole images are shrunk,
so the side they are shrunk to has to follow from the label maps.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from vismae.data.geometry import fitted_size, resize_image


def smallest_side_px(
    label_maps: Sequence[np.ndarray], sides_px: Sequence[int], kept_dice: float
) -> int:
    """Return the smallest side at which every class keeps its Dice; the largest if none does.

    Args:
        label_maps: Raw values, each (h, w); 0 is background.
        sides_px: Sides of the square canvas to choose from, rising.
        kept_dice: Least Dice of a class with itself after shrinking.
    """
    low, high = 0, len(sides_px) - 1
    while low < high:
        middle = (low + high) // 2
        if all(dice >= kept_dice for dice in dice_after_shrinking(label_maps, sides_px[middle])):
            high = middle
        else:
            low = middle + 1
    return sides_px[low]


def dice_after_shrinking(label_maps: Sequence[np.ndarray], side_px: int) -> list[float]:
    """Return each class's Dice with itself, brought to a canvas and back.

    It is brought there as an image is, as a share of each pixel, and back as logits are: what a
    network could reach that knew every share. All label maps count together, as the slices of a
    volume do when it is scored: a slice that cuts a tip of an organ tells little.

    Args:
        label_maps: Raw values, each (h, w); 0 is background.
        side_px: Side of the square canvas; smaller label maps lose nothing.
    """
    shared: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for label_map in label_maps:
        for value, inside in _classes(label_map):
            again = _shrunk_and_enlarged(inside, side_px)
            shared[value] += int((again & inside).sum())
            sizes[value] += int(again.sum()) + int(inside.sum())
    return [2 * shared[value] / sizes[value] for value in sorted(sizes)]


def _classes(label_map: np.ndarray) -> Iterator[tuple[int, torch.Tensor]]:
    for value in np.unique(label_map):
        if value != 0:
            yield int(value), torch.from_numpy(label_map == value)


def _shrunk_and_enlarged(inside: torch.Tensor, side_px: int) -> torch.Tensor:
    height, width = inside.shape
    if side_px >= max(height, width):
        return inside
    small = fitted_size((height, width), (side_px, side_px), "pad")
    shares = resize_image(inside[None].float(), small)
    back = functional.interpolate(
        shares[None], size=(height, width), mode="bilinear", align_corners=False
    )
    return back[0, 0] > 0.5
