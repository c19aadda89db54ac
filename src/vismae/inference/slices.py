"""A stream of slices through a network: batches over files and volumes, results one by one.

Memory holds one batch of slices and their scores, however long the stream. Scores come back to
a slice's own size before the class is chosen, since a resized label map has steps where resized
scores have an edge.

Shapes: C channels, h×w a slice's own size, H×W the network's canvas, K classes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from vismae.core.preprocessing import Preprocessing
from vismae.data.geometry import fit_image, fitted_size, unfit_logits
from vismae.data.intensity import normalise
from vismae.inference.ensemble import Ensemble
from vismae.inference.sliding_window import Rows, sliding_rows
from vismae.inference.unanswered import Unanswered, answers_or_reasons

Key = TypeVar("Key")

FULL_SCALE = np.iinfo(np.uint16).max
"""Maps of values 0 to 1 are kept, and written, as 16-bit numbers: this stands for 1."""


@dataclass(frozen=True)
class Slice(Generic[Key]):
    """A slice on its way to the network.

    Attributes:
        key: Whatever tells the caller what this is.
        image: On the 0..1 scale in the contract's channels, (C, h, w).
    """

    key: Key
    image: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.image.shape[1]), int(self.image.shape[2])


@dataclass(frozen=True)
class SliceLabels:
    """What a segmenter says of a slice.

    Attributes:
        labels: Class of each pixel, (h, w), uint8 or uint16.
        uncertainty: Entropy of the probabilities as a share of the highest possible,
            ``FULL_SCALE`` for 1, (h, w) uint16; None unless wanted.
    """

    labels: np.ndarray
    uncertainty: np.ndarray | None


def label_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the smallest type that holds the numbers of so many classes."""
    return np.uint8 if classes <= 256 else np.uint16


def canvas_batches(
    slices: Iterable[Slice[Key]], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[list[Slice[Key]], Tensor]]:
    """Yield batches of slices and the network's input, (B, C, H, W), in order."""
    for batch in batches_of(slices, batch_size):
        yield batch, canvas_of(batch, preprocessing)


def batches_of(slices: Iterable[Slice[Key]], batch_size: int) -> Iterator[list[Slice[Key]]]:
    """Yield batches of slices, in order."""
    batch: list[Slice[Key]] = []
    for item in slices:
        batch.append(item)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def canvas_of(batch: list[Slice[Key]], preprocessing: Preprocessing) -> Tensor:
    """Return the network's input that is made of a batch, (B, C, H, W)."""
    # Padding is black before the values are normalised, exactly as in training.
    return torch.stack(
        [normalised(fit_image(item.image, preprocessing), preprocessing) for item in batch]
    )


def extents_of(batch: Sequence[Slice[Key]], preprocessing: Preprocessing) -> Tensor:
    """Return height and width in pixels that each slice covers of its canvas, (B, 2) int64."""
    canvas, fit = preprocessing.image_size, preprocessing.fit
    return torch.tensor([fitted_size(item.size, canvas, fit) for item in batch])


def segment_slices(
    ensemble: Ensemble,
    slices: Iterable[Slice[Key]],
    batch_size: int,
    overlap: float | None = None,
    uncertainty: bool = False,
) -> Iterator[tuple[Key, SliceLabels | Unanswered]]:
    """Yield the label map of each slice, in its own size and in order, or why there is none.

    Args:
        ensemble: Segmenters.
        slices: The stream; read no further than one batch ahead.
        batch_size: Slices, or windows, at a time.
        overlap: Of sliding windows for slices larger than the contract's size; None fits every
            slice to that size.
        uncertainty: Give the uncertainty as well.
    """
    contract = ensemble.preprocessing

    def label_maps(batch: list[Slice[Key]]) -> Iterator[SliceLabels]:
        if overlap is not None and _is_larger(batch[0], contract):
            rows = sliding_rows(
                normalised(batch[0].image, contract),
                contract.image_size,
                overlap,
                ensemble.scores,
                batch_size,
                padding=_black(contract),
            )
            yield _from_rows(batch[0].size, rows, uncertainty)
            return
        for item, scores in zip(batch, ensemble.scores(canvas_of(batch, contract)), strict=True):
            native = unfit_logits(scores, item.size, contract.fit)
            yield _from_rows(item.size, [Rows(0, native)], uncertainty)

    for batch in _runs(slices, contract, batch_size, tiled=overlap is not None):
        for item, found in answers_or_reasons(batch, label_maps):
            yield item.key, found


def normalised(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return a 0..1 image as the network wants its values."""
    return torch.from_numpy(normalise(image.numpy(), preprocessing))


def to_full_scale(values: Tensor) -> np.ndarray:
    """Return values of 0 to 1 as 16-bit numbers, ``FULL_SCALE`` for 1; what lies outside is cut."""
    scaled = (values.float().clamp(0.0, 1.0) * FULL_SCALE).round()
    return scaled.to(torch.int32).cpu().numpy().astype(np.uint16)


def _runs(
    slices: Iterable[Slice[Key]], contract: Preprocessing, batch_size: int, tiled: bool
) -> Iterator[list[Slice[Key]]]:
    """Put slices into batches; one that needs windows stands alone."""
    batch: list[Slice[Key]] = []
    for item in slices:
        alone = tiled and _is_larger(item, contract)
        if batch and (alone or len(batch) == batch_size):
            yield batch
            batch = []
        batch.append(item)
        if alone:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_larger(item: Slice[Key], contract: Preprocessing) -> bool:
    return item.size[0] > contract.image_size[0] or item.size[1] > contract.image_size[1]


def _black(contract: Preprocessing) -> float:
    return -contract.mean / contract.std


def _from_rows(size: tuple[int, int], rows: Iterable[Rows], uncertainty: bool) -> SliceLabels:
    labels: np.ndarray | None = None
    unsure = np.zeros(size, np.uint16) if uncertainty else None
    for part in rows:
        classes, place = part.scores.shape[0], slice(part.top, part.top + part.scores.shape[1])
        if labels is None:
            labels = np.zeros(size, label_dtype(classes))
        # A tenth of the time of argmax on a CPU.
        labels[place] = part.scores.max(dim=0).indices.cpu().numpy()
        if unsure is not None:
            unsure[place] = to_full_scale(_entropy(part.scores) / math.log(classes))
    if labels is None:
        raise ValueError("a slice needs at least one row")
    return SliceLabels(labels, unsure)


def _entropy(scores: Tensor) -> Tensor:
    """Entropy in nats of the softmax over classes, (K, ...) to (...)."""
    logarithms = scores.log_softmax(dim=0)
    return -(logarithms.exp() * logarithms).sum(dim=0)
