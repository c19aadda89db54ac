"""Headers with ``1,5`` where a number belongs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from factories import (
    PET_TAGS,
    tracer,
    ultrasound_region,
    write_dicom_series,
    write_dicom_slice,
    write_enhanced_ct,
)
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, MedicalImage
from vismae.files.dicom import read_dicom
from vismae.files.dicom_numbers import is_malformed, number, numbers, whole_number
from vismae.files.discover import SourceFile

# As many bytes as what takes their place.
DECIMAL, NO_DECIMAL = 77.125, b"77,125"
WHOLE, NO_WHOLE = 770125, b"77O125"
PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4)


def spoil(path: Path) -> Path:
    """Put a comma or a letter into the numbers that were written for it."""
    content = path.read_bytes()
    spoilt = content.replace(b"77.125", NO_DECIMAL).replace(b"770125", NO_WHOLE)
    assert spoilt != content
    path.write_bytes(spoilt)
    return path


def read(*paths: Path) -> list[MedicalImage]:
    return read_dicom([SourceFile(path, None, "dicom") for path in paths])


def refusal(path: Path) -> UnreadableFileError:
    with pytest.raises(UnreadableFileError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "77" not in str(caught.value).replace(str(path), "")
    return caught.value


@pytest.mark.parametrize(
    "tags",
    [
        {"SliceThickness": DECIMAL},
        {"SpacingBetweenSlices": DECIMAL},
        {"GantryDetectorTilt": DECIMAL},
        {"WindowCenter": DECIMAL, "WindowWidth": 400},
        {"EchoTime": DECIMAL},
        {"TriggerTime": DECIMAL},
        {"InstanceNumber": WHOLE},
        {"AcquisitionNumber": WHOLE},
        {"EchoNumbers": WHOLE},
        {"TemporalPositionIdentifier": WHOLE},
        {"SeriesNumber": WHOLE},
        {"PatientWeight": DECIMAL},
    ],
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_what_an_image_does_not_need_costs_nothing(
    modality: str, tags: dict[str, Any], tmp_path: Path
) -> None:
    path = write_dicom_slice(tmp_path / "a.dcm", PIXELS, Modality=modality, **tags)

    [image] = read(spoil(path))

    np.testing.assert_array_equal(image.pixels[0], PIXELS)
    assert image.details["window"] is None
    assert image.affine is not None


def test_a_radiograph_needs_no_pixel_size_and_no_rescale(tmp_path: Path) -> None:
    tags = {"PixelSpacing": [DECIMAL, DECIMAL], "RescaleSlope": DECIMAL, "RescaleIntercept": 0}
    path = write_dicom_slice(tmp_path / "x.dcm", PIXELS, Modality="DX", **tags)

    [image] = read(spoil(path))

    assert image.spacing.row_mm is None
    assert image.slope == 1.0


def test_an_ultrasound_region_needs_no_scale(tmp_path: Path) -> None:
    region = ultrasound_region((0, 39, 0, 29))
    path = write_dicom_slice(
        tmp_path / "u.dcm",
        np.ones((40, 40), np.uint8),
        Modality="US",
        InstanceNumber=WHOLE,
        SequenceOfUltrasoundRegions=[region],
    )
    [image] = read(spoil(path))
    assert image.pixels.shape == (1, 40, 30)


@pytest.mark.parametrize(
    ("modality", "tags", "reason", "named"),
    [
        ("CT", {"RescaleSlope": DECIMAL}, "no-rescale", "RescaleSlope is no number"),
        ("CT", {"RescaleIntercept": DECIMAL}, "no-rescale", "RescaleIntercept is no number"),
        ("CT", {"PixelSpacing": [DECIMAL, 1.0]}, "undecodable", "PixelSpacing holds no number"),
        ("CT", {"ImagePositionPatient": [0.0, 0.0, DECIMAL]}, "undecodable", "ImagePosition"),
        ("MR", {"ImageOrientationPatient": [1, 0, 0, 0, 1, DECIMAL]}, "undecodable", "ImageOrient"),
        ("MR", {"RescaleSlope": DECIMAL, "RescaleIntercept": 0.0}, "undecodable", "RescaleSlope"),
        ("DX", {"NumberOfFrames": WHOLE}, "undecodable", "NumberOfFrames holds no number"),
        ("PT", {**PET_TAGS, "PatientWeight": DECIMAL}, "no-suv", "PatientWeight is no number"),
        ("PT", {**PET_TAGS, "RescaleSlope": DECIMAL}, "no-suv", "RescaleSlope is no number"),
    ],
)
def test_what_an_image_needs_is_named(
    modality: str, tags: dict[str, Any], reason: str, named: str, tmp_path: Path
) -> None:
    path = write_dicom_slice(tmp_path / "a.dcm", PIXELS, **{"Modality": modality, **tags})

    error = refusal(spoil(path))

    assert error.reason == reason
    assert named in str(error)


def test_a_dose_that_is_no_number_is_named(tmp_path: Path) -> None:
    sequence = [tracer(RadionuclideTotalDose=DECIMAL)]
    tags = {**PET_TAGS, "RadiopharmaceuticalInformationSequence": sequence}
    path = write_dicom_slice(tmp_path / "p.dcm", PIXELS, **tags)
    assert "RadionuclideTotalDose is no number" in str(refusal(spoil(path)))


def test_a_slice_without_its_place_is_left_out_alone(tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path, np.ones((4, 3, 4), np.uint16), (DECIMAL, 1.0, 1.0))
    spoil(paths[1])

    [image] = read(*paths)

    assert image.details["slice_sources"] == [str(paths[place]) for place in (0, 2, 3)]
    assert Flag.MISSING_SLICES in image.details["flags"]
    [left_out] = image.details["rejected_files"]
    assert "ImagePositionPatient holds no number" in left_out.message


def test_frames_of_an_enhanced_image_say_what_they_lack(tmp_path: Path) -> None:
    volume = np.ones((3, 3, 4), np.uint16)
    positions = [(0.0, 0.0, height) for height in (0.0, DECIMAL, 144.25)]
    path = write_enhanced_ct(tmp_path / "e.dcm", volume, positions, [(1.0, 0.0)] * 3)
    assert "ImagePositionPatient" in str(refusal(spoil(path)))


def test_numbers_that_are_missing_empty_or_several_are_no_malformed_ones() -> None:
    header = Dataset()
    header.SliceThickness = None
    header.FlipAngle = [1.0, 2.0]
    header.PixelSpacing = [0.5, 0.25]
    header.InstanceNumber = 7
    assert number(header, "SliceThickness") is None
    assert number(header, "FlipAngle") is None
    assert number(header, "EchoTime") is None
    assert whole_number(header, "InstanceNumber") == 7
    assert numbers(header, "PixelSpacing", 3) is None
    assert numbers(header, "PixelSpacing", 2).tolist() == [0.5, 0.25]  # type: ignore[union-attr]
    words = ("SliceThickness", "FlipAngle", "EchoTime", "InstanceNumber", "PixelSpacing")
    assert not any(is_malformed(header, word) for word in words)
