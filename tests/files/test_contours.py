import numpy as np
import pytest
from matplotlib.path import Path as Outline

from vismae.files.contours import fill_even_odd


def fill(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return the whole image, with the window put in its place."""
    top, left, inside = fill_even_odd(polygons, shape)
    image = np.zeros(shape, dtype=bool)
    image[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return image


def reference(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Even-odd at pixel centres as matplotlib's point-in-polygon test sees it."""
    centres = np.stack(np.indices(shape), axis=-1).reshape(-1, 2)
    crossed = [Outline(polygon).contains_points(centres) for polygon in polygons]
    return (np.sum(crossed, axis=0) % 2 == 1).reshape(shape)


def wobbly_circle(rng: np.random.Generator, corners: int = 40) -> np.ndarray:
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(4, 14, corners)
    middle = rng.uniform(5, 30, 2)
    return middle + np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


@pytest.mark.parametrize("seed", range(20))
def test_random_polygons_are_filled_as_point_in_polygon_tests_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygons = [wobbly_circle(rng) for _ in range(3)]  # overlapping, and partly outside

    np.testing.assert_array_equal(fill(polygons, (33, 37)), reference(polygons, (33, 37)))


def test_a_rectangle_between_pixel_centres_has_known_pixels() -> None:
    corners = np.array([[0.6, 1.4], [0.6, 4.2], [2.9, 4.2], [2.9, 1.4]])

    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(fill([corners], (5, 6)), expected)


def test_an_inner_contour_and_a_keyhole_make_the_same_hole() -> None:
    outer = np.array([[0.5, 0.5], [0.5, 8.5], [8.5, 8.5], [8.5, 0.5]])
    inner = np.array([[2.5, 2.5], [2.5, 5.5], [5.5, 5.5], [5.5, 2.5]])
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])

    filled = fill([outer, inner], (10, 10))

    assert filled.sum() == 64 - 9
    assert not filled[3:6, 3:6].any()
    np.testing.assert_array_equal(fill([keyhole], (10, 10)), filled)


def test_regions_that_share_an_outline_through_pixel_centres_neither_overlap_nor_leave_a_gap() -> (
    None
):
    left = np.array([[0.0, 0.0], [0.0, 3.0], [6.0, 3.0], [6.0, 0.0]])
    right = left + np.array([0.0, 3.0])

    together = fill([left], (6, 6)).astype(int) + fill([right], (6, 6))

    np.testing.assert_array_equal(together, 1)


def test_nothing_is_inside_a_line_or_beside_the_image() -> None:
    line = np.array([[1.0, 1.0], [4.0, 4.0], [2.0, 2.0]])
    beside = np.array([[-9.0, -9.0], [-9.0, -5.0], [-5.0, -5.0]])

    assert not fill([line], (6, 6)).any()
    assert not fill([beside], (6, 6)).any()
    assert not fill([beside + 100], (6, 6)).any()
