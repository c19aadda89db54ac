"""The loss of each modality is the loss of its images."""

import pytest
import torch

from vismae.core.types import Modality
from vismae.models.mae import SwinMAE
from vismae.training.modality_losses import ModalityLosses, image_losses, means_by_modality

CODES = {modality: code for code, modality in enumerate(Modality)}


@pytest.mark.parametrize("normalise_patches", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (30, 45)])
def test_the_loss_of_an_image_is_that_of_a_batch_of_it_alone(
    normalise_patches: bool, size: tuple[int, int]
):
    torch.manual_seed(0)
    model = SwinMAE.from_size("nano", in_channels=1, normalise_patches=normalise_patches).eval()
    images, keys = torch.randn(3, 1, *size), torch.arange(3)
    output = model(images, keys=keys)
    found = image_losses(model, images, output)
    alone = [model(images[i : i + 1], keys=keys[i : i + 1]).loss for i in range(3)]
    assert torch.allclose(found, torch.stack(alone), atol=1e-5)
    assert not found.requires_grad


def test_sums_are_means_of_the_images_since_the_last_reading():
    losses = ModalityLosses()
    assert means_by_modality(losses.take()) == {}
    ct, mr = CODES[Modality.CT], CODES[Modality.MR]
    losses.add(torch.tensor([ct, mr, ct]), torch.tensor([1.0, 5.0, 2.0]))
    losses.add(torch.tensor([ct]), torch.tensor([6.0]))
    assert means_by_modality(losses.take()) == {"loss_ct": 3.0, "loss_mr": 5.0}
    losses.add(torch.tensor([mr]), torch.tensor([7.0]))
    assert means_by_modality(losses.take()) == {"loss_mr": 7.0}
