"""Largest pieces and holes on label maps drawn by hand."""

import numpy as np

from vismae.inference.postprocess import clean_labels


def drawing(*rows: str) -> np.ndarray:
    """Return one slice, (1, H, W), from rows of digits."""
    return np.array([[[int(letter) for letter in row] for row in rows]], dtype=np.uint8)


def test_only_the_largest_piece_of_a_class_stays() -> None:
    labels = drawing("1100", "1002", "0002", "1020")
    clean_labels(labels, largest_component=[1, 2])
    # The pixels of class 2 touch at a corner and are one piece.
    assert np.array_equal(labels, drawing("1100", "1002", "0002", "0020"))


def test_pieces_go_through_slices_only_where_slices_lie_in_space() -> None:
    first, second = drawing("110000"), drawing("010011")
    joined = np.concatenate([first, second])
    clean_labels(joined, largest_component=[1])
    assert np.array_equal(joined, np.concatenate([first, drawing("010000")]))
    apart = np.concatenate([first, second])
    clean_labels(apart, largest_component=[1], in_space=False)
    assert np.array_equal(apart, np.concatenate([first, drawing("000011")]))


def test_holes_are_filled_but_what_another_class_says_stays() -> None:
    labels = drawing("11111", "10121", "11111", "00011", "01101")
    clean_labels(labels, fill_holes=[1])
    assert np.array_equal(labels, drawing("11111", "11121", "11111", "00011", "01101"))


def test_a_hole_open_to_the_next_slice_is_none_in_a_volume() -> None:
    ring, empty = drawing("111", "101", "111"), drawing("000", "000", "000")
    volume = np.concatenate([ring, ring, empty])
    clean_labels(volume, fill_holes=[1])
    assert np.array_equal(volume, np.concatenate([ring, ring, empty]))
    clean_labels(volume, fill_holes=[1], in_space=False)
    assert volume[0, 1, 1] == volume[1, 1, 1] == 1


def test_nothing_happens_unless_asked_for_or_where_a_class_is_absent() -> None:
    labels = drawing("101", "111", "101")
    before = labels.copy()
    clean_labels(labels)
    clean_labels(labels, largest_component=[2], fill_holes=[3])
    assert np.array_equal(labels, before)
