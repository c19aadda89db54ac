"""Random views: ranges kept, and nothing but the key decides."""

import numpy as np
import pytest
import torch

from vismae.core.sections import PretrainDataSettings
from vismae.data.augment import (
    affine_matrix,
    augment_pretrain,
    jitter_intensity,
    random_crop,
    resample,
    sample_rng,
)


def picture(size: tuple[int, int] = (24, 40)) -> torch.Tensor:
    return torch.rand(1, *size, generator=torch.Generator().manual_seed(0))


def test_the_key_alone_decides_a_view():
    settings = PretrainDataSettings()
    image = picture()
    one, same, epoch, row = (
        augment_pretrain(image, (16, 16), sample_rng(*key), settings)
        for key in ((1, 2, 3), (1, 2, 3), (1, 3, 3), (1, 2, 4))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, epoch)
    assert not torch.equal(one, row)


@pytest.mark.parametrize("size", [(16, 16), (32, 12), (7, 50)])
def test_views_have_the_wanted_size_and_stay_in_range(size: tuple[int, int]):
    settings = PretrainDataSettings(jitter=1.0, rotate=45)
    for row in range(10):
        view = augment_pretrain(picture(), size, sample_rng(0, 0, row), settings)
        assert view.shape == (1, *size)
        assert view.min() >= 0
        assert view.max() <= 1
        assert torch.isfinite(view).all()


def test_images_smaller_than_the_canvas_and_of_one_pixel_can_be_cropped():
    for size in ((1, 1), (1, 9), (3, 2)):
        image = torch.full((3, *size), 0.5)
        view = random_crop(image, (16, 16), sample_rng(0, 0, 0), (0.2, 1.0), (0.5, 2.0))
        assert view.shape == (3, 16, 16)
        assert torch.allclose(view, torch.full_like(view, 0.5))


def test_a_whole_crop_of_the_same_aspect_is_the_image():
    image = picture((16, 32))
    view = random_crop(image, (16, 32), sample_rng(0, 0, 0), (1.0, 1.0), (1.0, 1.0))
    assert torch.equal(view, image)


def test_a_long_image_is_cropped_and_not_squeezed():
    # A column gradient over 100 columns; a square view of it must not span all of them.
    image = torch.linspace(0, 1, 100).expand(1, 20, 100)
    view = random_crop(image, (20, 20), sample_rng(0, 0, 0), (1.0, 1.0), (1.0, 1.0))
    assert float(view.max() - view.min()) == pytest.approx(0.19, abs=0.02)


def test_a_quarter_turn_moves_pixels_as_a_quarter_turn_does():
    image = picture((8, 8))
    matrix = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    turned = resample(image, matrix)
    assert torch.allclose(turned, torch.rot90(image, 1, (1, 2)), atol=1e-5) or torch.allclose(
        turned, torch.rot90(image, -1, (1, 2)), atol=1e-5
    )


def test_rotation_is_rigid_in_pixels_on_a_canvas_that_is_not_square():
    size = (20, 60)
    for row in range(5):
        matrix = affine_matrix(sample_rng(0, 0, row), size, rotate=90)[:, :2].double()
        # From output pixels to input pixels: undo the scaling to -1..1 on both sides.
        to_unit = torch.diag(torch.tensor([2 / size[1], 2 / size[0]]).double())
        in_pixels = torch.linalg.inv(to_unit) @ matrix @ to_unit
        assert torch.allclose(in_pixels @ in_pixels.T, torch.eye(2).double(), atol=1e-5)
        assert torch.linalg.det(in_pixels) == pytest.approx(1, abs=1e-5)


def test_zoom_and_flip_have_their_sizes():
    zoomed = affine_matrix(sample_rng(0, 0, 0), (8, 8), scale=(2.0, 2.0))
    assert torch.allclose(zoomed, torch.tensor([[0.5, 0, 0], [0, 0.5, 0]]))
    found = {
        tuple(affine_matrix(sample_rng(0, 0, row), (8, 8), flip_horizontal=True)[0].tolist())
        for row in range(20)
    }
    assert found == {(1, 0, 0), (-1, 0, 0)}


def test_no_jitter_is_possible():
    image = picture()
    assert jitter_intensity(image, sample_rng(0, 0, 0), 0.0) is image


def test_flips_happen_about_half_of_the_time():
    image = torch.linspace(0, 1, 16).expand(1, 16, 16)
    settings = PretrainDataSettings(
        crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0), rotate=0, jitter=0
    )
    flipped = [
        bool(augment_pretrain(image, (16, 16), sample_rng(0, 0, row), settings)[0, 0, 0] > 0.5)
        for row in range(100)
    ]
    assert 30 < np.sum(flipped) < 70
