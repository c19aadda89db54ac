import pytest
import torch

from vismae.models.reconstruction import patchify, reconstruction_loss, unpatchify


def test_patches_hold_row_column_channel_and_unpatchify_is_the_inverse():
    images = torch.arange(2 * 3 * 5 * 7.0).view(2, 3, 5, 7)
    patches = patchify(images, 2)
    assert patches.shape == (2, 3 * 4, 12)
    expected = [images[0, channel, row, 2 + column] for row in (0, 1) for column in (0, 1)
                for channel in range(3)]  # fmt: skip
    assert patches[0, 1].tolist() == [value.item() for value in expected]
    assert torch.equal(unpatchify(patches, 2, 5, 7), images)


def test_loss_counts_hidden_patches_only():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    hidden = torch.tensor([[True, False, False, True]])
    prediction = patchify(image, 2)
    prediction[0, 0] += 2.0
    prediction[0, 1] += 100.0
    assert reconstruction_loss(prediction, image, hidden) == pytest.approx((4.0 + 0.0) / 2)


def test_loss_of_scaled_patches_by_hand():
    image = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    hidden = torch.tensor([[True]])
    # mean 3, unbiased variance (4 + 1 + 0 + 9) / 3; predicting 0 leaves the scaled squares.
    expected = (14.0 / 4) / (14.0 / 3 + 0.5)
    loss = reconstruction_loss(torch.zeros(1, 1, 4), image, hidden, True, normalise_eps=0.5)
    assert loss == pytest.approx(expected)


@pytest.mark.parametrize("normalise", [False, True])
def test_padded_pixels_never_count(normalise: bool):
    image = torch.randn(1, 1, 3, 5)
    hidden = torch.ones(1, 6, dtype=torch.bool)
    prediction = torch.randn(1, 6, 4)
    changed = patchify(torch.ones(1, 1, 3, 5), 2)  # 0 where a patch is padded
    wild = prediction + 1000.0 * (1 - changed)
    losses = [reconstruction_loss(p, image, hidden, normalise) for p in (prediction, wild)]
    assert losses[0] == losses[1]
    if not normalise:
        difference = unpatchify(prediction, 2, 3, 5) - image
        assert losses[0] == pytest.approx(difference.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (3, 4)])
def test_hidden_patches_that_all_weigh_nothing_teach_nothing(size: tuple[int, int]):
    image, hidden = torch.randn(1, 1, *size), torch.tensor([[True, True, False, False]])
    for weights, expected in (([0.0, 0.0, 1.0, 1.0], 0.0), ([0.0, 1e-3, 1.0, 1.0], 4.0)):
        prediction = (patchify(image, 2) + 2.0).requires_grad_()
        loss = reconstruction_loss(prediction, image, hidden, patch_weights=torch.tensor([weights]))
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert prediction.grad is not None
        assert bool(prediction.grad.any()) == (expected > 0.0)
        assert torch.isfinite(prediction.grad).all()
