"""One slice of an upload, hidden and filled in at a ratio of the user's choice, as pictures."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vismae.core.errors import SettingError
from vismae.data.store_format import storable_pixels
from vismae.evaluation.overlay import png_bytes
from vismae.inference.ensemble import Ensemble
from vismae.inference.fill_in import fill_in_slice
from vismae.workflows.prediction.reading import prepared_slice, require_known
from vismae.workflows.viewing.images import ShownImage

_FULL = np.iinfo(np.uint8).max


@dataclass(frozen=True)
class Wanted:
    """What is to be reconstructed.

    Attributes:
        image: Number of the image.
        slice: Number of its slice in the order of the file, counted from 0.
        mask_ratio: Share of mask units to hide.
        pattern: Decides which are hidden.
    """

    image: int
    slice: int
    mask_ratio: float
    pattern: int


def reconstruct(
    images: tuple[ShownImage, ...], folder: Path, ensemble: Ensemble, wanted: Wanted
) -> dict[str, Any]:
    """Return what the autoencoder was shown, what it drew and how far off it was.

    Pictures are 8-bit grey PNG in the slice's own size, base64: ``image``, ``hidden`` (255 where
    hidden), ``filled`` and ``error`` (255 for an error of the whole range).

    Raises:
        SettingError: There is no such image or slice, or the ratio hides nothing.
        PreprocessingError: The model was not made for such images.
        ModelError: The model is no masked autoencoder.
    """
    if not 0 <= wanted.image < len(images):
        raise SettingError(f"image {wanted.image}: the upload has images 0 to {len(images) - 1}.")
    shown = images[wanted.image]
    if not 0 <= wanted.slice < shown.slices:
        raise SettingError(f"slice {wanted.slice}: the image has slices 0 to {shown.slices - 1}.")
    for card in ensemble.cards:
        require_known(shown.facts(), card)
    pixels = storable_pixels(np.array(shown.stored_slices(folder)[wanted.slice]))
    prepared = prepared_slice(pixels, shown.facts(), shown.scale, ensemble.preprocessing)
    found = fill_in_slice(ensemble, prepared, wanted.mask_ratio, wanted.pattern)
    return {
        "image": wanted.image,
        "slice": wanted.slice,
        "mask_ratio": wanted.mask_ratio,
        "pattern": wanted.pattern,
        "height": found.image.shape[0],
        "width": found.image.shape[1],
        "pixel_mm": list(shown.pixel_mm),
        "hidden_fraction": round(found.hidden_fraction, 6),
        "mean_absolute_error": round(found.mean_error, 6),
        "pictures": {
            "image": _png(found.image),
            "hidden": _png(found.hidden.astype(np.float32)),
            "filled": _png(found.filled),
            "error": _png(found.error),
        },
    }


def _png(values: np.ndarray) -> str:
    grey = np.rint(np.clip(values, 0.0, 1.0) * _FULL).astype(np.uint8)
    return base64.b64encode(png_bytes(grey)).decode("ascii")
