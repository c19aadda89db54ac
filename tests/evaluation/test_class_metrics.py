"""Formulas of classification against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from vismae.evaluation.class_metrics import auprc, auroc, measure, without_lost_means


@pytest.mark.parametrize("decimals", [1, 6])
def test_auroc_and_auprc_are_scikit_learns_with_and_without_ties(decimals: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        positive = rng.random(40) < 0.3
        positive[:2] = True, False
        scores = np.round(rng.random(40) + 0.3 * positive, decimals)
        assert auroc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores))
        assert auprc(scores, positive) == pytest.approx(
            metrics.average_precision_score(positive, scores)
        )


def test_ranking_needs_a_positive_and_auroc_a_negative_case_too() -> None:
    scores = np.array([0.2, 0.9])
    every, none = np.ones(2, bool), np.zeros(2, bool)
    assert np.isnan([auroc(scores, every), auroc(scores, none), auprc(scores, none)]).all()
    assert auprc(scores, every) == 1.0


def softmax_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 60)
    logits = rng.normal(size=(60, 4)) + 1.5 * np.eye(4)[labels]
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_single_label_scores_are_scikit_learns() -> None:
    probabilities, labels = softmax_case(0)
    decided = probabilities.argmax(axis=1)
    scores = measure(probabilities, np.eye(4, dtype=bool)[labels], None, multi_label=False)
    f1 = metrics.f1_score(labels, decided, average=None)
    recall = metrics.recall_score(labels, decided, average=None)
    assert scores["f1"] == pytest.approx([*f1, f1.mean()])
    assert scores["sensitivity"] == pytest.approx([*recall, recall.mean()])
    expected = {
        "accuracy": metrics.accuracy_score(labels, decided),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, decided),
        "brier": ((probabilities - np.eye(4)[labels]) ** 2).sum(axis=1).mean(),
    }
    for name, value in expected.items():
        assert scores[name] == pytest.approx([value]), name
    assert scores["auroc"][-1] == pytest.approx(
        metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )


def test_multi_label_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((50, 3)) < 0.4
    probabilities = np.clip(rng.random((50, 3)) * 0.6 + 0.4 * truth, 0, 1)
    cut = (0.4, 0.5, 0.6)
    decided = probabilities >= np.array(cut)
    scores = measure(probabilities, truth, cut, multi_label=True)
    f1 = metrics.f1_score(truth, decided, average=None)
    specificity = [
        metrics.recall_score(~truth[:, k], ~decided[:, k]) for k in range(truth.shape[1])
    ]
    balanced = [metrics.balanced_accuracy_score(truth[:, k], decided[:, k]) for k in range(3)]
    assert scores["f1"] == pytest.approx([*f1, np.mean(f1)])
    assert scores["specificity"] == pytest.approx([*specificity, np.mean(specificity)])
    assert scores["balanced_accuracy"] == pytest.approx([np.mean(balanced)])
    assert scores["exact_match"] == pytest.approx([metrics.accuracy_score(truth, decided)])
    assert scores["accuracy"] == pytest.approx([1 - metrics.hamming_loss(truth, decided)])


def test_thresholds_change_sensitivity_but_not_the_largest_probability_decision() -> None:
    probabilities, labels = softmax_case(1)
    truth = np.eye(4, dtype=bool)[labels]
    plain = measure(probabilities, truth, None, multi_label=False)
    eager = measure(probabilities, truth, (0.0, 0.0, 0.0, 0.0), multi_label=False)
    assert eager["sensitivity"] == [1.0] * 5
    assert eager["specificity"] == [0.0] * 5
    assert eager["f1"] == plain["f1"]
    assert eager["accuracy"] == plain["accuracy"]


def test_a_class_without_cases_is_nan_and_left_out_of_the_means() -> None:
    probabilities, labels = softmax_case(2)
    labels = np.where(labels == 3, 0, labels)
    scores = measure(probabilities, np.eye(4, dtype=bool)[labels], None, multi_label=False)
    for name in ("auroc", "auprc", "f1", "sensitivity"):
        assert np.isnan(scores[name][3]), name
        assert scores[name][4] == pytest.approx(np.mean(scores[name][:3])), name
    assert scores["balanced_accuracy"] == pytest.approx([np.mean(scores["sensitivity"][:3])])
    assert np.isfinite(scores["specificity"]).all()


def test_with_several_classes_true_a_mean_needs_their_negative_cases_too() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 1]], dtype=bool)
    probabilities = np.array([[0.9, 0.2], [0.8, 0.7], [0.3, 0.6]])
    whole = measure(probabilities, truth, None, multi_label=True)
    drawn = measure(probabilities[[0, 1, 1]], truth[[0, 1, 1]], None, multi_label=True)
    kept = without_lost_means(drawn, whole, multi_label=True)
    assert np.isnan(kept["balanced_accuracy"][0])
    assert np.isnan(kept["specificity"][-1])
    assert np.isfinite(kept["sensitivity"][-1])
    assert kept["accuracy"] == drawn["accuracy"]
    assert without_lost_means(whole, whole, multi_label=True) == whole
