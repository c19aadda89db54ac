"""What the accountant counts, against counting by hand."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from stores import record
from vismae.core.counting import Histogram
from vismae.core.intake_account import (
    INTENSITY_BINS,
    SIDE_BINS_PX,
    SPACING_BINS_MM,
    IntakeAccount,
    IntensityScale,
    ModalityAccount,
)
from vismae.core.types import Flag, Modality, PixelUnit
from vismae.data.account import Accountant


def noise(shape: tuple[int, ...], dtype: str, high: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def counted(pixels: np.ndarray, **facts: object) -> ModalityAccount:
    accountant = Accountant()
    made = record("image", pixels, **facts)
    accountant.add(made, pixels)
    return accountant.account.modalities[made.modality]


def test_facts_of_a_slice_are_counted() -> None:
    found = counted(
        noise((40, 60), "int16"),
        modality=Modality.CT,
        unit=PixelUnit.HU,
        spacing_row_mm=0.7,
        flags=(Flag.LOSSY, Flag.MISSING_SLICES),
        group_kind="group",
    )
    assert found.images == 1
    assert found.sizes.counts == {"40×60": 1}
    height, width = SIDE_BINS_PX.positions(np.array([40.0, 60.0]))
    assert found.sides.counts == {height * (SIDE_BINS_PX.count + 2) + width: 1}
    assert found.spacing_in_plane_mm == Histogram({int(SPACING_BINS_MM.positions(0.7)): 1})
    assert found.spacing_slices_mm == Histogram({}, unknown=1)
    assert (found.dtypes, found.channels, found.units) == ({"int16": 1}, {"1": 1}, {"hu": 1})
    assert found.flags == {"lossy": 1, "missing-slices": 1}
    assert found.grouping == {"group": 1}


@pytest.mark.parametrize("spacing", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_spacing_that_is_no_distance_is_unknown(spacing: float) -> None:
    found = counted(noise((8, 8), "uint8"), spacing_row_mm=spacing)
    assert found.spacing_in_plane_mm == Histogram({}, unknown=1)


@pytest.mark.parametrize(
    ("modality", "unit", "dtype", "scale"),
    [
        (Modality.CT, PixelUnit.HU, "int16", IntensityScale.HU),
        (Modality.PET, PixelUnit.SUV, "float32", IntensityScale.SUV),
        (Modality.US, PixelUnit.DISPLAY, "uint8", IntensityScale.GREY),
        (Modality.XR, PixelUnit.DISPLAY, "uint16", IntensityScale.RANGE),
        (Modality.MR, PixelUnit.ARBITRARY, "int16", IntensityScale.RANGE),
    ],
)
def test_small_images_are_counted_pixel_by_pixel_on_their_scale(
    modality: Modality, unit: PixelUnit, dtype: str, scale: IntensityScale
) -> None:
    pixels = noise((30, 50), dtype)
    slope, intercept = (1.0, 0.0) if scale is IntensityScale.GREY else (0.5, -20.0)
    made = record("i", pixels, modality=modality, unit=unit, slope=slope, intercept=intercept)
    accountant = Accountant()
    accountant.add(made, pixels)

    values = pixels.astype(float) * slope + intercept
    if scale is IntensityScale.RANGE:
        values = (values - made.scale_low) / (made.scale_high - made.scale_low)
    bins = INTENSITY_BINS[scale]
    places, counts = np.unique(bins.positions(values.ravel()), return_counts=True)
    found = accountant.account.modalities[modality].intensities
    assert found == {
        scale.value: Histogram(dict(zip(places.tolist(), counts.tolist(), strict=True)))
    }


def test_a_large_image_is_sampled_evenly() -> None:
    pixels = np.zeros((1000, 700), np.uint8)
    pixels[:, 350:] = 255
    found = counted(pixels).intensities["grey"]
    assert 900 < found.known < 4100
    assert found.counts[1] / found.known == pytest.approx(0.5, abs=0.03)


def test_colour_is_counted_as_its_mean() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[..., 1] = 240
    found = counted(pixels)
    assert found.channels == {"3": 1}
    assert found.intensities["grey"].counts == {1 + 80 // 4: 16}


def test_pixels_without_a_number_or_a_range_are_unknown() -> None:
    pixels = np.ones((4, 4), np.float32)
    pixels[0] = [np.nan, np.inf, -np.inf, 2.0]
    made = replace(record("i", pixels, unit=PixelUnit.SUV), slope=0.0)
    accountant = Accountant()
    accountant.add(made, pixels)
    assert accountant.account.modalities[Modality.XR].intensities["suv"].unknown == 3

    flat = counted(np.full((4, 4), 7, np.uint16)).intensities["range"]
    assert flat == Histogram({}, unknown=16)


def test_each_class_of_an_image_is_counted_once() -> None:
    accountant = Accountant()
    pixels = noise((8, 8), "uint8")
    for label in ("liver|spleen", "liver", "liver|liver", None, "x" * 500):
        accountant.add(record("i", pixels, label=label), pixels)
    assert accountant.account.labels.counts == {"liver": 3, "spleen": 1, "x" * 120: 1}


def test_label_maps_are_counted_whole_and_without_background() -> None:
    label_map = np.zeros((600, 500), np.uint16)
    label_map[17, 3] = 300
    label_map[100:110, 100:120] = 2
    accountant = Accountant()
    pixels = noise((600, 500), "uint8")
    accountant.add(record("i", pixels), pixels, label_map)
    accountant.add(record("j", pixels), pixels, (label_map == 2).astype(np.uint8) * 2)
    accountant.add(record("k", pixels), pixels, np.zeros((600, 500), np.uint8))
    assert accountant.account.label_map_images.counts == {"2": 2, "300": 1}
    assert accountant.account.label_map_pixels.counts == {"2": 400, "300": 1}


def test_portions_counted_apart_and_added_give_the_whole() -> None:
    kinds = [(Modality.CT, PixelUnit.HU), (Modality.US, PixelUnit.DISPLAY)]
    whole, parts = Accountant(), [Accountant(), Accountant()]
    for number in range(12):
        modality, unit = kinds[number % 2]
        pixels = noise((20 + number, 33), "uint8", seed=number)
        made = record("i", pixels, modality=modality, unit=unit, label=f"class {number % 3}")
        for accountant in (whole, parts[number // 6]):
            accountant.add(made, pixels, pixels % 3)
    # A worker may hand its own over at any time.
    handed = [pickle.loads(pickle.dumps(part)).account for part in parts]
    assert handed[0] + handed[1] == whole.account
    assert sum(handed, IntakeAccount()).images == 12


def test_no_id_of_a_record_enters_the_account() -> None:
    pixels = noise((8, 8), "uint8")
    made = record(
        "SECRET-image",
        pixels,
        patient_id="SECRET-patient",
        volume_id="SECRET-volume",
        study_id="SECRET-study",
        series_id="SECRET-series",
        extra={"note": "SECRET-extra"},
        label="liver",
    )
    accountant = Accountant()
    accountant.add(made, pixels)
    text = json.dumps(accountant.account.to_json())
    assert "liver" in text
    assert "SECRET" not in text
