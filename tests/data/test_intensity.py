"""Intensities: hand-computed values for every unit, and images that would break a division."""

import numpy as np
import pytest

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit
from vismae.data.intensity import normalise, scale_between, scale_suv, to_unit_range, window_hu

CONTRACT = Preprocessing()


def unit_range(
    pixels: np.ndarray,
    unit: PixelUnit,
    modality: Modality = Modality.XR,
    scale: tuple[float, float] = (0.0, 1.0),
    slope: float = 1.0,
    intercept: float = 0.0,
    contract: Preprocessing = CONTRACT,
) -> np.ndarray:
    return to_unit_range(
        pixels,
        modality=modality,
        unit=unit,
        slope=slope,
        intercept=intercept,
        scale_low=scale[0],
        scale_high=scale[1],
        preprocessing=contract,
    )


def test_hounsfield_units_are_windowed_and_clipped():
    values = np.array([-2000.0, -1000.0, 0.0, 500.0, 1000.0, 3000.0])
    assert window_hu(values, -1000, 1000).tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_uptake_values_are_scaled_and_clipped():
    assert scale_suv(np.array([-1.0, 2.5, 20.0]), 0, 10).tolist() == [0, 0.25, 1]


def test_an_empty_window_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="from 40 to 40 is empty"):
        window_hu(np.zeros(3), 40, 40)


def test_stored_ct_values_become_hounsfield_units_first():
    stored = np.array([[24, 1024, 2024]], dtype=np.int16)
    found = unit_range(stored, PixelUnit.HU, Modality.CT, (-1000, 1000), 1.0, -1024.0)
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0.5, 1]]


def test_stored_pet_values_become_uptake_values_first():
    stored = np.array([[0, 100, 800]], dtype=np.uint16)
    found = unit_range(stored, PixelUnit.SUV, Modality.PET, (0, 40), slope=0.05)
    assert found[0] == pytest.approx([0, 0.5, 1])


def test_mr_is_scaled_between_the_percentiles_of_its_volume():
    found = unit_range(
        np.array([[5, 10, 35, 110, 500]]), PixelUnit.ARBITRARY, Modality.MR, (10, 110)
    )
    assert found[0] == pytest.approx([0, 0, 0.25, 1, 1])


def test_grey_levels_of_8_bit_stay_what_they_are():
    pixels = np.array([[0, 51, 102]], dtype=np.uint8)
    found = unit_range(pixels, PixelUnit.DISPLAY, scale=(0, 102))
    assert found[0] == pytest.approx([0, 0.2, 0.4])


def test_mr_of_8_bit_is_scaled_by_percentile_like_any_other():
    pixels = np.array([[0, 51, 102]], dtype=np.uint8)
    found = unit_range(pixels, PixelUnit.DISPLAY, Modality.MR, (0, 102))
    assert found[0] == pytest.approx([0, 0.5, 1])


def test_pictures_of_16_bit_do_not_clip_to_white():
    pixels = np.linspace(0, 4095, 100).astype(np.uint16)[None]
    found = unit_range(pixels, PixelUnit.DISPLAY, scale=(20.5, 4074.5))
    assert 0.45 < found.mean() < 0.55
    assert (found == 1).sum() <= 2


@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        (np.uint8, PixelUnit.DISPLAY),
        (np.uint16, PixelUnit.DISPLAY),
        (np.float32, PixelUnit.ARBITRARY),
    ],
)
@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_blank_image_becomes_zeros(dtype: type, unit: PixelUnit, level: int):
    found = unit_range(np.full((3, 4), level, dtype), unit, scale=(level, level))
    assert found.tolist() == np.zeros((3, 4)).tolist()


def test_values_that_are_no_numbers_become_the_ends_of_the_scale():
    pixels = np.array([[np.nan, -np.inf, np.inf, 5.0]], dtype=np.float32)
    found = unit_range(pixels, PixelUnit.ARBITRARY, Modality.MR, (0, 10))
    assert found[0] == pytest.approx([0, 0, 1, 0.5])
    outside = unit_range(pixels, PixelUnit.HU, Modality.CT, (-1000, 1000))
    assert outside[0, 0] == 0, "what a CT did not see is air"


def test_an_image_without_any_number_becomes_zeros():
    found = unit_range(
        np.full((2, 2), np.nan, np.float32), PixelUnit.ARBITRARY, Modality.MR, (0, 0)
    )
    assert found.tolist() == [[0, 0], [0, 0]]


def test_other_percentiles_than_the_stored_ones_are_those_of_the_image():
    contract = Preprocessing(percentiles=(0.0, 100.0))
    pixels = np.array([[10, 20, 50]], dtype=np.uint16)
    found = unit_range(pixels, PixelUnit.ARBITRARY, Modality.MR, (0, 1000), contract=contract)
    assert found[0] == pytest.approx([0, 0.25, 1])

    grey = np.array([[10, 20, 50]], dtype=np.uint8)
    assert unit_range(grey, PixelUnit.DISPLAY, contract=contract)[0] == pytest.approx([0, 0.25, 1])


def test_colour_keeps_its_shape():
    pixels = np.array([[[0, 255, 51]]], dtype=np.uint8)
    found = unit_range(pixels, PixelUnit.DISPLAY)
    assert found.shape == (1, 1, 3)
    assert found[0, 0] == pytest.approx([0, 1, 0.2])


def test_scaling_an_empty_range_gives_zeros_and_not_noise():
    assert scale_between(np.array([1.0, 2.0]), 3.0, 3.0).tolist() == [0, 0]
    assert scale_between(np.array([1.0, 2.0]), float("nan"), 3.0).tolist() == [0, 0]


def test_normalising_takes_off_the_mean_and_divides_by_the_spread():
    contract = Preprocessing(mean=0.25, std=0.5)
    assert normalise(np.array([0.0, 0.25, 1.0], np.float32), contract).tolist() == [-0.5, 0, 1.5]
