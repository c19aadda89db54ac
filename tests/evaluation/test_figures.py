"""Figures are well-formed SVG in the page's own ink, and show what they are given."""

from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from vismae.evaluation.calibration import reliability_curve
from vismae.evaluation.classification import score_classification
from vismae.evaluation.figures import (
    confusion_figure,
    label_efficiency_figure,
    patients_figure,
    reliability_figure,
    roc_figure,
    training_curves,
)

SVG = "{http://www.w3.org/2000/svg}"
CURVES = pd.DataFrame(
    {
        "arm": ["pre-trained", "pre-trained", "scratch"],
        "labels": [3, 30, 3],
        "estimate": [0.6, 0.8, 0.5],
        "low": [0.5, 0.7, np.nan],
        "high": [0.7, 0.9, np.nan],
    }
)


def roc() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 30)
    second = np.clip(0.3 * labels + 0.7 * rng.random(30), 0, 1)
    probabilities = np.stack([1 - second, second], axis=1)
    names = ("<script>", "_$x")
    return score_classification(probabilities, labels, np.arange(30), names).roc


DRAWINGS: dict[str, Callable[[], str]] = {
    "training": lambda: training_curves(
        {"_train": ([0, 1, 2], [1.0, float("nan"), 0.5]), "val $": ([0, 2], [1.0, 0.7])}, "loss"
    ),
    "training, logarithmic": lambda: training_curves({"a": ([0, 1], [1e-3, 1])}, "x", log_y=True),
    "roc": lambda: roc_figure(roc(), {"<script>": 0.7}),
    "roc of nothing": lambda: roc_figure({"a": pd.DataFrame(columns=pd.Index(["x"]))}),
    "reliability": lambda: reliability_figure(
        reliability_curve(np.linspace(0, 1, 40), np.arange(40) % 2 == 0)
    ),
    "confusion": lambda: confusion_figure(np.array([[3, 1], [0, 0]]), ("a & b", "$y")),
    "labels": lambda: label_efficiency_figure(CURVES, "Dice", CURVES.assign(value=0.5)),
    "patients": lambda: patients_figure(
        {"liver": [0.9, np.nan, 0.8], "absent": [np.nan], "one": [0.4]}, "Dice"
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_one_well_formed_svg_in_the_pages_ink(name: str) -> None:
    svg = DRAWINGS[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert "currentColor" in svg
    assert "#1b1c1e" not in svg
    assert "<!--" not in svg
    assert not list(root.iter("metadata"))
    # No background of its own: the page shows through.
    assert 'style="fill: #ffffff' not in svg


@pytest.mark.parametrize("name", ["training", "labels"])
def test_the_same_numbers_give_the_same_figure(name: str) -> None:
    assert DRAWINGS[name]() == DRAWINGS[name]()


def test_drawing_changes_no_setting_of_matplotlib() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    DRAWINGS["patients"]()
    assert dict(matplotlib.rcParams) == before


def test_confusion_cells_are_as_opaque_as_their_share_of_the_true_class() -> None:
    svg = confusion_figure(np.array([[3, 1], [0, 0]]), ("a", "b"))
    assert svg.count("opacity: 0.5625") == 1
    assert svg.count("opacity: 0.1875") == 1


def test_a_name_that_begins_with_an_underscore_has_its_place_in_the_legend() -> None:
    two = {"_a": ([0, 1], [0.0, 1.0]), "_b": ([0, 1], [1.0, 0.0])}
    hidden = {"": ([0, 1], [0.0, 1.0]), " ": ([0, 1], [1.0, 0.0])}
    assert len(training_curves(two, "y")) > len(training_curves(hidden, "y"))
