"""SUV of enhanced and legacy converted PET, and what makes uptake unusable.

Classic PET, by hand-computed values, is in ``test_dicom_units.py``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from factories import PET_TAGS, tracer, write_dicom_slice, write_enhanced_pet
from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage, Modality, PixelUnit
from vismae.files.dicom import read_dicom
from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.discover import SourceFile

VOLUME = np.full((3, 2, 2), 1000, np.int16)
# 2 · 1000 Bq/ml; 70,000 g; 370 MBq halved 3600 / 6586.2 times.
SUV_AFTER_AN_HOUR = 2000.0 * 70_000.0 / (370e6 * 0.5 ** (3600.0 / 6586.2))


def read(path: Path) -> MedicalImage:
    [image] = read_dicom([SourceFile(path, None, "dicom")])
    assert (image.modality, image.unit) == (Modality.PET, PixelUnit.SUV)
    return image


def largest(path: Path) -> float:
    image = read(path)
    return float(image.pixels.max() * image.slope + image.intercept)


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(path)
    assert caught.value.reason == "no-suv"
    return str(caught.value)


@pytest.mark.parametrize("units", ["Bq/ml", "BQ/ML"])
def test_enhanced_activity_becomes_suv_at_the_moment_of_correction(
    tmp_path: Path, units: str
) -> None:
    path = write_enhanced_pet(tmp_path / "e.dcm", VOLUME, units)

    image = read(path)

    assert largest(path) == pytest.approx(SUV_AFTER_AN_HOUR)
    assert image.pixels.shape == (3, 2, 2)
    assert (image.spacing.slice_mm, image.spacing.row_mm) == (3.0, 2.0)


@pytest.mark.parametrize("units", ["{SUVbw}g/ml", "g/ml{SUVbw}"])
def test_enhanced_suv_needs_no_dose(tmp_path: Path, units: str) -> None:
    path = write_enhanced_pet(
        tmp_path / "e.dcm",
        VOLUME,
        units,
        slope=0.004,
        PatientWeight=None,
        RadiopharmaceuticalInformationSequence=None,
    )

    assert largest(path) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"units": "{SUVlbm}g/ml"}, "{SUVLBM}G/ML"),
        ({"SharedFunctionalGroupsSequence": None}, "RealWorldValueMappingSequence"),
        ({"DecayCorrected": "NO"}, "DecayCorrected"),
        ({"DecayCorrectionDateTime": None}, "DecayCorrectionDateTime"),
        ({"AttenuationCorrected": "NO"}, "attenuation"),
        ({"PatientWeight": None}, "PatientWeight"),
        ({"RadiopharmaceuticalInformationSequence": None}, "RadiopharmaceuticalInformation"),
        ({"DecayCorrectionDateTime": "20240101090000"}, "after the injection"),
    ],
)
def test_enhanced_pet_without_a_needed_element_is_refused_by_its_name(
    tmp_path: Path, tags: dict[str, Any], named: str
) -> None:
    tags = {"units": "Bq/ml", **tags}

    assert named in refusal(write_enhanced_pet(tmp_path / "e.dcm", VOLUME, **tags))


def test_legacy_converted_pet_keeps_the_classic_elements_in_its_groups(tmp_path: Path) -> None:
    converted, scale, shared = Dataset(), Dataset(), Dataset()
    classic = {tag: value for tag, value in PET_TAGS.items() if tag != "Modality"}
    for tag in ("Units", "DecayCorrection", "SeriesDate", "SeriesTime"):
        setattr(converted, tag, classic[tag])
    scale.RescaleSlope, scale.RescaleIntercept = 2.0, 0.0
    shared.UnassignedSharedConvertedAttributesSequence = DicomSequence([converted])
    shared.PixelValueTransformationSequence = DicomSequence([scale])
    path = write_dicom_slice(
        tmp_path / "l.dcm",
        VOLUME,
        Modality="PT",
        SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.128.1"),
        PatientWeight=70,
        RadiopharmaceuticalInformationSequence=DicomSequence([tracer()]),
        SharedFunctionalGroupsSequence=DicomSequence([shared]),
    )

    assert largest(path) == pytest.approx(SUV_AFTER_AN_HOUR)


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"CorrectedImage": ["DECY", "SCAT"]}, "ATTN"),
        ({"CorrectedImage": "DECY"}, "ATTN"),
        ({"Units": "GML", "CorrectedImage": "NORM"}, "ATTN"),
        ({"PatientWeight": 70_000}, "too much for kg"),
    ],
)
def test_uptake_that_cannot_be_right_is_refused(
    tmp_path: Path, tags: dict[str, Any], named: str
) -> None:
    path = write_dicom_slice(tmp_path / "p.dcm", VOLUME[0], **{**PET_TAGS, **tags})

    assert named in refusal(path)


def test_corrected_uptake_is_read(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "p.dcm", VOLUME[0], **PET_TAGS, CorrectedImage=["DECY", "ATTN", "SCAT"]
    )

    assert largest(path) == pytest.approx(SUV_AFTER_AN_HOUR)


def given_at(moment: str) -> DicomSequence:
    return DicomSequence(
        [tracer(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime=moment)]
    )


@pytest.mark.parametrize(
    ("moment", "zone"),
    [
        ("20240101080000+0000", "+0200"),
        ("20240101020000-0800", "+0000"),
        ("20240101153000+0530", "+0000"),
        ("20240101100000", "+0200"),
        ("20240101100000+0200", None),
    ],
)
def test_the_moment_of_injection_is_moved_to_the_zone_of_the_scan(
    tmp_path: Path, moment: str, zone: str | None
) -> None:
    path = write_dicom_slice(
        tmp_path / "p.dcm",
        VOLUME[0],
        **PET_TAGS,
        TimezoneOffsetFromUTC=zone,
        RadiopharmaceuticalInformationSequence=given_at(moment),
    )

    assert largest(path) == pytest.approx(SUV_AFTER_AN_HOUR)


def test_a_date_with_an_offset_and_no_time_is_no_moment(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "p.dcm",
        VOLUME[0],
        **PET_TAGS,
        RadiopharmaceuticalInformationSequence=given_at("20240101+0000"),
    )

    assert "RadiopharmaceuticalStartTime is missing" in refusal(path)


def test_two_offsets_of_enhanced_pet_are_compared_in_one_zone(tmp_path: Path) -> None:
    path = write_enhanced_pet(
        tmp_path / "e.dcm",
        VOLUME,
        "Bq/ml",
        DecayCorrectionDateTime="20240101110000+0200",
        RadiopharmaceuticalInformationSequence=given_at("20240101080000+0000"),
    )

    assert largest(path) == pytest.approx(SUV_AFTER_AN_HOUR)


def counts_with(path: Path, *blocks: tuple[str, str]) -> Path:
    """Write counts with private blocks of (creator, value at its element 00), in their order."""
    write_dicom_slice(path, VOLUME[0], **{**PET_TAGS, "Units": "CNTS"})
    dataset = dcmread(path)
    for creator, value in blocks:
        block = dataset.private_block(0x7053, creator, create=True)
        block.add_new(0x00, "DS", value)
    dataset.save_as(path)
    return path


def test_the_factor_of_philips_is_found_by_its_creator_and_not_by_its_place(
    tmp_path: Path,
) -> None:
    philips, other = ("Philips PET Private Group", "0.0005"), ("SOME OTHER", "5")

    assert largest(counts_with(tmp_path / "b.dcm", other, philips)) == pytest.approx(1.0)
    assert "Philips factors" in refusal(counts_with(tmp_path / "o.dcm", other))


def test_the_factor_of_philips_is_found_where_no_creator_is_left(tmp_path: Path) -> None:
    path = counts_with(tmp_path / "p.dcm", ("Philips PET Private Group", "0.0005"))
    dataset = dcmread(path)
    del dataset[0x7053, 0x0010]
    dataset.save_as(path)

    assert largest(path) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("date", "scan", "injection"),
    [
        ("2024.01.01", "113000", "103000"),
        ("2024-01-01", "113000", "103000"),
        ("20240101", "11:30:00", "10:30:00.00"),
        ("20240101", "1130", "1030"),
        ("20240101", "113000.000000", "103000.0"),
    ],
)
def test_dates_and_times_of_older_programs_are_read_whole(
    tmp_path: Path, date: str, scan: str, injection: str
) -> None:
    times = {"SeriesDate": date, "AcquisitionDate": date, "SeriesTime": scan}
    with quiet_pydicom():
        start = DicomSequence([tracer(RadiopharmaceuticalStartTime=injection)])
    tags = {**PET_TAGS, **times, "AcquisitionTime": scan}
    tags["RadiopharmaceuticalInformationSequence"] = start
    with quiet_pydicom():
        path = write_dicom_slice(tmp_path / "p.dcm", VOLUME[0], **tags)

    assert largest(path) == pytest.approx(SUV_AFTER_AN_HOUR)


@pytest.mark.parametrize("time", ["N/A", "11h30", "113", " "])
def test_what_is_no_time_is_not_taken_for_midnight_or_the_full_hour(
    tmp_path: Path, time: str
) -> None:
    with quiet_pydicom():
        start = DicomSequence([tracer(RadiopharmaceuticalStartTime=time)])
        path = write_dicom_slice(
            tmp_path / "p.dcm",
            VOLUME[0],
            **PET_TAGS,
            RadiopharmaceuticalInformationSequence=start,
        )

    assert "RadiopharmaceuticalStartTime" in refusal(path)


def suv_of_beds(
    folder: Path, scan: str, beds: tuple[str, ...], reference_ms: tuple[int, ...] = (), **tags: Any
) -> list[float]:
    """Read slices of beds begun at these times as one series, whose SeriesTime is ``scan``."""
    shared = {**PET_TAGS, "SeriesInstanceUID": "1.2.3", "SeriesTime": scan, **tags}
    files: list[SourceFile] = []
    for number, begun in enumerate(beds):
        own: dict[str, Any] = {
            "AcquisitionTime": begun,
            "ImagePositionPatient": [0.0, 0.0, 3.0 * number],
        }
        if reference_ms:
            own |= {"FrameReferenceTime": reference_ms[number], "ActualFrameDuration": 120_000}
        path = write_dicom_slice(folder / f"{number}.dcm", VOLUME[0], **{**shared, **own})
        files.append(SourceFile(path, None, "dicom"))
    [image] = read_dicom(files[::-1])
    assert image.details["rejected_files"] == ()
    return (image.pixels[:, 0, 0] * image.slope + image.intercept).tolist()


@pytest.mark.parametrize("scan", ["110200", "112000"])
def test_a_series_time_behind_the_first_bed_is_not_the_start_of_the_scan(
    scan: str, tmp_path: Path
) -> None:
    """QIBA's vendor-neutral pseudo-code: the earliest acquisition time of the series counts."""
    found = suv_of_beds(tmp_path, scan, ("110000", "110500", "111000"))

    assert found == pytest.approx([SUV_AFTER_AN_HOUR] * 3)


