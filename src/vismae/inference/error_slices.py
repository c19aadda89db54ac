"""Reconstruction errors of a stream of slices: what a masked autoencoder finds unusual."""

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch

from vismae.data.geometry import unfit_logits
from vismae.inference.ensemble import Ensemble
from vismae.inference.explain import reconstruction_error
from vismae.inference.slices import Key, Slice, batches_of, canvas_of, to_full_scale
from vismae.inference.unanswered import Unanswered, answers_or_reasons
from vismae.models.mae import SwinMAE


def error_slices(
    ensemble: Ensemble, slices: Iterable[Slice[Key]], batch_size: int
) -> Iterator[tuple[Key, np.ndarray | Unanswered]]:
    """Yield the error map of each slice, in its own size and in order, or why there is none.

    Values are mean absolute errors on the contract's 0..1 scale, ``FULL_SCALE`` for 1, (h, w)
    uint16. The patches hidden are the same for every slice, so that an image's map depends on
    nothing but the image.

    Args:
        ensemble: One masked autoencoder.
        slices: The stream; read no further than one batch ahead.
        batch_size: Slices at a time.
    """
    contract = ensemble.preprocessing
    model = cast(SwinMAE, ensemble.models[0])

    def error_maps(batch: list[Slice[Key]]) -> Iterator[np.ndarray]:
        images = canvas_of(batch, contract)
        keys = torch.zeros(len(batch), dtype=torch.int64, device=ensemble.device)
        with ensemble.autocast():
            errors = reconstruction_error(model, images.to(ensemble.device), keys, contract)
        ensemble.require_finite(errors)
        for item, error in zip(batch, errors, strict=True):
            native = unfit_logits(error[None], item.size, contract.fit)
            yield to_full_scale(native[0])

    for batch in batches_of(slices, batch_size):
        for item, found in answers_or_reasons(batch, error_maps):
            yield item.key, found
