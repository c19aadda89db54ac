"""Resizing as products with weights that are computed from the sizes themselves.

The same numbers as ``geometry.resize_image`` and ``geometry.unfit_logits``, but in operations that
exported programs can hold for images of any size: the sizes are tensors, not Python numbers.

h native length, H length of the canvas; both axes of an image are treated alike and apart.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def places_along(image: Tensor, dim: int) -> Float[Tensor, " h"]:
    """Return 0, 1, 2 and so on along an axis, in float64."""
    return torch.arange(image.shape[dim], dtype=torch.float64, device=image.device)


def occupied_lengths(
    rows: Float[Tensor, " h"],
    columns: Float[Tensor, " w"],
    canvas: tuple[int, int],
    fit: Literal["pad", "stretch"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return height and width that an image occupies on the canvas, as ``fitted_size`` does."""
    height, width = rows[-1] + 1.0, columns[-1] + 1.0
    if fit == "stretch":
        return torch.full_like(height, canvas[0]), torch.full_like(width, canvas[1])
    factor = torch.minimum(canvas[0] / height, canvas[1] / width)
    return (
        (height * factor).round().clamp(1.0, canvas[0]),
        (width * factor).round().clamp(1.0, canvas[1]),
    )


def shrinking_weights(
    places: Float[Tensor, " h"], occupied: Float[Tensor, ""], canvas: int
) -> Float[Tensor, "{canvas} h"]:
    """Return the weight of each native pixel in each pixel of the canvas; 0 in the padding.

    A triangle as wide as two native pixels, or two pixels of the canvas where it shrinks: bilinear
    interpolation with antialiasing, as torch computes it.

    Args:
        places: From ``places_along``.
        occupied: Length that the image has on the canvas.
        canvas: H.
    """
    onto = torch.arange(canvas, dtype=torch.float64, device=places.device)[:, None]
    scale = (places[-1] + 1.0) / occupied
    distance = (places[None, :] + 0.5 - (onto + 0.5) * scale) / scale.clamp(min=1.0)
    weights = (1.0 - distance.abs()).clamp(min=0.0)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.where(onto < occupied, weights, 0.0).float()


def enlarging_weights(
    places: Float[Tensor, " h"], occupied: Float[Tensor, ""], canvas: int
) -> Float[Tensor, "h {canvas}"]:
    """Return the weight of each pixel of the canvas in each native pixel: plain bilinear.

    Args:
        places: From ``places_along``.
        occupied: Length that the image has on the canvas.
        canvas: H.
    """
    onto = torch.arange(canvas, dtype=torch.float64, device=places.device)[None, :]
    source = (places + 0.5) * (occupied / (places[-1] + 1.0)) - 0.5
    source = torch.minimum(source.clamp(min=0.0), occupied - 1.0)
    return (1.0 - (onto - source[:, None]).abs()).clamp(min=0.0).float()
