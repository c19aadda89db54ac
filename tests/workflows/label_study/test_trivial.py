"""Guesses without a network: what they see, what they cannot, and their place in a study."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from stores import SMALL_RUN, classification_store, segmentation_store
from vismae.core.study_config import StudyConfig
from vismae.workflows.label_study.trivial import MeanLabelMap, ThumbnailForest
from vismae.workflows.study import study


def square(top: int, side: int = 64, value: int = 1) -> np.ndarray:
    label_map = np.zeros((side, side), dtype=np.int64)
    label_map[top : top + side // 4, side // 4 : side // 2] = value
    return label_map


def test_a_forest_tells_bright_from_dark_and_keeps_the_order_of_all_classes(tmp_path: Path) -> None:
    store = classification_store(tmp_path / "s", patients=24)
    names = store.columns(["label"])["label"].to_numpy()
    # Class 1 of three has no labelled image.
    labels = np.where(names == "dark", 2, 0)
    forest = ThumbnailForest(store, np.arange(12), labels, n_classes=3, seed=0)

    found = forest.probabilities(store, np.arange(12, 24))

    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[:, 1] == 0).all()
    assert (found.argmax(axis=1) == labels[12:]).all()
    again = ThumbnailForest(store, np.arange(12), labels, n_classes=3, seed=0)
    np.testing.assert_array_equal(found, again.probabilities(store, np.arange(12, 24)))


def test_the_mean_label_map_is_the_same_place_in_images_of_any_size(tmp_path: Path) -> None:
    mean = MeanLabelMap([square(16), square(16), square(16), square(40, value=2)], n_classes=3)
    store = segmentation_store(tmp_path / "s", patients=1, size=(96, 96))

    ((row, found), *_) = mean.label_maps(store, np.array([1]))

    assert row == 1
    assert found.shape == (96, 96)
    # A quarter of the label maps show class 2: rare, but nothing else is there.
    expected = square(24, 96) + square(60, 96, value=2)
    assert (found == expected).mean() > 0.97
    assert set(np.unique(found)) == {0, 1, 2}


def test_how_common_is_enough_is_chosen_for_the_best_dice(tmp_path: Path) -> None:
    store = segmentation_store(tmp_path / "s", patients=1, size=(64, 64))
    # In one of twenty it lies elsewhere: marking that place too would cost more than it gives.
    mean = MeanLabelMap([*[square(8)] * 19, square(40)], n_classes=2)
    ((_, found),) = mean.label_maps(store, np.array([0]))
    np.testing.assert_array_equal(found, square(8))


def config(out: Path, tasks: dict[str, Any], **guess: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "out": out,
            "tasks": tasks,
            "starts": {"scratch": {"init": "none"}, "guess": {"trivial": True, **guess}},
            "baseline": "guess",
            "label_fractions": [0.3, 1.0],
            "seeds": [0],
            "settings": {**SMALL_RUN, "trainer.max_steps": 1},
            "bootstrap": 100,
            "executor": "here",
        }
    )


def test_a_study_compares_networks_with_a_guess(tmp_path: Path, discs: Path, shades: Path) -> None:
    tasks = {
        "discs": {"kind": "segment", "sources": [discs]},
        "shades": {"kind": "classify", "sources": [shades]},
    }
    result = study(config(tmp_path / "out", tasks))

    assert result.runs == 8
    scores = pd.read_parquet(result.folder / "scores.parquet")
    runs = scores.groupby(["task", "fraction", "start"])
    tested = runs["patient_id"].agg(frozenset).unstack()
    assert (tested["guess"] == tested["scratch"]).all()
    labelled = runs["labelled_patients"].first().unstack()
    assert (labelled["guess"] == labelled["scratch"]).all()
    table = result.comparison.set_index(["task", "fraction", "start"])["score"]
    assert table["shades", 1.0, "guess"].estimate == pytest.approx(1)
    page = (result.folder / "report" / "index.html").read_text()
    assert "2 starts were compared" in page
    assert "is no network but what one must beat" in page
    again = study(config(tmp_path / "out", tasks).model_copy(update={"resume": True}))
    assert again.comparison.astype(str).equals(result.comparison.astype(str))


@pytest.mark.parametrize("more", [{"init": "model"}, {"select": "entropy"}])
def test_a_guess_has_no_weights_and_chooses_nobody(
    more: dict[str, Any], tmp_path: Path, shades: Path
) -> None:
    tasks = {"shades": {"kind": "classify", "sources": [shades]}}
    with pytest.raises(ValidationError, match=r"starts\.guess is trivial, which has no weights"):
        config(tmp_path / "out", tasks, **more)
