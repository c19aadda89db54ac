"""How fine a grid label maps need: by hand, and thin against thick."""

import numpy as np
import pytest
from PIL import Image

from vismae.data.label_detail import dice_after_shrinking, smallest_side_px


def stripes(width: int, value: int = 1, side: int = 128) -> np.ndarray:
    """Vertical stripes with gaps seven times as wide."""
    return np.where(np.arange(side) % (8 * width) < width, value, 0)[None].repeat(side, 0)


def test_nothing_is_lost_where_nothing_is_shrunk() -> None:
    assert dice_after_shrinking([stripes(1)], 128) == [1.0]
    assert dice_after_shrinking([stripes(1)], 160) == [1.0]


def test_what_is_thinner_than_a_pixel_of_the_canvas_is_lost() -> None:
    thin, thick = dice_after_shrinking([stripes(1), stripes(16, value=2)], 32)
    assert thin == 0.0
    assert thick > 0.95


@pytest.mark.parametrize("side", [32, 57, 96])
def test_shrinking_is_that_of_an_image_library(side: int) -> None:
    label_map = np.zeros((128, 100), dtype=np.uint8)
    label_map[10:13, 5:90] = label_map[40:101, 40:47] = 1
    width = round(100 * side / 128)
    picture = Image.fromarray(label_map.astype(np.float32))
    small = picture.resize((width, side), Image.Resampling.BILINEAR)
    again = np.asarray(small.resize((100, 128), Image.Resampling.BILINEAR)) > 0.5
    expected = 2 * (again & (label_map == 1)).sum() / (again.sum() + label_map.sum())
    assert dice_after_shrinking([label_map], side)[0] == pytest.approx(expected, abs=2e-3)


def test_all_slices_count_together() -> None:
    organ, tip = np.zeros((128, 128), dtype=np.uint8), np.zeros((128, 128), dtype=np.uint8)
    organ[20:100, 20:100] = tip[60, 60] = 1
    assert dice_after_shrinking([tip], 32) == [0.0]
    assert dice_after_shrinking([organ, tip], 32)[0] > 0.95


@pytest.mark.parametrize(("width", "expected"), [(1, 96), (2, 64), (16, 32)])
def test_the_smallest_side_follows_the_finest_class(width: int, expected: int) -> None:
    label_maps = [stripes(width), stripes(32, value=2), np.zeros((128, 128), dtype=np.uint8)]
    side = smallest_side_px(label_maps, (32, 64, 96, 128, 160), 0.95)
    assert side == expected
    assert min(dice_after_shrinking(label_maps, side)) >= 0.95
    assert side == 32 or min(dice_after_shrinking(label_maps, side - 32)) < 0.95


def test_where_no_side_is_enough_the_largest_is_taken() -> None:
    assert smallest_side_px([stripes(1)], (32, 64), 0.95) == 64
    assert smallest_side_px([], (32, 64), 0.95) == 32
