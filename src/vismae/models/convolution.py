"""Convolutional parts of the segmentation networks: residual blocks, upsampling, a head.

Residual blocks as in SwinUNETR (Hatamizadeh et al. 2022, arXiv 2201.01266) with group norm (Wu and
He 2018, arXiv 1803.08494), which does not depend on the batch and works on a grid of one pixel.

Shapes: B batch, H×W pixels, C channels, K classes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vismae.core.errors import ModelError

SLOPE = 0.01
"""Of the leaky rectifiers, as in nnU-Net."""
MOST_WIDTH = 1024
"""Channels at full resolution that are built; a card from outside must not ask for more."""


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each normalised, and a shortcut.

    Args:
        in_channels: Channels before.
        out_channels: Channels after.
        stride: 2 halves the grid.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = normalised_convolution(in_channels, out_channels, 3, stride)
        self.conv2 = normalised_convolution(out_channels, out_channels, 3)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = (
            normalised_convolution(in_channels, out_channels, 1, stride) if changes else None
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """Transform a grid of any size."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = self.conv2(F.leaky_relu(self.conv1(x), SLOPE))
        return F.leaky_relu(x + shortcut, SLOPE)


class UpBlock(nn.Module):
    """Double the grid, join what the skip brings, and mix both.

    Args:
        in_channels: Channels of the coarse grid.
        skip_channels: Channels of the skip.
        out_channels: Channels after.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
        self.mix = ResidualBlock(out_channels + skip_channels, out_channels)

    def forward(
        self, x: Float[Tensor, "B C h w"], skip: Float[Tensor, "B C2 H W"]
    ) -> Float[Tensor, "B C3 H W"]:
        """Return a grid of the skip's size; doubling an odd grid's half overshoots by one."""
        x = self.up(x)[:, :, : skip.shape[2], : skip.shape[3]]
        return self.mix(torch.cat((x, skip), dim=1))


class ConvolutionalHead(nn.Module):
    """Logits from a Swin decoder's pixels and from the image itself.

    Tokens are made of whole patches; the image gives back the edges inside them.

    Args:
        image_channels: Channels of the image.
        token_channels: Channels of the decoder's output.
        num_classes: K.
        width: Channels of the convolutions.
    """

    def __init__(
        self, image_channels: int, token_channels: int, num_classes: int, width: int = 32
    ) -> None:
        super().__init__()
        self.stem = ResidualBlock(image_channels, width)
        self.mix = ResidualBlock(token_channels + width, width)
        self.predict = prediction_layer(width, num_classes)
        self.apply(initialise_convolution)

    def forward(
        self, tokens: Float[Tensor, "B H W C"], images: Float[Tensor, "B C2 H W"]
    ) -> Float[Tensor, "B K H W"]:
        """Return logits for every pixel."""
        x = torch.cat((tokens.permute(0, 3, 1, 2), self.stem(images)), dim=1)
        return self.predict(self.mix(x))


def normalised_convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1
) -> nn.Sequential:
    """Return a convolution without bias that keeps the grid (or divides it), and a group norm."""
    groups = next(count for count in (8, 4, 2, 1) if out_channels % count == 0)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.GroupNorm(groups, out_channels),
    )


def prediction_layer(channels: int, outputs: int, spread: float | None = None) -> nn.Conv2d:
    """Return the 1×1 convolution that gives logits, or pixel values, its bias at 0.

    Args:
        channels: Of normalised features.
        outputs: Classes, or channels of the image.
        spread: Of the first weights; None gives logits of about unit size. From weights near 0
            AdamW takes a hundred steps to a confident answer, and what is below learns slowly until
            then.
    """
    layer = nn.Conv2d(channels, outputs, 1)
    nn.init.trunc_normal_(layer.weight, std=channels**-0.5 if spread is None else spread)
    with torch.no_grad():
        # What a rectifier lets through has the same mean in all channels: it is to change no logit.
        layer.weight -= layer.weight.mean(dim=1, keepdim=True)
    nn.init.zeros_(bias_of(layer))
    return layer


def bias_of(layer: nn.Module) -> nn.Parameter:
    """Return a layer's bias.

    Raises:
        ModelError: It has none.
    """
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise ModelError("The head has no bias (head_bias=False), so it cannot hold shares.")
    return bias


def initialise_convolution(module: nn.Module) -> None:
    """Draw one module's weights; for ``nn.Module.apply``.

    Convolutions without a bias: He et al. 2015 (arXiv 1502.01852) for the leaky rectifier.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is None:
        nn.init.kaiming_normal_(module.weight, a=SLOPE)


def log_shares(shares: Sequence[float], num_classes: int) -> Float[Tensor, " K"]:
    """Return the logits whose softmax is each class's share of the pixels.

    Args:
        shares: One per class, clipped from below at 1e-4; they need not add up to 1.
        num_classes: K.

    Raises:
        ModelError: The number of shares is not K.
    """
    if len(shares) != num_classes:
        raise ModelError(f"{len(shares)} class shares for {num_classes} classes.")
    values = torch.as_tensor(shares, dtype=torch.float64).clamp(min=1e-4)
    return (values / values.sum()).log().float()
