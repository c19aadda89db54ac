"""Networks to compare with, from MONAI, under the interface of ours.

Segmentation: U-Net (Ronneberger et al. 2015, arXiv 1505.04597), DynUNet in the shape that nnU-Net
plans (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z), SwinUNETR in 2D (Hatamizadeh et al.
2022, arXiv 2201.01266). Classification: ResNet (He et al. 2015, arXiv 1512.03385) and DenseNet
(Huang et al. 2016, arXiv 1608.06993), built so that torchvision's parameters fit them.

Shapes: B batch, H×W pixels, C channels, K classes (0 is background in segmentation).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.comparison_plan import (
    CLASSIFIERS,
    SEGMENTERS,
    ComparisonConfig,
    build_encoder,
    build_segmenter,
    forget_outputs,
    output_layers,
)
from vismae.models.convolution import bias_of, log_shares
from vismae.models.foreign import ForeignAccount
from vismae.models.swin import initialise

SMALLEST_SIDE = 32
"""Pixels behind one position of a classifier's last layer."""


class ComparisonSegmenter(nn.Module):
    """A segmentation network of MONAI for images of any size.

    Args:
        network: One of ``SEGMENTERS``.
        config: Its sizes.
        num_classes: K, with the background, at least 2.
        deep_supervision: In training, also predict from coarser levels (``dynunet`` only).

    Raises:
        ModelError: A setting is outside its range.
        SettingError: MONAI is not installed.
    """

    SETTINGS = ("num_classes", "deep_supervision")
    """Settings beside the network's, as ``model.json`` keeps them."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""

    def __init__(
        self,
        network: str,
        config: ComparisonConfig,
        num_classes: int,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if network not in SEGMENTERS or num_classes < 2:
            raise ModelError(
                f"network is '{network}' and num_classes {num_classes}; use one of "
                f"{', '.join(SEGMENTERS)} and at least 2 classes."
            )
        if deep_supervision and network != "dynunet":
            raise ModelError(f"deep_supervision is no setting of {network}; only dynunet has it.")
        self.network = network
        self.config = config
        self.num_classes = num_classes
        self.deep_supervision = deep_supervision
        self.body = build_segmenter(network, config, num_classes, deep_supervision)

    def set_class_shares(self, shares: Sequence[float]) -> None:
        """Start every output's bias at the logarithm of each class's share of the pixels.

        Args:
            shares: As for ``log_shares``.

        Raises:
            ModelError: The number of shares is not K.
        """
        logits = log_shares(shares, self.num_classes)
        with torch.no_grad():
            for layer in output_layers(self.network, self.body):
                bias_of(layer).copy_(logits)

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B K H W"] | tuple[Tensor, ...]:
        """Return logits for every pixel of images of any size.

        In training with deep supervision: a tuple of them, each at full resolution, that of the
        finest level first, as ``segmentation_loss`` takes it.

        Raises:
            ModelError: The images have another number of channels.
        """
        require_channels(images, self.config.in_channels)
        height, width = images.shape[2:]
        rows, columns = self.config.total_stride()
        # Twice the stride where one axis would do: instance norm needs more than one position.
        bottom = max(-height % rows, 2 * rows - height)
        right = max(-width % columns, 2 * columns - width)
        logits = self.body(F.pad(images, (0, right, 0, bottom)))[..., :height, :width]
        if logits.ndim == 4:
            return logits
        forget_outputs(self.body)
        return tuple(logits.unbind(dim=1))


class ComparisonClassifier(nn.Module):
    """A classification network of MONAI: encoder, mean over positions, linear layer.

    Args:
        network: One of ``CLASSIFIERS``.
        config: Its sizes.
        num_classes: K.
        dropout: Share of features set to 0 before the last layer, in training.

    Raises:
        ModelError: A setting is outside its range.
        SettingError: MONAI is not installed.
    """

    SETTINGS = ("num_classes", "dropout")
    """Settings beside the network's, as ``model.json`` keeps them."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""
    origin: ForeignAccount | None = None
    """What became of another project's file, if it comes from one."""

    def __init__(
        self, network: str, config: ComparisonConfig, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if network not in CLASSIFIERS or num_classes < 1 or not 0.0 <= dropout < 1.0:
            raise ModelError(
                f"network is '{network}', num_classes {num_classes} and dropout {dropout}; use "
                f"one of {', '.join(CLASSIFIERS)}, at least 1 class and a dropout from 0 to "
                "below 1."
            )
        self.network = network
        self.config = config
        self.num_classes = num_classes
        self.dropout = dropout
        self.encoder, features = build_encoder(network, config)
        self.head = nn.Linear(features, num_classes)
        initialise(self.head)

    def train(self, mode: bool = True) -> "ComparisonClassifier":
        """Switch to training; a frozen encoder's batch norms keep their statistics."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def features(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Return one vector per image: the mean over positions of the last layer's channels.

        Raises:
            ModelError: The images have another number of channels, or a batch to learn from leaves
                batch norm one value of each channel.
        """
        require_channels(images, self.config.in_channels)
        size = images.shape[2:]
        if self.encoder.training and len(images) == 1 and max(size) <= SMALLEST_SIDE:
            raise ModelError(
                f"One image of {size[0]}×{size[1]} pixels in a batch leaves {self.network} nothing "
                "to normalise over. Set data.batch_size to 2 or more, or data.image_size above "
                f"{SMALLEST_SIDE}."
            )
        return self.encoder(images)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return logits for images of any size from ``SMALLEST_SIDE`` pixels up."""
        return self.head(F.dropout(self.features(images), self.dropout, self.training))


def require_channels(images: Tensor, in_channels: int) -> None:
    """Check the images' number of channels.

    Raises:
        ModelError: It is another one.
    """
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ModelError(
            f"The images have the shape {tuple(images.shape)}, the model expects (batch, "
            f"{in_channels}, height, width). Prepare them as preprocessing in model.json says "
            "(in_channels, neighbours)."
        )
