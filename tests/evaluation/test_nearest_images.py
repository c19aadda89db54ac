"""Nearest images by their features."""

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity

from vismae.evaluation.neighbours import nearest_neighbours


def test_neighbours_and_similarities_are_those_of_a_full_comparison() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2500, 12)).astype(np.float32) + 5
    groups = np.arange(2500) // 3
    found = nearest_neighbours(features, 4, groups)
    likeness = cosine_similarity(features - features.mean(axis=0))
    likeness[groups[:, None] == groups[None, :]] = -9
    expected = np.argsort(-likeness, axis=1)[:, :4]
    assert (found.rows == expected).mean() > 0.999  # ties in float32
    assert np.allclose(
        found.similarities, np.take_along_axis(likeness, expected, axis=1), atol=1e-5
    )


def test_images_of_one_group_are_never_neighbours_and_gaps_are_marked() -> None:
    features = np.eye(4, dtype=np.float32)
    found = nearest_neighbours(features, 3, np.array([0, 0, 0, 1]))
    assert found.rows.tolist() == [[3, -1, -1], [3, -1, -1], [3, -1, -1], [0, 1, 2]]
    assert np.isnan(found.similarities[found.rows < 0]).all()


def test_images_that_are_all_alike_have_no_direction_to_compare() -> None:
    found = nearest_neighbours(np.ones((3, 2), np.float32), 5, np.arange(3))
    assert found.rows.shape == (3, 3)
    assert np.allclose(found.similarities[:, :2], 0.0)
