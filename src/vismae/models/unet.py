"""Swin-UNet: a label for every pixel, from encoder, decoder and skips, and its loss.

Cao et al. 2021 (arXiv 2105.05537), in the form VIS-MAE (arXiv 2402.01034) fine-tunes. Soft Dice
after Milletari et al. 2016 (arXiv 1606.04797).

Shapes: B batch, H×W pixels, h×w token grid, K classes (0 is background).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import IGNORED_LABEL
from vismae.models.backbone import (
    SwinConfig,
    SwinDecoder,
    SwinEncoder,
    config_for_size,
    split_settings,
    stage_grids,
)
from vismae.models.swin import PatchExpanding, initialise


class SwinUNet(nn.Module):
    """Segmentation network on a Swin Transformer.

    Args:
        config: The network.
        num_classes: K, with the background, at least 2.
        head_bias: Give the last layer a bias, so that it can start at the classes' shares;
            official checkpoints have none.

    Raises:
        ModelError: There are fewer than 2 classes.
    """

    SETTINGS = ("num_classes", "head_bias")
    """Settings beside the network's, as ``model.json`` keeps them."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""

    def __init__(self, config: SwinConfig, num_classes: int, head_bias: bool = True) -> None:
        super().__init__()
        if num_classes < 2:
            raise ModelError(f"num_classes is {num_classes}; give background and at least one.")
        self.config = config
        self.num_classes = num_classes
        self.head_bias = head_bias
        self.encoder = SwinEncoder(config)
        self.decoder = SwinDecoder(config)
        dims = [config.stage_dim(stage) for stage in reversed(range(len(config.depths) - 1))]
        self.skip_connection_layers = nn.ModuleList(nn.Linear(2 * dim, dim) for dim in dims)
        self.final_patch_expanding = PatchExpanding(
            config.embed_dim, config.patch_size, config.embed_dim, config.norm_eps
        )
        self.head = nn.Linear(config.embed_dim, num_classes, bias=head_bias)
        for module in (self.skip_connection_layers, self.final_patch_expanding, self.head):
            module.apply(initialise)

    @classmethod
    def from_size(
        cls, size: str, in_channels: int = 3, *, num_classes: int, **overrides: Any
    ) -> "SwinUNet":
        """Build a named network, some of its settings replaced.

        Args:
            size: Name in ``backbone.SIZES``.
            in_channels: Image channels.
            num_classes: K, with the background.
            overrides: Settings of ``SwinConfig`` or of this class.

        Raises:
            SettingError: The size or a setting is unknown; names the nearest.
        """
        network, own = split_settings(overrides, cls.SETTINGS)
        config = config_for_size(size, in_channels=in_channels, **network)
        return cls(config, num_classes, **own)

    def set_class_shares(self, shares: Sequence[float]) -> None:
        """Start the head's bias at the logarithm of each class's share of the pixels.

        Foreground is often 2 to 4 % of the pixels; from an ordinary start, training then sits at
        "all background" for hundreds of steps.

        Args:
            shares: One per class, clipped from below at 1e-4; they need not add up to 1.

        Raises:
            ModelError: The head has no bias, or the number of shares is not K.
        """
        if self.head.bias is None:
            raise ModelError("The head has no bias (head_bias=False), so it cannot hold shares.")
        if len(shares) != self.num_classes:
            raise ModelError(f"{len(shares)} class shares for {self.num_classes} classes.")
        values = torch.as_tensor(shares, dtype=torch.float64).clamp(min=1e-4)
        with torch.no_grad():
            self.head.bias.copy_((values / values.sum()).log())

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Return logits for every pixel of images of any size.

        Raises:
            ModelError: The images have another number of channels.
        """
        tokens, skips = self.encoder(images)

        def fuse(stage: int, x: Tensor) -> Tensor:
            """Join the decoder's tokens with the encoder's on the same grid."""
            layer = self.skip_connection_layers[len(skips) - 2 - stage]
            return layer(torch.cat((x, skips[stage]), dim=-1))

        x = self.decoder(tokens, stage_grids(skips), fuse)
        x = self.final_patch_expanding(x)  # (B, p·h, p·w, C)
        x = x[:, : images.shape[2], : images.shape[3]]
        return self.head(x).permute(0, 3, 1, 2)


def segmentation_loss(
    logits: Float[Tensor, "B K H W"],
    label_map: Int[Tensor, "B H W"],
    dice_weight: float = 0.6,
    ce_weight: float = 0.4,
) -> Float[Tensor, ""]:
    """Soft Dice plus cross-entropy, 0.6 and 0.4 as VIS-MAE weighs them; in float32.

    Args:
        logits: Before the softmax.
        label_map: Class of each pixel, or ``IGNORED_LABEL``.
        dice_weight: Weight of 1 - ``soft_dice``.
        ce_weight: Weight of the cross-entropy, a mean over the pixels that count.

    Returns:
        Scalar; 0 if every pixel is ignored.
    """
    logits = logits.float()
    counted = (label_map != IGNORED_LABEL).sum().clamp(min=1)
    total = F.cross_entropy(logits, label_map, ignore_index=IGNORED_LABEL, reduction="sum")
    cross_entropy = total / counted
    return ce_weight * cross_entropy + dice_weight * (1.0 - soft_dice(logits, label_map))


def soft_dice(
    logits: Float[Tensor, "B K H W"], label_map: Int[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Mean soft Dice over the foreground classes present in the batch's labels.

    Each class's pixels are pooled over the batch, which keeps the score of a small structure from
    jumping with every slice that shows a sliver of it. A class no label shows is left out: its
    Dice would be 0 whatever the network says, without a gradient; the cross-entropy pushes it
    down.

    Args:
        logits: Before the softmax.
        label_map: Class of each pixel, or ``IGNORED_LABEL``.

    Returns:
        Scalar between 0 and 1; 1 if the labels show no foreground.
    """
    counts = (label_map != IGNORED_LABEL)[:, None]
    probabilities = logits.softmax(dim=1) * counts
    classes = torch.arange(logits.shape[1], device=logits.device)[None, :, None, None]
    truth = label_map[:, None] == classes
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))[1:]
    true_size = truth.sum(dim=(0, 2, 3))[1:]
    present = true_size > 0
    dice = 2.0 * overlap / (probabilities.sum(dim=(0, 2, 3))[1:] + true_size).clamp(min=1.0)
    number = present.sum()
    mean = torch.where(present, dice, torch.zeros_like(dice)).sum() / number.clamp(min=1)
    return torch.where(number > 0, mean, torch.ones_like(mean))
