"""The Swin encoder and its mirrored decoder, shared by every model, and their named sizes.

Encoder: Liu et al. 2021 (arXiv 2103.14030). Decoder: Swin-Unet, Cao et al. 2021 (arXiv
2105.05537), used for masked pre-training by Swin-MAE (arXiv 2212.13805) and VIS-MAE (arXiv
2402.01034). Attribute names follow the official checkpoints, so that reading one is renaming.

Shapes: B batch, H×W pixels, h×w token grid (of a stage), C channels, S stages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vismae.core.errors import ModelError, SettingError
from vismae.models.made_again import keeping_all
from vismae.models.patches import PatchEmbed
from vismae.models.swin import PatchExpanding, PatchMerging, SwinBlock, initialise

Grid = tuple[int, int]


@dataclass(frozen=True)
class SwinConfig:
    """What one Swin network is made of; what differs between Swin families is a setting here.

    Attributes:
        in_channels: Image channels.
        patch_size: Side of a patch in pixels.
        embed_dim: Channels of the first stage; each later stage has twice as many.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        window_size: M, tokens at a window's side; gives the size of the bias tables.
        mlp_ratio: Hidden channels of the MLPs as a multiple of the stage's.
        drop_path: Rate in the deepest block; grows linearly from 0 in the first.
        norm_eps: Added to the variance in LayerNorms (VIS-MAE 1e-6, Microsoft's Swin 1e-5).
        shift_single_window: Shift even a grid of a single window (VIS-MAE); otherwise the window
            shrinks to the grid there and nothing is shifted (Microsoft's Swin).
    """

    in_channels: int = 3
    patch_size: int = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 2, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    norm_eps: float = 1e-6
    shift_single_window: bool = True

    def __post_init__(self) -> None:
        """Check that a network can be built.

        Raises:
            ModelError: Names the field, its value and the rule.
        """
        for name in ("in_channels", "patch_size", "embed_dim", "window_size"):
            if getattr(self, name) < 1:
                raise ModelError(f"architecture.{name} is {getattr(self, name)}; use 1 or more.")
        if len(self.depths) < 2 or len(self.depths) != len(self.num_heads):
            raise ModelError(
                f"architecture.depths has {len(self.depths)} stages and architecture.num_heads "
                f"{len(self.num_heads)}; give both the same number, at least 2."
            )
        if min(self.depths) < 1 or min(self.num_heads) < 1:
            raise ModelError(
                f"architecture.depths {self.depths} and architecture.num_heads {self.num_heads} "
                "must be 1 or more in every stage."
            )
        for stage, heads in enumerate(self.num_heads):
            if self.stage_dim(stage) % heads:
                raise ModelError(
                    f"architecture.num_heads[{stage}] is {heads}, which does not divide the "
                    f"stage's {self.stage_dim(stage)} channels (embed_dim {self.embed_dim} "
                    f"doubled {stage} times). Choose a divisor."
                )
        if not 0.0 <= self.drop_path < 1.0:
            raise ModelError(f"architecture.drop_path is {self.drop_path}; use 0 to below 1.")
        if self.mlp_ratio <= 0.0 or self.norm_eps <= 0.0:
            raise ModelError(
                f"architecture.mlp_ratio is {self.mlp_ratio} and architecture.norm_eps is "
                f"{self.norm_eps}; both must be above 0."
            )

    def stage_dim(self, stage: int) -> int:
        """Channels of an encoder stage, counted from 0."""
        return self.embed_dim * 2**stage

    def drop_path_rates(self) -> list[list[float]]:
        """Drop-path rate of each block, by encoder stage."""
        rates = torch.linspace(0.0, self.drop_path, sum(self.depths)).tolist()
        ends = torch.tensor(self.depths).cumsum(0).tolist()
        return [rates[end - depth : end] for end, depth in zip(ends, self.depths, strict=True)]

    @property
    def token_side(self) -> int:
        """Pixels along the side of a token of the last stage."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    def patch_grid(self, height: int, width: int) -> Grid:
        """Patches that cover an image of this many pixels: rows, columns."""
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def stage_grids(self, height: int, width: int) -> list[Grid]:
        """Rows and columns of each stage for an image of this many pixels, finest first."""
        grids = [self.patch_grid(height, width)]
        while len(grids) < len(self.depths):
            rows, columns = grids[-1]
            grids.append((-(-rows // 2), -(-columns // 2)))
        return grids

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for ``model.json``."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SwinConfig":
        """Read what ``to_dict`` gave.

        Raises:
            ModelError: A field is unknown or does not fit.
        """
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(
                f"architecture.{unknown[0]} is no field of a Swin network. The model folder may "
                "come from a newer vismae; update it."
            )
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        try:
            return cls(**settings)
        except TypeError as error:
            raise ModelError(
                f"architecture holds a value of the wrong type ({error}): {dict(data)}. The file "
                "was changed by hand or is damaged; take a fresh copy."
            ) from error


SIZES: dict[str, SwinConfig] = {
    "nano": SwinConfig(embed_dim=32, depths=(1, 1, 2), num_heads=(1, 2, 4)),
    "micro": SwinConfig(embed_dim=64, depths=(1, 2, 4), num_heads=(2, 4, 8)),
    "vismae": SwinConfig(),
    "tiny": SwinConfig(depths=(2, 2, 6, 2)),
    "small": SwinConfig(depths=(2, 2, 18, 2)),
    "base": SwinConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}
"""Networks by name; ``vismae`` is the paper's."""


def nearest(name: str, known: Sequence[str]) -> str:
    """End of an error message: the most similar known name, or all of them."""
    close = get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."


def config_for_size(size: str, **overrides: Any) -> SwinConfig:
    """Return a named network's settings, some of them replaced.

    Raises:
        SettingError: The size or a setting is unknown; names the nearest.
        ModelError: The settings do not fit together.
    """
    if size not in SIZES:
        raise SettingError(f"'{size}' is not a model size. {nearest(size, list(SIZES))}")
    known = [field.name for field in fields(SwinConfig)]
    for name in overrides:
        if name not in known:
            raise SettingError(f"'{name}' is not a setting of the network. {nearest(name, known)}")
    return SwinConfig(**{**asdict(SIZES[size]), **overrides})


def split_settings(
    settings: Mapping[str, Any], own: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keyword settings into those of ``SwinConfig`` and those of the model round it.

    Args:
        settings: Values by name.
        own: Names of the model's own settings.

    Returns:
        Settings of the network, settings of the model.

    Raises:
        SettingError: A name belongs to neither; names the nearest.
    """
    network = [field.name for field in fields(SwinConfig)]
    for name in settings:
        if name not in network and name not in own:
            known = [*own, *network]
            raise SettingError(f"'{name}' is not a setting of this model. {nearest(name, known)}")
    return (
        {name: value for name, value in settings.items() if name in network},
        {name: value for name, value in settings.items() if name in own},
    )


class EncoderOutput(NamedTuple):
    """What an encoder knows of an image.

    Attributes:
        tokens: Output of the last stage, (B, h, w, C).
        skips: Input of each stage, finest grid first, each (B, h, w, C).
    """

    tokens: Tensor
    skips: tuple[Tensor, ...]


class SwinStage(nn.Module):
    """Blocks on one grid, every second one shifted, then perhaps a change of the grid.

    Args:
        config: Settings of all blocks.
        stage: Number of the encoder stage (or of its mirror image) from 0.
        downsample: Merge patches afterwards.
        upsample: Expand patches afterwards.
    """

    checkpointing = False
    """Keep only the blocks' inputs for the backward pass, which computes the rest again."""

    def __init__(
        self, config: SwinConfig, stage: int, downsample: bool = False, upsample: bool = False
    ) -> None:
        super().__init__()
        dim = config.stage_dim(stage)
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim,
                config.num_heads[stage],
                config.window_size,
                shifted=number % 2 == 1,
                mlp_ratio=config.mlp_ratio,
                drop_path=rate,
                norm_eps=config.norm_eps,
                shift_single_window=config.shift_single_window,
            )
            for number, rate in enumerate(config.drop_path_rates()[stage])
        )
        self.downsample = PatchMerging(dim, config.norm_eps) if downsample else None
        self.upsample = PatchExpanding(dim, 2, dim // 2, config.norm_eps) if upsample else None

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h2 w2 C2"]:
        """Run the blocks, then merge or expand."""
        for block in self.blocks:
            x = self.run(block, x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x

    def run(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Call the function, keeping its arguments only if ``checkpointing`` is set.

        Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174); the same gradients for about
        a third more work, and drop path drops the same samples again.
        """
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(keeping_all(function), *arguments, use_reentrant=False)
        return function(*arguments)


class SwinEncoder(nn.Module):
    """Patch embedding and S stages, each on half the grid of the one before.

    Args:
        config: The network.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        last = len(config.depths) - 1
        self.patch_embed = PatchEmbed(
            config.in_channels, config.embed_dim, config.patch_size, config.norm_eps
        )
        self.layers = nn.ModuleList(
            SwinStage(config, stage, downsample=stage < last) for stage in range(last + 1)
        )
        self.apply(initialise)

    @property
    def out_dim(self) -> int:
        """Channels of the last stage's tokens."""
        return self.config.stage_dim(len(self.config.depths) - 1)

    def embed(self, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B h w C"]:
        """Turn images into tokens, before anything is hidden and before any stage."""
        return self.patch_embed(images)

    def encode(self, tokens: Float[Tensor, "B h w C"]) -> EncoderOutput:
        """Run all stages over embedded patches."""
        skips = []
        for stage in self.layers:
            skips.append(tokens)
            tokens = stage(tokens)
        return EncoderOutput(tokens, tuple(skips))

    def forward(self, images: Float[Tensor, "B K H W"]) -> EncoderOutput:
        """Embed and encode images of any size."""
        return self.encode(self.embed(images))


class SwinDecoder(nn.Module):
    """The encoder's mirror image: from the last stage's grid back to the first one's.

    Its parameters are the same in the masked autoencoder and in Swin-UNet; what Swin-UNet adds at
    the skips comes in from outside as ``fuse``.

    Args:
        config: The encoder's settings.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        last = len(config.depths) - 1
        dim = config.stage_dim(last)
        self.first_patch_expanding = PatchExpanding(dim, 2, dim // 2, config.norm_eps)
        self.layers_up = nn.ModuleList(
            SwinStage(config, stage, upsample=stage > 0) for stage in reversed(range(last))
        )
        self.norm_up = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.apply(initialise)

    def forward(
        self,
        tokens: Float[Tensor, "B h w C"],
        grids: Sequence[Grid],
        fuse: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "B H W D"]:
        """Return tokens on the first stage's grid, (B, h, w, embed_dim), normalised.

        Args:
            tokens: Output of the encoder's last stage.
            grids: Rows and columns of each encoder stage, finest first. Doubling an odd grid's
                half gives one row or column too many, which is cut.
            fuse: Called before each decoder stage with the number of the encoder stage on the
                same grid and the tokens; returns tokens of the same shape.
        """
        x = self.first_patch_expanding(tokens)
        for number, stage in enumerate(self.layers_up):
            mirrored = len(self.layers_up) - 1 - number
            height, width = grids[mirrored]
            x = x[:, :height, :width]
            if fuse is not None:
                x = fuse(mirrored, x)
            x = stage(x)
        return self.norm_up(x)


def stage_grids(skips: Sequence[Tensor]) -> list[Grid]:
    """Rows and columns of each stage's input, for ``SwinDecoder.forward``."""
    return [(skip.shape[1], skip.shape[2]) for skip in skips]
