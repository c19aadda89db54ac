"""Pictures that show whether masked pre-training works: image, hidden patches, fill-in."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality
from vismae.evaluation.overlay import contact_sheet, draw_fill_in, save_png
from vismae.models.mae import SwinMAE
from vismae.models.reconstruction import unpatchify

_TRIPTYCH_PX = 480


@torch.inference_mode()
def draw_fill_in_sheet(
    path: Path,
    model: SwinMAE,
    examples: Mapping[Modality, Tensor],
    preprocessing: Preprocessing,
) -> None:
    """Write one picture with a row of fill-ins per modality.

    Args:
        path: PNG to write.
        model: The autoencoder, on any device.
        examples: Normalised images by modality, (n, C, H, W).
        preprocessing: To get back to grey levels.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    pictures, captions = [], []
    for modality, images in examples.items():
        images = images.to(device)
        # Fixed keys: the same patches are hidden in every picture of a run.
        output = model(images, keys=torch.arange(len(images), device=device))
        filled = _grey_levels(model.fill_in(images, output), preprocessing)
        originals = _grey_levels(images, preprocessing)
        hidden = _hidden_pixels(output.hidden, images, model.config.patch_size)
        for original, hidden_pixels, fill in zip(originals, hidden, filled, strict=True):
            pictures.append(draw_fill_in(original, hidden_pixels, fill))
            captions.append(modality.upper())
    model.train(was_training)
    columns = max(len(images) for images in examples.values())
    save_png(path, contact_sheet(pictures, captions, columns, cell_px=_TRIPTYCH_PX))


def _hidden_pixels(hidden: Tensor, images: Tensor, patch_size: int) -> np.ndarray:
    """Return which pixels lie in hidden patches, (n, H, W) bool."""
    per_pixel = hidden[:, :, None].float().expand(-1, -1, patch_size**2)
    pixels = unpatchify(per_pixel, patch_size, images.shape[2], images.shape[3])
    return pixels[:, 0].cpu().numpy() > 0.5


def _grey_levels(images: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Return normalised images (n, C, H, W) as 0..1 arrays (n, H, W) or (n, H, W, 3)."""
    values = images.float().cpu().numpy() * preprocessing.std + preprocessing.mean
    values = np.clip(values, 0.0, 1.0)
    return values[:, 0] if values.shape[1] == 1 else np.moveaxis(values, 1, -1)
