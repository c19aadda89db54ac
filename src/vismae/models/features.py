"""One vector per image from any network that has an encoder.

Shapes: B batch, K image channels, H×W pixels of the canvas, C channels of the last stage.
"""

import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models.backbone import SwinEncoder
from vismae.models.classifier import SwinClassifier
from vismae.models.comparison import ComparisonClassifier, ComparisonSegmenter
from vismae.models.contrastive import SwinSimCLR
from vismae.models.pooling import mean_over_image
from vismae.models.weights import Model, network_of

REVISION = 2
"""Goes up where the same network makes other features of the same image; those on disk that have
another number are computed again. 1 took the mean over padding too."""


def pooled_features(
    encoder: SwinEncoder, images: Float[Tensor, "B K H W"], extents: Real[Tensor, "B 2"]
) -> Float[Tensor, "B C"]:
    """Return one vector per image in float32: the mean of its normalised tokens.

    What the classifier of this package sees of an image without padding before it has learnt
    anything. Nothing is hidden.

    Args:
        encoder: In evaluation mode.
        images: Normalised images.
        extents: Height and width in pixels of each image on the canvas, from the top left; the rest
            is padding, whose tokens do not count.
    """
    tokens = encoder(images).tokens.float()  # (B, h, w, C)
    return _mean(encoder, F.layer_norm(tokens, tokens.shape[-1:]), images, extents)


def image_features(
    model: Model, images: Float[Tensor, "B K H W"], extents: Real[Tensor, "B 2"]
) -> Float[Tensor, "B C"]:
    """Return one vector per image in float32.

    A classifier's are what its last layer sees of the whole canvas, padding included, since that is
    what the layer learnt from; of a ``place_grid`` the cells are left out. A contrastive network's
    are what its projection sees of an image that fills the canvas, as all do in its training; every
    other network's are the pooled features of its encoder. A masked autoencoder hides nothing here.

    Args:
        model: In evaluation mode.
        images: Normalised images.
        extents: As for ``pooled_features``.

    Raises:
        ModelError: The network has no encoder of its own.
    """
    if isinstance(model, SwinClassifier | ComparisonClassifier):
        return model.features(images).float()
    if isinstance(model, ComparisonSegmenter):
        raise _no_features(model)
    if isinstance(model, SwinSimCLR):
        return _mean(model.encoder, model.normalised_tokens(images), images, extents)
    return pooled_features(model.encoder, images, extents)


def _mean(encoder: SwinEncoder, tokens: Tensor, images: Tensor, extents: Tensor) -> Tensor:
    canvas = (images.shape[2], images.shape[3])
    return mean_over_image(tokens, extents, canvas, encoder.config.token_side)


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
