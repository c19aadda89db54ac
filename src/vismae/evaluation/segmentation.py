"""Scores of label maps: Dice, IoU, HD95 and surface Dice for each patient and class.

Overlap is counted in pixels pooled over all slices of a volume, so a score does not depend on how
slices were batched; a patient's score is the mean over the patient's volumes. Class 0 is the
background and is never scored: entry k of every array belongs to class k + 1.

A class that a volume does not hold is never scored 0 or 1 in silence (``ClassStatus``):

=================  ====================  ==================================================
truth holds it     prediction holds it   scores
=================  ====================  ==================================================
no                 no                    all NaN, counted as ``absent``
no                 yes                   all NaN, counted as ``false positive`` with its pixels
yes                no                    Dice, IoU, NSD 0, HD95 NaN, counted as ``missed``
yes                yes                   all defined, ``scored``
=================  ====================  ==================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer

from vismae.core.errors import DataError
from vismae.evaluation.patient_scores import MEAN, ClassStatus, score_patients
from vismae.evaluation.statistics import mean_of_defined
from vismae.evaluation.surface import SurfaceScores, VolumeSpacing, score_surfaces

_VOLUME_COLUMNS = (
    "patient_id",
    "volume_id",
    "class_name",
    "status",
    "intersection_px",
    "prediction_px",
    "truth_px",
    "dice",
    "iou",
    "hd95",
    "nsd",
    "unit",
    "dimensions",
    "unmatched",
)


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of each class in both label maps, in the prediction, and in the truth."""

    intersection: Integer[np.ndarray, " K"]
    prediction: Integer[np.ndarray, " K"]
    truth: Integer[np.ndarray, " K"]

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(
            self.intersection + other.intersection,
            self.prediction + other.prediction,
            self.truth + other.truth,
        )

    @property
    def status(self) -> list[ClassStatus]:
        """What became of each class."""
        rule = {
            (False, False): ClassStatus.ABSENT,
            (False, True): ClassStatus.FALSE_POSITIVE,
            (True, False): ClassStatus.MISSED,
            (True, True): ClassStatus.SCORED,
        }
        return [rule[t, p] for t, p in zip(self.truth > 0, self.prediction > 0, strict=True)]


def count_pixels(
    truth: Integer[np.ndarray, "H W"], prediction: Integer[np.ndarray, "H W"], n_classes: int
) -> PixelCounts:
    """Count the pixels of classes 1 to ``n_classes`` - 1 in a pair of label maps.

    Raises:
        DataError: The shapes differ, or a value is no class.
    """
    if truth.shape != prediction.shape:
        raise DataError(
            f"The prediction has shape {prediction.shape}, the truth {truth.shape}. "
            "Bring the prediction back to the truth's own grid before scoring."
        )
    for name, label_map in (("truth", truth), ("prediction", prediction)):
        if label_map.dtype.kind not in "biu":
            raise DataError(f"The {name} holds {label_map.dtype} values; class numbers are needed.")
        if label_map.size and not 0 <= label_map.min() <= label_map.max() < n_classes:
            raise DataError(
                f"The {name} holds values {label_map.min()} to {label_map.max()}, but there are "
                f"{n_classes} classes (0 to {n_classes - 1}, background included). Map the values "
                "with task.label_values, or name every class in task.classes."
            )
    pairs = truth.ravel().astype(np.int64) * n_classes + prediction.ravel().astype(np.int64)
    joint = np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
    return PixelCounts(np.diag(joint)[1:].copy(), joint.sum(axis=0)[1:], joint.sum(axis=1)[1:])


def dice_from_counts(counts: PixelCounts) -> Float[np.ndarray, " K"]:
    """Return 2·|A∩B| / (|A| + |B|) for each class; NaN where the truth does not hold it."""
    return _ratio(2 * counts.intersection, counts.prediction + counts.truth, counts.truth > 0)


def iou_from_counts(counts: PixelCounts) -> Float[np.ndarray, " K"]:
    """Return |A∩B| / |A∪B| for each class; NaN where the truth does not hold it."""
    union = counts.prediction + counts.truth - counts.intersection
    return _ratio(counts.intersection, union, counts.truth > 0)


def _ratio(part: np.ndarray, whole: np.ndarray, defined: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=defined)


