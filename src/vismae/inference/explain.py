"""Where an answer comes from: a classifier's evidence by place, an autoencoder's errors by pixel.

Class activation: Zhou et al. 2016 (arXiv 1512.04150). The classifier's last layer is linear in the
mean over positions (or over the cells of a grid), so the logits of a class at each position have
the image's logit as their mean, and Grad-CAM (arXiv 1610.02391) would give the same up to its
rectification. What a masked autoencoder fills in badly is unusual among the images it has seen.

Shapes: B batch, C channels, H×W canvas, h×w positions of the last stage, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from vismae.core.preprocessing import Preprocessing
from vismae.models.classifier import SwinClassifier
from vismae.models.mae import SwinMAE
from vismae.models.masking import hidden_count, noise, unit_grid, units_to_patches
from vismae.models.reconstruction import hidden_pixels


@torch.inference_mode()
def class_evidence(model: SwinClassifier, images: Tensor, multi_label: bool) -> Tensor:
    """Return the probability of each class that each place alone would give, (B, K, H, W).

    Args:
        model: The classifier, in evaluation mode.
        images: Normalised, on the model's device.
        multi_label: Classes are questions of their own.
    """
    logits = model.evidence(images).permute(0, 3, 1, 2).float()
    found = logits.sigmoid() if multi_label else logits.softmax(dim=1)
    return functional.interpolate(
        found, size=images.shape[-2:], mode="bilinear", align_corners=False
    )


@torch.inference_mode()
def reconstruction_error(
    model: SwinMAE, images: Tensor, keys: Tensor, preprocessing: Preprocessing, rounds: int = 2
) -> Tensor:
    """Return the mean absolute error of pixels while they were hidden, (B, H, W).

    On the contract's 0..1 scale. The patterns hide every patch at least ``rounds`` times; each
    pixel's mean is over the patterns that hid it.

    Args:
        model: The autoencoder, in evaluation mode.
        images: Normalised, on the model's device.
        keys: One per image, (B,); the same key gives the same patterns.
        preprocessing: The contract the images were normalised by.
        rounds: How often every patch is hidden at least.
    """
    total = torch.zeros(images.shape[0], *images.shape[2:], device=images.device)
    count = torch.zeros_like(total)
    size = (images.shape[2], images.shape[3])
    for hidden in covering_patterns(model, size, keys, rounds):
        output = model(images, hidden=hidden)
        filled = model.fill_in(images, output)
        where = hidden_pixels(hidden, model.config.patch_size, *size)[:, 0]
        total += (filled - images.float()).abs().mean(dim=1) * where
        count += where
    return total / count * preprocessing.std


def covering_patterns(
    model: SwinMAE, size: tuple[int, int], keys: Tensor, rounds: int
) -> list[Tensor]:
    """Return patterns (B, L) with the model's own ratio that hide every patch ``rounds`` times.

    A random order of the mask units is gone through in a circle; each pattern hides the next ones.
    """
    grid = model.config.patch_grid(*size)
    unit = model.mask_unit_px // model.config.patch_size
    rows, columns = unit_grid(grid, unit)
    units = rows * columns
    count = hidden_count(units, model.mask_ratio)
    order = noise(keys, torch.arange(units, device=keys.device)).argsort(dim=1)
    patterns = []
    for start in range(0, rounds * units, count):
        chosen = order[:, torch.arange(start, start + count, device=keys.device) % units]
        hidden = torch.zeros(len(keys), units, dtype=torch.bool, device=keys.device)
        patterns.append(units_to_patches(hidden.scatter(1, chosen, True), grid, unit))
    return patterns
