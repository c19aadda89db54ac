"""One vector per image from any network that has an encoder.

Shapes: B batch, K image channels, H×W pixels, C channels of the last stage.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models.backbone import SwinEncoder
from vismae.models.classifier import SwinClassifier
from vismae.models.comparison import ComparisonClassifier, ComparisonSegmenter
from vismae.models.contrastive import SwinSimCLR
from vismae.models.weights import Model, network_of


def pooled_features(encoder: SwinEncoder, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B C"]:
    """Return one vector per image in float32: the mean of its normalised tokens.

    What the classifier of this package sees before it has learnt anything. Nothing is hidden.

    Args:
        encoder: In evaluation mode.
        images: Normalised images.
    """
    tokens = encoder(images).tokens.float()  # (B, h, w, C)
    return F.layer_norm(tokens, tokens.shape[-1:]).mean(dim=(1, 2))


def image_features(model: Model, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B C"]:
    """Return one vector per image in float32.

    A classifier's are what its last layer sees, a contrastive network's what its projection sees;
    every other network's are the pooled features of its encoder. A masked autoencoder hides nothing
    here.

    Args:
        model: In evaluation mode.
        images: Normalised images.

    Raises:
        ModelError: The network has no encoder of its own.
    """
    if isinstance(model, SwinClassifier | ComparisonClassifier | SwinSimCLR):
        return model.features(images).float()
    if isinstance(model, ComparisonSegmenter):
        raise _no_features(model)
    return pooled_features(model.encoder, images)


def require_features(model: Model) -> None:
    """Check that there is an encoder to take features from.

    Raises:
        ModelError: There is none; names the networks that have one.
    """
    if isinstance(model, ComparisonSegmenter):
        raise _no_features(model)


def _no_features(model: ComparisonSegmenter) -> ModelError:
    return ModelError(
        f"A {network_of(model)} has no encoder apart from the rest of the network, so it gives no "
        "features. Use a masked autoencoder, a classifier, or a segmenter of the kinds swin_unet, "
        "swin_unet_conv and hybrid."
    )
