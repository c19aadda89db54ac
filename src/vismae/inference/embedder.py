"""Features of a stream of slices: what an encoder makes of each, as one vector.

A plain torch loop; nothing of Lightning or MONAI.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch

from vismae.core.preprocessing import Preprocessing
from vismae.data.loaders import SliceReader
from vismae.data.store import Store
from vismae.inference.ensemble import Ensemble
from vismae.inference.slices import Key, Slice, canvas_batches
from vismae.models.features import image_features
from vismae.models.weights import Model


def embed_slices(
    ensemble: Ensemble, slices: Iterable[Slice[Key]], batch_size: int
) -> Iterator[tuple[Key, np.ndarray]]:
    """Yield the features of each slice, (C,) float32, in order.

    Args:
        ensemble: One model, with an encoder.
        slices: The stream; read no further than one batch ahead.
        batch_size: Slices at a time.

    Raises:
        ModelError: The model has no encoder, or gives numbers that are not finite.
    """
    model = cast(Model, ensemble.models[0])
    for batch, images in canvas_batches(slices, ensemble.preprocessing, batch_size):
        with torch.inference_mode(), ensemble.autocast():
            vectors = image_features(model, images.to(ensemble.device)).float().cpu()
        ensemble.require_finite(vectors)
        for item, vector in zip(batch, vectors.numpy(), strict=True):
            yield item.key, vector


def stored_slices(
    store: Store, rows: Sequence[int] | np.ndarray, preprocessing: Preprocessing
) -> Iterator[Slice[int]]:
    """Yield rows of a store on the network's 0..1 scale; the key is the row number."""
    reader = SliceReader(store, preprocessing)
    for row in rows:
        image, _ = reader.read_input(int(row))
        yield Slice(int(row), image)
