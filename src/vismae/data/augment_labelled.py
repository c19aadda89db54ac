"""Random changes to labelled training images, drawn for each sample and made on whole batches.

What changes and by how much is drawn on the host from (seed, epoch, row), a dozen numbers a sample,
so it does not depend on the batch or worker a sample comes in. The changes themselves run on the
device of the images, all of a batch at once, and the host waits for nothing. Only the grain of the
noise is drawn there, from torch's own generator, which training seeds anew for every batch.

The kinds of change are those of nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

Shapes: B batch, C channels, H×W pixels. Images are on the 0..1 scale, and stay there.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vismae.core.augment_section import AugmentSettings
from vismae.core.types import IGNORED_LABEL
from vismae.data.augment import affine_matrix, gaussian_blur


class _Places(NamedTuple):
    """Where the numbers of a sample stand after the six of its affine map."""

    gamma: int = 6
    contrast: int = 7
    brightness: int = 8
    blur_px: int = 9
    resolution: int = 10
    noise: int = 11


_AT = _Places()
UNCHANGED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0)
"""The numbers of a sample that stays as it is."""


def draw_changes(
    rng: np.random.Generator, size: tuple[int, int], settings: AugmentSettings
) -> Float[Tensor, "12"]:
    """Draw what is to happen to one sample.

    Args:
        rng: Decides.
        size: Height and width of the image.
        settings: Ranges and chances.

    Returns:
        Output-to-input map row by row, then gamma, contrast, brightness, blur in pixels,
        resolution, noise.
    """
    changes = torch.tensor(UNCHANGED)
    if rng.random() < settings.probability:
        matrix = affine_matrix(
            rng,
            size,
            rotate=settings.rotate or 0.0,
            scale=settings.scale,
            translate=settings.translate,
            flip_horizontal=settings.flip_horizontal,
            flip_vertical=settings.flip_vertical,
        )
        changes[:6] = matrix.flatten()
    for place, (low, high) in (
        (_AT.gamma, settings.gamma),
        (_AT.contrast, settings.contrast),
        (_AT.brightness, settings.brightness),
        (_AT.resolution, (settings.low_resolution, 1.0)),
    ):
        # Factors are drawn on a logarithmic scale: half and double are as likely.
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
        if rng.random() < settings.intensity_probability:
            changes[place] = value
    for place, most in ((_AT.blur_px, settings.blur), (_AT.noise, settings.noise)):
        value = rng.uniform(0.0, most)
        if rng.random() < settings.intensity_probability:
            changes[place] = value
    return changes


def apply_changes(
    images: Float[Tensor, "B C H W"],
    label_maps: Int[Tensor, "B H W"] | None,
    changes: Float[Tensor, "B 12"],
) -> tuple[Tensor, Tensor | None]:
    """Make the changes drawn for each image of a batch, and move its label map alike.

    What comes from outside an image is 0, and ``IGNORED_LABEL`` in the label map.

    Args:
        images: On the 0..1 scale.
        label_maps: Class of each pixel.
        changes: As ``draw_changes`` gives them.
    """
    changes = changes.to(images.device)
    moved, labels = _move(images.float(), label_maps, changes[:, :6].view(-1, 2, 3))
    moved = gaussian_blur(moved, changes[:, _AT.blur_px])
    moved = _coarsen(moved, changes[:, _AT.resolution])
    by_image = changes[:, :, None, None, None]
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    moved = ((moved - mean) * by_image[:, _AT.contrast] + mean) * by_image[:, _AT.brightness]
    moved = moved.clamp(0.0, 1.0) ** by_image[:, _AT.gamma]
    moved = moved + torch.randn_like(moved) * by_image[:, _AT.noise]
    return moved.clamp(0.0, 1.0), labels


def _move(
    images: Tensor, label_maps: Tensor | None, matrices: Tensor
) -> tuple[Tensor, Tensor | None]:
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # Bilinear weights of a map that does nothing are 1 only up to rounding. It is made on the
    # device: to copy it there would wait for all that the device still has to do.
    unchanged = torch.eye(2, 3, dtype=matrices.dtype, device=matrices.device)
    still = (matrices == unchanged).flatten(1).all(dim=1)
    moved = torch.where(still[:, None, None, None], images, moved)
    if label_maps is None:
        return moved, None
    # What comes from outside becomes 0, which stands for IGNORED_LABEL until it is added again.
    shifted = (label_maps - IGNORED_LABEL).float()[:, None]
    classes = F.grid_sample(
        shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False
    )[:, 0]
    classes = classes.round().to(label_maps.dtype) + IGNORED_LABEL
    return moved, torch.where(still[:, None, None], label_maps, classes)


def _coarsen(images: Tensor, resolution: Tensor) -> Tensor:
    """Show each image as if it had been taken with fewer pixels: nearest down, bilinear up.

    Both are separable, so rows and columns follow one another, each image with a share of its own.
    """
    share = resolution[:, None]
    for axis in (2, 3):
        count = images.shape[axis]
        place = (torch.arange(count, device=images.device) + 0.5) * share - 0.5  # (B, count)
        before = place.floor()
        weight = _along(place - before, axis)
        sides = [
            images.gather(axis, _along(index, axis).expand_as(images))
            for index in (
                _nearest(before, share, count),
                _nearest(before + 1.0, share, count),
            )
        ]
        images = torch.lerp(sides[0], sides[1], weight)
    return images


def _nearest(coarse: Tensor, share: Tensor, count: int) -> Tensor:
    """Pixel of the fine grid that a pixel of the coarse one was taken from, (B, count)."""
    last = (count * share).round().clamp(min=1.0) - 1.0
    inside = torch.minimum(coarse.clamp(min=0.0), last)
    return ((inside + 0.5) / share).floor().clamp(0, count - 1).long()


def _along(values: Tensor, axis: int) -> Tensor:
    """Turn (B, n) into (B, 1, n, 1) for rows or (B, 1, 1, n) for columns."""
    return values[:, None, :, None] if axis == 2 else values[:, None, None, :]
