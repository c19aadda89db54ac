"""Scores per patient, thresholds, and refusals."""

import numpy as np
import pytest

from vismae.core.errors import DataError
from vismae.evaluation.class_metrics import auroc
from vismae.evaluation.classification import (
    ClassificationScores,
    choose_thresholds,
    score_classification,
)

NAMES = ("normal", "benign", "malignant")


def cases(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[labels]
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def value(scores: ClassificationScores, class_name: str, metric: str) -> float:
    table = scores.table.set_index(["class_name", "metric"])
    return float(table.loc[(class_name, metric), "value"])


def test_a_patients_images_are_averaged_before_scoring() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.1, 0.9]])
    scores = score_classification(
        probabilities, np.array([0, 0, 1, 1]), ["A", "A", "B", "C"], ("no", "yes")
    )
    assert (scores.unit, scores.n_cases, scores.n_groups) == ("patient", 3, 3)
    assert scores.probabilities == pytest.approx(np.array([[0.55, 0.45], [0.3, 0.7], [0.1, 0.9]]))
    # Image by image one of four would be wrong; the patients are all right.
    assert value(scores, "all", "accuracy") == 1.0
    assert scores.confusion.tolist() == [[1, 0], [0, 2]]


def test_a_patient_with_images_of_two_labels_makes_images_the_unit() -> None:
    probabilities, labels = cases(30)
    groups = np.repeat(np.arange(15), 2)
    labels = np.repeat(labels[:15], 2)
    labels[1] = (labels[0] + 1) % 3
    scores = score_classification(probabilities, labels, groups, NAMES)
    assert (scores.unit, scores.n_cases) == ("image", 30)
    assert (scores.n_groups, scores.n_mixed_groups) == (15, 1)
    interval = scores.intervals(n=100)["interval"][0]
    assert interval.n == 15


def test_each_class_is_ranked_against_the_rest() -> None:
    probabilities, labels = cases()
    scores = score_classification(probabilities, labels, np.arange(90), NAMES)
    for k, name in enumerate(NAMES):
        expected = auroc(probabilities[:, k], labels == k)
        assert value(scores, name, "auroc") == pytest.approx(expected)
        curve = scores.roc[name]
        area = np.trapezoid(curve["sensitivity"], curve["false_positive_rate"])
        assert area == pytest.approx(expected)
    assert scores.confusion.sum() == 90
    assert np.trace(scores.confusion) / 90 == pytest.approx(value(scores, "all", "accuracy"))
    assert scores.reliability["n"].sum() == 90


def test_an_absent_class_is_undefined_says_why_and_leaves_the_mean() -> None:
    probabilities, labels = cases()
    scores = score_classification(
        probabilities, np.where(labels == 2, 0, labels), np.arange(90), NAMES
    )
    rows = scores.table.set_index(["class_name", "metric"])
    assert np.isnan(value(scores, "malignant", "auroc"))
    assert rows.loc[("malignant", "auroc"), "status"] == "no positive case"
    assert rows.loc[("malignant", "auroc"), "n_positive"] == 0
    assert rows.loc[("mean", "auroc"), "n_classes"] == 2
    assert rows.loc[("all", "balanced_accuracy"), "n_classes"] == 2
    assert len(scores.roc["malignant"]) == 0


def test_one_class_only_leaves_no_ranking_at_all() -> None:
    probabilities, _ = cases(5)
    scores = score_classification(probabilities, np.zeros(5, int), np.arange(5), NAMES)
    rows = scores.table.set_index(["class_name", "metric"])
    assert np.isnan(value(scores, "mean", "auroc"))
    assert rows.loc[("normal", "auroc"), "status"] == "no negative case"
    assert rows.loc[("mean", "auroc"), "status"] == "undefined"


def test_multi_label_scores_each_class_of_its_own() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((40, 3)) < 0.4).astype(int)
    probabilities = np.clip(0.5 * rng.random((40, 3)) + 0.5 * truth, 0, 1)
    scores = score_classification(
        probabilities, truth, np.arange(40), NAMES, multi_label=True, thresholds=(0.5, 0.5, 0.5)
    )
    assert scores.decision == "threshold"
    assert scores.confusion.shape == (3, 2, 2)
    assert value(scores, "mean", "auroc") == 1.0
    assert value(scores, "mean", "sensitivity") == 1.0


