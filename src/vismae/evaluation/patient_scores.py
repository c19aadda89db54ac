"""From the scores of volumes to scores of patients, and to a mean over patients.

Patients, not slices or volumes, are what a study samples: every average and interval of a
segmentation score is over them.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from vismae.evaluation.statistics import bootstrap_interval, mean_of_defined

MEAN = "mean"
"""``class_name`` of the mean over classes."""


class ClassStatus(StrEnum):
    """What became of a class in a volume, or, as the most serious of its volumes, a patient."""

    ABSENT = "absent"
    SCORED = "scored"
    FALSE_POSITIVE = "false positive"
    MISSED = "missed"


# Rising: a patient's status is the most serious of the patient's volumes.
_SERIOUSNESS = list(ClassStatus)


def score_patients(volumes: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of ``SegmentationScorer.volumes`` over each patient's volumes.

    Returns:
        The columns of ``SegmentationScorer.frame``.
    """
    rows: list[dict[str, Any]] = []
    for patient_id, patient in volumes.groupby("patient_id", sort=False):
        rows += _patient_rows(str(patient_id), patient, "dice", "")
        rows += _patient_rows(str(patient_id), patient, "iou", "")
        for unit, part in patient.groupby("unit", sort=False):
            rows += _patient_rows(str(patient_id), part, "hd95", str(unit))
            rows += _patient_rows(str(patient_id), part, "nsd", str(unit))
        for name, part in patient.groupby("class_name", sort=False):
            outside = part.loc[part["truth_px"] == 0, "prediction_px"]
            rows.append(
                {
                    "patient_id": str(patient_id),
                    "class_name": name,
                    "metric": "false_positive_px",
                    "value": float(outside.sum()) if len(outside) else float("nan"),
                    "unit": "px",
                    "n_volumes": len(outside),
                    "status": _most_serious(part["status"]),
                    "n_classes": 1,
                }
            )
    return _frame(rows)


def _patient_rows(
    patient_id: str, patient: pd.DataFrame, metric: str, unit: str
) -> list[dict[str, Any]]:
    """Return a row for each class and one for the mean over classes."""
    rows = [
        {
            "patient_id": patient_id,
            "class_name": name,
            "metric": metric,
            "value": float(mean_of_defined(part[metric].to_numpy(float))),
            "unit": unit,
            "n_volumes": int(part[metric].notna().sum()),
            "status": _most_serious(part["status"]),
            "n_classes": 1,
        }
        for name, part in patient.groupby("class_name", sort=False)
    ]
    values = np.array([row["value"] for row in rows])
    mean = {
        **rows[0],
        "class_name": MEAN,
        "value": float(mean_of_defined(values)),
        "n_volumes": int(patient["volume_id"].nunique()),
        "status": _most_serious(row["status"] for row in rows),
        "n_classes": int(np.isfinite(values).sum()),
    }
    return [*rows, mean]


def _most_serious(statuses: Iterable[str]) -> str:
    return str(max((ClassStatus(s) for s in statuses), key=_SERIOUSNESS.index))


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = (
        "patient_id",
        "class_name",
        "metric",
        "value",
        "unit",
        "n_volumes",
        "status",
        "n_classes",
    )
    return pd.DataFrame(rows, columns=pd.Index(columns))


def summarise_patients(
    frame: pd.DataFrame, n: int = 2000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Return the mean over patients with its bootstrap interval, by class, metric and unit.

    Args:
        frame: As from ``SegmentationScorer.frame``.
        n: Bootstrap resamples of patients.
        level: Of the interval.
        seed: Of the resampling.

    Returns:
        Columns class_name, metric, unit, interval (``Interval``; its n are the patients with a
        value), and the number of patients of each status: n_missed, n_false_positive, n_absent.
    """
    rows: list[dict[str, Any]] = []
    keys = ["class_name", "metric", "unit"]
    for (class_name, metric, unit), part in frame.groupby(keys, sort=False):
        status = part["status"]
        rows.append(
            {
                "class_name": class_name,
                "metric": metric,
                "unit": unit,
                "interval": bootstrap_interval(
                    part["value"].to_numpy(float), n=n, level=level, seed=seed
                ),
                "n_missed": int((status == ClassStatus.MISSED).sum()),
                "n_false_positive": int((status == ClassStatus.FALSE_POSITIVE).sum()),
                "n_absent": int((status == ClassStatus.ABSENT).sum()),
            }
        )
    return pd.DataFrame(rows)
