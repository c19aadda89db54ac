import json
from pathlib import Path
from typing import Any

import pytest

from vismae.core.errors import DataError
from vismae.data.dataset_json import DatasetFacts, _class_names, read_dataset_json
from vismae.data.labels import NOT_ANNOTATED


def facts(folder: Path, table: Any) -> DatasetFacts:
    (folder / "dataset.json").write_text(table if isinstance(table, str) else json.dumps(table))
    return read_dataset_json(folder)


def test_the_decathlon_and_nnunet_are_both_understood(tmp_path: Path) -> None:
    decathlon = {"labels": {"0": "background", "1": "liver"}, "modality": {"0": "CT"}}
    nnunet = {
        "labels": {"background": 0, "edema": 2, "core": 1, "whole": [1, 2]},
        "channel_names": {"0": "T1", "1": "FLAIR", "2": "PET", "3": "noNorm"},
    }

    assert facts(tmp_path, decathlon) == DatasetFacts({1: "liver"}, {}, {0: "CT"}, {0: "ct"})
    found = facts(tmp_path, nnunet)
    assert found.class_names == {1: "core", 2: "edema"}
    assert found.modalities == {0: "mr", 1: "mr", 2: "pet"}


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "liver", "2": "2nd tumour"},
        {"0.0": "background", "1.0": "liver", " 2 ": "2nd tumour"},
        {"background": 0, "liver": "1", "2nd tumour": 2.0},
        {"background": "0", "liver": "1.0", "2nd tumour": " 2"},
        {"background": 0, "air": 0, "liver": 1, "2nd tumour": 2},
    ],
)
def test_values_may_be_texts_and_floats_on_either_side(
    tmp_path: Path, labels: dict[str, Any]
) -> None:
    assert facts(tmp_path, {"labels": labels}) == DatasetFacts({1: "liver", 2: "2nd tumour"})


def test_a_number_may_be_a_name_where_the_value_is_none() -> None:
    assert _class_names({"0": 0, "7": 1, "2": "2"}) == ({1: "7", 2: "2"}, {})


@pytest.mark.parametrize(
    ("label", "value", "why"),
    [
        ("whole", [1, 2], "the region [1, 2]"),
        ("core", [3], "the region [3]"),
        ("3", "4", "'4', and either may be the value"),
        ("edema", "many", "'many', and neither is a whole number"),
        ("half", 1.5, "1.5, which is no whole number"),
        ("minus", -1, "-1, which is no whole number"),
        ("yes", True, "True, which is no whole number"),
        ("none", None, "None, which is no whole number"),
        ("odd", float("nan"), "nan, which is no whole number"),
    ],
)
def test_what_stands_for_no_single_value_is_told(
    tmp_path: Path, label: str, value: Any, why: str
) -> None:
    found = facts(tmp_path, {"labels": {"background": 0, label: value, "liver": 9}})
    assert found == DatasetFacts({9: "liver"}, {label: why})


def test_two_names_of_one_value_are_told(tmp_path: Path) -> None:
    found = facts(tmp_path, {"labels": {"liver": 1, "tumour": "1", "spleen": 2}})
    assert found.class_names == {2: "spleen"}
    assert set(found.unclear) == {"liver", "tumour"}


def test_pixels_that_nobody_annotated_are_told_from_classes(tmp_path: Path) -> None:
    found = facts(tmp_path, {"labels": {"background": 0, "liver": 1, "Ignore": 2}})
    assert found.class_names == {1: "liver", 2: NOT_ANNOTATED}


def test_the_modality_of_a_file_is_that_of_its_channel_or_of_all() -> None:
    several = DatasetFacts(modalities={0: "mr", 1: "pet"})

    assert several.modality(1) == "pet"
    assert several.modality(None) is None
    assert several.modality(7) is None
    assert DatasetFacts(modalities={0: "mr", 1: "mr"}).modality(None) == "mr"


def test_a_channel_is_chosen_by_name_or_number() -> None:
    several = DatasetFacts(channels={0: "FLAIR", 1: "T1w", 2: "t1gd", 3: "T1W"})
    assert [several.number_of(wanted, "t") for wanted in ("flair", "T1gd", "3", 1)] == [0, 2, 3, 1]
    assert DatasetFacts().number_of("7", "t") == 7
    for wrong, found in (("T2", 0), ("T1w", 2), (4, 0), (-1, 0)):
        with pytest.raises(DataError, match=f"'{wrong}' is the name or number of {found} channels"):
            several.number_of(wrong, "t")


@pytest.mark.parametrize("table", ["", "[1]", "{broken", '{"labels": 3, "modality": []}'])
def test_an_odd_table_says_nothing(tmp_path: Path, table: str) -> None:
    assert facts(tmp_path, table) == DatasetFacts()
    assert read_dataset_json(tmp_path / "none") == DatasetFacts()
