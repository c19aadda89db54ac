"""Hybrid segmentation network: a pre-trained Swin encoder inside a convolutional U-Net.

Shapes: B batch, H×W pixels, C channels, K classes (0 is background).
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.backbone import SwinConfig, SwinEncoder, config_for_size, split_settings
from vismae.models.convolution import bias_of, log_shares, prediction_layer
from vismae.models.convolutional_decoder import ConvolutionalDecoder, stage_outputs

COARSE_OUTPUTS = 2
"""Outputs of deep supervision beside the full resolution's."""


class HybridUNet(nn.Module):
    """Segmentation network with a Swin encoder and a convolutional stem and decoder.

    Args:
        config: The encoder; its patch size is a power of two.
        num_classes: K, with the background, at least 2.
        width: Of the decoder, see ``ConvolutionalDecoder``.
        deep_supervision: In training, also predict at the next coarser resolutions.
        branch: Convolutions go on beside the encoder, see ``ConvolutionalDecoder``.

    Raises:
        ModelError: A setting is outside its range.
    """

    SETTINGS = ("num_classes", "width", "deep_supervision", "branch")
    """Settings beside the network's, as ``model.json`` keeps them."""
    UNNAMED: ClassVar[dict[str, Any]] = {"branch": False}
    """What a ``model.json`` means that does not name a setting: it is older than the setting."""
    network: Literal["hybrid"] = "hybrid"
    """Name among the segmentation networks."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""

    def __init__(
        self,
        config: SwinConfig,
        num_classes: int,
        width: int | None = None,
        deep_supervision: bool = False,
        branch: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ModelError(f"num_classes is {num_classes}; a hybrid needs at least 2 classes.")
        self.config = config
        self.num_classes = num_classes
        self.deep_supervision = deep_supervision
        self.encoder = SwinEncoder(config)
        self.decoder = ConvolutionalDecoder(config, width, branch)
        self.width = self.decoder.width
        self.branch = branch
        levels = len(self.decoder.expanding)
        outputs = min(1 + COARSE_OUTPUTS, levels) if deep_supervision else 1
        self.heads = nn.ModuleList(
            prediction_layer(dim, num_classes) for dim in self.decoder.dims[:outputs]
        )

    @classmethod
    def from_size(
        cls, size: str, in_channels: int = 3, *, num_classes: int, **overrides: Any
    ) -> "HybridUNet":
        """Build with a named encoder, some of its settings replaced.

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
        """Start every output's bias at the logarithm of each class's share of the pixels.

        Args:
            shares: As for ``log_shares``.

        Raises:
            ModelError: The number of shares is not K.
        """
        logits = log_shares(shares, self.num_classes)
        with torch.no_grad():
            for head in self.heads:
                bias_of(head).copy_(logits)

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B K H W"] | tuple[Tensor, ...]:
        """Return logits for every pixel of images of any size.

        In training with deep supervision: a tuple, full resolution first, then each output on half
        the grid of the one before, as ``segmentation_loss`` takes it.

        Raises:
            ModelError: The images have another number of channels.
        """
        height, width = images.shape[2:]
        tokens = stage_outputs(self.encoder, self.encoder.embed(images))
        decoded = self.decoder(images, tokens)
        if not (self.training and self.deep_supervision):
            return self.heads[0](decoded[0])[:, :, :height, :width]
        return tuple(
            head(x)[:, :, : -(-height // 2**level), : -(-width // 2**level)]
            for level, (head, x) in enumerate(zip(self.heads, decoded, strict=False))
        )
