"""Features of a stream of slices: what an encoder makes of each, as one vector.

A plain torch loop; nothing of Lightning or MONAI.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from vismae.core.preprocessing import Preprocessing
from vismae.data.loaders import SliceReader
from vismae.data.store import Store
from vismae.inference.ensemble import Ensemble
from vismae.inference.slices import Key, Slice, batches_of, canvas_of, extents_of
from vismae.inference.unanswered import Unanswered, answers_or_reasons
from vismae.models.features import image_features
from vismae.models.weights import Model


def embed_slices(
    ensemble: Ensemble, slices: Iterable[Slice[Key]], batch_size: int
) -> Iterator[tuple[Key, np.ndarray | Unanswered]]:
    """Yield the features of each slice, (C,) float32, in order, or why there are none.

    Args:
        ensemble: One model, with an encoder.
        slices: The stream; read no further than one batch ahead.
        batch_size: Slices at a time.

    Raises:
        ModelError: The model has no encoder.
    """

    def features(batch: list[Slice[Key]]) -> Iterator[np.ndarray]:
        images = canvas_of(batch, ensemble.preprocessing)
        yield from batch_features(ensemble, batch, images).numpy()

    for batch in batches_of(slices, batch_size):
        for item, found in answers_or_reasons(batch, features):
            yield item.key, found


def batch_features(ensemble: Ensemble, batch: Sequence[Slice[Key]], images: Tensor) -> Tensor:
    """Return the features of a batch of ``canvas_batches``, (B, C) float32 on the host.

    Args:
        ensemble: One model, with an encoder.
        batch: The slices, whose sizes tell image from padding.
        images: The network's input that was made of them, (B, C, H, W).

    Raises:
        ModelError: The model has no encoder, or gives numbers that are not finite.
    """
    model = cast(Model, ensemble.models[0])
    extents = extents_of(batch, ensemble.preprocessing)
    with torch.inference_mode(), ensemble.autocast():
        vectors = image_features(model, images.to(ensemble.device), extents).float().cpu()
    ensemble.require_finite(vectors)
    return vectors


def stored_slices(
    store: Store, rows: Sequence[int] | np.ndarray, preprocessing: Preprocessing
) -> Iterator[Slice[int]]:
    """Yield rows of a store on the network's 0..1 scale; the key is the row number."""
    reader = SliceReader(store, preprocessing)
    for row in rows:
        image, _ = reader.read_input(int(row))
        yield Slice(int(row), image)
