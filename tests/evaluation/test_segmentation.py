"""Dice and IoU by hand, the rule for absent classes, and streaming."""

import numpy as np
import pytest

from vismae.core.errors import DataError
from vismae.evaluation.segmentation import (
    SegmentationScorer,
    SliceCounts,
    count_pixels,
    dice_from_counts,
    dice_per_patient,
    iou_from_counts,
)

NAMES = ("background", "liver", "spleen")
# Liver: 4 true, 3 predicted, 2 in common. Spleen: 2 true, 3 predicted, 1 in common.
TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]])
PREDICTION = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 2, 0], [0, 0, 2, 2]])


def value(scorer: SegmentationScorer, patient: str, class_name: str, metric: str) -> float:
    frame = scorer.frame().set_index(["patient_id", "class_name", "metric"])
    return float(frame.loc[(patient, class_name, metric), "value"])


def test_dice_and_iou_of_a_four_by_four_picture() -> None:
    counts = count_pixels(TRUTH, PREDICTION, 3)
    assert dice_from_counts(counts) == pytest.approx([4 / 7, 2 / 5])
    assert iou_from_counts(counts) == pytest.approx([2 / 5, 1 / 4])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, np.int64])
def test_any_whole_number_type_counts_the_same(dtype: type) -> None:
    counts = count_pixels(TRUTH.astype(dtype), PREDICTION.astype(dtype), 3)
    assert counts.intersection.tolist() == [2, 1]
    assert counts.truth.tolist() == [4, 2]
    assert counts.prediction.tolist() == [3, 3]


def test_slices_are_pooled_before_dividing() -> None:
    counts = SliceCounts(2)
    one, none = np.ones((2, 2), int), np.zeros((2, 2), int)
    counts.add("P1", "v", one, one)
    counts.add("P2", "v", one, none)
    counts.add("P1", "v", none, np.array([[1, 1], [1, 0]]))
    # Pooled: 2·4 / (4 + 7). The mean over slices would leave the invented pixels out.
    assert dice_per_patient(counts.volumes)["P1"] == pytest.approx([8 / 11])
    assert dice_per_patient(counts.volumes)["P2"] == pytest.approx([0.0])


def test_a_patients_dice_is_the_mean_over_volumes_that_hold_the_class() -> None:
    counts = SliceCounts(2)
    one, none = np.ones((2, 2), int), np.zeros((2, 2), int)
    counts.add("P1", "a", one, one)
    counts.add("P1", "b", one, none)
    counts.add("P1", "c", none, none)
    assert dice_per_patient(counts.volumes)["P1"] == pytest.approx([0.5])


def test_the_report_and_the_validation_log_give_the_same_dice() -> None:
    rng = np.random.default_rng(0)
    scorer, counts = SegmentationScorer(NAMES), SliceCounts(3)
    for patient, volume in [("A", "1"), ("A", "2"), ("B", "1")]:
        truth, prediction = rng.integers(0, 3, (2, 4, 9, 7))
        scorer.add_volume(patient, volume, truth, prediction)
        for pair in rng.permutation(np.stack([truth, prediction], axis=1)):
            counts.add(patient, volume, *pair)
    for patient, dice in dice_per_patient(counts.volumes).items():
        for k, name in enumerate(NAMES[1:]):
            assert value(scorer, patient, name, "dice") == pytest.approx(dice[k])


def test_an_absent_class_is_never_scored_in_silence() -> None:
    scorer = SegmentationScorer(("background", "both", "absent", "invented", "missed"))
    truth = np.array([[[1, 1, 4, 4]]])
    prediction = np.array([[[1, 1, 3, 0]]])
    scorer.add_volume("P", "v", truth, prediction)
    frame = scorer.frame()
    dice = frame[frame["metric"] == "dice"].set_index("class_name")
    assert dice["status"].to_dict() == {
        "both": "scored",
        "absent": "absent",
        "invented": "false positive",
        "missed": "missed",
        "mean": "missed",
    }
    assert np.isnan(dice["value"][["absent", "invented"]].to_numpy(float)).all()
    assert dice["value"]["missed"] == 0.0
    assert np.isnan(value(scorer, "P", "missed", "hd95"))
    assert value(scorer, "P", "missed", "nsd") == 0.0
    assert value(scorer, "P", "invented", "false_positive_px") == 1.0
    assert value(scorer, "P", "absent", "false_positive_px") == 0.0
    assert np.isnan(value(scorer, "P", "both", "false_positive_px"))
    assert dice["value"]["mean"] == pytest.approx(0.5)
    assert dice["n_classes"]["mean"] == 2


