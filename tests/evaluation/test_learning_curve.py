"""The area by hand, and the fit against known laws and scipy's least squares."""

import numpy as np
import pytest
from scipy.optimize import least_squares
from sklearn.isotonic import IsotonicRegression

from vismae.core.errors import DataError
from vismae.evaluation.learning_curve import (
    FASTEST,
    HORIZON,
    SLOWEST,
    _rising,
    fit_learning_curves,
    label_curve_area,
    measured_labels_needed,
)

LABELS = np.array([1, 3, 6, 15, 30, 60])


def test_the_area_is_the_mean_height_over_log_labels() -> None:
    # Two steps of log 10: trapezoids of height 0.5 and 0.8.
    assert label_curve_area([1, 10, 100], np.array([0.4, 0.6, 1.0])) == pytest.approx(0.65)
    # The first step is twice as wide as the second.
    assert label_curve_area([1, 4, 8], np.array([0.0, 0.6, 0.6])) == pytest.approx(0.4)
    np.testing.assert_allclose(label_curve_area([2, 5], np.full((2, 3, 4), 0.7)), 0.7)


def test_the_area_does_not_depend_on_the_unit_of_the_labels() -> None:
    scores = np.random.default_rng(0).random((6, 5))
    np.testing.assert_allclose(
        label_curve_area(LABELS, scores), label_curve_area(LABELS / 60, scores)
    )


@pytest.mark.parametrize("law", [(0.9, 0.6, 0.5), (0.8, 0.3, 1.3), (0.95, 0.5, 0.15)])
def test_an_exact_law_is_found_again(law: tuple[float, float, float]) -> None:
    a, b, c = law
    curves = fit_learning_curves(LABELS, (a - b * LABELS**-c)[None])
    assert curves.law == "power"
    np.testing.assert_allclose([curves.a[0], curves.b[0], curves.c[0]], law, rtol=2e-3)
    needed = curves.labels_needed(a - b * 20.0**-c)
    assert needed[0] == pytest.approx(20, rel=1e-3)
    assert curves.score(20)[0] == pytest.approx(a - b * 20.0**-c, abs=1e-5)


def test_no_fit_of_scipy_from_any_start_is_closer() -> None:
    rng = np.random.default_rng(1)
    scores = 0.85 - 0.5 * LABELS**-0.6 + rng.normal(0, 0.04, (12, 6))
    curves = fit_learning_curves(LABELS, scores)
    ours = curves.a[:, None] - curves.b[:, None] * LABELS ** -curves.c[:, None]
    for place, measured in enumerate(scores):
        fits = [
            least_squares(
                lambda p, y=measured: p[0] - p[1] * LABELS ** -p[2] - y,
                (0.9, 0.5, power),
                bounds=([-np.inf, 0, SLOWEST], [1.0 + 1e-12, np.inf, FASTEST]),
                x_scale=(0.1, 0.1, 0.1),
            )
            for power in (0.1, 0.5, 1.0, 2.0)
        ]
        best = min(2 * fit.cost for fit in fits)
        assert ((ours[place] - measured) ** 2).sum() <= best + 1e-7


def test_the_ceiling_holds() -> None:
    curves = fit_learning_curves(LABELS, (0.2 + 0.18 * np.log(LABELS))[None])
    assert curves.a[0] <= 1.0
    assert fit_learning_curves(LABELS, (50 - 30 / LABELS)[None], ceiling=100.0).a[0] > 49


def test_two_or_three_label_counts_fix_the_power() -> None:
    curves = fit_learning_curves([4, 16, 64], np.array([[0.5, 0.7, 0.8]]))
    assert curves.law == "fixed power"
    np.testing.assert_allclose([curves.a[0], curves.b[0], curves.c[0]], [0.9, 0.8, 0.5])
    assert curves.labels_needed(0.85)[0] == pytest.approx(256)


def test_a_curve_that_does_not_rise_is_flat() -> None:
    curves = fit_learning_curves(LABELS, np.array([np.linspace(0.8, 0.7, 6), np.full(6, 0.6)]))
    np.testing.assert_array_equal(curves.b, 0.0)
    np.testing.assert_allclose(curves.a, [0.75, 0.6])
    np.testing.assert_array_equal(curves.labels_needed(0.7), [1.0, np.inf])


def test_out_of_reach_and_too_far_are_infinite_and_easy_is_the_smallest_count() -> None:
    curves = fit_learning_curves(LABELS, (0.9 - 0.6 * LABELS**-0.5)[None])
    assert curves.labels_needed(0.91)[0] == np.inf
    far = 0.9 - 0.6 * (1.2 * HORIZON * 60) ** -0.5
    assert curves.labels_needed(far)[0] == np.inf
    assert curves.labels_needed(0.1)[0] == 1.0


def test_a_curve_with_a_gap_is_undefined_alone() -> None:
    scores = np.stack([0.9 - 0.6 * LABELS**-0.5] * 2)
    scores[0, 2] = np.nan
    needed = fit_learning_curves(LABELS, scores).labels_needed(0.8)
    assert np.isnan(needed[0])
    assert needed[1] == pytest.approx(36, rel=1e-3)


def test_label_counts_must_rise_and_fit() -> None:
    with pytest.raises(DataError, match="at least 2, above 0 and rising"):
        fit_learning_curves([3, 3], np.zeros((1, 2)))
    with pytest.raises(DataError, match="3 label counts but 2 scores"):
        label_curve_area([1, 2, 3], np.zeros(2))


def test_measured_labels_follow_the_nearest_rising_curve() -> None:
    labels = np.array([2.0, 5.0, 10.0, 25.0, 50.0])
    curves = np.random.default_rng(0).normal(np.linspace(0.3, 0.8, 5), 0.2, (200, 5))
    for curve, rising in zip(curves, _rising(curves), strict=True):
        np.testing.assert_allclose(rising, IsotonicRegression().fit_transform(labels, curve))
    scores = np.array([[0.1, 0.3, 0.5, 0.7, 0.9]] * 4)
    needed = measured_labels_needed(labels, scores, np.array([0.05, 0.3, 0.6, 0.95]))
    np.testing.assert_allclose(needed, [2, 5, np.sqrt(250), np.inf])
    missing = measured_labels_needed(labels, np.array([[0.1, np.nan, 0.5, 0.7, 0.9]]), needed[:1])
    assert np.isnan(missing).all()
