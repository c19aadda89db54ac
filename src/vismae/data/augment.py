"""Random views of unlabelled images, on the 0..1 scale, and what all random changes share.

Every function takes a numpy generator: the caller seeds it from (seed, epoch, row), so a sample's
changes do not depend on the batch or worker it comes in. C channels, H×W pixels.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vismae.core.sections import PretrainDataSettings
from vismae.core.setting_types import PositiveRange
from vismae.data.geometry import resize_image

_BLUR_RADIUS = 4


def sample_rng(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Return the generator that decides everything random about one sample."""
    return np.random.default_rng([seed, epoch, row])


def random_crop(
    image: Tensor,
    size: tuple[int, int],
    rng: np.random.Generator,
    scale: tuple[float, float],
    aspect: tuple[float, float],
) -> Tensor:
    """Cut a random rectangle and resize it to ``size``, (C, h, w) -> (C, H, W).

    Args:
        image: Any size, channels first.
        size: Height and width of the result.
        rng: Decides the rectangle.
        scale: Range of the rectangle's area as a share of the largest rectangle of the result's
            aspect ratio that fits the image, so that a long image is not squeezed.
        aspect: Range of the random change of the aspect ratio (logarithmically uniform).
    """
    height, width = image.shape[1:]
    area = rng.uniform(*scale)
    ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    whole = min(height / size[0], width / size[1])
    crop_height = min(height, max(1, round(size[0] * whole * math.sqrt(area / ratio))))
    crop_width = min(width, max(1, round(size[1] * whole * math.sqrt(area * ratio))))
    top = int(rng.integers(0, height - crop_height + 1))
    left = int(rng.integers(0, width - crop_width + 1))
    return resize_image(image[:, top : top + crop_height, left : left + crop_width], size)


def affine_matrix(
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    rotate: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    translate: float = 0.0,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
) -> Tensor:
    """Draw an output-to-input map in ``grid_sample``'s coordinates, (2, 3).

    Rotation is rigid in pixels also on a canvas that is not square. ``rotate`` is the largest
    angle in degrees, ``scale`` the range of zoom (above 1 enlarges), ``translate`` the largest
    shift as a share of a side.
    """
    angle = math.radians(rng.uniform(-rotate, rotate))
    zoom = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    shift = rng.uniform(-translate, translate, size=2) * 2
    mirror_x = -1.0 if flip_horizontal and rng.random() < 0.5 else 1.0
    mirror_y = -1.0 if flip_vertical and rng.random() < 0.5 else 1.0
    aspect = size[0] / size[1]
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    return torch.tensor(
        [
            [cosine * mirror_x, -sine * aspect * mirror_y, shift[0]],
            [sine / aspect * mirror_x, cosine * mirror_y, shift[1]],
        ],
        dtype=torch.float32,
    )


def resample(image: Tensor, matrix: Tensor) -> Tensor:
    """Resample an image (C, H, W) bilinearly; what comes from outside it is 0."""
    grid = functional.affine_grid(matrix[None], [1, *image.shape], align_corners=False)
    return functional.grid_sample(
        image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )[0]


def jitter_intensity(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Change gamma, contrast and brightness by up to ``strength``; stays within 0..1."""
    if strength == 0:
        return image
    gamma = math.exp(rng.uniform(-strength, strength) * 1.5)
    contrast = 1 + rng.uniform(-strength, strength)
    brightness = rng.uniform(-strength, strength) / 2
    # Not torch's mean, which depends in its last bits on how many threads share the work: the same
    # view is drawn by the training process or by a worker of one thread.
    mean = float(np.mean(image.numpy(), dtype=np.float64))
    return ((image.clamp(0, 1) ** gamma - mean) * contrast + mean + brightness).clamp(0, 1)


def gaussian_blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur each image (B, C, H, W) with a Gaussian of its own width (B,); edges repeat."""
    batch, channels, height, width = images.shape
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=images.device).float()
    # A spread near 0 leaves the middle weight alone.
    weights = torch.exp(-0.5 * (offsets / sigma_px.clamp(min=1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    x = images.reshape(1, batch * channels, height, width)
    for shape, padding in (
        ((-1, 1, 1, 2 * _BLUR_RADIUS + 1), (_BLUR_RADIUS, _BLUR_RADIUS, 0, 0)),
        ((-1, 1, 2 * _BLUR_RADIUS + 1, 1), (0, 0, _BLUR_RADIUS, _BLUR_RADIUS)),
    ):
        x = functional.conv2d(
            functional.pad(x, padding, mode="replicate"),
            weights.view(shape),
            groups=batch * channels,
        )
    return x.view_as(images)


def random_window(image: Tensor, rng: np.random.Generator, width: PositiveRange) -> Tensor:
    """Stretch a random part of the range 0..1 over the whole of it, and clip what lies outside.

    For an image in Hounsfield units, windowed by the contract, this is another window of a width
    between ``width`` times the contract's and within it. It holds the value of a pixel chosen at
    random, so that there is something to see.

    Args:
        image: Any shape, 0..1.
        rng: Decides width and place.
        width: Smallest and largest width, shares of at most 1 (logarithmically uniform).
    """
    share = min(1.0, math.exp(rng.uniform(math.log(width[0]), math.log(width[1]))))
    shown = float(image.flatten()[int(rng.integers(image.numel()))])
    low = min(max(shown - share * rng.random(), 0.0), 1.0 - share)
    return ((image - low) / share).clamp(0, 1)


def augment_pretrain(
    image: Tensor,
    size: tuple[int, int],
    rng: np.random.Generator,
    settings: PretrainDataSettings,
    in_hu: bool = False,
) -> Tensor:
    """Return a random view for pre-training, (C, h, w) -> (C, H, W), within 0..1.

    Args:
        image: One image of any size, 0..1.
        size: Height and width of the view.
        rng: Decides everything.
        settings: What may change.
        in_hu: The image was in Hounsfield units, so that it may be seen through another window.
    """
    view = random_crop(image, size, rng, settings.crop_scale, settings.crop_aspect)
    if in_hu and settings.ct_window_chance > 0 and rng.random() < settings.ct_window_chance:
        view = random_window(view, rng, settings.ct_window_width)
    if settings.rotate > 0:
        view = resample(view, affine_matrix(rng, size, rotate=settings.rotate))
    if settings.flip and rng.random() < 0.5:
        view = view.flip(-1)
    view = jitter_intensity(view, rng, settings.jitter)
    if settings.blur > 0 and rng.random() < 0.5:
        view = gaussian_blur(view[None], torch.tensor([rng.uniform(0.1, settings.blur)]))[0]
    return view
