"""How unsure a model is of whole images: the entropy of its probabilities, from 0 to 1."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def image_uncertainty(
    logits: Float[Tensor, "B K *HW"], multi_label: bool = False
) -> Float[Tensor, " B"]:
    """Return one number per image: entropy as a share of the highest possible.

    Of label maps it is the mean over pixels, so an organ's edge counts by its length.

    Args:
        logits: Of classes, or of classes in each pixel.
        multi_label: Classes do not exclude each other; the mean of their binary entropies.
    """
    if multi_label:
        probability = logits.sigmoid()
        entropy = -(torch.xlogy(probability, probability))
        entropy = entropy - torch.xlogy(1 - probability, 1 - probability)
        return entropy.flatten(1).mean(dim=1) / math.log(2)
    logarithms = logits.log_softmax(dim=1)
    entropy = -(logarithms.exp() * logarithms).sum(dim=1)
    return entropy.reshape(len(logits), -1).mean(dim=1) / math.log(logits.shape[1])
