"""The worst test cases of a study's task as pictures: image, annotation, what each start said."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from vismae.data.labels import apply_mapping
from vismae.data.store import Store
from vismae.evaluation.overlay import contact_sheet, draw_overlay
from vismae.evaluation.statistics import mean_of_defined
from vismae.evaluation.study_scores import TaskScores
from vismae.workflows.inspect import picture_of
from vismae.workflows.label_study.plan import Cell
from vismae.workflows.label_study.run import PICTURED
from vismae.workflows.label_study.tasks import PreparedTask

_CELL_PX = 208


@dataclass(frozen=True)
class WorstCases:
    """Pictures of the cases, and their scores.

    Attributes:
        picture: One row for each case.
        table: Their patients and, for every start, Dice or the probability of the true class, a
            mean over runs.
    """

    picture: UInt8[np.ndarray, "H W 3"]
    table: pd.DataFrame


def worst_cases(
    task: PreparedTask,
    scores: TaskScores,
    rows: pd.DataFrame,
    cell: Cell,
    folder: Path,
    count: int,
) -> WorstCases | None:
    """Picture the test cases with the lowest mean over starts and runs.

    The mean is of Dice, or of the probability of the true class.

    Args:
        task: Where the images are.
        scores: Of the task.
        rows: Of the task, as in ``scores.parquet``.
        cell: A run; its label budget is taken, and with its start changed its label maps.
        folder: Of the study.
        count: Most cases.

    Returns:
        None where there is nothing to show.
    """
    by_start = _means(scores, rows, cell.budget.name, segments=task.label_values is not None)
    mean = mean_of_defined(by_start)
    store = Store(next(iter(task.stores.values())))
    names = store.columns(["patient_id"], np.array(task.pictured))["patient_id"].astype(str)
    row_of = dict(zip(names, task.pictured, strict=True))
    order = [p for p in np.argsort(mean) if np.isfinite(mean[p]) and scores.patients[p] in row_of]
    chosen = order[:count]
    if not chosen:
        return None
    pictures, captions = [], []
    for p in chosen:
        row = row_of[scores.patients[p]]
        image = picture_of(store, row)
        if task.label_values is None:
            pictures.append(image)
            captions.append(scores.patients[p])
            continue
        pictures.append(draw_overlay(image, _truth(store, row, task.label_values)))
        captions.append(f"{scores.patients[p]}: annotation")
        for number, start in enumerate(scores.starts):
            predicted = _predicted(folder, cell, start, row)
            nothing = np.zeros(image.shape[:2], np.uint8)
            pictures.append(draw_overlay(image, nothing if predicted is None else predicted))
            value = "no picture" if predicted is None else f"{by_start[number, p]:.2f}"
            captions.append(f"{start}: {value}")
    columns = 6 if task.label_values is None else 1 + len(scores.starts)
    sheet = contact_sheet(pictures, captions, columns=columns, cell_px=_CELL_PX)
    return WorstCases(sheet, _table(scores, chosen, by_start))


def _means(
    scores: TaskScores, rows: pd.DataFrame, budget: str, segments: bool
) -> Float[np.ndarray, "S P"]:
    """Return each start's mean over runs for every test case."""
    if segments:
        place = scores.budgets.index(budget)
        return np.stack([mean_of_defined(of_start[place]) for of_start in scores.values])
    chosen = rows[
        (rows["budget"] == budget) & (rows["metric"] == "probability") & rows["truth"].eq(True)
    ]
    means = chosen.groupby(["start", chosen["patient_id"].astype(str)])["value"].mean()
    return means.unstack().reindex(list(scores.starts), columns=list(scores.patients)).to_numpy()


def _table(
    scores: TaskScores, chosen: list[int], by_start: Float[np.ndarray, "S P"]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            scores.unit: [scores.patients[p] for p in chosen],
            **{start: by_start[s, chosen] for s, start in enumerate(scores.starts)},
        }
    )


def _truth(store: Store, row: int, label_values: dict[int, int]) -> np.ndarray:
    stored = store.read(row)
    if stored.label_map is None:
        return np.zeros(stored.pixels.shape[:2], np.uint8)
    return apply_mapping(stored.label_map, label_values)


def _predicted(folder: Path, cell: Cell, start: str, row: int) -> np.ndarray | None:
    """Return what a run predicted for a row; None where its label maps were not kept."""
    kept = replace(cell, start=start).folder(folder) / PICTURED
    if not kept.is_file():
        return None
    with np.load(kept) as maps:
        return maps[str(row)] if str(row) in maps.files else None
