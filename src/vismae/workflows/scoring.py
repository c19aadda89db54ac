"""Scores of a model on rows of a store; validation and evaluation call the same lines."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from vismae.core.errors import DataError
from vismae.core.model_card import TaskCard
from vismae.data.labels import apply_mapping, encode_labels, refuse_not_annotated
from vismae.data.store import Store
from vismae.evaluation.classification import (
    ALL,
    MEAN,
    ClassificationScores,
    score_classification,
)
from vismae.evaluation.segmentation import SegmentationScorer, SliceCounts, dice_per_patient
from vismae.inference.predictor import Predictor

logger = logging.getLogger(__name__)


class SaysLabelMaps(Protocol):
    """What gives label maps of rows of a store, as ``Predictor`` does."""

    def label_maps(self, store: Store, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield row number and predicted classes, (h, w) int64 in the image's own size."""
        ...


class SaysClasses(Protocol):
    """What gives class probabilities of rows of a store, as ``Predictor`` does."""

    def probabilities(
        self, store: Store, rows: np.ndarray, multi_label: bool = False
    ) -> np.ndarray:
        """Return class probabilities of each row, (N, K)."""
        ...


def label_values_of(task: TaskCard, store: Store) -> dict[int, int]:
    """Return the model's reading of label values; 0/1 and 0/255 mean the same of one class.

    Names decide over numbers: each store numbers the structures of its own DICOM objects.

    Raises:
        DataError: The label maps are annotated in part, or hold structures of other names under
            the model's numbers.
    """
    known = dict(task.label_values or {})
    classes = {value: store.classes.get(value, "") for value in store.label_values}
    # What the model's task took for background counts as background here too.
    scored = {value: name for value, name in classes.items() if known.get(value) != 0}
    refuse_not_annotated(scored, store.address)
    unknown = sorted(set(store.label_values) - set(known))
    if len(task.classes) == 2 and len(unknown) == 1 and set(store.label_values) <= {0, *unknown}:
        known = {0: 0, unknown[0]: 1}
    return _by_name(task.classes, known, classes, store.address)


def _by_name(
    classes: tuple[str, ...], known: dict[int, int], names: dict[int, str], where: str
) -> dict[int, int]:
    """Return ``known``, or another reading where the store has the model's classes elsewhere.

    Args:
        classes: Of the model, background first.
        known: Value -> class index, as the model's own data had it.
        names: Value -> name, of the values in the store; empty where it has none.
        where: The store, for messages.
    """
    numbers = {name: index for index, name in enumerate(classes) if index > 0}
    named = {value: numbers[name] for value, name in names.items() if name in numbers}
    others = {value: name for value, name in names.items() if value > 0 and value not in named}
    if any(known.get(value) != index for value, index in named.items()):
        if not others:
            return {0: 0, **named}
        found = ", ".join(f"{value} '{name}'" for value, name in sorted(others.items()))
        raise DataError(
            f"{where} numbers the classes in another way than the model's own data, and has some "
            f"that the model does not: {found}. The model's classes are {', '.join(classes[1:])}. "
            "Leave the others out of the label maps."
        )
    for value, name in others.items():
        if name and known.get(value, 0) > 0:
            logger.warning(
                "%s calls value %d '%s'; it is scored as the model's class '%s'",
                where,
                value,
                name,
                classes[known[value]],
            )
    return known


def mean_dice(
    predictor: Predictor,
    store: Store,
    rows: np.ndarray,
    label_values: dict[int, int],
    n_classes: int,
) -> float:
    """Return Dice per patient, averaged over the classes a patient has, then over patients.

    NaN when no patient has any class.
    """
    counts = SliceCounts(n_classes)
    patients, volumes = store.compact("patient_id"), store.compact("volume_id")
    for row, prediction in predictor.label_maps(store, rows):
        truth = _truth(store, row, label_values)
        counts.add(str(patients[row]), str(volumes[row]), truth, prediction)
    by_patient = [
        float(np.nanmean(dice))
        for dice in dice_per_patient(counts.volumes).values()
        if np.isfinite(dice).any()
    ]
    return float(np.mean(by_patient)) if by_patient else float("nan")


