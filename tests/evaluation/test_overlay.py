"""Pictures, tested by their pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vismae.core.errors import DataError
from vismae.evaluation.overlay import (
    COLOURS,
    colour_of,
    contact_sheet,
    draw_fill_in,
    draw_overlay,
    png_bytes,
    save_png,
    to_rgb,
)


def test_the_background_stays_the_image() -> None:
    image = np.linspace(0, 1, 12).reshape(3, 4)
    drawn = draw_overlay(image, np.zeros((3, 4), int))
    assert (drawn == np.rint(image * 255).astype(np.uint8)[..., None]).all()
    assert drawn.dtype == np.uint8


def test_a_region_is_blended_inside_and_full_colour_on_its_outline() -> None:
    label_map = np.zeros((9, 9), int)
    label_map[2:7, 2:7] = 1
    drawn = draw_overlay(np.full((9, 9), 100 / 255), label_map, alpha=0.5)
    inside = np.rint(0.5 * 100 + 0.5 * np.array(COLOURS[1]))
    assert drawn[4, 4] == pytest.approx(inside, abs=1)
    assert tuple(drawn[2, 4]) == COLOURS[1]
    assert tuple(drawn[6, 6]) == COLOURS[1]
    assert tuple(drawn[1, 4]) == (100, 100, 100)


def test_without_contour_the_outline_is_blended_too() -> None:
    label_map = np.array([[0, 3], [3, 3]])
    drawn = draw_overlay(np.zeros((2, 2)), label_map, alpha=1.0, contour=False)
    assert tuple(drawn[0, 1]) == COLOURS[3]
    drawn = draw_overlay(np.zeros((2, 2)), label_map, alpha=0.0, contour=False)
    assert not drawn.any()


def test_neighbouring_classes_are_divided_by_outlines_of_both() -> None:
    label_map = np.array([[1, 1, 1, 2, 2, 2]] * 3)
    drawn = draw_overlay(np.zeros((3, 6)), label_map)
    assert tuple(drawn[1, 2]) == COLOURS[1]
    assert tuple(drawn[1, 3]) == COLOURS[2]
    # The picture's edge is no outline: the region may go on beyond it.
    assert tuple(drawn[1, 0]) != COLOURS[1]


def test_colour_images_and_uint8_give_the_same_overlay_as_grey_floats() -> None:
    label_map = np.array([[0, 1], [2, 0]])
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    drawn = draw_overlay(grey / 255, label_map)
    assert (draw_overlay(grey, label_map) == drawn).all()
    assert (draw_overlay(np.stack([grey] * 3, axis=-1), label_map) == drawn).all()


def test_sixty_classes_have_sixty_colours() -> None:
    assert len({colour_of(k) for k in range(60)}) == 60
    assert len(COLOURS) == 11
    drawn = draw_overlay(np.zeros((1, 1)), np.array([[37]]), alpha=1.0)
    assert tuple(drawn[0, 0]) == colour_of(37)


def test_the_overlay_refuses_other_sizes_and_negative_classes() -> None:
    with pytest.raises(DataError, match="2×2 pixels, the label map 3×2"):
        draw_overlay(np.zeros((2, 2)), np.zeros((3, 2), int))
    with pytest.raises(DataError, match="-1"):
        draw_overlay(np.zeros((1, 2)), np.array([[0, -1]]))


def test_the_fill_in_shows_original_hidden_and_filled_side_by_side() -> None:
    hidden = np.array([[True, False], [False, False], [False, False]])
    drawn = draw_fill_in(np.full((3, 2), 0.2), hidden, np.full((3, 2), 0.8))
    assert drawn.shape == (3, 3 * 2 + 2 * 4, 3)
    original, grey, filled = drawn[:, :2], drawn[:, 6:8], drawn[:, 12:]
    assert (original == 51).all()
    assert (drawn[:, 2:6] == 255).all()
    assert tuple(grey[0, 0]) == (128, 128, 128)
    assert tuple(filled[0, 0]) == (204, 204, 204)
    # What was seen is shown as it was, not as the network repeats it.
    assert (filled[1:] == 51).all()
    assert (grey[1:] == 51).all()


def test_a_fill_in_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="differ in size"):
        draw_fill_in(np.zeros((2, 2)), np.zeros((2, 2), bool), np.zeros((2, 3)))


def test_a_contact_sheet_keeps_proportions_and_order() -> None:
    images = [np.ones((10, 20)), np.zeros((300, 300, 3)), np.full((7, 7), 128, np.uint8)]
    sheet = contact_sheet(images, columns=2, cell_px=40)
    assert sheet.shape == (2 * 44 + 4, 2 * 44 + 4, 3)
    first = sheet[4:44, 4:44, 0]
    assert (first == 255).sum() == 20 * 40
    assert (sheet[48:88, 4:44] == 128).all()


def test_captions_are_drawn_below_and_cut_to_their_cell() -> None:
    images = [np.zeros((8, 8))] * 2
    plain = contact_sheet(images, ["", ""], cell_px=60)
    captioned = contact_sheet(images, ["a very long caption that does not fit", ""], cell_px=60)
    changed = np.argwhere((plain != captioned).any(axis=-1))
    assert len(changed)
    assert changed[:, 0].min() >= 64
    assert changed[:, 1].max() < 64


@pytest.mark.parametrize("count", [0, 3])
def test_a_contact_sheet_needs_images_and_a_caption_for_each(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} images and 2 captions"):
        contact_sheet([np.zeros((2, 2))] * count, ["a", "b"])


def test_values_outside_0_to_1_are_cut_and_nan_is_black() -> None:
    drawn = to_rgb(np.array([[-3.0, 7.0, np.nan]]))
    assert drawn[0, :, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2), np.int16), np.zeros((2, 2, 4)), np.zeros(3), np.zeros((0, 2))]
)
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="A picture of"):
        to_rgb(image)


def test_a_saved_png_holds_the_same_pixels_and_leaves_no_other_file(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_png(tmp_path / "figures" / "a.png", picture)
    assert (np.asarray(Image.open(tmp_path / "figures" / "a.png")) == picture).all()
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["a.png"]
    assert png_bytes(picture) == (tmp_path / "figures" / "a.png").read_bytes()
