"""Closed contours to pixels, by the even-odd rule at pixel centres.

A pixel is inside if a ray from its centre crosses the contours an odd number of times; so inner
contours are holes, and so are keyholes (a contour that runs in and out through one channel).
Centres exactly on an outline belong to the region on its lower right, so that regions that share
an outline neither overlap nor leave a gap.
"""

from collections.abc import Sequence

import numpy as np

# Finer differences are noise of the way to pixel coordinates, which must not decide for a pixel
# whose centre lies on the outline.
_PIXEL_DECIMALS = 4


def fill_even_odd(
    polygons: Sequence[np.ndarray], shape: tuple[int, int]
) -> tuple[int, int, np.ndarray]:
    """Return the smallest window that holds the inside of some polygons.

    Args:
        polygons: Corners (N, 2) as row and column; the centre of the first pixel is (0, 0). The
            last corner joins the first.
        shape: Rows and columns of the image; what lies beyond it is cut off.

    Returns:
        First row and first column of the window, and a bool array (rows, columns), True inside;
        it is empty where nothing is inside.
    """
    start = np.concatenate([np.asarray(polygon, dtype=np.float64) for polygon in polygons])
    end = np.concatenate([np.roll(np.asarray(polygon), -1, axis=0) for polygon in polygons])
    start, end = start.round(_PIXEL_DECIMALS), end.round(_PIXEL_DECIMALS)
    limits = np.asarray(shape)
    low = np.clip(np.ceil(start.min(axis=0)), 0, limits).astype(int)
    high = np.clip(np.ceil(start.max(axis=0)), 0, limits).astype(int)
    height, width = (high - low).tolist()
    if height <= 0 or width <= 0:
        return int(low[0]), int(low[1]), np.zeros((0, 0), dtype=bool)
    rows, crossings = _crossings(start - low, end - low, height)
    columns = np.clip(np.ceil(crossings), 0, width).astype(int)
    toggles = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1))
    inside = np.cumsum(toggles.reshape(height, width + 1), axis=1)[:, :width] % 2 == 1
    return int(low[0]), int(low[1]), inside


def _crossings(start: np.ndarray, end: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of every place where an edge crosses the middle of a row."""
    upper = np.minimum(start[:, 0], end[:, 0])
    lower = np.maximum(start[:, 0], end[:, 0])
    first = np.clip(np.ceil(upper), 0, height).astype(int)
    counts = np.clip(np.ceil(lower), 0, height).astype(int) - first
    edge = np.repeat(np.arange(len(start)), counts)
    before = np.cumsum(counts) - counts
    rows = first[edge] + np.arange(len(edge)) - before[edge]
    # Edges that cross a row are never level, so the slope is finite for those kept.
    rise = (end - start)[edge]
    share = (rows - start[edge, 0]) / rise[:, 0]
    return rows, (start[edge, 1] + share * rise[:, 1]).round(_PIXEL_DECIMALS)
