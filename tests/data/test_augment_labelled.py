"""Changes of labelled batches: moved alike, ranges kept, each sample on its own."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vismae.core.augment_section import AugmentSettings
from vismae.core.types import IGNORED_LABEL
from vismae.data.augment import sample_rng
from vismae.data.augment_labelled import UNCHANGED, apply_changes, draw_changes

SIZE = (20, 30)
STILL = AugmentSettings(probability=0.0, intensity_probability=0.0)


def pictures(batch: int = 6, channels: int = 1) -> torch.Tensor:
    return torch.rand(batch, channels, *SIZE, generator=torch.Generator().manual_seed(0))


def drawn(settings: AugmentSettings, batch: int = 6) -> torch.Tensor:
    return torch.stack(
        [draw_changes(sample_rng(0, 0, row), SIZE, settings) for row in range(batch)]
    )


def changed(place: int, value: float, batch: int = 6) -> torch.Tensor:
    changes = torch.tensor(UNCHANGED).repeat(batch, 1)
    changes[:, place] = value
    return changes


def test_image_and_label_map_move_alike_and_the_outside_is_ignored():
    label_map = torch.zeros(10, *SIZE, dtype=torch.int64)
    label_map[:, 5:15, 8:20] = 2
    images = (label_map > 0).float()[:, None]
    settings = AugmentSettings(probability=1.0, intensity_probability=0.0)
    moved, classes = apply_changes(images, label_map, drawn(settings, 10))
    assert classes is not None
    assert classes.dtype == torch.int64
    assert set(classes.unique().tolist()) <= {IGNORED_LABEL, 0, 2}
    # Away from the edges of the square, where bilinear and nearest differ.
    sure = (moved[:, 0] > 0.9) | (moved[:, 0] < 0.1)
    inside = classes != IGNORED_LABEL
    assert (((moved[:, 0] > 0.5) == (classes == 2)) | ~sure | ~inside).all()
    assert (classes == IGNORED_LABEL).any()
    assert not torch.equal(moved[0], moved[1])


def test_nothing_drawn_leaves_every_value_as_it_was():
    images = pictures(channels=3)
    label_map = torch.randint(-1, 3, (6, *SIZE))
    same, labels = apply_changes(images, label_map, drawn(STILL))
    assert torch.allclose(same, images, atol=1e-6)
    assert labels is not None
    assert torch.equal(labels, label_map)


def test_padding_stays_ignored_after_moving():
    label_map = torch.full((6, *SIZE), IGNORED_LABEL)
    label_map[..., :8] = 1
    mirrored = torch.tensor(UNCHANGED).repeat(6, 1)
    mirrored[:, 0] = -1.0
    _, classes = apply_changes(pictures(), label_map, mirrored)
    assert classes is not None
    assert torch.equal(classes, label_map.flip(-1))


def test_a_sample_changes_alike_in_any_batch():
    settings = AugmentSettings(probability=1.0, intensity_probability=1.0, noise=0.0)
    images, changes = pictures(), drawn(settings)
    whole, _ = apply_changes(images, None, changes)
    alone, _ = apply_changes(images[3:4], None, changes[3:4])
    assert torch.allclose(whole[3:4], alone, atol=1e-5)
    assert torch.equal(drawn(settings), changes)


def test_all_changes_at_once_keep_the_range():
    settings = AugmentSettings(
        probability=1.0, intensity_probability=1.0, noise=1.0, gamma=(0.2, 5.0), blur=3.0
    )
    made, _ = apply_changes(pictures(), None, drawn(settings))
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.isfinite(made).all()


def test_gamma_contrast_and_brightness_are_what_they_are_called():
    images = pictures() * 0.5 + 0.2
    gamma, _ = apply_changes(images, None, changed(6, 2.0))
    assert torch.allclose(gamma, images**2, atol=1e-6)
    contrast, _ = apply_changes(images, None, changed(7, 0.5))
    assert torch.allclose(contrast.mean((2, 3)), images.mean((2, 3)), atol=1e-6)
    assert torch.allclose(contrast.std((2, 3)), images.std((2, 3)) / 2, atol=1e-6)
    bright, _ = apply_changes(images, None, changed(8, 1.2))
    assert torch.allclose(bright, images * 1.2, atol=1e-6)


def test_blur_is_a_gaussian_of_the_named_width():
    from scipy.ndimage import gaussian_filter

    images = pictures(2)
    blurred, _ = apply_changes(images, None, changed(9, 0.9, 2))
    expected = gaussian_filter(images[0, 0].numpy(), 0.9, mode="nearest", radius=4)
    assert np.allclose(blurred[0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_low_resolution_is_nearest_down_and_bilinear_up(share: float):
    images = pictures(2)
    coarse, _ = apply_changes(images, None, changed(10, share, 2))
    small = (round(SIZE[0] * share), round(SIZE[1] * share))
    down = functional.interpolate(images, size=small, mode="nearest-exact")
    expected = functional.interpolate(down, size=SIZE, mode="bilinear", align_corners=False)
    assert torch.allclose(coarse, expected, atol=1e-5)


def test_noise_has_the_named_spread():
    images = torch.full((6, 1, *SIZE), 0.5)
    noisy, _ = apply_changes(images, None, changed(11, 0.05))
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.1)


def test_mirroring_only_where_it_is_allowed():
    def signs(settings: AugmentSettings) -> set[tuple[float, float]]:
        changes = torch.stack(
            [draw_changes(sample_rng(0, 0, row), SIZE, settings) for row in range(40)]
        )
        return {(float(c[0].sign()), float(c[4].sign())) for c in changes}

    usual = AugmentSettings(probability=1.0)
    assert signs(usual) == {(1.0, 1.0)}
    allowed = AugmentSettings(probability=1.0, flip_horizontal=True, flip_vertical=True)
    assert len(signs(allowed)) == 4