class SliceCounts:
    """Pixel counts pooled over the slices of each volume, which may come in any order.

    Args:
        n_classes: Number of classes with the background.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.volumes: dict[tuple[str, str], PixelCounts] = {}
        """Counts by patient_id and volume_id."""

    def add(
        self,
        patient_id: str,
        volume_id: str,
        truth: Integer[np.ndarray, "H W"],
        prediction: Integer[np.ndarray, "H W"],
    ) -> None:
        """Add one slice.

        Raises:
            DataError: See ``count_pixels``.
        """
        key = (patient_id, volume_id)
        try:
            counts = count_pixels(truth, prediction, self.n_classes)
        except DataError as error:
            raise DataError(f"Patient '{patient_id}', volume '{volume_id}': {error}") from None
        self.volumes[key] = self.volumes[key] + counts if key in self.volumes else counts


def dice_per_patient(
    volumes: Mapping[tuple[str, str], PixelCounts],
) -> dict[str, Float[np.ndarray, " K"]]:
    """Return the Dice of each class, averaged over each patient's volumes.

    Args:
        volumes: Counts by patient_id and volume_id, as in ``SliceCounts.volumes``.

    Returns:
        patient_id -> Dice; NaN where no volume's truth holds the class.
    """
    by_patient: dict[str, list[np.ndarray]] = {}
    for (patient_id, _), counts in volumes.items():
        by_patient.setdefault(patient_id, []).append(dice_from_counts(counts))
    return {patient: mean_of_defined(np.stack(dice)) for patient, dice in by_patient.items()}


class SegmentationScorer:
    """Scores volumes one after the other and keeps their numbers, not their pixels.

    Args:
        class_names: In the order of the logits; the first is the background.
        nsd_tolerance: Of the surface Dice, in mm where spacing is known, else px.

    Raises:
        DataError: There is no class beside the background, or a name is given twice or reserved.
    """

    def __init__(self, class_names: Sequence[str], nsd_tolerance: float = 2.0) -> None:
        if len(class_names) < 2 or len({*class_names, MEAN}) != len(class_names) + 1:
            raise DataError(
                f"Class names {list(class_names)}: a background and at least one class are needed, "
                f"each name once, and none called '{MEAN}'."
            )
        self.class_names = tuple(class_names[1:])
        self.nsd_tolerance = nsd_tolerance
        self._counts = SliceCounts(len(class_names))
        self._surfaces: dict[tuple[str, str], SurfaceScores] = {}

    def add_volume(
        self,
        patient_id: str,
        volume_id: str,
        truth: Integer[np.ndarray, "S H W"] | Sequence[Integer[np.ndarray, "_ _"]],
        prediction: Integer[np.ndarray, "S H W"] | Sequence[Integer[np.ndarray, "_ _"]],
        spacing_mm: VolumeSpacing | None = None,
        contiguous: bool = True,
    ) -> None:
        """Score one volume.

        Args:
            patient_id: Whose it is.
            volume_id: Its name; once for each patient.
            truth: Label maps in slice order; slices may differ in size.
            prediction: Label maps of the same shapes.
            spacing_mm: Between slices, rows and columns; None or NaN where unknown.
            contiguous: No slice between the first and the last is left out; else the surfaces are
                scored slice by slice.

        Raises:
            DataError: The volume is empty or was added before, or see ``count_pixels``.
        """
        key = (patient_id, volume_id)
        if key in self._surfaces:
            raise DataError(
                f"Patient '{patient_id}': volume '{volume_id}' was added twice. Give each volume "
                "its own volume_id and add all its slices at once."
            )
        if len(truth) == 0 or len(truth) != len(prediction):
            raise DataError(
                f"Patient '{patient_id}', volume '{volume_id}': {len(truth)} slices of truth and "
                f"{len(prediction)} of prediction; the same number, at least one, is needed."
            )
        counts = SliceCounts(len(self.class_names) + 1)
        for truth_slice, prediction_slice in zip(truth, prediction, strict=True):
            counts.add(patient_id, volume_id, truth_slice, prediction_slice)
        self._counts.volumes[key] = counts.volumes[key]
        self._surfaces[key] = score_surfaces(
            list(truth),
            list(prediction),
            len(self.class_names) + 1,
            self.nsd_tolerance,
            spacing_mm,
            contiguous,
        )

    def volumes(self) -> pd.DataFrame:
        """Return one row for each volume and class: every number the scores are made of.

        Columns: patient_id, volume_id, class_name, status, intersection_px, prediction_px,
        truth_px, dice, iou, hd95, nsd, unit (of hd95 and of the tolerance), dimensions (3 or 2:
        how surfaces were measured), unmatched (see ``SurfaceScores``).
        """
        rows: list[dict[str, Any]] = []
        for (patient_id, volume_id), counts in self._counts.volumes.items():
            surfaces = self._surfaces[patient_id, volume_id]
            dice, iou, status = dice_from_counts(counts), iou_from_counts(counts), counts.status
            rows.extend(
                {
                    "patient_id": patient_id,
                    "volume_id": volume_id,
                    "class_name": name,
                    "status": str(status[k]),
                    "intersection_px": int(counts.intersection[k]),
                    "prediction_px": int(counts.prediction[k]),
                    "truth_px": int(counts.truth[k]),
                    "dice": dice[k],
                    "iou": iou[k],
                    "hd95": surfaces.hd95[k],
                    "nsd": surfaces.nsd[k],
                    "unit": surfaces.unit,
                    "dimensions": surfaces.dimensions,
                    "unmatched": int(surfaces.unmatched[k]),
                }
                for k, name in enumerate(self.class_names)
            )
        return pd.DataFrame(rows, columns=pd.Index(_VOLUME_COLUMNS))

    def frame(self) -> pd.DataFrame:
        """Return the scores of each patient in long format.

        Columns:
            patient_id.
            class_name: A class, or ``mean`` over the classes with a value.
            metric: ``dice``, ``iou``, ``hd95``, ``nsd``; ``false_positive_px`` are the pixels
                predicted in volumes whose truth does not hold the class (NaN: all hold it).
            value: Mean over the patient's volumes that have one.
            unit: ``mm`` or ``px`` of hd95 and of the tolerance of nsd; else ''. A patient with
                volumes of both units has a row for each.
            n_volumes: Volumes in the value (in ``mean``: volumes of the patient).
            status: The most serious ``ClassStatus`` of the volumes.
            n_classes: Classes in the value: 1, or the number in the mean.
        """
        return score_patients(self.volumes())