def test_a_series_time_before_the_first_bed_is_the_start_of_the_scan(tmp_path: Path) -> None:
    found = suv_of_beds(tmp_path, "110000", ("110030", "110500"))

    assert found == pytest.approx([SUV_AFTER_AN_HOUR] * 2)


def test_a_bed_behind_midnight_without_a_date_of_its_own_is_of_the_next_day(
    tmp_path: Path,
) -> None:
    start = DicomSequence([tracer(RadiopharmaceuticalStartTime="225500")])
    tags = {"AcquisitionDate": "", "RadiopharmaceuticalInformationSequence": start}
    found = suv_of_beds(tmp_path, "235500", ("235500", "000100"), **tags)

    assert found == pytest.approx([SUV_AFTER_AN_HOUR] * 2)


def test_reference_times_tell_the_start_for_every_bed_of_such_a_series(tmp_path: Path) -> None:
    decay = np.log(2.0) / 6586.2
    lost = decay * 120.0
    average_ms = 1000.0 * np.log(lost / (1.0 - np.exp(-lost))) / decay
    # The scan began at 10:59, one minute before the first bed of the series.
    reference = tuple(int(average_ms + 1000 * after) for after in (60, 360))
    found = suv_of_beds(tmp_path, "110200", ("110000", "110500"), reference)

    expected = SUV_AFTER_AN_HOUR * 0.5 ** (60.0 / 6586.2)
    assert found == pytest.approx([expected] * 2, rel=1e-5)


def test_a_slice_by_itself_knows_no_other_bed(tmp_path: Path) -> None:
    tags = {**PET_TAGS, "SeriesTime": "110000"}
    later = write_dicom_slice(
        tmp_path / "l.dcm", VOLUME[0], **{**tags, "AcquisitionTime": "110500"}
    )
    earlier = write_dicom_slice(
        tmp_path / "e.dcm", VOLUME[0], **{**tags, "AcquisitionTime": "105500"}
    )

    assert largest(later) == pytest.approx(SUV_AFTER_AN_HOUR)
    assert "no other slice of the series" in refusal(earlier)
