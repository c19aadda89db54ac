"""Regions of ultrasound images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence

from factories import ultrasound_region, write_dicom_slice
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile

SCREEN = np.arange(64 * 80, dtype=np.int64).reshape(64, 80) % 251
TRACE, SPECTRUM = 2, 3


def read(path: Path, pixels: np.ndarray, *regions: Dataset, **tags: Any) -> MedicalImage:
    write_dicom_slice(
        path,
        pixels,
        **{
            "Modality": "US",
            "SequenceOfUltrasoundRegions": DicomSequence(regions) if regions else None,
            **tags,
        },
    )
    [image] = read_dicom([SourceFile(path, None, "dicom")])
    return image


def test_the_image_is_cut_to_the_region_of_tissue(tmp_path: Path) -> None:
    region = ultrasound_region((10, 49, 5, 64), PhysicalDeltaY=0.03)

    image = read(tmp_path / "u.dcm", SCREEN.astype(np.uint8), region)

    np.testing.assert_array_equal(image.pixels[0], SCREEN[10:50, 5:65])
    assert image.details["flags"] == {Flag.REGION_CROPPED}
    assert image.spacing.row_mm == pytest.approx(0.3)
    assert image.spacing.column_mm == pytest.approx(0.2)


def test_the_frames_of_a_cine_are_cut_alike(tmp_path: Path) -> None:
    cine = np.stack([SCREEN, SCREEN[::-1]]).astype(np.uint8)

    image = read(tmp_path / "u.dcm", cine, ultrasound_region((0, 31, 0, 79)))

    np.testing.assert_array_equal(image.pixels, cine[:, :32])


def test_two_pictures_side_by_side_stay_together_and_the_spectrum_goes(tmp_path: Path) -> None:
    regions = [
        ultrasound_region((0, 29, 0, 35)),
        ultrasound_region((0, 29, 40, 79)),
        ultrasound_region((34, 63, 0, 79), SPECTRUM, 3, PhysicalDeltaX=0.5),
    ]

    image = read(tmp_path / "u.dcm", SCREEN.astype(np.uint8), *regions)

    np.testing.assert_array_equal(image.pixels[0], SCREEN[:30])
    assert image.spacing.row_mm == pytest.approx(0.2)


@pytest.mark.parametrize("spatial_format", [TRACE, SPECTRUM])
def test_a_screen_without_a_picture_is_left_out(tmp_path: Path, spatial_format: int) -> None:
    region = ultrasound_region((0, 63, 0, 79), spatial_format, 3)

    with pytest.raises(UnreadableFileError) as caught:
        read(tmp_path / "u.dcm", SCREEN.astype(np.uint8), region)

    assert caught.value.reason == "ultrasound-trace"


@pytest.mark.parametrize(
    "box",
    [(0, 63, 0, 79), (0, 400, 0, 600), (10, 20, 10, 14), (40, 10, 5, 60)],
    ids=["whole", "of another size", "tiny", "upside down"],
)
def test_regions_that_do_not_fit_cut_nothing(
    tmp_path: Path, box: tuple[int, int, int, int]
) -> None:
    image = read(tmp_path / "u.dcm", SCREEN.astype(np.uint8), ultrasound_region(box))

    assert image.pixels.shape == (1, 64, 80)
    assert image.details["flags"] == frozenset()


def test_the_pixel_size_of_another_size_of_the_image_is_not_believed(tmp_path: Path) -> None:
    pixels = SCREEN.astype(np.uint8)
    larger = read(tmp_path / "l.dcm", pixels, ultrasound_region((0, 400, 0, 600)))
    own = read(tmp_path / "o.dcm", pixels, ultrasound_region((0, 63, 0, 79)))

    assert (larger.spacing.row_mm, larger.spacing.column_mm) == (None, None)
    assert own.spacing.row_mm == pytest.approx(0.2)


def test_a_last_row_one_too_far_is_forgiven(tmp_path: Path) -> None:
    image = read(tmp_path / "u.dcm", SCREEN.astype(np.uint8), ultrasound_region((10, 64, 0, 80)))

    np.testing.assert_array_equal(image.pixels[0], SCREEN[10:])


def colours(share: float) -> np.ndarray:
    picture = np.repeat(SCREEN.astype(np.uint8)[..., None], 3, axis=-1)
    picture[: round(64 * share), :, 0] = 255
    picture[: round(64 * share), :, 2] = 0
    return picture


def test_a_region_of_colour_flow_is_doppler(tmp_path: Path) -> None:
    region = ultrasound_region((0, 63, 0, 79), data_type=2)

    image = read(tmp_path / "u.dcm", colours(0.1), region)

    assert image.details["flags"] == {Flag.COLOUR_DOPPLER}


@pytest.mark.parametrize(
    ("share", "present", "flagged"), [(0.1, 1, True), (0.1, 0, False), (0.0, 1, False)]
)
def test_without_regions_the_element_and_the_pixels_must_agree(
    tmp_path: Path, share: float, present: int, flagged: bool
) -> None:
    image = read(tmp_path / "u.dcm", colours(share), UltrasoundColorDataPresent=present)

    assert (Flag.COLOUR_DOPPLER in image.details["flags"]) is flagged
    assert image.pixels.ndim == (4 if share else 3)


@pytest.mark.parametrize(("shown_from", "flagged"), [(7, True), (30, True), (40, False)])
def test_a_film_is_doppler_though_it_begins_without_flow(
    tmp_path: Path, shown_from: int, flagged: bool
) -> None:
    film = np.stack([colours(0.1 if number >= shown_from else 0.0) for number in range(40)])

    image = read(tmp_path / "u.dcm", film, UltrasoundColorDataPresent=1)

    assert (Flag.COLOUR_DOPPLER in image.details["flags"]) is flagged


def test_a_tinted_picture_is_no_doppler(tmp_path: Path) -> None:
    tinted = np.stack([SCREEN, SCREEN * 0.8, SCREEN * 0.4], axis=-1).astype(np.uint8)

    image = read(tmp_path / "u.dcm", tinted, UltrasoundColorDataPresent=1)

    assert image.details["flags"] == frozenset()


def test_colour_outside_the_picture_leaves_a_grey_image(tmp_path: Path) -> None:
    image = read(tmp_path / "u.dcm", colours(0.1), ultrasound_region((20, 63, 0, 79)))

    np.testing.assert_array_equal(image.pixels[0], SCREEN[20:])
