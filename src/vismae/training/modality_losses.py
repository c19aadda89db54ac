"""The loss of each modality, added up on the device so that the host need not wait for it."""

import torch
from torch import Tensor

from vismae.core.types import Modality
from vismae.models.mae import MAEOutput, SwinMAE
from vismae.models.reconstruction import reconstruction_loss


@torch.no_grad()
def image_losses(model: SwinMAE, images: Tensor, output: MAEOutput) -> Tensor:
    """Return the reconstruction loss of each image, (B,) float32.

    Every hidden patch weighs alike, also where the model's own loss weighs the background less.

    Args:
        model: Says how targets are scaled.
        images: Normalised images, (B, K, H, W).
        output: What the model gave for them.
    """

    def of_one(prediction: Tensor, image: Tensor, hidden: Tensor) -> Tensor:
        return reconstruction_loss(
            prediction[None],
            image[None],
            hidden[None],
            model.normalise_patches,
            model.normalise_eps,
            normalise_side_px=model.normalise_side_px,
        )

    return torch.vmap(of_one)(output.prediction.detach(), images, output.hidden)


class ModalityLosses:
    """Sums and counts of images' losses by modality."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def add(self, codes: Tensor, losses: Tensor) -> None:
        """Add a batch.

        Args:
            codes: Place of each image's modality in ``Modality``, (B,) integers.
            losses: Of each image, (B,), on the same device.
        """
        if self._sums is None:
            # Apple's devices have no float64.
            dtype = torch.float32 if losses.device.type == "mps" else torch.float64
            self._sums = torch.zeros(len(Modality), 2, device=losses.device, dtype=dtype)
        values = torch.stack([losses, torch.ones_like(losses)], dim=1)
        self._sums.index_add_(0, codes, values.to(self._sums.dtype))

    def take(self) -> Tensor:
        """Return the sums and counts, (modalities, 2) float64 on the host, and begin anew.

        Waits for the device.
        """
        if self._sums is None:
            return torch.zeros(len(Modality), 2, dtype=torch.float64)
        sums = self._sums.cpu().double().clone()
        self._sums.zero_()
        return sums


def means_by_modality(sums: Tensor) -> dict[str, float]:
    """Return ``loss_ct`` and so on from sums and counts, (modalities, 2), of those that came."""
    return {
        f"loss_{modality}": total / count
        for modality, (total, count) in zip(Modality, sums.tolist(), strict=True)
        if count
    }
