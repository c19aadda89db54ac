"""Sizes of the networks to compare with, and how MONAI builds them.

DynUNet's strides follow nnU-Net's rule (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z): an
axis is halved as long as at least ``SMALLEST_EDGE`` positions stay. MONAI is imported here and only
when a network is built; it is an extra.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vismae.core.errors import ModelError, SettingError
from vismae.models.convolution import MOST_WIDTH

SEGMENTERS = ("unet", "dynunet", "swin_unetr")
"""Segmentation networks, by the words of ``model.network``."""
CLASSIFIERS = ("resnet18", "resnet50", "densenet121")
"""Classification networks, by the words of ``model.network``."""

DEFAULT_WIDTH = {
    "unet": 32,
    "dynunet": 32,
    "swin_unetr": 48,
    "resnet18": 64,
    "resnet50": 64,
    "densenet121": 64,
}
"""Channels of the first level, as published."""
LARGEST_WIDTH = 512
"""No level of a U-Net has more channels (nnU-Net's limit in 2D)."""
SMALLEST_EDGE = 4
MOST_HALVINGS = 7

_UNET_LEVELS = 5
_SWIN_UNETR_HALVINGS = 5
_RESNETS = {"resnet18": ("basic", (2, 2, 2, 2), 8), "resnet50": ("bottleneck", (3, 4, 6, 3), 32)}

MOST_LEVELS = 10
"""As ``MOST_WIDTH``: beyond these a network would be built that no memory holds."""
Stride = tuple[int, int]


@dataclass(frozen=True)
class ComparisonConfig:
    """Sizes of one network.

    Attributes:
        in_channels: Image channels.
        width: Channels of the first level.
        strides: By which each level divides rows and columns (segmentation).
    """

    in_channels: int
    width: int
    strides: tuple[Stride, ...] = ()

    def __post_init__(self) -> None:
        """Check that a network can be built.

        Raises:
            ModelError: A number is below 1, or beyond what any network here has.
        """
        if min(self.in_channels, self.width, *(side for pair in self.strides for side in pair)) < 1:
            raise ModelError(
                f"architecture.comparison has in_channels {self.in_channels}, width {self.width} "
                f"and strides {self.strides}; all must be 1 or more."
            )

        if self.width > MOST_WIDTH or len(self.strides) > MOST_LEVELS:
            raise ModelError(
                f"architecture.comparison has width {self.width} and {len(self.strides)} levels; "
                f"at most {MOST_WIDTH} and {MOST_LEVELS} are built."
            )

    def total_stride(self) -> Stride:
        """Rows and columns of pixels behind one position of the deepest level."""
        return prod(rows for rows, _ in self.strides), prod(columns for _, columns in self.strides)

    def with_channels(self, in_channels: int) -> "ComparisonConfig":
        """Return the same sizes for another number of image channels."""
        return replace(self, in_channels=in_channels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for ``model.json``."""
        return {**asdict(self), "strides": [list(pair) for pair in self.strides]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ComparisonConfig":
        """Read what ``to_dict`` gave.

        Raises:
            ModelError: A field is unknown, missing or of the wrong type.
        """
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(
                f"architecture.comparison.{unknown[0]} is unknown. The model folder may come from "
                "a newer vismae; update it."
            )
        try:
            strides = tuple((int(rows), int(columns)) for rows, columns in data.get("strides", ()))
            return cls(data["in_channels"], data["width"], strides)
        except (LookupError, TypeError, ValueError) as error:
            raise ModelError(
                f"architecture.comparison lacks a field or holds one of the wrong type ({error}): "
                f"{dict(data)}. Take a fresh copy of the model folder."
            ) from error


def plan_network(
    network: str, in_channels: int, image_size: tuple[int, int], width: int | None = None
) -> ComparisonConfig:
    """Choose the sizes of a network for images of a size.

    Args:
        network: One of ``SEGMENTERS`` or ``CLASSIFIERS``.
        in_channels: Image channels.
        image_size: Rows and columns in pixels; decides DynUNet's strides.
        width: Channels of the first level; as published when None.

    Raises:
        SettingError: The network is unknown, or cannot have this width.
    """
    if network not in DEFAULT_WIDTH:
        raise SettingError(
            f"'{network}' is no network to compare with: {', '.join(DEFAULT_WIDTH)}."
        )
    width = DEFAULT_WIDTH[network] if width is None else width
    if network == "swin_unetr" and width % 12:
        raise SettingError(f"model.width is {width}; SwinUNETR needs a multiple of 12.")
    strides: tuple[Stride, ...] = ()
    if network == "unet":
        strides = ((1, 1), *[(2, 2)] * (_UNET_LEVELS - 1))
    elif network == "swin_unetr":
        strides = ((2, 2),) * _SWIN_UNETR_HALVINGS
    elif network == "dynunet":
        strides = dynunet_strides(image_size)
    return ComparisonConfig(in_channels, width, strides)


def dynunet_strides(image_size: tuple[int, int]) -> tuple[Stride, ...]:
    """Return the strides of nnU-Net's plan: (1, 1), then halvings of each axis while it is long."""
    sides = list(image_size)
    strides: list[Stride] = [(1, 1)]
    while len(strides) <= MOST_HALVINGS:
        rows, columns = (2 if side >= 2 * SMALLEST_EDGE else 1 for side in sides)
        if rows == columns == 1:
            break
        strides.append((rows, columns))
        sides = [-(-side // stride) for side, stride in zip(sides, (rows, columns), strict=True)]
    # MONAI's DynUNet has three levels at least, and four where a coarser one is supervised too.
    strides += [(2, 2)] * (4 - len(strides))
    return tuple(strides)


def build_segmenter(
    network: str, config: ComparisonConfig, num_classes: int, deep_supervision: bool
) -> nn.Module:
    """Build one of ``SEGMENTERS`` with MONAI.

    Raises:
        SettingError: MONAI is not installed.
    """
    nets = _monai_networks()
    sizes = {"spatial_dims": 2, "in_channels": config.in_channels, "out_channels": num_classes}
    widths = [min(LARGEST_WIDTH, config.width * 2**level) for level in range(len(config.strides))]
    if network == "unet":
        return nets.BasicUNet(**sizes, features=(*widths, config.width))
    if network == "swin_unetr":
        return nets.SwinUNETR(**sizes, feature_size=config.width)
    strides = [list(pair) for pair in config.strides]
    network_with_copies = nets.DynUNet(
        **sizes,
        kernel_size=[[3, 3]] * len(strides),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=widths,
        deep_supervision=deep_supervision,
        # nnU-Net supervises all levels of the decoder but the deepest.
        deep_supr_num=len(strides) - 3,
    )
    return _without_second_names(network_with_copies)


def output_layers(network: str, body: Any) -> list[nn.Conv2d]:
    """Return the layers of one of ``SEGMENTERS`` that give logits, full resolution first."""
    if network == "unet":
        return [body.final_conv]
    if network == "swin_unetr":
        return [body.out.conv.conv]
    coarse = [getattr(module, "super_head", None) for module in body.modules()]
    return [body.output_block.conv.conv, *(head.conv.conv for head in coarse if head is not None)]


def forget_outputs(dynunet: Any) -> None:
    """Drop the coarse outputs, which MONAI keeps in a list; with them it cannot be deep-copied."""
    dynunet.heads[:] = [torch.zeros(1)] * len(dynunet.heads)


def _without_second_names(dynunet: nn.Module) -> nn.Module:
    """Leave DynUNet's blocks only where the forward pass finds them.

    MONAI registers each block twice; a safetensors file holds no tensor under two names.
    """
    for name in ("input_block", "downsamples", "bottleneck", "upsamples", "deep_supervision_heads"):
        if hasattr(dynunet, name):
            delattr(dynunet, name)
    return dynunet


def build_encoder(network: str, config: ComparisonConfig) -> tuple[nn.Module, int]:
    """Build one of ``CLASSIFIERS`` without its last layer.

    Returns:
        A network that gives one vector per image, and the vector's length.

    Raises:
        SettingError: MONAI is not installed.
    """
    nets = _monai_networks()
    if network == "densenet121":
        encoder = nets.DenseNet(
            spatial_dims=2,
            in_channels=config.in_channels,
            out_channels=1,
            init_features=config.width,
            growth_rate=config.width // 2,
            block_config=(6, 12, 24, 16),
        )
        # ReLU, pooling and flattening stay; the last layer is the classifier's own.
        features = encoder.class_layers.out.in_features
        encoder.class_layers = encoder.class_layers[:-1]
        return encoder, features
    block, layers, factor = _RESNETS[network]
    encoder = nets.ResNet(
        block,
        list(layers),
        [config.width * 2**stage for stage in range(4)],
        spatial_dims=2,
        n_input_channels=config.in_channels,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    )
    return encoder, factor * config.width


def _monai_networks() -> ModuleType:
    try:
        from monai.networks import nets
    except ModuleNotFoundError as error:
        raise SettingError(
            f"The networks to compare with come from MONAI, which is not complete here ({error}). "
            "Install it with: pip install 'vismae[compare]'"
        ) from error
    return nets
