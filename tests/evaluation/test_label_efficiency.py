"""Labels needed, areas and their sentences on curves whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from vismae.core.errors import DataError
from vismae.evaluation.label_efficiency import (
    LabelsNeeded,
    area_difference,
    area_interval,
    labels_needed,
    relative_labels,
)

LABELS = np.array([2, 5, 10, 25, 50, 100])


def study(law: tuple[float, float, float], noise: float, seed: int = 0) -> np.ndarray:
    """Scores of 3 runs on 20 patients whose mean is exactly on a law."""
    a, b, c = law
    rng = np.random.default_rng(seed)
    patient = rng.normal(0, noise, 20)
    run = rng.normal(0, noise / 10, 3)
    spread = (run - run.mean())[:, None] + patient - patient.mean()
    return (a - b * LABELS**-c)[:, None, None] + spread


def test_labels_needed_are_those_of_the_law_within_their_interval() -> None:
    result = labels_needed(LABELS, study((0.9, 0.6, 0.5), 0.02), quality=0.8)
    assert result.estimate == pytest.approx(36, rel=1e-3)
    assert result.low < 36 < result.high < 100
    assert result.not_reached == 0
    assert result.text() == f"36 [{round(result.low)}, {round(result.high)}]"


def test_a_start_with_half_the_labels_says_so() -> None:
    reference = study((0.9, 0.6, 0.5), 0.05)
    # The same patients and runs, each label worth two.
    start = reference + (0.6 * (LABELS**-0.5 - (2 * LABELS) ** -0.5))[:, None, None]
    result = relative_labels(LABELS, start, reference)
    assert result.estimate == pytest.approx(50, rel=1e-3)
    # Patients are the same in both, so their spread does not widen the interval.
    assert (result.low, result.high) == pytest.approx((50, 50), rel=1e-3)
    assert result.claim("ours", "scratch") == (
        "'ours' reaches the result of 'scratch' with 100 % of the labels with 50 % [50, 50] "
        "of them (95 % interval)."
    )
    margin = relative_labels(LABELS, start, reference, margin=0.02)
    assert margin.quality == pytest.approx(0.82)
    assert margin.estimate == pytest.approx((0.6 / 0.08) ** 2 / 2, rel=1e-3)


def measured(means: list[float], seed: int = 0) -> np.ndarray:
    """Scores of 3 runs on 40 patients about any curve, whatever law it follows."""
    rng = np.random.default_rng(seed)
    patient, run = rng.normal(0, 0.03, (1, 1, 40)), rng.normal(0, 0.01, (1, 3, 1))
    return np.array(means)[:, None, None] + patient + run + rng.normal(0, 0.02, (len(means), 3, 40))


@pytest.mark.parametrize(
    ("labels", "means"),
    [
        ([3, 10, 30], [0.30, 0.42, 0.72]),  # ever steeper, which the law never is
        ([3, 10, 30, 100], [0.40, 0.45, 0.55, 0.80]),
        ([5, 12, 25, 50], [0.70, 0.86, 0.83, 0.90]),
        ([5, 12, 25, 50], [0.70, 0.86, 0.88, 0.85]),
    ],
)
def test_a_start_reaches_its_own_result_with_the_labels_there_are(
    labels: list[int], means: list[float]
) -> None:
    scores = measured(means)
    result = relative_labels(labels, scores, scores)
    assert result.estimate <= result.high <= labels[-1]
    assert result.not_reached == 0.0
    assert "beyond" not in result.claim("ours", "ours")


def test_a_score_that_was_measured_is_in_reach() -> None:
    scores = measured([0.70, 0.86, 0.84, 0.91], seed=2)
    result = labels_needed([5, 12, 25, 50], scores, 0.90)
    assert 25 < result.estimate <= 50
    assert result.forecast("Dice").startswith("Dice 0.90 is reached with")


def test_a_law_that_misses_what_was_measured_is_called_a_guess_beyond_it() -> None:
    steep = labels_needed([3, 10, 30], measured([0.30, 0.42, 0.72]), 0.9)
    assert steep.misfit == pytest.approx(0.10, abs=0.02)
    for sentence in (steep.forecast("Dice"), steep.claim("ours", "scratch")):
        assert "misses the measured scores by up to 0.10" in sentence
    fits = labels_needed(LABELS, study((0.8, 0.6, 0.7), 0.03), quality=0.95)
    assert fits.misfit < 1e-3
    assert "misses" not in fits.forecast("Dice")


def test_what_is_not_reached_is_said_and_counted() -> None:
    result = labels_needed(LABELS, study((0.8, 0.6, 0.7), 0.03), quality=0.95)
    assert result.estimate == result.high == np.inf
    assert result.not_reached == 1.0
    assert result.text() == "not reached"
    assert "levels off" in result.forecast("Dice")
    assert result.claim("ours", "scratch").startswith("'ours' does not reach")


def test_a_score_near_the_plateau_is_reached_in_some_resamples() -> None:
    result = labels_needed(LABELS, study((0.8, 0.6, 0.7), 0.05), quality=0.79)
    assert 0 < result.not_reached < 1
    assert result.high == np.inf
    assert "not reached in" in result.forecast("Dice")


def test_a_forecast_names_the_patients_still_to_be_labelled() -> None:
    result = LabelsNeeded(0.9, 140.4, 112.0, np.inf, 0.04, 2, 100, 0.01, 0.95)
    assert result.forecast("Dice") == (
        "To reach Dice 0.90 you need about 40 more patients [12, no limit] than the 100 labelled "
        "so far (95 % interval; not reached in 4 % of the resamples); this is extrapolated."
    )
    reached = LabelsNeeded(0.9, 36.2, 2, 77.0, 0.0, 2, 100, 0.0, 0.95)
    assert reached.forecast("Dice") == (
        "Dice 0.90 is reached with 36 [≤ 2, 77] of the 100 labelled patients (95 % interval)."
    )


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.001, "less than 1 %"), (0.0051, "1 %"), (0.999, "more than 99 %"), (0.9, "90 %")],
)
def test_few_resamples_are_not_rounded_to_none(share: float, said: str) -> None:
    result = LabelsNeeded(0.9, 36.2, 2, 77.0, share, 2, 100, 0.0, 0.95)
    assert f"not reached in {said} of the resamples" in result.claim("ours", "scratch")


def test_what_cannot_be_said_is_not_said() -> None:
    gap = study((0.9, 0.6, 0.5), 0.02)
    gap[3] = np.nan
    result = labels_needed(LABELS, gap, quality=0.8)
    assert np.isnan([result.estimate, result.low, result.not_reached]).all()
    assert "cannot be said" in result.forecast("Dice")
    assert result.text() == "– [–, –]"


def test_the_difference_of_areas_is_paired() -> None:
    first = study((0.9, 0.6, 0.5), 0.1)
    second = first - 0.05 + np.random.default_rng(1).normal(0, 1e-4, first.shape)
    difference = area_difference(LABELS, first, second)
    found = (difference.estimate, difference.low, difference.high)
    assert found == pytest.approx([0.05] * 3, abs=1e-3)
    alone = area_interval(LABELS, first)
    assert alone.high - alone.low > 0.05
    with pytest.raises(DataError, match="same label"):
        area_difference(LABELS, first, second[:, :, 1:])
    with pytest.raises(DataError, match="same label"):
        relative_labels(LABELS, first, second[:, 1:])


def test_the_seed_decides_the_interval() -> None:
    scores = study((0.9, 0.6, 0.5), 0.05)
    assert labels_needed(LABELS, scores, 0.8, seed=1) == labels_needed(LABELS, scores, 0.8, seed=1)
    assert labels_needed(LABELS, scores, 0.8, seed=1) != labels_needed(LABELS, scores, 0.8, seed=2)


def test_a_limit_beside_what_is_not_reached_has_its_unit() -> None:
    found = LabelsNeeded(0.9, np.inf, 80.0, np.inf, 0.8, 4.0, 12.0, 0.0, 0.95)
    assert found.share_text() == "not reached [667 %, not reached]"
    assert found.text() == "not reached [80, not reached]"
    assert replace(found, estimate=6.0).share_text() == "50 % [667, not reached]"
