"""Images as rows of patches, and the loss of hidden patches that were filled in.

He et al. 2022 (arXiv 2111.06377, sec. 3, "Reconstruction target"); VIS-MAE (arXiv 2402.01034)
uses the same.

Shapes: B batch, H×W pixels, K image channels, p patch side, h×w patch grid, L = h·w,
D = p·p·K pixel values of a patch.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models.patches import pad_to_patches


def patchify(images: Float[Tensor, "B K H W"], patch_size: int) -> Float[Tensor, "B L D"]:
    """Cut images into patches, row by row, each a row of (row, column, channel) values.

    Images are padded with zeros at the right and bottom to whole patches.
    """
    images = pad_to_patches(images, patch_size)
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = images.view(batch, channels, rows, patch_size, columns, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


def unpatchify(
    patches: Float[Tensor, "B L D"], patch_size: int, height: int, width: int
) -> Float[Tensor, "B K {height} {width}"]:
    """Put patches back into images of this size; the inverse of ``patchify``."""
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    x = patches.view(patches.shape[0], rows, columns, patch_size, patch_size, -1)
    x = x.permute(0, 5, 1, 3, 2, 4)
    x = x.reshape(x.shape[0], x.shape[1], rows * patch_size, columns * patch_size)
    return x[:, :, :height, :width]


def real_pixels(images: Float[Tensor, "B K H W"], patch_size: int) -> Float[Tensor, "1 L D"] | None:
    """1 for each real value of each patch, 0 for padding; None if nothing is padded."""
    if images.shape[2] % patch_size == 0 and images.shape[3] % patch_size == 0:
        return None
    return patchify(torch.ones_like(images[:1], dtype=torch.float32), patch_size)


def hidden_pixels(
    hidden: Bool[Tensor, "B L"], patch_size: int, height: int, width: int
) -> Bool[Tensor, "B 1 {height} {width}"]:
    """Return which pixels of images of this size lie in hidden patches."""
    return _over_squares(hidden[:, :, None], patch_size, height, width)


def square_statistics(
    images: Float[Tensor, "B K H W"], side: int, normalise_eps: float
) -> tuple[Float[Tensor, "B 1 H W"], Float[Tensor, "B 1 H W"]]:
    """Mean and spread, at every pixel, of the square around it over its real pixels.

    The variance is unbiased and ``normalise_eps`` is added before the root, as in MAE's code.

    Args:
        images: Images; squares are counted from their top left corner.
        side: Of the squares, in pixels.
        normalise_eps: Added to the variance.
    """
    size = images.shape[2], images.shape[3]
    side = min(side, max(size))  # a larger square is the same one with more padding
    squares, real = patchify(images, side), real_pixels(images, side)
    weight = torch.ones_like(squares[:1]) if real is None else real
    count = weight.sum(dim=-1, keepdim=True)
    mean = (squares * weight).sum(dim=-1, keepdim=True) / count
    square = ((squares - mean).square() * weight).sum(dim=-1, keepdim=True)
    spread = (square / (count - 1).clamp(min=1) + normalise_eps).sqrt()
    return _over_squares(mean, side, *size), _over_squares(spread, side, *size)


def _over_squares(values: Tensor, side: int, height: int, width: int) -> Tensor:
    """Spread one value of each square, (B, L, 1), over its pixels, (B, 1, H, W)."""
    return unpatchify(values.expand(-1, -1, side * side), side, height, width)


def reconstruction_loss(
    prediction: Float[Tensor, "B L D"],
    image: Float[Tensor, "B K H W"],
    hidden: Bool[Tensor, "B L"],
    normalise_patches: bool = False,
    normalise_eps: float = 1e-6,
    patch_weights: Float[Tensor, "B L"] | None = None,
    normalise_side_px: int | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error per pixel over hidden patches only.

    He et al. 2022 (arXiv 2111.06377, sec. 3, "Reconstruction target"); VIS-MAE (arXiv 2402.01034)
    uses the same. Computed in float32; pixels that only pad a patch never count.

    Args:
        prediction: One row of p·p·K pixel values per patch, order (row, column, channel).
        image: Normalised image, values about 0 with unit spread.
        hidden: True where the encoder did not see the patch.
        normalise_patches: Compare with each patch scaled to mean 0, variance 1.
        normalise_eps: Added to the patch variance; 1e-6 is MAE's, but then flat patches of medical
            images blow up noise, and 1e-3 trains better.
        patch_weights: Weight of each patch in the mean, not below 0; None weighs all alike.
        normalise_side_px: Side of the squares that are scaled; the patches when None.

    Returns:
        Scalar; 0 only for a perfect fill-in, or where all hidden patches weigh 0; NaN if no patch
        is hidden and all weigh alike (a mean over nothing; checking would make the computer wait
        for the GPU in every step).
    """
    patch_size = _patch_side(prediction, image)
    target = image.float()
    if normalise_patches:
        side = patch_size if normalise_side_px is None else normalise_side_px
        mean, spread = square_statistics(target, side, normalise_eps)
        target = (target - mean) / spread
    target = patchify(target, patch_size)
    real = real_pixels(image, patch_size)
    weight = hidden.float() if patch_weights is None else hidden * patch_weights.float()
    # Weights of 0 may leave nothing, as where a small batch hides background alone.
    least = 0.0 if patch_weights is None else torch.finfo(weight.dtype).tiny
    square = (prediction.float() - target).square()
    if real is None:
        return (square.mean(dim=-1) * weight).sum() / weight.sum().clamp(min=least)
    pixel_weight = weight[:, :, None] * real
    return (square * pixel_weight).sum() / pixel_weight.sum().clamp(min=least)


def _patch_side(prediction: Tensor, image: Tensor) -> int:
    """Side of a patch, from the length of a row and the image's channels."""
    channels = image.shape[1]
    side = round((prediction.shape[-1] / channels) ** 0.5)
    patches = -(-image.shape[2] // max(side, 1)) * -(-image.shape[3] // max(side, 1))
    if side * side * channels != prediction.shape[-1] or patches != prediction.shape[1]:
        raise ModelError(
            f"The prediction {tuple(prediction.shape)} does not cover the images "
            f"{tuple(image.shape)}. Expected one row of p·p·{channels} values per patch."
        )
    return side
