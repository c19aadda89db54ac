"""A sliding window over images larger than a network's own size, in bounded memory.

Windows, their overlap and their Gaussian weights are those of MONAI's
``sliding_window_inference`` (mode ``gaussian``, sigma an eighth of the window; nnU-Net,
doi 10.1038/s41592-020-01008-z, does the same). Rows are handed on as soon as no further window
touches them, so memory grows with the width of an image and not with its height.

Shapes: C channels, H×W pixels of the image, h×w of the window, K classes, B windows at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_SIGMA_FRACTION = 0.125
_SMALLEST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Rows:
    """Finished rows of an image.

    Attributes:
        top: Number of the first.
        scores: Blended network output, (K, rows, W), float32.
    """

    top: int
    scores: Tensor


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin along one axis; the last one ends with the image.

    Args:
        length: Pixels of the image, at least ``window``.
        window: Pixels of the window.
        overlap: Share of a window that the next one covers again, 0 to below 1.
    """
    step = max(1, int(window * (1.0 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(number * step, length - window) for number in range(count)]


def gaussian_weights(window: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Return how much each pixel of a window counts: most in its middle."""
    columns = []
    for length in window:
        place = torch.arange(length, dtype=torch.float32) - (length - 1) / 2.0
        columns.append(torch.exp(place**2 / (-2.0 * (length * _SIGMA_FRACTION) ** 2)))
    weights = columns[0][:, None] * columns[1][None, :]
    return weights.clamp(min=max(float(weights.min()), _SMALLEST_WEIGHT))


def sliding_rows(
    image: Float[Tensor, "C H W"],
    window: tuple[int, int],
    overlap: float,
    predict: Callable[[Tensor], Tensor],
    batch_size: int,
    padding: float = 0.0,
) -> Iterator[Rows]:
    """Yield the blended output for an image, from top to bottom, without gaps.

    Args:
        image: Of any size; a side shorter than the window is padded at its end.
        window: Height and width the network is given.
        overlap: See ``window_starts``.
        predict: Windows (B, C, h, w) to scores (B, K, h, w).
        batch_size: Windows at a time.
        padding: Value beyond the image.
    """
    height, width = image.shape[1:]
    bottom, right = max(0, window[0] - height), max(0, window[1] - width)
    padded = functional.pad(image, (0, right, 0, bottom), value=padding)
    tops = window_starts(padded.shape[1], window[0], overlap)
    lefts = window_starts(padded.shape[2], window[1], overlap)
    weights = gaussian_weights(window)
    kept = torch.zeros(0)
    for number, top in enumerate(tops):
        strip = padded[:, top : top + window[0]]
        summed, weight = _blend_strip(strip, lefts, weights, predict, batch_size)
        if number:
            # What the strip above left unfinished overlaps the first rows of this one.
            summed[:, : kept.shape[1]] += kept[:-1]
            weight[: kept.shape[1]] += kept[-1]
        following = tops[number + 1] if number + 1 < len(tops) else padded.shape[1]
        done = following - top
        end = min(done, height - top)
        yield Rows(top, (summed[:, :end] / weight[:end])[:, :, :width])
        kept = torch.cat([summed[:, done:], weight[None, done:]])


def _blend_strip(
    strip: Tensor,
    lefts: list[int],
    weights: Tensor,
    predict: Callable[[Tensor], Tensor],
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of scores over one row of windows, (K, h, W), and the weights."""
    side = weights.shape[1]
    summed: Tensor | None = None
    weight = torch.zeros(strip.shape[1:])
    for start in range(0, len(lefts), batch_size):
        some = lefts[start : start + batch_size]
        scores = predict(torch.stack([strip[:, :, left : left + side] for left in some])).cpu()
        if summed is None:
            summed = torch.zeros(scores.shape[1], *strip.shape[1:])
        for left, found in zip(some, scores, strict=True):
            summed[:, :, left : left + side] += found * weights
            weight[:, left : left + side] += weights
    if summed is None:
        raise ValueError("a strip needs at least one window")
    return summed, weight
