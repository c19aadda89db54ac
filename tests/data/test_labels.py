import numpy as np
import pytest

from vismae.core.errors import DataError
from vismae.data.labels import (
    apply_mapping,
    classes_from_labels,
    doubtful_classes,
    encode_labels,
    join_class_names,
    label_mapping,
    names_by_class,
    refuse_not_annotated,
    segmentation_class_names,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], {0: 0, 255: 1}),
        ([255], {0: 0, 255: 1}),
        ([5, 1, 2], {0: 0, 1: 1, 2: 2, 5: 3}),
        ([0, 1, 2, 3], {0: 0, 1: 1, 2: 2, 3: 3}),
        ([], {0: 0}),
        (range(255), {value: value for value in range(255)}),
    ],
)
def test_values_become_classes_in_order_with_zero_as_background(
    values: list[int], expected: dict[int, int]
) -> None:
    assert label_mapping(values) == expected


def test_more_than_255_values_are_no_label_map_and_are_named() -> None:
    with pytest.raises(DataError, match=r"256 different values \(0, 1, 2, 3.* and 248 more\)"):
        label_mapping(range(256))


def test_negative_values_are_refused() -> None:
    with pytest.raises(DataError, match="negative value -1"):
        label_mapping([-1, 0, 1])


def test_a_label_map_is_mapped_value_by_value() -> None:
    label_map = np.array([[0, 255], [7, 255]], dtype=np.uint8)

    mapped = apply_mapping(label_map, {0: 0, 7: 2, 255: 1})

    assert mapped.dtype == np.int64
    assert mapped.tolist() == [[0, 1], [2, 1]]


@pytest.mark.parametrize("value", [12, 300, -1])
def test_an_unknown_value_is_an_error_that_names_file_value_and_cure(value: int) -> None:
    label_map = np.array([[0, 1, value]], dtype=np.int32)

    with pytest.raises(DataError) as caught:
        apply_mapping(label_map, {0: 0, 1: 1, 4: 2}, "case_044.nii.gz")

    message = str(caught.value)
    assert "case_044.nii.gz holds the value " + str(value) in message
    assert "3 classes with the values 0, 1, 4" in message
    assert "task.classes" in message
    assert "task.label_values" in message


def test_class_names_are_counted_or_given_without_background() -> None:
    assert segmentation_class_names(3) == ("background", "class 1", "class 2")
    assert segmentation_class_names(3, ["liver", "spleen"]) == ("background", "liver", "spleen")
    with pytest.raises(DataError, match="names 1 classes"):
        segmentation_class_names(3, ["liver"])


def test_classes_are_named_as_the_data_name_them_unless_told_otherwise() -> None:
    found = names_by_class({2: "liver", 5: "spleen", 7: "ignore"}, {0: 0, 2: 1, 5: 2})
    assert found == {1: "liver", 2: "spleen"}
    assert segmentation_class_names(3, (), found) == ("background", "liver", "spleen")
    assert segmentation_class_names(3, ["a", "b"], found) == ("background", "a", "b")
    assert segmentation_class_names(3, (), {2: "x"}) == ("background", "class 1", "x")


def test_a_name_that_does_not_tell_one_class_from_others_is_not_taken() -> None:
    assert names_by_class({1: "liver", 2: "tumour"}, {0: 0, 1: 1, 2: 1}) == {}
    assert names_by_class({1: "liver", 2: "liver"}, {0: 0, 1: 1, 2: 2}) == {}
    names = {1: "background", 2: "mean", 3: "liver"}
    assert names_by_class(names, {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}) == {3: "liver"}


def test_words_sort_by_alphabet_and_numbers_by_size() -> None:
    assert classes_from_labels(["viral", "normal", None, float("nan"), "viral"]) == (
        "normal",
        "viral",
    )
    assert classes_from_labels(["10", "2", "0"]) == ("0", "2", "10")
    assert classes_from_labels(["b|a", "", "c"], multi_label=True) == ("a", "b", "c")


def test_no_label_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="No image has a label"):
        classes_from_labels([None, ""])


def test_several_classes_in_one_cell_need_multi_label() -> None:
    with pytest.raises(DataError, match=r"task\.multi_label"):
        classes_from_labels(["a|b"])


def test_single_labels_become_indices() -> None:
    encoded = encode_labels(["b", "a", "b"], ("a", "b"))

    assert encoded.dtype == np.int64
    assert encoded.tolist() == [1, 0, 1]


def test_several_labels_become_rows_of_zeros_and_ones() -> None:
    encoded = encode_labels(["a|c", None, " b "], ("a", "b", "c"), multi_label=True)

    assert encoded.dtype == np.float32
    assert encoded.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_unknown_word_is_an_error_and_never_class_zero(multi_label: bool) -> None:
    with pytest.raises(DataError, match=r"Not among the classes \(a, b\): label tumor"):
        encode_labels(["a", "tumor"], ("a", "b"), multi_label)


def test_a_missing_label_is_an_error_unless_none_may_be_true() -> None:
    with pytest.raises(DataError, match="1 of 2 images have no label"):
        encode_labels(["a", None], ("a", "b"))


def test_of_names_the_later_win_but_what_nobody_annotated_stays() -> None:
    assert join_class_names([{1: "a", 2: "b", 3: "ignore"}, {2: "c", 3: "d"}]) == {
        **{1: "a", 2: "c", 3: "ignore"}
    }
    assert join_class_names([{3: "d"}, {3: "ignore"}]) == {3: "ignore"}


def test_pixels_that_nobody_annotated_are_refused_unless_they_may_be_background() -> None:
    names = {1: "liver", 3: "ignore"}

    with pytest.raises(DataError, match=r"here: the value 3 .* called 'ignore'.* dataset\.json"):
        refuse_not_annotated(names, "here")
    with pytest.raises(DataError, match=r"task\.label_values \(3: 0\)"):
        refuse_not_annotated(names, "here", (0, 1, 3), {0: 0, 1: 1, 3: 2})
    refuse_not_annotated(names, "here", (0, 1, 3), {0: 0, 1: 1, 3: 0})
    refuse_not_annotated(names, "here", (0, 1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["mean", "b"], "'mean' is what scores over several classes are called"),
        (["b", "all"], "'all' is what scores over several classes are called"),
        (["x", "x"], "'x' is there twice"),
        (["background", "x"], "'background' is class 0"),
    ],
)
def test_names_that_scores_could_not_tell_apart_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"{message}.*task.classes"):
        segmentation_class_names(3, given)


def test_a_name_from_the_data_may_not_be_that_of_a_class_without_one() -> None:
    with pytest.raises(DataError, match=r"'class 1' is there twice.*Name the classes"):
        segmentation_class_names(3, (), {2: "class 1"})


def test_second_spellings_and_missing_words_are_told_before_they_become_classes() -> None:
    assert doubtful_classes(["benign", "malignant", "grade 1", "grade 2", "-1", "1"]) == []
    told = doubtful_classes(["Benign", "benign", "1", "1.0", "NA", "A  low", "a low", "A-low"])
    assert [sentence.split(" are different classes")[0] for sentence in told[1:]] == [
        "'Benign', 'benign'",
        "'1', '1.0'",
        "'A  low', 'a low'",
    ]
    assert told[0].startswith("'NA' is taken for a class")