def test_the_background_is_never_scored() -> None:
    scorer = SegmentationScorer(NAMES)
    scorer.add_volume("P", "v", TRUTH[None], PREDICTION[None])
    assert set(scorer.frame()["class_name"]) == {"liver", "spleen", "mean"}


def test_slices_may_differ_in_size() -> None:
    scorer = SegmentationScorer(NAMES)
    scorer.add_volume(
        "P", "v", [TRUTH, np.ones((2, 6), int)], [PREDICTION, np.ones((2, 6), int)], (3, 1, 1)
    )
    assert value(scorer, "P", "liver", "dice") == pytest.approx(2 * 14 / (16 + 15))
    assert set(scorer.volumes()["dimensions"]) == {2}


def test_millimetres_and_pixels_are_never_averaged() -> None:
    scorer = SegmentationScorer(NAMES[:2])
    truth, prediction = np.zeros((1, 5, 5), int), np.zeros((1, 5, 5), int)
    truth[0, 0], prediction[0, 2] = 1, 1
    scorer.add_volume("P", "with", truth, prediction, (None, 4.0, 4.0))
    scorer.add_volume("P", "without", truth, prediction)
    frame = scorer.frame()
    rows = frame[(frame["metric"] == "hd95") & (frame["class_name"] == "liver")]
    assert dict(zip(rows["unit"], rows["value"], strict=True)) == {"mm": 8.0, "px": 2.0}
    assert rows["n_volumes"].tolist() == [1, 1]


def test_a_perfect_prediction_of_a_volume_scores_perfectly() -> None:
    scorer = SegmentationScorer(NAMES)
    volume = np.stack([TRUTH, TRUTH, TRUTH])
    scorer.add_volume("P", "v", volume, volume, (2.0, 1.0, 1.0))
    row = scorer.volumes().iloc[0]
    assert (row["dice"], row["iou"], row["hd95"], row["nsd"]) == (1.0, 1.0, 0.0, 1.0)
    assert (row["unit"], row["dimensions"], row["status"]) == ("mm", 3, "scored")


def test_before_any_volume_the_frame_is_empty_with_its_columns() -> None:
    frame = SegmentationScorer(NAMES).frame()
    assert len(frame) == 0
    assert list(frame.columns[:7]) == [
        "patient_id",
        "class_name",
        "metric",
        "value",
        "unit",
        "n_volumes",
        "status",
    ]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (TRUTH[None], PREDICTION[None, :3], "shape"),
        (TRUTH[None] + 1, PREDICTION[None], "values 1 to 3, but there are 3 classes"),
        (TRUTH[None] - 1, PREDICTION[None], "values -1 to 1"),
        (TRUTH[None].astype(float), PREDICTION[None], "float64"),
        (TRUTH[None], np.stack([PREDICTION, PREDICTION]), "1 slices of truth and 2"),
        (TRUTH[None][:0], PREDICTION[None][:0], "0 slices"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused_by_name(
    truth: np.ndarray, prediction: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        SegmentationScorer(NAMES).add_volume("P7", "knee", truth, prediction)
    assert "P7" in str(refusal.value)
    assert "knee" in str(refusal.value)


def test_a_volume_given_twice_is_refused() -> None:
    scorer = SegmentationScorer(NAMES)
    scorer.add_volume("P", "v", TRUTH[None], PREDICTION[None])
    with pytest.raises(DataError, match="added twice"):
        scorer.add_volume("P", "v", TRUTH[None], PREDICTION[None])


@pytest.mark.parametrize("names", [("background",), ("background", "a", "a"), ("b", "mean")])
def test_class_names_that_cannot_be_told_apart_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="Class names"):
        SegmentationScorer(names)
