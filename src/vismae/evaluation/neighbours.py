"""Which images look most alike to a network: cosine similarity of their features."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_BLOCK = 1024
_SAME_GROUP = -2.0


class Neighbours(NamedTuple):
    """The nearest other images of each image, nearest first.

    Attributes:
        rows: Their row numbers, (N, k); -1 where there are fewer than k.
        similarities: Cosine similarity, (N, k), 1 for the same direction; NaN where there is none.
    """

    rows: np.ndarray
    similarities: np.ndarray


def nearest_neighbours(
    features: Float[np.ndarray, "N C"], k: int, groups: Int[np.ndarray, " N"]
) -> Neighbours:
    """Find the k most similar images of each image among those of other groups.

    Slices of one volume are each other's nearest neighbours and say nothing, hence the groups. The
    features' common mean is taken off first: what all images share would otherwise make every
    similarity about 1.

    Args:
        features: One row per image.
        k: At least 1.
        groups: Images with the same number are not compared.
    """
    count = len(features)
    k = min(k, count)
    unit = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit = np.divide(unit, lengths, out=np.zeros_like(unit), where=lengths > 0)
    rows = np.full((count, k), -1, np.int64)
    similarities = np.full((count, k), np.nan, np.float32)
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        likeness = unit[block] @ unit.T
        likeness[groups[block, None] == groups[None, :]] = _SAME_GROUP
        best = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(likeness, best, axis=1)
        # Of equally similar images the earlier row comes first.
        order = np.lexsort((best, -values), axis=1)
        best = np.take_along_axis(best, order, axis=1)
        values = np.take_along_axis(values, order, axis=1)
        found = values > _SAME_GROUP
        rows[block] = np.where(found, best, -1)
        similarities[block] = np.where(found, values, np.nan)
    return Neighbours(rows, similarities)
