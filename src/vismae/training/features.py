"""What an encoder makes of whole images, and how many directions of its space that uses.

Shapes: B batch, C channels, N images.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from vismae.models.backbone import SwinEncoder
from vismae.models.features import pooled_features


def features_of(
    encoder: SwinEncoder, batches: Iterable[tuple[Tensor, Tensor]]
) -> Iterator[np.ndarray]:
    """Yield the features of each batch of images, (B, C) float32, on the host.

    The encoder is in evaluation mode while a batch is computed, and afterwards as it was.

    Args:
        encoder: Of the network that learns.
        batches: Normalised images and what they cover of the canvas; see ``pooled_features``.
    """
    device = next(encoder.parameters()).device
    for images, extents in batches:
        was_training = encoder.training
        encoder.eval()
        try:
            with torch.no_grad():
                features = pooled_features(encoder, images.to(device), extents)
        finally:
            encoder.train(was_training)
        yield features.cpu().numpy()


def effective_rank(features: np.ndarray) -> float:
    """Return how many directions the features use, from 1 to the smaller of N and C.

    Roy and Vetterli 2007, "The effective rank": exp of the entropy of the singular values taken
    as shares of their sum. As in RankMe (Garrido et al. 2023, arXiv 2210.02885) nothing is
    subtracted first: features that have collapsed to one vector have rank 1. It grows with N, so
    only values of the same images compare.

    Args:
        features: One row per image, (N, C).

    Returns:
        NaN if a feature is not a finite number or all are 0.
    """
    if not np.isfinite(features).all():
        return float("nan")
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    total = values.sum()
    if total == 0.0:
        return float("nan")
    shares = values[values > 0.0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
