from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from factories import write_dicom_slice
from vismae.files.discover import SourceFile
from vismae.files.structure_names import (
    MAX_NAME_LENGTH,
    TellingParts,
    read_telling_parts,
    structure_name,
    without_parts,
)


def header(**tags: object) -> Dataset:
    dataset = Dataset()
    dataset.PatientName = "Müller-Lüdenscheidt^Hans Georg"
    dataset.PatientID = "KH-12-34-56"
    dataset.PatientBirthDate = "19500607"
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Liver", "Liver"),
        ("  Lung \t left\n", "Lung left"),
        ("GTV\x00-1\x1b", "GTV-1"),
        ("", "structure 3"),
        (None, "structure 3"),
        ("x" * 100, "x" * MAX_NAME_LENGTH),
    ],
)
def test_names_become_tidy(text: str | None, expected: str) -> None:
    assert structure_name(text, 3, header()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "GTV Müller",
        "GTV_MULLER_2",
        "hans",
        "ctvGEORGboost",
        "tumour 123456",
        "KH12-34 56",
        "lesion 07.06.1950",
        "lesion 500607",
        "1950",
        "x" * 80 + "hans",
    ],
)
def test_a_name_that_holds_a_part_of_the_patient_becomes_a_hash(text: str) -> None:
    name = structure_name(text, 1, header())

    assert name.startswith("structure-")
    assert len(name) == len("structure-") + 8
    assert name == structure_name(f" {text} ", 9, header())


def test_parts_of_one_or_two_letters_are_no_names() -> None:
    assert structure_name("Kidney L", 1, header(PatientName="Li^Ki")) == "Kidney L"


def test_short_names_in_other_scripts_and_further_ids_count() -> None:
    other = Dataset()
    other.PatientID = "HX778"
    patient = header(PatientName="山田^太郎")
    patient.OtherPatientIDsSequence = [other]

    assert structure_name("腫瘍 山田", 1, patient).startswith("structure-")
    assert structure_name("node hx778", 1, patient).startswith("structure-")
    assert structure_name("腫瘍", 1, patient) == "腫瘍"


@pytest.mark.parametrize("of_header", ["Müller", "Mueller", "Muller"])
@pytest.mark.parametrize("of_name", ["GTV Müller", "GTV_MUELLER", "muller2"])
def test_umlauts_are_compared_however_they_are_written(of_header: str, of_name: str) -> None:
    assert structure_name(of_name, 1, header(PatientName=of_header)).startswith("structure-")


@pytest.mark.parametrize(
    ("of_header", "of_name"), [("Sørensen", "Soerensen 1"), ("Łukasz", "ptv lukasz")]
)
def test_letters_that_cannot_be_taken_apart_are_spelled(of_header: str, of_name: str) -> None:
    assert structure_name(of_name, 1, header(PatientName=of_header)).startswith("structure-")


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"ReferringPhysicianName": "Huber^Anna"}, "GTVhuber"),
        ({"OperatorsName": ["Bauer^K", "SPI"]}, "cord_SPI2"),
        ({"StudyDate": "20230105"}, "GTV 20230105"),
        ({"SeriesDate": "20230105"}, "GTV 05.01.23"),
    ],
)
def test_staff_and_dates_of_the_study_are_not_told(tags: dict[str, str], name: str) -> None:
    assert structure_name(name, 1, header()) == name
    assert structure_name(name, 1, header(**tags)).startswith("structure-")


@pytest.mark.parametrize("name", ["Spinal cord", "GTV 2023"])
def test_initials_inside_a_word_and_a_year_of_study_tell_nobody(name: str) -> None:
    assert structure_name(name, 1, header(OperatorsName="SPI", StudyDate="20230105")) == name


def test_parts_of_an_image_hide_a_name_and_leave_made_up_ones(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2), np.int16)
    path = write_dicom_slice(tmp_path / "a.dcm", pixels, PatientName="Kowalski^Zofia")
    parts = read_telling_parts(SourceFile(path, None, "dicom"))
    (tmp_path / "b.dcm").write_bytes(path.read_bytes()[:200])

    hidden = without_parts("GTV Kowalski", parts)

    assert hidden.startswith("structure-")
    assert without_parts("Liver", parts) == "Liver"
    assert without_parts(hidden, TellingParts(frozenset({hidden[-6:]}))) == hidden
    assert read_telling_parts(SourceFile(tmp_path / "b.dcm", None, "dicom")) == TellingParts()
