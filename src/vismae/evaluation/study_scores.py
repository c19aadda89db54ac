"""The scores of a study's task as one array, in which every comparison is paired.

Segmentation: Dice per patient, a mean over the patient's classes. Classification: balanced
accuracy, written as a mean over patients. With h whether a case was called right, a_k the share of
class k called right, n cases of which n_k are of its class, and K classes, a case counts

    balanced accuracy + (h - a_k) · n / (K · n_k),

its influence (Hampel 1974): the mean over cases is the balanced accuracy exactly, and its spread is
what the balanced accuracy varies by, without that of how many cases of a class happen to be drawn.
A test that swaps two starts within a patient needs what the swap exchanges, h · n / (K · n_k),
whose mean is the balanced accuracy too: the share a_k in an influence is of all patients, and three
rare cases that only one start finds would speak from every patient.

S starts, B label budgets, R runs (label subset, fold and seed), P test patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from vismae.core.errors import DataError

Kind = Literal["segment", "classify"]


@dataclass(frozen=True)
class TaskScores:
    """Scores of one task.

    Attributes:
        task: Its name.
        metric: ``Dice`` or ``balanced accuracy``.
        unit: What one test case is: patient, image group or image.
        starts: Names of the S starts that have a run.
        budgets: Names of the B label budgets, from few labels to many.
        fractions: Each as a share of the training patients.
        labels: Labelled patients of each; the mean over folds.
        runs: Names of the R runs.
        patients: The P test patients.
        values: NaN where a run is missing, or the patient has no class to be scored.
        swapped: What a patient adds to a run's mean, for tests that swap starts within patients.
    """

    task: str
    metric: str
    unit: str
    starts: tuple[str, ...]
    budgets: tuple[str, ...]
    fractions: tuple[float, ...]
    labels: Float[np.ndarray, " B"]
    runs: tuple[str, ...]
    patients: tuple[str, ...]
    values: Float[np.ndarray, "S B R P"]
    swapped: Float[np.ndarray, "S B R P"]

    def of(self, start: str) -> Float[np.ndarray, "B R P"]:
        """Return the scores of a start."""
        return self.values[self.starts.index(start)]

    def at(self, start: str, budget: str) -> Float[np.ndarray, "R P"]:
        """Return the scores of a start at a label budget."""
        return self.of(start)[self.budgets.index(budget)]

    def shared(self, starts: Sequence[str], budget: str) -> Float[np.ndarray, "S R P"]:
        """Return the scores of several starts at a label budget, of the runs that all of them have.

        A run is a draw of labelled patients; a start that missed a bad one must not gain by it.
        """
        values = np.stack([self.at(start, budget) for start in starts])
        return values[:, np.isfinite(values).any(axis=2).all(axis=0)]

    def swapped_at(self, start: str, budget: str) -> Float[np.ndarray, "R P"]:
        """Return what the patients add to a start's mean at a label budget."""
        return self.swapped[self.starts.index(start), self.budgets.index(budget)]


def task_scores(rows: pd.DataFrame, starts: Sequence[str], kind: Kind) -> TaskScores:
    """Arrange the rows of one task.

    Args:
        rows: Of ``scores.parquet``: columns task, start, budget, fraction, labelled_patients, run,
            unit_of_cases, patient_id, class_name, metric, value, and truth (classification).
        starts: Names in the order wanted; those without a row are left out.
        kind: Of the task.

    Raises:
        DataError: There is no row.
    """
    if rows.empty:
        raise DataError("There are no scores of this task; no run of it is finished.")
    labels = rows.groupby("budget")["labelled_patients"].mean().sort_values(kind="stable")
    budgets = [str(name) for name in labels.index]
    fractions = rows.groupby("budget")["fraction"].mean()
    there = [start for start in starts if (rows["start"] == start).any()]
    cells = _dice(rows) if kind == "segment" else _balanced_accuracy(rows)
    runs = sorted(set(cells["run"]))
    patients = sorted(set(cells["patient_id"]))
    shape = (len(there), len(budgets), len(runs), len(patients))
    values, swapped = np.full(shape, np.nan), np.full(shape, np.nan)
    known = cells[cells["start"].isin(there)]
    place = tuple(
        pd.Index(names).get_indexer(pd.Index(known[column]))
        for names, column in (
            (there, "start"),
            (budgets, "budget"),
            (runs, "run"),
            (patients, "patient_id"),
        )
    )
    values[place] = known["value"].to_numpy(float)
    swapped[place] = known["swapped"].to_numpy(float)
    return TaskScores(
        task=str(rows["task"].iloc[0]),
        metric="Dice" if kind == "segment" else "balanced accuracy",
        unit=str(rows["unit_of_cases"].iloc[0]),
        starts=tuple(there),
        budgets=tuple(budgets),
        fractions=tuple(float(fractions[name]) for name in budgets),
        labels=labels.to_numpy(float),
        runs=tuple(runs),
        patients=tuple(patients),
        values=values,
        swapped=swapped,
    )


_CELL = ["start", "budget", "run"]


def _dice(rows: pd.DataFrame) -> pd.DataFrame:
    chosen = rows[(rows["metric"] == "dice") & (rows["class_name"] == "mean")]
    return _of_text(chosen[[*_CELL, "patient_id", "value"]].assign(swapped=chosen["value"]))


def _of_text(cells: pd.DataFrame) -> pd.DataFrame:
    texts = {column: cells[column].astype(str) for column in (*_CELL, "patient_id")}
    return cells.assign(**texts)


def cases_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each run and case of a classification: patient, own class, hit.

    Returns:
        Columns start, budget, run, case, patient_id, own (true class), hit (1 or 0).
    """
    chosen = _of_text(rows[rows["metric"] == "probability"]).reset_index(drop=True)
    # A patient with images of several classes is scored image by image: cases keep their order.
    chosen = chosen.assign(case=chosen.groupby([*_CELL, "class_name"]).cumcount())
    key = [*_CELL, "case"]
    called = chosen.loc[chosen.groupby(key)["value"].idxmax(), [*key, "class_name"]]
    own = chosen.loc[chosen["truth"].astype(bool), [*key, "patient_id", "class_name"]]
    cases = own.rename(columns={"class_name": "own"}).merge(
        called.rename(columns={"class_name": "called"}), on=key, validate="one_to_one"
    )
    return cases.assign(hit=(cases["own"] == cases["called"]).astype(float))


def _balanced_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    cases = cases_of(rows)
    arm = ["start", "budget"]
    # Over the runs of an arm, so that a run's mean over patients stays its own.
    recall = cases.groupby([*arm, "own"])["hit"].transform("mean")
    by_class = cases.groupby([*arm, "own"])["hit"].mean()
    mean = by_class.groupby(level=arm).mean().rename("mean").reset_index()
    of_class = cases.groupby([*_CELL, "own"])["hit"].transform("size")
    classes = cases.groupby(_CELL)["own"].transform("nunique")
    cases["weight"] = 1 / (classes * of_class)
    cases["influence"] = (cases["hit"] - recall) * cases["weight"]
    cases["weighted"] = cases["hit"] * cases["weight"]
    # Images of a patient that are scored one by one are added up.
    patients = cases.groupby([*_CELL, "patient_id"], as_index=False)[["influence", "weighted"]]
    patients = patients.sum().merge(mean, on=arm)
    count = patients.groupby(_CELL)["patient_id"].transform("size")
    return patients.assign(
        value=patients["mean"] + patients["influence"] * count,
        swapped=patients["weighted"] * count,
    )
