"""Hounsfield units and SUV, against values computed by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as DicomSequence

from factories import PET_TAGS, tracer, write_dicom_series, write_dicom_slice
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage, Modality, PixelUnit
from vismae.files.dicom import read_dicom
from vismae.files.discover import SourceFile


def read(path: Path, modality: Modality | None = None) -> MedicalImage:
    [image] = read_dicom([SourceFile(path, None, "dicom")], modality)
    return image


def write_pet(path: Path, item: Dataset | None = None, **tags: Any) -> Path:
    sequence = DicomSequence([item or tracer()])
    return write_dicom_slice(
        path,
        np.array([[0, 1000]], np.int16),
        **{**PET_TAGS, "RadiopharmaceuticalInformationSequence": sequence, **tags},
    )


def largest_suv(path: Path) -> float:
    image = read(path)
    assert image.unit is PixelUnit.SUV
    return float(image.pixels.max() * image.slope + image.intercept)


def reason(path: Path, modality: Modality | None = None) -> tuple[str, str]:
    with pytest.raises(UnreadableFileError) as caught:
        read(path, modality)
    return caught.value.reason, str(caught.value)


# 2 · 1000 Bq/ml; weight 70,000 g; 370 MBq halved 3600 / 6586.2 times leave 253.31 MBq.
SUV_AFTER_AN_HOUR = 2000.0 * 70_000.0 / (370e6 * 0.5 ** (3600.0 / 6586.2))


def test_ct_keeps_stored_integers_and_maps_them_to_hu(tmp_path: Path) -> None:
    stored = np.array([[0, 1024, 2024]], np.uint16)

    image = read(write_dicom_slice(tmp_path / "c.dcm", stored))

    assert image.unit is PixelUnit.HU
    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(
        image.pixels[0] * image.slope + image.intercept, [[-1024.0, 0.0, 1000.0]]
    )


def test_slices_with_different_slopes_become_one_scale(tmp_path: Path) -> None:
    paths = write_dicom_series(
        tmp_path, np.full((2, 2, 2), 100, np.int16), RescaleSlope_each=[1.0, 0.5]
    )

    [image] = read_dicom([SourceFile(path, None, "dicom") for path in paths])

    assert (image.slope, image.intercept, image.pixels.dtype) == (1.0, 0.0, np.float32)
    np.testing.assert_array_equal(image.pixels[:, 0, 0], [100 - 1024, 50 - 1024])


def test_ct_without_rescale_is_refused_and_the_named_remedy_works(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "c.dcm", np.ones((2, 2), np.int16), RescaleSlope=None, RescaleIntercept=None
    )

    code, message = reason(path)
    assert code == "no-rescale"
    assert "--modality xr" in message

    image = read(path, Modality.XR)
    assert (image.modality, image.unit) == (Modality.XR, PixelUnit.DISPLAY)


def test_a_picture_stored_as_ct_has_no_hounsfield_units(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 255]], np.uint8)
    path = write_dicom_slice(tmp_path / "c.dcm", grey, RescaleSlope=1, RescaleIntercept=0)
    scaled = write_dicom_slice(tmp_path / "s.dcm", grey, RescaleSlope=8, RescaleIntercept=-1024)

    code, message = reason(path)

    assert code == "no-rescale"
    assert "from 0 to 255" in message
    assert read(path, Modality.XR).unit is PixelUnit.DISPLAY
    assert read(scaled).unit is PixelUnit.HU


@pytest.mark.parametrize(
    ("kind", "intercept", "unit"),
    [
        ("US", 0, PixelUnit.ARBITRARY),
        ("MGML", -1024, PixelUnit.ARBITRARY),
        # Unspecified, but a scanner's own way of writing Hounsfield units.
        ("US", -1024, PixelUnit.HU),
        ("US", -1000, PixelUnit.HU),
        ("Hounsfield Units", 0, PixelUnit.HU),
    ],
)
def test_a_ct_that_says_it_holds_no_hounsfield_units_is_believed(
    kind: str, intercept: int, unit: PixelUnit, tmp_path: Path
) -> None:
    path = write_dicom_slice(
        tmp_path / "c.dcm",
        np.ones((2, 2), np.int16),
        RescaleType=kind,
        RescaleSlope=1,
        RescaleIntercept=intercept,
    )

    assert read(path).unit is unit


def test_mr_rescale_is_kept_on_an_arbitrary_scale(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "m.dcm",
        np.ones((2, 2), np.int16),
        Modality="MR",
        RescaleSlope=2.0,
        RescaleIntercept=3.0,
    )

    image = read(path)

    assert (image.unit, image.slope, image.intercept) == (PixelUnit.ARBITRARY, 2.0, 3.0)


def test_a_modality_table_is_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.ModalityLUTType = "US"
    table.LUTData = np.array([10, 20, 40, 80], np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    path = write_dicom_slice(
        tmp_path / "x.dcm",
        np.array([[0, 1], [2, 3]], np.uint8),
        Modality="DX",
        ModalityLUTSequence=DicomSequence([table]),
    )

    image = read(path)

    np.testing.assert_array_equal(image.pixels[0], [[10, 20], [40, 80]])


def test_suv_counts_the_decay_from_injection_to_scan(tmp_path: Path) -> None:
    assert pytest.approx(0.55267, abs=1e-4) == SUV_AFTER_AN_HOUR
    assert largest_suv(write_pet(tmp_path / "p.dcm")) == pytest.approx(SUV_AFTER_AN_HOUR)


def test_suv_corrected_to_administration_needs_no_decay(tmp_path: Path) -> None:
    path = write_pet(tmp_path / "p.dcm", DecayCorrection="ADMIN")

    assert largest_suv(path) == pytest.approx(2000.0 * 70_000.0 / 370e6)


def test_an_injection_before_midnight_is_an_hour_ago(tmp_path: Path) -> None:
    path = write_pet(
        tmp_path / "p.dcm",
        tracer(RadiopharmaceuticalStartTime="233000"),
        SeriesTime="003000",
        AcquisitionTime="003000",
    )

    assert largest_suv(path) == pytest.approx(SUV_AFTER_AN_HOUR)


def test_a_full_injection_date_goes_before_the_time_alone(tmp_path: Path) -> None:
    path = write_pet(
        tmp_path / "p.dcm",
        tracer(
            RadiopharmaceuticalStartTime="050000",
            RadiopharmaceuticalStartDateTime="20240101100000.000000",
        ),
    )

    assert largest_suv(path) == pytest.approx(SUV_AFTER_AN_HOUR)


def test_an_overwritten_series_time_is_computed_back_from_the_frame(tmp_path: Path) -> None:
    # The bed position starts at 11:10, 600 s after the scan's start at 11:00; the average activity
    # of its 120 s frame is reached a little before its middle (60 s less decay · frame² / 24).
    decay = np.log(2.0) / 6586.2
    average = np.log(decay * 120 / (1 - np.exp(-decay * 120))) / decay
    assert average == pytest.approx(60.0 - decay * 120**2 / 24, abs=1e-3)
    path = write_pet(
        tmp_path / "p.dcm",
        SeriesTime="180000",
        AcquisitionTime="111000",
        FrameReferenceTime=(600.0 + average) * 1000.0,
        ActualFrameDuration=120_000,
    )

    assert largest_suv(path) == pytest.approx(SUV_AFTER_AN_HOUR, rel=1e-6)


def test_gml_is_suv_already(tmp_path: Path) -> None:
    path = write_pet(tmp_path / "p.dcm", Units="GML", PatientWeight=None)

    assert largest_suv(path) == pytest.approx(2000.0)


def test_philips_counts_use_the_private_factors(tmp_path: Path) -> None:
    def philips(name: str, element: int, value: str) -> Path:
        path = write_pet(tmp_path / name, Units="CNTS")
        dataset = dcmread(path)
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(element, "DS", value)
        dataset.save_as(path)
        return path

    assert largest_suv(philips("suv.dcm", 0x00, "0.001")) == pytest.approx(2.0)
    by_activity = largest_suv(philips("activity.dcm", 0x09, "0.5"))
    assert by_activity == pytest.approx(0.5 * SUV_AFTER_AN_HOUR)


@pytest.mark.parametrize(
    ("tags", "item", "named"),
    [
        ({"PatientWeight": None}, {}, "PatientWeight"),
        ({"PatientWeight": 0}, {}, "PatientWeight"),
        ({"Units": "CNTS"}, {}, "7053"),
        ({"Units": None}, {}, "Units"),
        ({"Units": "GML", "SUVType": "LBM"}, {}, "SUVType"),
        ({"DecayCorrection": "NONE"}, {}, "DecayCorrection"),
        ({"RescaleSlope": None}, {}, "RescaleSlope"),
        ({}, {"RadionuclideTotalDose": None}, "RadionuclideTotalDose"),
        ({}, {"RadionuclideTotalDose": 370.0}, "too little for Bq"),
        ({}, {"RadionuclideHalfLife": None}, "RadionuclideHalfLife"),
        ({}, {"RadiopharmaceuticalStartTime": None}, "RadiopharmaceuticalStartTime"),
        ({}, {"RadionuclideHalfLife": 282240.0}, "78.4 h does not tell the day"),
        ({}, {"RadiopharmaceuticalStartDateTime": "20230101100000"}, "after the injection"),
        ({"SeriesTime": None}, {}, "start of the scan"),
    ],
)
def test_pet_without_a_needed_element_is_refused_by_its_name(
    tmp_path: Path, tags: dict[str, Any], item: dict[str, Any], named: str
) -> None:
    path = write_pet(tmp_path / "p.dcm", tracer(**item), **tags)

    code, message = reason(path)

    assert code == "no-suv"
    assert named in message
    assert read(path, Modality.OTHER).unit is PixelUnit.DISPLAY


def test_a_slope_of_zero_is_named_and_not_called_missing(tmp_path: Path) -> None:
    code, message = reason(
        write_dicom_slice(tmp_path / "c.dcm", np.array([[0, 9]], np.uint16), RescaleSlope="0")
    )

    assert code == "no-rescale"
    assert "RescaleSlope is 0" in message


@pytest.mark.parametrize(("missing", "there"), [(1, 0), (0, 1)])
def test_only_what_is_missing_is_called_missing(tmp_path: Path, missing: int, there: int) -> None:
    names = ("RescaleSlope", "RescaleIntercept")
    tags: dict[str, Any] = {names[there]: "1", names[missing]: None}
    code, message = reason(
        write_dicom_slice(tmp_path / "c.dcm", np.array([[0, 9]], np.uint16), **tags)
    )

    assert code == "no-rescale"
    assert f"unit. {names[missing]} is missing" in message


def test_a_slope_without_an_intercept_counts_where_no_unit_hangs_on_it(tmp_path: Path) -> None:
    volume = np.array([[[0, 1000]], [[0, 1000]]], np.int16)
    tags: dict[str, Any] = {"Modality": "MR", "RescaleSlope_each": ["1", "3"]}
    paths = write_dicom_series(tmp_path, volume, RescaleIntercept=None, **tags)

    [image] = read_dicom([SourceFile(path, None, "dicom") for path in paths])

    np.testing.assert_array_equal(image.pixels * image.slope, [[[0, 1000]], [[0, 3000]]])
