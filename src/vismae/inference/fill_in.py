"""One slice with patches hidden and filled in, at a ratio of the user's choice."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vismae.core.errors import ModelError, SettingError
from vismae.data.geometry import fit_image, fitted_size, unfit_logits
from vismae.inference.ensemble import Ensemble
from vismae.inference.slices import normalised
from vismae.models.mae import MAEOutput, SwinMAE
from vismae.models.masking import sample_hidden


@dataclass(frozen=True)
class FilledSlice:
    """What an autoencoder made of a slice, in the slice's own size.

    Attributes:
        image: As the network was to draw it, the mean over channels, 0 to 1.
        hidden: True where the encoder saw nothing.
        filled: The image with hidden pixels drawn by the network, 0 to 1.
        error: Absolute difference where hidden, 0 elsewhere.
    """

    image: Float[np.ndarray, "h w"]
    hidden: Bool[np.ndarray, "h w"]
    filled: Float[np.ndarray, "h w"]
    error: Float[np.ndarray, "h w"]

    @property
    def hidden_fraction(self) -> float:
        """Share of the pixels that were hidden."""
        return float(self.hidden.mean())

    @property
    def mean_error(self) -> float:
        """Mean absolute error of the hidden pixels; 0 where none was."""
        return float(self.error[self.hidden].mean()) if self.hidden.any() else 0.0


@torch.inference_mode()
def fill_in_slice(ensemble: Ensemble, image: Tensor, mask_ratio: float, key: int) -> FilledSlice:
    """Hide random mask units of a slice, and let the autoencoder draw them.

    Args:
        ensemble: One masked autoencoder.
        image: On the contract's 0..1 scale, (C, h, w).
        mask_ratio: Share of mask units to hide, between 0 and 1.
        key: Decides which; the same key hides the same units.

    Raises:
        ModelError: The model is no masked autoencoder, or draws no finite numbers.
        SettingError: The ratio hides no unit, or all of them.
    """
    model = ensemble.models[0]
    if not isinstance(model, SwinMAE):
        raise ModelError(
            f"A {ensemble.kind} draws no hidden patches. Name a masked autoencoder's model folder."
        )
    contract = ensemble.preprocessing
    canvas = normalised(fit_image(image, contract), contract)[None].to(ensemble.device)
    size = (canvas.shape[2], canvas.shape[3])
    keys = torch.tensor([key], dtype=torch.int64, device=ensemble.device)
    unit = model.mask_unit_px // model.config.patch_size
    hidden = sample_hidden(keys, model.config.patch_grid(*size), unit, mask_ratio)
    if bool(hidden.all()):
        raise SettingError(
            f"mask_ratio {mask_ratio} hides the whole image. Use a lower ratio, such as "
            f"{model.mask_ratio}."
        )
    with ensemble.autocast():
        output = cast(MAEOutput, model(canvas, hidden=hidden))
    filled = model.fill_in(canvas, output)[0] * contract.std + contract.mean
    ensemble.require_finite(filled)
    native = (int(image.shape[1]), int(image.shape[2]))
    drawn = unfit_logits(filled, native, contract.fit).mean(dim=0).clamp(0.0, 1.0).cpu().numpy()
    given = image.mean(dim=0).numpy()
    where = _in_own_size(hidden, model, size, native, ensemble)
    return FilledSlice(
        image=given,
        hidden=where,
        filled=np.where(where, drawn, given),
        error=np.where(where, np.abs(drawn - given), np.float32(0.0)),
    )


def _in_own_size(
    hidden: Tensor, model: SwinMAE, size: tuple[int, int], native: tuple[int, int], by: Ensemble
) -> np.ndarray:
    """Return hidden patches (1, L) as pixels of the slice, by the nearest pixel of the canvas."""
    patch = model.config.patch_size
    grid = hidden.view(model.config.patch_grid(*size)).cpu().numpy()
    height, width = fitted_size(native, size, by.preprocessing.fit)
    rows = (np.arange(native[0]) + 0.5) * height / native[0]
    columns = (np.arange(native[1]) + 0.5) * width / native[1]
    return grid[np.ix_(rows.astype(int) // patch, columns.astype(int) // patch)]
