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
    """Sums and counts of images' losses by modality.

    Args:
        state: What another one gave as its state, to go on from.
    """

    def __init__(self, state: Tensor | None = None) -> None:
        self._sums = state

    def state(self) -> Tensor | None:
        """Return the sums and counts so far, (modalities, 2) on the host; None before the first.

        Waits for the device.
        """
        return None if self._sums is None else self._sums.clone().cpu()

    def add(self, codes: Tensor, losses: Tensor) -> None:
        """Add a batch.

        Args:
            codes: Place of each image's modality in ``Modality``, (B,) integers.
            losses: Of each image, (B,), on the same device.
        """
        if self._sums is None:
            self._sums = torch.zeros(len(Modality), 2)
        self._sums = self._sums.to(losses.device)
        self._sums.index_add_(0, codes, torch.stack([losses, torch.ones_like(losses)], dim=1))

    def read(self) -> dict[str, float]:
        """Return ``loss_ct`` and so on, the mean of each modality that came, and begin anew.

        Waits for the device.
        """
        if self._sums is None:
            return {}
        sums = self._sums.tolist()
        self._sums.zero_()
        return {
            f"loss_{modality}": total / count
            for modality, (total, count) in zip(Modality, sums, strict=True)
            if count
        }
