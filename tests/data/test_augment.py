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
    random_window,
    resample,
    sample_rng,
)
from vismae.data.intensity import window_hu


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


def test_a_view_is_the_same_whatever_the_number_of_threads():
    before = torch.get_num_threads()
    settings = PretrainDataSettings(blur=2.0)
    views: list[torch.Tensor] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            images = torch.rand(8, 1, 300, 300, generator=torch.Generator().manual_seed(0))
            drawn = [
                augment_pretrain(image, (224, 224), sample_rng(0, 0, row), settings)
                for row, image in enumerate(images)
            ]
            views.append(torch.stack(drawn))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*views)


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


def test_a_random_window_is_the_contracts_code_with_a_narrower_window_within_it():
    low, high = -1000.0, 1000.0
    values_hu = np.random.default_rng(0).uniform(-1200, 1200, (1, 9, 7)).astype(np.float32)
    image = torch.from_numpy(window_hu(values_hu, low, high))
    for row in range(20):
        seen = random_window(image, sample_rng(1, 0, row), (0.1, 0.5))
        inside = (seen > 0) & (seen < 1)
        # A pixel chosen at random is within, so something is to be seen.
        assert inside.any()
        first, last = (int(place) for place in inside.flatten().nonzero().flatten()[[0, -1]])
        if first == last:
            continue
        known, stretched = values_hu.flatten()[[first, last]], seen.flatten()[[first, last]]
        width = float((known[1] - known[0]) / (stretched[1] - stretched[0]))
        begin = float(known[0] - stretched[0] * width)
        assert 0.1 * (high - low) * 0.98 <= width <= 0.5 * (high - low) * 1.02
        assert low - 5 <= begin
        assert begin + width <= high + 5
        assert np.allclose(seen, window_hu(values_hu, begin, begin + width), atol=0.01)


def test_a_window_as_wide_as_the_contracts_changes_nothing():
    image = picture()
    assert torch.allclose(random_window(image, sample_rng(0, 0, 0), (1.0, 1.0)), image, atol=1e-6)


def test_windows_are_narrowed_as_often_as_asked_and_only_in_hounsfield_units():
    still = PretrainDataSettings(
        crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False, rotate=0, jitter=0
    )
    image, size = picture(), (24, 40)

    def changed(chance: float, in_hu: bool) -> float:
        settings = still.model_copy(update={"ct_window_chance": chance})
        plain = augment_pretrain(image, size, sample_rng(0, 0, 0), still)
        views = [
            augment_pretrain(image, size, sample_rng(0, 0, row), settings, in_hu)
            for row in range(200)
        ]
        return float(np.mean([not torch.equal(view, plain) for view in views]))

    assert changed(0.0, True) == 0.0
    assert changed(1.0, False) == 0.0
    assert changed(1.0, True) > 0.95
    assert 0.2 < changed(0.3, True) < 0.4
