import numpy as np
import pytest

from vismae.data.percentiles import scale_range


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("slope", [1.0, 0.25, -2.0])
def test_the_range_equals_numpys_percentiles_of_physical_values(
    dtype: type[np.generic], slope: float
) -> None:
    rng = np.random.default_rng(3)
    low, high = (-100, 100) if np.dtype(dtype).kind != "u" else (0, 200)
    volume = [rng.integers(low, high, shape).astype(dtype) for shape in ((17, 31), (5, 4, 3))]

    physical = np.concatenate([pixels.ravel() for pixels in volume]).astype(float) * slope - 1024
    assert scale_range(volume, slope, -1024.0) == pytest.approx(
        np.percentile(physical, [0.5, 99.5])
    )


def test_wide_integers_do_not_need_a_table_of_all_values() -> None:
    values = np.array([[-(2**31), 0, 2**31 - 1]], dtype=np.int32)

    assert scale_range([values]) == pytest.approx(np.percentile(values, [0.5, 99.5]))


def test_values_that_are_not_finite_do_not_count() -> None:
    values = np.array([[np.nan, 1.0, 2.0, np.inf]], dtype=np.float32)

    assert scale_range([values]) == pytest.approx((1.005, 1.995))
    assert scale_range([np.full((2, 2), np.nan)], 1.0, 5.0) == (5.0, 5.0)


def test_a_single_pixel_is_its_own_range() -> None:
    assert scale_range([np.array([[7]], dtype=np.uint8)], 2.0, 1.0) == (15.0, 15.0)


def test_a_large_volume_is_thinned_without_moving_its_range() -> None:
    rng = np.random.default_rng(0)
    volume = [rng.normal(1000, 200, (512, 512)).astype(np.int16) for _ in range(40)]

    thinned = scale_range(volume)

    expected = np.percentile(np.stack(volume), [0.5, 99.5])
    np.testing.assert_allclose(thinned, expected, atol=3)
