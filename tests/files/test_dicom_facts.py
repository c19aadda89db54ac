"""Facts that leave the header: closed lists, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from vismae.files.dicom_facts import BODY_PARTS, MANUFACTURERS, header_facts
from vismae.files.dicom_quiet import quiet_pydicom


def facts(**tags: str) -> dict[str, str | None]:
    dataset = Dataset()
    with quiet_pydicom():
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        return header_facts(dataset)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("CHEST", "chest"),
        (" Abdomen", "abdomen"),
        ("WHOLE BODY", "wholebody"),
        ("HEAD_NECK", "headneck"),
        ("CHEST of Jane", None),
        ("", None),
    ],
)
def test_body_parts_are_defined_terms(written: str, expected: str | None) -> None:
    assert facts(BodyPartExamined=written)["body_part"] == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("GE MEDICAL SYSTEMS", "ge"),
        ("G.E. Medical Systems", "ge"),
        ("SIEMENS NM", "siemens"),
        ("Philips Medical Systems", "philips"),
        ("TOSHIBA_MEC", "toshiba"),
        ("FUJI PHOTO FILM CO. LTD.", "fujifilm"),
        ("Generic", "other"),
        ("", None),
    ],
)
def test_makers_are_known_by_their_words(written: str, expected: str | None) -> None:
    assert facts(Manufacturer=written)["manufacturer"] == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PatientAge": "045Y"}, "40-49"),
        ({"PatientAge": "011M"}, "0-9"),
        ({"PatientAge": "130M"}, "10-19"),
        ({"PatientAge": "090Y"}, "90+"),
        ({"PatientAge": "104Y"}, "90+"),
        ({"PatientBirthDate": "19700602", "StudyDate": "20200601"}, "40-49"),
        ({"PatientBirthDate": "19700601", "StudyDate": "20200601"}, "50-59"),
        ({"PatientAge": "45", "PatientBirthDate": "1970"}, None),
        ({"PatientBirthDate": "20300101", "StudyDate": "20200101"}, None),
        ({}, None),
    ],
)
def test_ages_are_told_by_the_decade(tags: dict[str, str], expected: str | None) -> None:
    assert facts(**tags)["age_band"] == expected


@given(text=st.text(st.characters(codec="ascii", exclude_characters="\\\x00"), max_size=30))
def test_no_typed_text_gets_through(text: str) -> None:
    found = facts(
        BodyPartExamined=text,
        Manufacturer=text,
        PatientSex=text,
        PatientAge=text,
        PatientBirthDate=text,
        StudyDate="20200101",
    )

    bands = {None, "90+", *(f"{age}-{age + 9}" for age in range(0, 90, 10))}
    assert found["body_part"] in BODY_PARTS | {None}
    assert found["manufacturer"] in {*MANUFACTURERS, "other", None}
    assert found["sex"] in {"m", "f", "o", None}
    assert found["age_band"] in bands