@dataclass(frozen=True)
class SegmentationResult:
    """Scores of label maps, with every volume's numbers and where its slices are.

    Attributes:
        patients: One row per patient, class and metric (``SegmentationScorer.frame``).
        volumes: One row per volume and class (``SegmentationScorer.volumes``).
        label_values: How values of the label maps were read: raw value -> class.
    """

    patients: pd.DataFrame
    volumes: pd.DataFrame
    label_values: dict[int, int]


def score_label_maps(
    predictor: SaysLabelMaps,
    store: Store,
    rows: np.ndarray,
    label_values: dict[int, int],
    classes: tuple[str, ...],
    nsd_tolerance: float,
) -> SegmentationResult:
    """Score predicted label maps volume by volume; memory holds one volume at a time."""
    scorer = SegmentationScorer(classes, nsd_tolerance)
    volume_keys = ["patient_id", "volume_id"]
    index = store.index.iloc[rows].assign(row=rows).sort_values([*volume_keys, "slice_index"])
    # One stream over all volumes: batches stay full where a volume is a single image.
    predicted = predictor.label_maps(store, index["row"].to_numpy())
    for (patient, volume), members in index.groupby(volume_keys, sort=False):
        ordered = members["row"].to_numpy()
        predictions = [next(predicted)[1] for _ in ordered]
        first = members.iloc[0]
        spacing = (
            float(first["spacing_slice_mm"]),
            float(first["spacing_row_mm"]),
            float(first["spacing_column_mm"]),
        )
        steps = np.diff(members["slice_index"].to_numpy())
        scorer.add_volume(
            str(patient),
            str(volume),
            [_truth(store, int(row), label_values) for row in ordered],
            predictions,
            spacing,
            contiguous=bool((steps == 1).all()),
        )
    return SegmentationResult(scorer.frame(), scorer.volumes(), label_values)


def score_classes(
    predictor: SaysClasses,
    store: Store,
    rows: np.ndarray,
    classes: tuple[str, ...],
    multi_label: bool,
    thresholds: tuple[float, ...] | None,
) -> ClassificationScores:
    """Score predicted class probabilities per patient."""
    index = store.index.iloc[rows]
    return score_classification(
        predictor.probabilities(store, rows, multi_label),
        encode_labels(index["label"], classes, multi_label).astype(np.int64),
        index["patient_id"].astype(str).to_numpy(),
        classes,
        multi_label,
        thresholds,
    )


def selection_metric(kind: str, multi_label: bool) -> str:
    """Name what a run's weights are chosen by on the validation patients."""
    if kind == "segment":
        return "mean Dice"
    return "mean AUROC" if multi_label else "balanced accuracy"


def selection_score(scores: ClassificationScores) -> float:
    """Return the score that a classifier's weights are chosen by.

    Balanced accuracy. Where several classes may be true at once, the mean AUROC: their thresholds
    are chosen after the weights, and at 0.5 a rare class may never be found at any step, so that
    all steps would score alike and the first be kept.
    """
    if scores.multi_label:
        return score_of_all(scores, "auroc", MEAN)
    return score_of_all(scores, "balanced_accuracy")


def score_of_all(scores: ClassificationScores, metric: str, class_name: str = ALL) -> float:
    """Return a score that concerns all classes.

    Args:
        scores: Of all classes.
        metric: Such as ``balanced_accuracy``.
        class_name: ``MEAN`` for the mean of a score that each class has of its own.
    """
    table = scores.table
    chosen = table[(table["metric"] == metric) & (table["class_name"] == class_name)]
    return float(chosen["value"].iloc[0])


def _truth(store: Store, row: int, label_values: dict[int, int]) -> np.ndarray:
    label_map = store.read(row).label_map
    if label_map is None:
        raise ValueError(f"row {row} has no label map; select rows with has_label_map first")
    return apply_mapping(label_map, label_values, where=f"{store.address}, row {row}")
