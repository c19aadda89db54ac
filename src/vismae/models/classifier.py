"""Image classification: encoder, mean over positions, linear layer; and its loss.

As VIS-MAE (arXiv 2402.01034) and Swin (arXiv 2103.14030) do it.

Shapes: B batch, H×W pixels, C channels of the last stage, K classes.
"""

from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vismae.core.errors import ModelError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.backbone import SwinConfig, SwinEncoder, config_for_size, split_settings
from vismae.models.foreign import ForeignAccount
from vismae.models.pooling import mean_of_cells, spread_over_cells
from vismae.models.swin import initialise


class SwinClassifier(nn.Module):
    """Classifier on a Swin Transformer.

    Args:
        config: The network.
        num_classes: K.
        dropout: Share of features set to 0 before the last layer, in training.
        place_grid: G. The last layer also sees the mean over each cell of a grid of G by G, so
            that it can tell where something is; below 2, as published, the mean over all alone.

    Raises:
        ModelError: A setting is outside its range.
    """

    SETTINGS = ("num_classes", "dropout", "place_grid")
    """Settings beside the network's, as ``model.json`` keeps them."""
    network: Literal["swin"] = "swin"
    """Name among the classification networks."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""
    origin: ForeignAccount | None = None
    """What became of another project's file, if it comes from one."""

    def __init__(
        self, config: SwinConfig, num_classes: int, dropout: float = 0.0, place_grid: int = 0
    ) -> None:
        super().__init__()
        if num_classes < 1 or not 0.0 <= dropout < 1.0:
            raise ModelError(
                f"num_classes is {num_classes} and dropout {dropout}; use at least 1 class and a "
                "dropout from 0 to below 1."
            )
        self.config = config
        self.num_classes = num_classes
        self.dropout = dropout
        self.encoder = SwinEncoder(config)
        self.norm = nn.LayerNorm(self.encoder.out_dim, eps=config.norm_eps)
        self.head = nn.Linear(self.encoder.out_dim, num_classes)
        initialise(self.head)
        self.place_grid = place_grid
        self.place_head: nn.Linear | None = None
        if place_grid > 1:
            self.place_head = nn.Linear(
                self.encoder.out_dim * place_grid**2, num_classes, bias=False
            )
            # At first the network is the published one; what places tell is learnt.
            nn.init.zeros_(self.place_head.weight)

    @classmethod
    def from_size(
        cls, size: str, in_channels: int = 3, *, num_classes: int, **overrides: Any
    ) -> "SwinClassifier":
        """Build a named network, some of its settings replaced.

        Args:
            size: Name in ``backbone.SIZES``.
            in_channels: Image channels.
            num_classes: K.
            overrides: Settings of ``SwinConfig`` or of this class.

        Raises:
            SettingError: The size or a setting is unknown; names the nearest.
        """
        network, own = split_settings(overrides, cls.SETTINGS)
        config = config_for_size(size, in_channels=in_channels, **network)
        return cls(config, num_classes, **own)

    def features(self, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B C"]:
        """Return one vector per image: the mean of the normalised tokens of the last stage.

        Raises:
            ModelError: The images have another number of channels.
        """
        return self._tokens(images).mean(dim=(1, 2))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return logits for images of any size."""
        tokens = self._tokens(images)
        logits = self.head(self._dropped(tokens.mean(dim=(1, 2))))
        if self.place_head is None:
            return logits
        cells = mean_of_cells(tokens, self.place_grid).flatten(1)  # (B, G·G·C)
        return logits + self.place_head(self._dropped(cells))

    def evidence(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w K"]:
        """Return what each position of the last stage adds: the logits are their mean."""
        tokens = self._tokens(images)
        found = self.head(tokens)
        if self.place_head is None:
            return found
        grid = self.place_grid
        weight = self.place_head.weight.view(self.num_classes, grid, grid, -1)
        return found + spread_over_cells(tokens, weight)

    def _tokens(self, images: Tensor) -> Float[Tensor, "B h w C"]:
        return self.norm(self.encoder(images).tokens)

    def _dropped(self, features: Tensor) -> Tensor:
        return F.dropout(features, self.dropout, self.training)


def classification_loss(
    logits: Float[Tensor, "B K"],
    labels: Int[Tensor, " B"] | Float[Tensor, "B K"],
    class_weights: Float[Tensor, " K"] | None = None,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy over classes, or one yes-or-no question per class; in float32.

    Args:
        logits: Before softmax or sigmoid.
        labels: Class of each image, (B,) integers; or, multi-label, 1 for each class that is true,
            (B, K).
        class_weights: Weight of each class in the mean; multi-label, the weight of a class's
            positive answers against its negative ones.
        multi_label: Several classes may be true of one image.
        label_smoothing: Share of a label spread over all answers.

    Raises:
        ModelError: The labels have the shape of the other kind of task.
    """
    expected = logits.shape if multi_label else logits.shape[:1]
    if labels.shape != expected:
        raise ModelError(
            f"The labels have the shape {tuple(labels.shape)}, expected {tuple(expected)} with "
            f"multi_label={multi_label}. Set task.multi_label to fit the labels."
        )
    logits = logits.float()
    if not multi_label:
        return F.cross_entropy(
            logits, labels, weight=class_weights, label_smoothing=label_smoothing
        )
    targets = labels.float() * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=class_weights)
