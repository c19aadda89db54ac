"""Calibration against scikit-learn and hand-computed values."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from vismae.evaluation.calibration import (
    brier_score,
    calibration_cases,
    calibration_error,
    reliability_curve,
)


def test_the_reliability_curve_is_scikit_learns_with_quantile_bins() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(200)
    outcomes = rng.random(200) < probabilities**2
    curve = reliability_curve(probabilities, outcomes)
    observed, predicted = calibration_curve(outcomes, probabilities, n_bins=15, strategy="quantile")
    assert curve["observed"].to_numpy() == pytest.approx(observed)
    assert curve["probability"].to_numpy() == pytest.approx(predicted)
    assert curve["n"].sum() == 200
    assert set(curve["n"]) <= {13, 14}


def test_the_calibration_error_by_hand() -> None:
    probabilities = np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.9])
    outcomes = np.array([True, False, False, False, True, True])
    # .2 against 1/4 in four cases, .9 against 1 in two.
    expected = (4 * 0.05 + 2 * 0.1) / 6
    assert calibration_error(reliability_curve(probabilities, outcomes)) == pytest.approx(expected)


def test_order_and_ties_do_not_change_the_calibration_error() -> None:
    rng = np.random.default_rng(1)
    probabilities = np.round(rng.random(90), 1)
    outcomes = rng.random(90) < 0.5
    order = rng.permutation(90)
    assert calibration_error(reliability_curve(probabilities, outcomes)) == pytest.approx(
        calibration_error(reliability_curve(probabilities[order], outcomes[order]))
    )


def test_single_label_calibration_asks_about_the_chosen_class() -> None:
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6]])
    truth = np.array([[True, False], [True, False]])
    confidence, correct = calibration_cases(probabilities, truth, multi_label=False)
    assert confidence.tolist() == [0.7, 0.6]
    assert correct.tolist() == [True, False]
    assert len(calibration_cases(probabilities, truth, multi_label=True)[0]) == 4


def test_the_binary_brier_score_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    second = rng.random(40)
    labels = rng.integers(0, 2, 40)
    probabilities = np.stack([1 - second, second], axis=1)
    truth = np.eye(2, dtype=bool)[labels]
    expected = brier_score_loss(labels, second)
    assert brier_score(probabilities, truth, multi_label=False) == pytest.approx(expected)


def test_the_worst_brier_score_of_three_classes_is_two() -> None:
    truth = np.array([[True, False, False]])
    assert brier_score(np.array([[0.0, 1.0, 0.0]]), truth, multi_label=False) == 2.0
    assert brier_score(truth.astype(float), truth, multi_label=False) == 0.0
