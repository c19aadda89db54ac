"""Swin-UNet: a label for every pixel, from encoder, decoder and skips.

Cao et al. 2021 (arXiv 2105.05537), in the form VIS-MAE (arXiv 2402.01034) fine-tunes. Its loss is
``segmentation_loss.py``.

Shapes: B batch, H×W pixels, h×w token grid, K classes (0 is background).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.backbone import (
    SwinConfig,
    SwinDecoder,
    SwinEncoder,
    config_for_size,
    split_settings,
    stage_grids,
)
from vismae.models.convolution import ConvolutionalHead, bias_of, log_shares
from vismae.models.swin import PatchExpanding, initialise


class SwinUNet(nn.Module):
    """Segmentation network on a Swin Transformer.

    Args:
        config: The network.
        num_classes: K, with the background, at least 2.
        head_bias: Give the last layer a bias, so that it can start at the classes' shares;
            official checkpoints have none.
        head_kind: ``linear``, the paper's; or ``convolutional``, which also sees the image and
            always has a bias.

    Raises:
        ModelError: There are fewer than 2 classes, or the head is of no known kind.
    """

    SETTINGS = ("num_classes", "head_bias", "head_kind")
    """Settings beside the network's, as ``model.json`` keeps them."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""

    def __init__(
        self,
        config: SwinConfig,
        num_classes: int,
        head_bias: bool = True,
        head_kind: str = "linear",
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ModelError(f"num_classes is {num_classes}; give background and at least one.")
        if head_kind not in ("linear", "convolutional"):
            raise ModelError(f"head_kind is '{head_kind}'; use linear or convolutional.")
        self.config = config
        self.num_classes = num_classes
        self.head_bias = head_bias
        self.head_kind = head_kind
        self.encoder = SwinEncoder(config)
        self.decoder = SwinDecoder(config)
        dims = [config.stage_dim(stage) for stage in reversed(range(len(config.depths) - 1))]
        self.skip_connection_layers = nn.ModuleList(nn.Linear(2 * dim, dim) for dim in dims)
        self.final_patch_expanding = PatchExpanding(
            config.embed_dim, config.patch_size, config.embed_dim, config.norm_eps
        )
        if head_kind == "convolutional":
            self.head = ConvolutionalHead(config.in_channels, config.embed_dim, num_classes)
        else:
            self.head = nn.Linear(config.embed_dim, num_classes, bias=head_bias)
            self.head.apply(initialise)
        for module in (self.skip_connection_layers, self.final_patch_expanding):
            module.apply(initialise)

    @property
    def network(self) -> Literal["swin_unet", "swin_unet_conv"]:
        """Name among the segmentation networks."""
        return "swin_unet" if self.head_kind == "linear" else "swin_unet_conv"

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
            shares: As for ``log_shares``.

        Raises:
            ModelError: The head has no bias, or the number of shares is not K.
        """
        head = self.head.predict if isinstance(self.head, ConvolutionalHead) else self.head
        with torch.no_grad():
            bias_of(head).copy_(log_shares(shares, self.num_classes))

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
        if isinstance(self.head, ConvolutionalHead):
            return self.head(x, images)
        return self.head(x).permute(0, 3, 1, 2)