def test_thresholds_lie_half_way_between_the_classes_they_separate() -> None:
    positive = np.array([0.1, 0.2, 0.6, 0.8])
    probabilities = np.stack([1 - positive, positive], axis=1)
    assert choose_thresholds(probabilities, np.array([0, 0, 1, 1])) == pytest.approx((0.6, 0.4))


def test_thresholds_are_the_best_of_all_possible() -> None:
    probabilities, labels = cases(80, seed=5)
    for k, threshold in enumerate(choose_thresholds(probabilities, labels)):
        scores, positive = probabilities[:, k], labels == k

        def youden(cut: float, scores=scores, positive=positive) -> float:
            return float((scores[positive] >= cut).mean() - (scores[~positive] >= cut).mean())

        assert youden(threshold) == pytest.approx(max(youden(cut) for cut in scores))


def test_a_class_that_validation_does_not_hold_gets_one_half() -> None:
    probabilities, labels = cases(30)
    chosen = choose_thresholds(probabilities, np.where(labels == 1, 0, labels))
    assert chosen[1] == 0.5
    assert all(0 <= threshold <= 1 for threshold in chosen)


def test_intervals_hold_their_estimates_and_calibration_error_has_no_limits() -> None:
    probabilities, labels = cases()
    table = score_classification(probabilities, labels, np.arange(90), NAMES).intervals(n=300)
    for row in table.itertuples():
        assert row.interval.estimate == pytest.approx(row.value)
        if row.metric == "ece":
            assert np.isnan(row.interval.low)
        else:
            assert row.interval.low <= row.interval.estimate <= row.interval.high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.ones((4, 3)) * 0.9}, "sum to 1"),
        ({"probabilities": np.full((4, 3), np.nan)}, "between 0 and 1"),
        ({"probabilities": np.full((4, 2), 0.5)}, "3 class names do not fit"),
        ({"labels": np.array([0, 1, 2, 3])}, "range from 0 to 3"),
        ({"labels": np.array([0.0, 1.0, 2.0, 1.0])}, "float64"),
        ({"labels": np.eye(4, 3, dtype=int)}, r"shape \(4, 3\)"),
        ({"group_ids": ["A"]}, "1 group ids"),
        ({"class_names": ("a", "b", "all")}, "Class names"),
        ({"thresholds": (0.5,)}, "1 thresholds for 3 classes"),
        ({"multi_label": True}, "needed with multi_label"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict, message: str) -> None:
    given = {
        "probabilities": np.full((4, 3), 1 / 3),
        "labels": np.array([0, 1, 2, 1]),
        "group_ids": ["A", "B", "C", "D"],
        "class_names": NAMES,
    }
    with pytest.raises(DataError, match=message):
        score_classification(**{**given, **change})


def rare(n_rare: int) -> tuple[np.ndarray, np.ndarray]:
    """Forty cases of one class and few of another, of which a third class is never true."""
    labels = np.repeat([0, 1], [40, n_rare])
    probabilities = np.tile([0.8, 0.15, 0.05], (len(labels), 1))
    probabilities[:, 0] -= 1e-4 * np.arange(len(labels))
    probabilities[:, 2] += 1e-4 * np.arange(len(labels))
    return probabilities, labels


def test_a_resample_without_the_rare_class_does_not_raise_the_balanced_accuracy() -> None:
    probabilities, labels = rare(2)
    groups = np.arange(len(labels))
    table = score_classification(probabilities, labels, groups, NAMES).intervals(n=300)
    intervals = table.set_index(["class_name", "metric"])["interval"]
    # One class is called always: half right, whoever is drawn.
    assert intervals["all", "balanced_accuracy"].text() == "0.500 [–]"
    assert intervals["mean", "sensitivity"].text() == "0.500 [–]"
    assert intervals["mean", "f1"].high < 0.51
    # What needs no class but its own, or none, keeps its limits.
    assert np.isfinite(intervals["all", "accuracy"].low)


def test_a_class_missing_from_most_resamples_leaves_a_mean_without_limits() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 20 + [1, 2, 3])
    probabilities = rng.dirichlet(np.ones(4), len(labels))
    names = (*NAMES, "other")
    scores = score_classification(probabilities, labels, np.arange(len(labels)), names)
    table = scores.intervals(n=300).set_index(["class_name", "metric"])
    # The three rare ones are all drawn in about a quarter of the resamples.
    for name, metric in (("all", "balanced_accuracy"), ("mean", "auroc"), ("mean", "auprc")):
        assert np.isfinite(table.loc[(name, metric), "interval"].estimate)
        assert np.isnan(table.loc[(name, metric), "interval"].low)
