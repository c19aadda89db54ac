"""What a classifier says as rows of ``predictions.csv``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vismae.core.model_card import TaskCard


def patient_rows(images: Sequence[dict[str, Any]], task: TaskCard) -> list[dict[str, Any]]:
    """Return a row for each patient that files name: the mean over all images."""
    columns = [f"probability_{name}" for name in task.classes]
    patients: dict[str, list[dict[str, Any]]] = {}
    for row in images:
        if row["level"] == "image" and row["patient_id"]:
            patients.setdefault(row["patient_id"], []).append(row)
    rows: list[dict[str, Any]] = []
    for patient, own in sorted(patients.items()):
        mean = np.mean([[float(row[column]) for column in columns] for row in own], axis=0)
        names = {"level": "patient", "input": "", "name": "", "volume": "", "patient_id": patient}
        rows.append({**names, "slice": "", **class_cells(mean, task), "flags": ""})
    return rows


def class_cells(probabilities: np.ndarray, task: TaskCard) -> dict[str, Any]:
    """Return what a row says of the classes, probabilities (K,)."""
    cells: dict[str, Any] = {
        f"probability_{name}": round(float(value), 6)
        for name, value in zip(task.classes, probabilities, strict=True)
    }
    return {"predicted": "|".join(predicted_classes(probabilities, task)), **cells}


def predicted_classes(probabilities: np.ndarray, task: TaskCard) -> tuple[str, ...]:
    """Return the most probable class, or of several questions those above their thresholds."""
    if not task.multi_label:
        return (task.classes[int(np.argmax(probabilities))],)
    thresholds = task.thresholds or (0.5,) * len(task.classes)
    return tuple(
        name
        for name, value, least in zip(task.classes, probabilities, thresholds, strict=True)
        if value >= least
    )
