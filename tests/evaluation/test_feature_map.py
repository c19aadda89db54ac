"""Features as points on a plane."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from vismae.evaluation.feature_map import (
    feature_map,
    has_umap,
    principal_components,
    umap_positions,
)


def test_principal_components_are_those_of_scikit_learn_but_for_their_sign() -> None:
    features = np.random.default_rng(0).normal(size=(60, 7)) * [9, 4, 1, 1, 1, 1, 1] + 30
    reference = PCA(2).fit(features)
    places, shares = principal_components(features)
    expected = reference.transform(features)
    signs = np.sign((places * expected).sum(axis=0))
    assert np.allclose(places, expected * signs)
    assert np.allclose(shares, reference.explained_variance_ratio_)


@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (3, 5)])
def test_few_or_constant_features_have_places_too(shape: tuple[int, int]) -> None:
    places, shares = principal_components(np.ones(shape, np.float32))
    assert places.shape == (shape[0], 2)
    assert not places.any()
    assert not shares.any()


@pytest.mark.skipif(not has_umap(), reason="umap-learn is not installed")
def test_umap_keeps_groups_together_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    features = np.repeat(10 * np.eye(6)[:2], 20, axis=0) + rng.normal(size=(40, 6))
    places = umap_positions(features, seed=0)
    assert np.array_equal(places, umap_positions(features, seed=0))
    centres = places[:20].mean(axis=0), places[20:].mean(axis=0)
    spread = np.linalg.norm(places[:20] - centres[0], axis=1).max()
    assert np.linalg.norm(centres[0] - centres[1]) > spread


def test_the_picture_holds_a_plot_for_each_map_and_colours_for_names() -> None:
    places = np.random.default_rng(0).normal(size=(30, 2))
    maps = {"PCA": (places, "x", "y"), "UMAP": (places, "", "")}
    one = Image.open(io.BytesIO(feature_map({"PCA": maps["PCA"]}, [None] * 30, "modality")))
    two = Image.open(io.BytesIO(feature_map(maps, ["ct", "mr", "$_x"] * 10, "label")))
    assert two.width > 1.8 * one.width
    assert one.convert("HSV").getchannel("S").getextrema()[1] < 60  # ink alone
    assert two.convert("HSV").getchannel("S").getextrema()[1] > 120
