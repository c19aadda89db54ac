"""SimCLR: an encoder learns that two views of an image belong together, and others do not.

Chen et al. 2020 (arXiv 2002.05709) on the encoder of the masked autoencoder, as the initialisation
to compare with. The features are what the classifier of this package pools: the mean over positions
of the normalised tokens of the last stage. A projection of them is compared; it is used in training
alone.

Shapes: B batch, K image channels, H×W pixels, C channels of the last stage, D of the projection.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from vismae.core.errors import SettingError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.backbone import (
    SwinConfig,
    SwinEncoder,
    SwinStage,
    config_for_size,
    split_settings,
)
from vismae.models.swin import initialise

MOST_DIM = 65_536
"""Of the projection; a card from outside must not ask for more than memory holds."""


class SwinSimCLR(nn.Module):
    """A Swin encoder with the projection head of SimCLR.

    Args:
        config: The network.
        projection_dim: D.
        temperature: Divides the cosines; lower looks harder at the most similar images.

    Raises:
        SettingError: A setting is outside its range.
    """

    SETTINGS = ("projection_dim", "temperature")
    """Settings beside the network's, as ``model.json`` keeps them."""
    network: Literal["simclr"] = "simclr"
    """Name among the networks of its kind."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""

    def __init__(
        self, config: SwinConfig, projection_dim: int = 128, temperature: float = 0.1
    ) -> None:
        super().__init__()
        if not 2 <= projection_dim <= MOST_DIM or temperature <= 0.0:
            raise SettingError(
                f"projection_dim is {projection_dim} and temperature {temperature}; use 2 to "
                f"{MOST_DIM} and a temperature above 0."
            )
        self.config = config
        self.projection_dim = projection_dim
        self.temperature = temperature
        self.encoder = SwinEncoder(config)
        width = self.encoder.out_dim
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        # Two layers, as in the paper; without batch norm, which would look at the other images.
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, projection_dim)
        )
        self.projection.apply(initialise)

    @classmethod
    def from_size(cls, size: str, in_channels: int = 3, **overrides: Any) -> "SwinSimCLR":
        """Build a named network, some of its settings replaced.

        Args:
            size: Name in ``backbone.SIZES``.
            in_channels: Image channels.
            overrides: Settings of ``SwinConfig`` or of this class.

        Raises:
            SettingError: The size or a setting is unknown; names the nearest.
        """
        network, own = split_settings(overrides, cls.SETTINGS)
        return cls(config_for_size(size, in_channels=in_channels, **network), **own)

    def features(self, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B C"]:
        """Return one vector per image: the mean of the normalised tokens of the last stage.

        Raises:
            ModelError: The images have another number of channels.
        """
        return self.normalised_tokens(images).mean(dim=(1, 2))

    def normalised_tokens(self, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B h w C"]:
        """Return the tokens of the last stage, of which ``features`` is the mean.

        Raises:
            ModelError: The images have another number of channels.
        """
        return self.norm(self.encoder(images).tokens)

    def forward(self, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B D"]:
        """Return the projection of each image, not normalised."""
        return self.projection(self.features(images))

    def loss(
        self, first: Float[Tensor, "B K H W"], second: Float[Tensor, "B K H W"]
    ) -> Float[Tensor, ""]:
        """Return NT-Xent of two views of the same images, over all processes that train.

        Args:
            first: One view of each image.
            second: Another view of each.
        """
        one, other = self(torch.cat((first, second))).chunk(2)
        return nt_xent(one, other, self.temperature)

    def set_checkpointing(self, on: bool) -> None:
        """Trade time for memory: compute the inside of each block again for its gradients."""
        for part in self.modules():
            if isinstance(part, SwinStage):
                part.checkpointing = on


def nt_xent(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of finding each view's partner among all other views; in float32.

    Equation 1 of SimCLR: cosine similarity, divided by the temperature; a view is not compared
    with itself. Where several processes train, the views of all of them are compared, and the mean
    of the processes' losses, as their gradients are averaged, is that of the whole batch.

    Args:
        first: Projections of one view of each image.
        second: Of the other view, in the same order.
        temperature: Above 0.

    Returns:
        Scalar; log(2·B - 1) for projections that tell nothing, B counted over all processes.
    """
    with torch.autocast(first.device.type, enabled=False):
        own = F.normalize(torch.cat((first.float(), second.float())), dim=1)  # (2·B, D)
        rank, views = 0, own
        if distributed.is_available() and distributed.is_initialized():
            rank, views = distributed.get_rank(), torch.cat(all_gather(own))
        batch = len(first)
        logits = own @ views.T / temperature
        places = torch.arange(2 * batch, device=own.device)
        start = rank * 2 * batch
        itself = torch.zeros_like(logits, dtype=torch.bool)
        itself[places, start + places] = True
        logits = logits.masked_fill(itself, float("-inf"))
        return F.cross_entropy(logits, start + (places + batch) % (2 * batch))
