import pytest

from vismae.data.pairing_names import (
    channel_of,
    entities_of,
    match_neighbours,
    match_twins,
    stem_of,
)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.nii.gz", "a"),
        ("a.b.NII", "a.b"),
        ("a.mhd", "a"),
        ("a.nrrd", "a"),
        ("a.png", "a"),
        ("a.raw", None),
        ("a.json", None),
        ("IM0001", None),
    ],
)
def test_suffixes_of_volumes_and_pictures_are_known(name: str, stem: str | None) -> None:
    assert stem_of(name) == stem


def test_twins_have_equal_names_or_names_with_a_label_ending() -> None:
    pairs, alone = match_twins(["a", "b", "sub/a", "e_mask"], ["a", "b_mask", "sub/a", "c"])

    assert pairs == {"a": "a", "b": "b_mask", "sub/a": "sub/a"}
    assert alone == ["c"]


def test_a_case_belongs_to_all_its_channels_and_an_equal_name_goes_first() -> None:
    pairs, alone = match_twins(["p_0000", "p_0001", "q_0001", "q"], ["p", "q", "q_0001"])

    assert pairs == {"p_0000": "p", "p_0001": "p", "q": "q", "q_0001": "q_0001"}
    assert alone == []
    assert channel_of("p_0001") == ("p", 1)
    assert channel_of("p_01") is None


def test_a_second_label_map_of_one_image_stays_alone() -> None:
    pairs, alone = match_twins(["a"], ["a", "a_mask"])

    assert pairs == {"a": "a"}
    assert alone == ["a_mask"]


@pytest.mark.parametrize("ending", ["_seg", "_label", "_labels", "_mask", "-seg", "_SEG", "_dseg"])
def test_neighbours_end_with_a_word_for_labels(ending: str) -> None:
    pairs, cases, alone = match_neighbours(["x", f"x{ending}", "y", f"z{ending}"])

    assert pairs == {"x": f"x{ending}"}
    assert cases == {}
    assert alone == [f"z{ending}"]


def test_sequences_of_one_case_share_its_label_map() -> None:
    names = ["b1_t1", "b1_flair", "b1_seg", "b12_t1", "b1_notes", "c_t1", "c", "c_seg"]
    pairs, cases, alone = match_neighbours(names)

    assert pairs == {"b1_t1": "b1_seg", "b1_flair": "b1_seg", "c": "c_seg"}
    assert cases == {"b1_t1": "b1", "b1_flair": "b1"}
    assert alone == []


def test_between_two_label_maps_of_one_image_nothing_is_chosen() -> None:
    pairs, _, alone = match_neighbours(["x", "x_seg", "x_label"])

    assert pairs == {}
    assert alone == ["x_label", "x_seg"]


def test_entities_of_a_derivative_are_those_of_its_source() -> None:
    assert entities_of("sub-01_ses-2_T1w") == {"sub-01", "ses-2"}
    derived = "sub-01_ses-2_space-orig_desc-aseg_dseg"
    assert entities_of(derived, derived=True) == {"sub-01", "ses-2"}
    assert "space-MNI" in entities_of("sub-01_space-MNI_dseg", derived=True)


@pytest.mark.parametrize(
    ("names", "pairs", "cases", "alone"),
    [
        (["imaging", "segmentation"], {"imaging": "segmentation"}, {}, []),
        (["CT", "Mask"], {"CT": "Mask"}, {}, []),
        (
            ["t1", "flair", "seg"],
            {"t1": "seg", "flair": "seg"},
            {"t1": "", "flair": ""},
            [],
        ),
        (["a", "b", "mask"], {}, {}, ["mask"]),
        (["ct", "liver", "seg"], {}, {}, ["seg"]),
        (["imaging", "seg", "label"], {}, {}, ["label", "seg"]),
        (["x", "x_seg", "mask"], {"x": "x_seg"}, {}, ["mask"]),
        (["mask"], {}, {}, ["mask"]),
    ],
)
def test_in_a_folder_of_one_case_the_label_map_may_have_no_other_name(
    names: list[str], pairs: dict[str, str], cases: dict[str, str], alone: list[str]
) -> None:
    assert match_neighbours(names) == (pairs, cases, alone)
