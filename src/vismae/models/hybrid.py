"""Hybrid segmentation network: a pre-trained Swin encoder in a convolutional U-Net.

The layout of SwinUNETR (Hatamizadeh et al. 2022, arXiv 2201.01266) in 2D, with two changes: the
skips are what the stages of the encoder give out rather than what they take in, and a stem of
convolutions sees the image at every resolution finer than the patches.

Shapes: B batch, H×W pixels, h×w token grid (of a stage), C channels, K classes (0 is background).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.backbone import (
    SwinConfig,
    SwinEncoder,
    SwinStage,
    config_for_size,
    split_settings,
)
from vismae.models.convolution import (
    ResidualBlock,
    UpBlock,
    bias_of,
    initialise_convolution,
    log_shares,
    normalised_convolution,
    prediction_layer,
)
from vismae.models.patches import pad_to_patches

COARSE_OUTPUTS = 2
"""Outputs of deep supervision beside the full resolution's."""


class HybridUNet(nn.Module):
    """Segmentation network with a Swin encoder and a convolutional stem and decoder.

    Args:
        config: The encoder; its patch size is a power of two.
        num_classes: K, with the background, at least 2.
        width: Channels at full resolution, doubled with each halving of the stem; half of
            ``embed_dim``, between 16 and 32, when None.
        deep_supervision: In training, also predict at the next coarser resolutions.

    Raises:
        ModelError: A setting is outside its range.
    """

    SETTINGS = ("num_classes", "width", "deep_supervision")
    """Settings beside the network's, as ``model.json`` keeps them."""
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
    ) -> None:
        super().__init__()
        width = max(16, min(32, config.embed_dim // 2)) if width is None else width
        halvings = config.patch_size.bit_length() - 1
        if num_classes < 2 or width < 1 or config.patch_size != 2**halvings:
            raise ModelError(
                f"num_classes is {num_classes}, width {width} and patch_size {config.patch_size}; "
                "a hybrid needs at least 2 classes, a width of 1 or more and a patch size of 1, 2, "
                "4, 8 or another power of two."
            )
        self.config = config
        self.num_classes = num_classes
        self.width = width
        self.deep_supervision = deep_supervision
        self.encoder = SwinEncoder(config)
        stem_dims = [width * 2**level for level in range(halvings)]
        stage_dims = [config.stage_dim(stage) for stage in range(len(config.depths))]
        self.stem = nn.ModuleList(
            ResidualBlock(before, after, stride=1 if level == 0 else 2)
            for level, (before, after) in enumerate(
                zip([config.in_channels, *stem_dims], stem_dims, strict=False)
            )
        )
        # The encoder's residual stream is not normalised; its scale differs from stage to stage.
        self.skips = nn.ModuleList(normalised_convolution(dim, dim, 1) for dim in stage_dims)
        dims = [*stem_dims, *stage_dims]  # finest first
        self.expanding = nn.ModuleList(
            UpBlock(dims[level + 1], dims[level], dims[level])
            for level in reversed(range(len(dims) - 1))
        )
        outputs = min(1 + COARSE_OUTPUTS, len(self.expanding)) if deep_supervision else 1
        self.heads = nn.ModuleList(prediction_layer(dim, num_classes) for dim in dims[:outputs])
        for module in (self.stem, self.skips, self.expanding, self.heads):
            module.apply(initialise_convolution)

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
        tokens = stage_outputs(self.encoder, images)
        features: list[Tensor] = []
        x = pad_to_patches(images, self.config.patch_size)
        for block in self.stem:
            x = block(x)
            features.append(x)
        features += [
            skip(grid.permute(0, 3, 1, 2)) for skip, grid in zip(self.skips, tokens, strict=True)
        ]
        x = features[-1]
        decoded: list[Tensor] = []
        for block, skip in zip(self.expanding, reversed(features[:-1]), strict=True):
            x = block(x, skip)
            decoded.insert(0, x)  # finest first
        if not (self.training and self.deep_supervision):
            return self.heads[0](decoded[0])[:, :, :height, :width]
        return tuple(
            head(x)[:, :, : -(-height // 2**level), : -(-width // 2**level)]
            for level, (head, x) in enumerate(zip(self.heads, decoded, strict=False))
        )


def stage_outputs(
    encoder: SwinEncoder, images: Float[Tensor, "B C H W"]
) -> list[Float[Tensor, "B _h _w _C"]]:
    """Return what each stage's blocks give out, finest grid first, before patches are merged."""
    x = encoder.embed(images)
    outputs = []
    for stage in cast("Iterable[SwinStage]", encoder.layers):
        for block in stage.blocks:
            x = stage.run(block, x)
        outputs.append(x)
        if stage.downsample is not None:
            x = stage.downsample(x)
    return outputs
