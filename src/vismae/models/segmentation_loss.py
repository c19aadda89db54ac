"""Losses of segmentation: soft Dice, cross-entropy, focal and Tversky, for one output or several.

Soft Dice after Milletari et al. 2016 (arXiv 1606.04797), focal loss after Lin et al. 2017 (arXiv
1708.02002), Tversky after Salehi et al. 2017 (arXiv 1706.05721), deep supervision weighed as in
nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

Shapes: B batch, H×W pixels, K classes (0 is background).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vismae.core.types import IGNORED_LABEL


def segmentation_loss(
    logits: Float[Tensor, "B K H W"] | Sequence[Tensor],
    label_map: Int[Tensor, "B H W"],
    dice_weight: float = 0.6,
    ce_weight: float = 0.4,
    focal_weight: float = 0.0,
    tversky_weight: float = 0.0,
    focal_gamma: float = 2.0,
    tversky_alpha: float = 0.3,
    tversky_beta: float = 0.7,
) -> Float[Tensor, ""]:
    """Weighted sum of four losses; Dice 0.6 and cross-entropy 0.4 as VIS-MAE; in float32.

    Args:
        logits: Before the softmax; or several, finest first, as networks with deep supervision
            give them in training. Output i of n then counts 2^-i, divided by the sum of these, and
            is compared with the label map at its own resolution (nearest pixel).
        label_map: Class of each pixel, or ``IGNORED_LABEL``.
        dice_weight: Weight of 1 - ``soft_dice``.
        ce_weight: Weight of the cross-entropy, a mean over the pixels that count.
        focal_weight: Weight of ``focal_loss``.
        tversky_weight: Weight of 1 - ``soft_tversky``.
        focal_gamma: Of ``focal_loss``.
        tversky_alpha: Of ``soft_tversky``.
        tversky_beta: Of ``soft_tversky``.

    Returns:
        Scalar; 0 if every pixel is ignored.
    """

    def of_one(output: Tensor) -> Tensor:
        """Loss of the output of one resolution."""
        output = output.float()
        truth = labels_at(label_map, output.shape[2], output.shape[3])
        # A loss that counts for nothing is not computed: maps of all classes cost memory.
        loss = ce_weight * focal_loss(output, truth, gamma=0.0)
        if dice_weight:
            loss = loss + dice_weight * (1.0 - soft_dice(output, truth))
        if focal_weight:
            loss = loss + focal_weight * focal_loss(output, truth, focal_gamma)
        if tversky_weight:
            index = soft_tversky(output, truth, tversky_alpha, tversky_beta)
            loss = loss + tversky_weight * (1.0 - index)
        return loss

    if isinstance(logits, Tensor):
        return of_one(logits)
    shares = [0.5**number for number in range(len(logits))]
    losses = [share * of_one(output) for share, output in zip(shares, logits, strict=True)]
    return torch.stack(losses).sum() / sum(shares)


def labels_at(
    label_map: Int[Tensor, "B H W"], height: int, width: int
) -> Int[Tensor, "B {height} {width}"]:
    """Return the label map at another resolution, each pixel the nearest of the old ones."""
    if label_map.shape[1:] == (height, width):
        return label_map
    values = label_map[:, None].double()  # exact for any class number
    return F.interpolate(values, size=(height, width), mode="nearest-exact")[:, 0].long()


def focal_loss(
    logits: Float[Tensor, "B K H W"], label_map: Int[Tensor, "B H W"], gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Cross-entropy with each pixel weighed by (1 - probability of its class)^gamma.

    Args:
        logits: Before the softmax.
        label_map: Class of each pixel, or ``IGNORED_LABEL``.
        gamma: 0 gives the cross-entropy; more takes weight from pixels that are right already.

    Returns:
        Mean over the pixels that count; 0 if none does.
    """
    counted = (label_map != IGNORED_LABEL).sum().clamp(min=1)
    if gamma == 0.0:
        return (
            F.cross_entropy(logits, label_map, ignore_index=IGNORED_LABEL, reduction="sum")
            / counted
        )
    entropy = F.cross_entropy(logits, label_map, ignore_index=IGNORED_LABEL, reduction="none")
    # 1 - exp(-x) without cancellation; the clamp keeps the power's gradient finite at 0.
    missed = (-torch.expm1(-entropy)).clamp(min=1e-8)
    return (missed**gamma * entropy).sum() / counted


def soft_dice(
    logits: Float[Tensor, "B K H W"], label_map: Int[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Mean soft Dice over the foreground classes present in the batch's labels.

    Each class's pixels are pooled over the batch, which keeps the score of a small structure from
    jumping with every slice that shows a sliver of it. A class no label shows is left out: its
    Dice would be 0 whatever the network says, without a gradient; the cross-entropy pushes it
    down.

    Args:
        logits: Before the softmax.
        label_map: Class of each pixel, or ``IGNORED_LABEL``.

    Returns:
        Scalar between 0 and 1; 1 if the labels show no foreground.
    """
    overlap, predicted, true_size = _sizes(logits, label_map)
    dice = 2.0 * overlap / (predicted + true_size).clamp(min=1.0)
    return _mean_over_present(dice, true_size)


def soft_tversky(
    logits: Float[Tensor, "B K H W"],
    label_map: Int[Tensor, "B H W"],
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Float[Tensor, ""]:
    """Mean Tversky index over the foreground classes present, pooled as in ``soft_dice``.

    Args:
        logits: Before the softmax.
        label_map: Class of each pixel, or ``IGNORED_LABEL``.
        alpha: Weight of what is predicted and not there.
        beta: Weight of what is there and missed; with both at 0.5 the index is Dice.

    Returns:
        Scalar between 0 and 1; 1 if the labels show no foreground.
    """
    overlap, predicted, true_size = _sizes(logits, label_map)
    wrong = alpha * (predicted - overlap) + beta * (true_size - overlap)
    # A present class has at least one pixel, so this floor only guards those left out.
    index = overlap / (overlap + wrong).clamp(min=1e-6)
    return _mean_over_present(index, true_size)


def _sizes(logits: Tensor, label_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of each foreground class: predicted rightly, predicted, true; each (K - 1,)."""
    counts = (label_map != IGNORED_LABEL)[:, None]
    probabilities = logits.softmax(dim=1) * counts
    classes = torch.arange(logits.shape[1], device=logits.device)[None, :, None, None]
    truth = label_map[:, None] == classes
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))[1:]
    return overlap, probabilities.sum(dim=(0, 2, 3))[1:], truth.sum(dim=(0, 2, 3))[1:]


def _mean_over_present(scores: Tensor, true_size: Tensor) -> Tensor:
    present = true_size > 0
    number = present.sum()
    mean = torch.where(present, scores, torch.zeros_like(scores)).sum() / number.clamp(min=1)
    return torch.where(number > 0, mean, torch.ones_like(mean))
