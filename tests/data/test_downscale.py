import numpy as np
import pytest

from vismae.data.downscale import downscale_label_map, downscale_pixels, downscaled_shape


def test_the_longer_side_meets_the_cap_and_smaller_images_stay() -> None:
    assert downscaled_shape((1000, 500), 256) == (256, 128)
    assert downscaled_shape((3, 4000), 256) == (1, 256)
    assert downscaled_shape((256, 100), 256) == (256, 100)
    assert downscaled_shape((5000, 5000), None) == (5000, 5000)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_whole_blocks_become_their_averages_in_the_same_type(dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (12, 8)).astype(dtype)

    smaller = downscale_pixels(pixels, (6, 2))

    expected = pixels.astype(float).reshape(6, 2, 2, 4).mean(axis=(1, 3))
    assert smaller.dtype == pixels.dtype
    np.testing.assert_allclose(smaller, expected, atol=0.51 if dtype != "float32" else 1e-4)


def test_an_uneven_factor_keeps_the_mean_and_colour_channels_apart() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (50, 70, 3)).astype(np.uint8)

    smaller = downscale_pixels(pixels, (21, 29))

    assert smaller.shape == (21, 29, 3)
    np.testing.assert_allclose(smaller.mean(axis=(0, 1)), pixels.mean(axis=(0, 1)), atol=0.5)


def test_extremes_do_not_wrap_round() -> None:
    pixels = np.full((9, 9), 65535, dtype=np.uint16)

    assert (downscale_pixels(pixels, (4, 5)) == 65535).all()


def test_label_maps_keep_their_classes_in_place() -> None:
    label_map = np.zeros((8, 12), dtype=np.uint8)
    label_map[:4, 6:] = 7

    smaller = downscale_label_map(label_map, (4, 6))

    assert set(np.unique(smaller)) == {0, 7}
    np.testing.assert_array_equal(np.argwhere(smaller == 7).min(axis=0), [0, 3])
    assert (smaller == 7).sum() == 2 * 3
