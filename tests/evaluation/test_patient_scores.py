"""Summaries over patients."""

import numpy as np
import pytest

from vismae.evaluation.patient_scores import summarise_patients
from vismae.evaluation.segmentation import SegmentationScorer

ONE, NONE = np.ones((1, 3, 3), int), np.zeros((1, 3, 3), int)


def scored() -> SegmentationScorer:
    scorer = SegmentationScorer(("background", "tumour"))
    scorer.add_volume("hit", "v", ONE, ONE)
    scorer.add_volume("missed", "v", ONE, NONE)
    scorer.add_volume("healthy", "v", NONE, NONE)
    scorer.add_volume("healthy, alarmed", "v", NONE, ONE)
    return scorer


def test_the_mean_is_over_patients_with_a_value_and_the_others_are_counted() -> None:
    summary = summarise_patients(scored().frame()).set_index(["class_name", "metric"])
    row = summary.loc[("tumour", "dice")]
    assert row["interval"].estimate == pytest.approx(0.5)
    assert row["interval"].n == 2
    assert (row["n_missed"], row["n_false_positive"], row["n_absent"]) == (1, 1, 1)
    assert summary.loc[("tumour", "hd95"), "interval"].n == 1
    assert summary.loc[("tumour", "false_positive_px"), "interval"].estimate == 4.5


def test_many_volumes_of_one_patient_weigh_no_more_than_one() -> None:
    scorer = SegmentationScorer(("background", "tumour"))
    for k in range(9):
        scorer.add_volume("A", f"v{k}", ONE, ONE)
    scorer.add_volume("B", "v", ONE, NONE)
    summary = summarise_patients(scorer.frame()).set_index(["class_name", "metric"])
    assert summary.loc[("tumour", "dice"), "interval"].estimate == pytest.approx(0.5)


def test_a_patients_status_is_the_most_serious_of_the_volumes() -> None:
    scorer = SegmentationScorer(("background", "tumour"))
    for patient, volumes in {
        "a": [(NONE, NONE), (ONE, ONE)],
        "b": [(ONE, ONE), (NONE, ONE)],
        "c": [(NONE, ONE), (ONE, NONE)],
    }.items():
        for k, (truth, prediction) in enumerate(volumes):
            scorer.add_volume(patient, str(k), truth, prediction)
    frame = scorer.frame()
    dice = frame[(frame["metric"] == "dice") & (frame["class_name"] == "tumour")]
    assert dice["status"].tolist() == ["scored", "false positive", "missed"]
    assert dice["n_volumes"].tolist() == [1, 1, 1]
