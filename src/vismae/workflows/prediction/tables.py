"""The tables of a prediction: classes, volumes, and what could not be predicted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vismae.core.errors import UnreadableFileError, VismaeError
from vismae.core.model_card import TaskCard
from vismae.core.rundir import write_text
from vismae.files.dicom_text import writable
from vismae.workflows.prediction.class_rows import patient_rows
from vismae.workflows.prediction.inputs import Failure, Input, is_no_input
from vismae.workflows.prediction.records import Record

FAILED = "failed.csv"


def write_tables(folder: Path, records: list[Record], task: TaskCard | None, weights: str) -> None:
    """Write ``predictions.csv`` or ``volumes.csv``, whichever has rows; none stays without rows.

    Args:
        folder: Where to.
        records: Of this run and of earlier ones, under whatever settings.
        task: Of the models that answer now.
        weights: Of the same; a patient's mean is over their answers alone.
    """
    images = [row for record in records for row in record.images]
    volumes = [row for record in records for row in record.volumes]
    if images and task is not None:
        own = [row for record in records if record.weights == weights for row in record.images]
        images = [*images, *patient_rows(own, task)]
    for name, rows in (("predictions.csv", images), ("volumes.csv", volumes)):
        if rows:
            write_text(folder / name, _table(rows).to_csv(index=False))
        else:
            (folder / name).unlink(missing_ok=True)  # of inputs that have no result any more


def failure_from(item: Input, error: VismaeError | MemoryError) -> Failure:
    """Return an input that could not be read or answered, with the reason."""
    if isinstance(error, UnreadableFileError):
        left_out = is_no_input(str(error.reason), item.named)
        return Failure(item.source, str(error.reason), str(error), left_out)
    if isinstance(error, VismaeError):
        return Failure(item.source, error.code, str(error))
    message = f"{item.source}: not enough memory to read it. Divide the file."
    return Failure(item.source, "memory", message)


def write_failed(folder: Path, failures: list[Failure]) -> None:
    """Write ``failed.csv``: what has no result, with the reason; empty but for its head if none."""
    rows = [
        {
            "input": failure.source,
            "state": "left out" if failure.left_out else "failed",
            "reason": failure.reason,
            "message": failure.message,
        }
        for failure in failures
    ]
    table = _table(rows, ["input", "state", "reason", "message"])
    write_text(folder / FAILED, table.to_csv(index=False))


def _table(rows: Sequence[Mapping[str, Any]], columns: list[str] | None = None) -> pd.DataFrame:
    # File names need not be in the encoding of the system.
    plain = [
        {key: writable(cell) if isinstance(cell, str) else cell for key, cell in row.items()}
        for row in rows
    ]
    return pd.DataFrame(plain, columns=columns)
