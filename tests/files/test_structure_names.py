import pytest
from pydicom import Dataset

from vismae.files.structure_names import MAX_NAME_LENGTH, structure_name


def header(**tags: str) -> Dataset:
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
