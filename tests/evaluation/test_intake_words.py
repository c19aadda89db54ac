"""What the owner of the data is told, and what is not worth telling."""

from dataclasses import replace

import pytest

from vismae.core.counting import Histogram, Tally
from vismae.core.intake_account import IntakeAccount, ModalityAccount, Repeats
from vismae.core.types import Flag, Modality
from vismae.evaluation.intake_words import (
    FLAG_MEANINGS,
    MODALITY_NAMES,
    counted,
    percent,
    warnings_of,
)

GOOD = ModalityAccount(
    images=200,
    volumes=40,
    patients=30,
    grouping={"patient": 200},
    sizes=Tally.of({"512×512": 200}, 256),
    spacing_in_plane_mm=Histogram({20: 200}),
    units={"hu": 200},
)


def account(modality: Modality = Modality.CT, **changes: object) -> IntakeAccount:
    return IntakeAccount(
        files=220, left_out={"localizer": 20}, modalities={modality: replace(GOOD, **changes)}
    )


def test_nothing_is_said_about_data_in_good_order() -> None:
    assert warnings_of(account()) == []


def test_an_empty_store_is_said_to_be_empty() -> None:
    assert warnings_of(IntakeAccount(files=3, left_out={"video": 3})) == ["No image came in."]


@pytest.mark.parametrize(
    ("modality", "changes", "words"),
    [
        (Modality.MR, {"flags": {"nearly-blank": 24}}, "12 % of MR images are nearly blank"),
        (Modality.CT, {"flags": {"burned-in": 1}}, "0.5 % of CT images have text in their pixels"),
        (Modality.CT, {"flags": {"missing-slices": 100}}, "50 % of CT images belong to volumes"),
        (Modality.XR, {"patients": 3}, "X-ray: 3 patients only: too few"),
        (Modality.XR, {"patients": 1}, "X-ray: 1 patient only: too few"),
        (Modality.US, {"grouping": {"image": 50}}, "no patient is known for 25 % of the images"),
        (Modality.MR, {"grouping": {"group": 50}}, "no patients are known for 25 % of the images"),
        (Modality.CT, {"units": {"hu": 150}}, "CT: 25 % of the images are not in Hounsfield units"),
        (Modality.PET, {"units": {"arbitrary": 200}}, "PET: 100 % of the images are not in SUV"),
        (
            Modality.MR,
            {"spacing_in_plane_mm": Histogram({20: 50}, unknown=150)},
            "MR: the pixel size is unknown for 75 % of the images",
        ),
    ],
)
def test_what_is_wrong_with_a_modality_is_said(
    modality: Modality, changes: dict[str, object], words: str
) -> None:
    changes = {"units": {"suv": 200}, **changes} if modality is Modality.PET else changes
    (said,) = warnings_of(account(modality, **changes))
    assert words in said


def test_a_few_blank_images_are_no_reason_to_worry() -> None:
    assert warnings_of(account(flags={"blank": 10, "nearly-blank": 10, "lossy": 100})) == []


def test_duplicates_across_splits_and_patients_are_named() -> None:
    found = replace(
        account(),
        exact=Repeats(9, 1, {"train and test": 5}),
        near=Repeats(4, 0, {"train and val": 1}),
    )
    said = warnings_of(found)
    assert said[0].startswith("5 pairs of identical images lie in both train and test")
    assert said[1].startswith("1 pair of identical images is shared by two patients")
    assert said[2].startswith("1 pair of nearly identical images lies in both train and val")
    assert len(said) == 3


def test_duplicates_of_one_patient_and_split_are_no_warning() -> None:
    assert warnings_of(replace(account(), exact=Repeats(50), near=Repeats(50))) == []


def test_many_files_left_out_are_said_with_the_commonest_reason() -> None:
    (said,) = warnings_of(replace(account(), left_out={"localizer": 20, "no-suv": 35}))
    assert said == "25 % of the files were left out, most often for “no-suv” (35 files)."


def test_rare_classes_are_named_the_rarest_first() -> None:
    labels = Tally.of({"a": 90, "b": 4, "c": 9, "d": 2, "e": 7, "f": 10}, 1000)
    (said,) = warnings_of(replace(account(), labels=labels))
    assert said == "4 classes have fewer than 10 images: “d” (2), “b” (4), “e” (7), …"
    (said,) = warnings_of(replace(account(), labels=Tally.of({"a": 90, "b": 4}, 1000)))
    assert said == "1 class has fewer than 10 images: “b” (4)"


def test_every_modality_and_flag_has_words() -> None:
    assert set(MODALITY_NAMES) == set(Modality)
    assert set(FLAG_MEANINGS) == set(Flag)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 8, "12 %"),
        (1, 20, "5.0 %"),
        (999, 1000, "99.9 %"),
        (1, 10**6, "under 0.1 %"),
        (10**6 - 1, 10**6, "over 99.9 %"),
        (0, 0, "0 %"),
    ],
)
def test_a_share_never_rounds_to_all_or_nothing(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


def test_numbers_agree_with_their_nouns() -> None:
    assert counted(1, "class", "classes") == "1 class"
    assert counted(0, "image") == "0 images"
    assert counted(12345, "image") == "12\u202f345 images"


def test_patients_in_several_splits_are_told() -> None:
    [said] = warnings_of(replace(account(), divided_patients=2))
    assert said.startswith("2 patients have images in several splits")
