"""Convolutional decoder over a Swin encoder, with convolutions of its own that see the image.

The layout of SwinUNETR (Hatamizadeh et al. 2022, arXiv 2201.01266) in 2D, with changes: the skips
are what the stages of the encoder give out rather than what they take in, and a stem of
convolutions sees the image at every resolution finer than the patches. With ``branch`` the stem
goes on down to the coarsest grid, and what a stage gives out is added to it there: a whole U-Net,
which learns from many labels as one does, and from few by what the encoder has learnt.

Shapes: B batch, H×W pixels, h×w token grid (of a stage), C channels.
"""

from collections.abc import Iterable, Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.models.backbone import SwinConfig, SwinEncoder, SwinStage
from vismae.models.convolution import (
    MOST_WIDTH,
    ResidualBlock,
    UpBlock,
    initialise_convolution,
    normalised_convolution,
)
from vismae.models.patches import pad_to_patches


class ConvolutionalDecoder(nn.Module):
    """From an image and what the stages made of it back to full resolution.

    Args:
        config: Of the encoder; its patch size is a power of two.
        width: Channels at full resolution, doubled with each halving of the stem; half of
            ``embed_dim``, between 16 and 32, when None.
        branch: Let the stem go on beside the encoder's stages.

    Raises:
        ModelError: A setting is outside its range.
    """

    def __init__(self, config: SwinConfig, width: int | None = None, branch: bool = True) -> None:
        super().__init__()
        width = max(16, min(32, config.embed_dim // 2)) if width is None else width
        halvings = config.patch_size.bit_length() - 1
        if not 1 <= width <= MOST_WIDTH or config.patch_size != 2**halvings:
            raise ModelError(
                f"width is {width} and patch_size {config.patch_size}; a convolutional decoder "
                f"needs a width of 1 to {MOST_WIDTH} and a patch size of 1, 2, 4, 8 or another "
                "power of two."
            )
        self.config = config
        self.width = width
        self.branch = branch
        stem_dims = [width * 2**level for level in range(halvings)]
        stage_dims = [config.stage_dim(stage) for stage in range(len(config.depths))]
        self.dims = [*stem_dims, *stage_dims]
        """Channels of the outputs, and of the last stage behind them, finest first."""
        convolved = self.dims if branch else stem_dims
        self.stem = nn.ModuleList(
            ResidualBlock(before, after, stride=1 if level == 0 else 2)
            for level, (before, after) in enumerate(
                zip([config.in_channels, *convolved], convolved, strict=False)
            )
        )
        # The encoder's residual stream is not normalised; its scale differs from stage to stage.
        self.skips = nn.ModuleList(normalised_convolution(dim, dim, 1) for dim in stage_dims)
        self.expanding = nn.ModuleList(
            UpBlock(self.dims[level + 1], self.dims[level], self.dims[level])
            for level in reversed(range(len(self.dims) - 1))
        )
        self.apply(initialise_convolution)

    def forward(
        self, images: Float[Tensor, "B K H W"], tokens: Sequence[Float[Tensor, "B _h _w _C"]]
    ) -> list[Float[Tensor, "B _C _h _w"]]:
        """Return features at every resolution but the coarsest, finest first.

        Args:
            images: Of any size; the finest features are of whole patches, so they may be larger.
            tokens: What each stage gave out, as from ``stage_outputs``.
        """
        x = pad_to_patches(images, self.config.patch_size)
        given = [
            skip(grid.permute(0, 3, 1, 2)) for skip, grid in zip(self.skips, tokens, strict=True)
        ]
        finer = len(self.dims) - len(given)  # levels without tokens
        features: list[Tensor] = []
        for level, block in enumerate(self.stem):
            x = block(x) if level < finer else block(x) + given[level - finer]
            features.append(x)
        features += given[len(features) - finer :]
        x = features[-1]
        decoded: list[Tensor] = []
        for block, skip in zip(self.expanding, reversed(features[:-1]), strict=True):
            x = block(x, skip)
            decoded.insert(0, x)
        return decoded


def filled_from(
    decoder: object, width: int | None, branch: bool | None
) -> tuple[int | None, bool | None]:
    """Fill unset settings of a new decoder from one that it could take over.

    Args:
        decoder: Of a start model; what is no convolutional one, or of another width, fills nothing.
        width, branch: As asked for.
    """
    if not isinstance(decoder, ConvolutionalDecoder) or width not in (None, decoder.width):
        return width, branch
    return decoder.width, decoder.branch if branch is None else branch


def stage_outputs(
    encoder: SwinEncoder, tokens: Float[Tensor, "B h w C"]
) -> list[Float[Tensor, "B _h _w _C"]]:
    """Return what each stage's blocks give out, finest grid first, before patches are merged.

    Args:
        encoder: The encoder.
        tokens: Embedded patches, as from ``encoder.embed``.
    """
    outputs = []
    for stage in cast("Iterable[SwinStage]", encoder.layers):
        for block in stage.blocks:
            tokens = stage.run(block, tokens)
        outputs.append(tokens)
        if stage.downsample is not None:
            tokens = stage.downsample(tokens)
    return outputs
