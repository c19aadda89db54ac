import io

import numpy as np
import pytest
from PIL import Image

from vismae.data import likeness
from vismae.data.likeness import (
    FINE_BYTES,
    difference_hash,
    fine_hash,
    hash_distance,
    is_blank,
    is_nearly_blank,
    likeness_hashes,
)


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


def smooth_picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 14), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((300, 260), Image.Resampling.BICUBIC))


def test_both_hashes_come_from_one_pass() -> None:
    pixels = smooth_picture(0)

    assert likeness_hashes(pixels) == (difference_hash(pixels), fine_hash(pixels))
    assert len(fine_hash(pixels)) == FINE_BYTES


def test_bits_of_the_fine_hash_follow_its_cells_row_by_row() -> None:
    cells = np.zeros((16, 17), dtype=np.int16)
    cells[0, 1:] = 10  # only the first pair of the first row rises
    cells[15, 16] = 10  # only the last pair of the last row rises

    wanted = (2**255 + 1).to_bytes(FINE_BYTES, "big")
    assert fine_hash(cells) == wanted
    assert fine_hash(np.kron(cells, np.ones((4, 7), dtype=np.int16))) == wanted


def test_the_fine_hash_survives_what_copies_suffer_but_not_another_picture() -> None:
    pixels = smooth_picture(1)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=70)
    smaller = Image.fromarray(pixels).resize((150, 130), Image.Resampling.BOX)
    copies = [
        np.asarray(Image.open(content)),
        np.asarray(smaller),
        pixels.astype(np.int32) * 16 - 1024,
        (255 * (pixels / 255) ** 0.9).astype(np.uint8),
        pixels / 255,
    ]

    for copy in copies:
        assert hash_distance(fine_hash(pixels), fine_hash(copy)) <= 12
    assert hash_distance(fine_hash(pixels), fine_hash(smooth_picture(2))) > 64


def test_faint_noise_on_a_flat_ground_sets_no_bit_of_the_fine_hash() -> None:
    pixels = np.zeros((170, 160), dtype=np.int16)
    pixels[:, 80:] = 1000
    noisy = pixels + np.random.default_rng(0).normal(0, 4, pixels.shape).astype(np.int16)

    assert fine_hash(noisy) == fine_hash(pixels)
    assert fine_hash(np.full((50, 40), 1e6)) == bytes(FINE_BYTES)


def test_values_that_are_not_finite_count_as_zero() -> None:
    pixels = smooth_picture(3).astype(np.float64)
    pixels[:40, :40] = 0.0
    broken = pixels.copy()
    broken[:20, :40], broken[20:40, :40] = np.nan, np.inf

    assert likeness_hashes(broken) == likeness_hashes(pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_nearly_blank_leaves_one_pixel_in_two_hundred(dtype: type[np.generic]) -> None:
    pixels = np.full((200, 100), 7).astype(dtype)
    assert is_nearly_blank(pixels)
    pixels.ravel()[:100] = 100
    assert is_nearly_blank(pixels)
    pixels.ravel()[:101] = 100
    assert not is_nearly_blank(pixels)


def test_a_dark_picture_is_not_blank_and_a_hot_pixel_does_not_make_it_so() -> None:
    faint = smooth_picture(4).astype(np.int16) // 16
    assert not is_nearly_blank(faint)
    faint[100, 100] = 4000
    assert not is_nearly_blank(faint)
    empty = np.zeros_like(faint)
    empty[100, 100] = 4000
    assert is_nearly_blank(empty)


def test_nearly_blank_takes_colour_and_values_that_are_not_finite() -> None:
    colour = np.zeros((64, 64, 3), np.uint8)
    assert is_nearly_blank(colour)
    colour[:8, :8, 1] = 200
    assert not is_nearly_blank(colour)
    gaps = np.full((32, 32), np.nan, np.float32)
    assert is_nearly_blank(gaps)
    gaps[:16] = 3.0
    assert is_nearly_blank(gaps)
    gaps[:4] = 9.0
    assert not is_nearly_blank(gaps)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("shape", [(512, 300), (256, 256), (2048, 64), (16, 9), (128, 100, 3)])
def test_where_sums_are_exact_the_short_way_gives_what_the_matrix_gives(
    dtype: type[np.integer], shape: tuple[int, ...]
) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    noise = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    for pixels in (noise, np.full(shape, limits.max, dtype), np.full(shape, limits.min, dtype)):
        assert likeness._adds_exactly(pixels)
        values = pixels.reshape(shape[0], -1).astype(np.float32)
        expected = likeness._averaging_rows(shape[0]) @ values
        np.testing.assert_array_equal(likeness._bands(values), expected)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((500, 8), np.uint8),  # rows that lie in two cells
        np.zeros((320, 8), np.uint8),  # twenty rows to a cell: a share of 0.05 is rounded
        np.zeros((8, 8), np.uint8),  # less than a row to a cell
        np.zeros((4096, 8), np.uint16),  # sums of more than 24 bits
        np.zeros((512, 8), np.int32),
        np.zeros((512, 8), np.float32),
    ],
)
def test_the_short_way_is_not_taken_where_sums_are_rounded(pixels: np.ndarray) -> None:
    assert not likeness._adds_exactly(pixels)
