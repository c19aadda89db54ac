"""Fitting images of any size to the network's canvas and results back again; pure functions.

C channels, h×w native size, H×W canvas. With ``pad`` the aspect ratio is kept and the canvas is
filled bottom and right with 0 (images) or ``IGNORED_LABEL`` (label maps); with ``stretch`` it is
not kept.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import IGNORED_LABEL


def fitted_size(
    native: tuple[int, int], canvas: tuple[int, int], fit: Literal["pad", "stretch"]
) -> tuple[int, int]:
    """Return height and width that a native image occupies on the canvas, top left."""
    if fit == "stretch":
        return canvas
    factor = min(canvas[0] / native[0], canvas[1] / native[1])
    return (
        min(canvas[0], max(1, round(native[0] * factor))),
        min(canvas[1], max(1, round(native[1] * factor))),
    )


def to_channels(values: np.ndarray, in_channels: int) -> Tensor:
    """Return (H, W) or (H, W, 3) as (C, H, W): grey is repeated for 3, colour averaged for 1."""
    image = torch.from_numpy(np.ascontiguousarray(values))
    image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    if image.shape[0] == in_channels:
        return image
    if in_channels == 1:
        return image.mean(dim=0, keepdim=True)
    return image.expand(in_channels, -1, -1)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (C, h, w) bilinearly, smoothed where it shrinks, so that fine detail cannot alias."""
    if tuple(image.shape[-2:]) == size:
        return image
    if image.shape[0] > 1 and image.stride(0) == 0:  # grey, repeated: the same for each channel
        return resize_image(image[:1], size).expand(image.shape[0], -1, -1)
    return functional.interpolate(
        image[None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]


def resize_label_map(label_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (h, w) integer classes by the nearest pixel centre; no class is made up."""
    if tuple(label_map.shape) == size:
        return label_map
    resized = functional.interpolate(label_map[None, None].float(), size=size, mode="nearest-exact")
    return resized[0, 0].to(label_map.dtype)


def fit_image(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return (C, h, w) on the canvas of the contract, (C, H, W); padding is 0."""
    canvas = preprocessing.image_size
    height, width = fitted_size((image.shape[1], image.shape[2]), canvas, preprocessing.fit)
    resized = resize_image(image, (height, width))
    return functional.pad(resized, (0, canvas[1] - width, 0, canvas[0] - height))


def fit_label_map(label_map: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return (h, w) classes on the canvas of the contract, (H, W); padding is ``IGNORED_LABEL``."""
    canvas = preprocessing.image_size
    height, width = fitted_size((label_map.shape[0], label_map.shape[1]), canvas, preprocessing.fit)
    resized = resize_label_map(label_map, (height, width))
    return functional.pad(
        resized, (0, canvas[1] - width, 0, canvas[0] - height), value=IGNORED_LABEL
    )


def unfit_logits(logits: Tensor, native: tuple[int, int], fit: Literal["pad", "stretch"]) -> Tensor:
    """Bring logits (K, H, W) on the canvas back to the image's own size, (K, h, w).

    Logits rather than classes are interpolated: the boundary between two classes then falls
    between canvas pixels instead of on their edges.
    """
    height, width = fitted_size(native, (logits.shape[1], logits.shape[2]), fit)
    # Networks give classes last in memory, in which order a CPU enlarges three times as slowly.
    occupied = logits[None, :, :height, :width].float().contiguous()
    return functional.interpolate(occupied, size=native, mode="bilinear", align_corners=False)[0]
