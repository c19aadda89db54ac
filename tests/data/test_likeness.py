import numpy as np
from PIL import Image

from vismae.data.likeness import difference_hash, hash_distance, is_blank


def test_a_ramp_to_the_right_sets_all_bits_and_to_the_left_none() -> None:
    ramp = np.tile(np.arange(90, dtype=np.uint8), (80, 1))

    assert difference_hash(ramp) == 2**64 - 1
    assert difference_hash(ramp[:, ::-1]) == 0


def test_bits_follow_cells_row_by_row() -> None:
    cells = np.zeros((8, 9), dtype=np.uint8)
    cells[0, 1:] = 10  # only the first pair of the first row rises
    cells[7, 8] = 10  # only the last pair of the last row rises

    assert difference_hash(cells) == 2**63 + 1
    assert difference_hash(np.kron(cells, np.ones((5, 3), dtype=np.uint8))) == 2**63 + 1


def test_cells_are_averaged_by_area_where_sizes_do_not_divide() -> None:
    # 12 columns on 9 cells: a cell is 4/3 pixels wide, so the first averages pixels 0 and a
    # third of 1, the second the other two thirds of 1 and two thirds of 2.
    row = np.array([3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=np.float64)
    first, second = (3 + 9 / 3) / (4 / 3), (9 * 2 / 3) / (4 / 3)
    assert first == second  # by construction equal, so no bit
    assert difference_hash(np.tile(row, (8, 1))) == 0
    row[1] = 8.9
    assert difference_hash(np.tile(row, (8, 1))) == 0
    row[0] = 2.9
    assert difference_hash(np.tile(row, (8, 1))).bit_count() == 8


def test_the_hash_survives_size_brightness_and_contrast_but_not_another_picture() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (9, 10), dtype=np.uint8)).resize((200, 180), 3)
    other = Image.fromarray(rng.integers(0, 255, (9, 10), dtype=np.uint8)).resize((200, 180), 3)
    pixels = np.asarray(picture)
    small = np.asarray(picture.resize((77, 61), Image.Resampling.BOX))

    original = difference_hash(pixels)
    assert hash_distance(original, difference_hash(small)) <= 4
    assert hash_distance(original, difference_hash(pixels.astype(np.int16) * 7 - 1024)) <= 1
    assert hash_distance(original, difference_hash(np.asarray(other))) > 16


def test_colour_counts_as_its_grey() -> None:
    grey = np.random.default_rng(1).integers(0, 255, (40, 30), dtype=np.uint8)

    assert difference_hash(np.stack([grey] * 3, axis=-1)) == difference_hash(grey)


def test_pictures_of_one_colour_hash_to_zero_whatever_the_colour() -> None:
    for value in (0, 1, 200, -1000.3, 1e6):
        assert difference_hash(np.full((57, 91), value)) == 0


def test_blank_means_one_finite_value() -> None:
    assert is_blank(np.zeros((4, 4), dtype=np.uint8))
    assert is_blank(np.full((4, 4), -3.5))
    assert is_blank(np.array([[np.nan, 2.0], [2.0, np.nan]]))
    assert is_blank(np.full((2, 2), np.nan))
    assert not is_blank(np.array([[0, 1]], dtype=np.int16))
