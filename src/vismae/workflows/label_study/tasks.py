"""A study's tasks before the first run: stores, label budgets, test patients, what to picture."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.config import FinetuneConfig
from vismae.core.errors import DataError
from vismae.core.rundir import write_bytes, write_text
from vismae.core.study_config import StudyConfig, StudyTask
from vismae.data.fingerprint import fingerprint, overlap
from vismae.data.labels import apply_mapping, label_names
from vismae.data.splits import label_fraction_patients, patients_at, patients_of
from vismae.data.store import Store
from vismae.data.store_format import REJECTED_NAME
from vismae.workflows.case_selection import (
    CASES_LEFT_OUT,
    fitting_rows,
    one_row_each,
    seen_rows,
)
from vismae.workflows.label_study.plan import Budget, budgets_of
from vismae.workflows.label_study.task_stores import (
    IN_EVERY_STORE,
    MODALITY,
    open_stores,
    require_subgroups,
    shown_apart,
)
from vismae.workflows.preparation import of_modality
from vismae.workflows.task_data import divide_task, task_card

_EXTRA = "extra_"
# More pictures than anyone looks at, and few enough to keep for every run.
_MOST_PICTURED = 200
_OF_FINGERPRINTS = ["patient_id", "group_kind", "modality", "pixel_sha256", "likeness"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """A label budget that a task cannot have, and why."""

    task: str
    budget: Budget
    reason: str


@dataclass(frozen=True)
class PreparedTask:
    """A task that is ready to be run.

    Attributes:
        name: Of the task.
        stores: Fold -> store of the images.
        training_patients: Fold -> how many there are.
        budgets: Those it can have, from few labels to many.
        left_out: Those it cannot have.
        pictured: A row of the store for each test patient: what pictures of its cases show.
        twins: Table of test patients that no run is scored on, for one of their images is also one
            of a training or validation patient; None where there is none.
        label_values: Value in the label maps -> class (segmentation).
        unlearnt: Classes that no training patient has, in some fold.
        unused: What of the data is in no run, such as ``3 images without a label``.
    """

    name: str
    stores: dict[int | None, Path]
    training_patients: dict[int | None, int]
    budgets: tuple[Budget, ...]
    left_out: tuple[LeftOut, ...]
    pictured: tuple[int, ...]
    twins: Path | None
    label_values: dict[int, int] | None
    unlearnt: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def prepare_task(
    config: StudyConfig, name: str, folder: Path, finetunings: Mapping[int | None, FinetuneConfig]
) -> PreparedTask:
    """Ingest a task where needed, and look at what its label budgets would hold.

    Writes ``tasks/NAME/patients.parquet``: modality and subgroups of every test patient.

    Args:
        config: The study.
        name: Of the task.
        folder: Of the study.
        finetunings: Fold -> settings of a run of this task; its data may name anything.

    Raises:
        DataError: The data cannot be read, or hold nobody to test.
        SettingError: A subgroup is no column of the data.
    """
    sequences = next(iter(finetunings.values())).model.sequences
    stores = open_stores(config, name, folder, sequences)
    divided = {
        fold: _Divided(Store(path), finetunings[fold], name, folder / "tasks" / name)
        for fold, path in stores.items()
    }
    budgets, left_out = _choose_budgets(config, name, divided)
    first = next(iter(divided.values()))
    for fold, part in divided.items():
        if set(part.test) != set(first.test):
            raise DataError(
                f"Task '{name}' has other test patients in fold {fold} than in fold "
                f"{next(iter(divided))} ({len(part.test)} and {len(first.test)}). All runs of a "
                "study are tested on the same; give one fold, or one split test for all folds."
            )
    write_bytes(
        folder / "tasks" / name / "patients.parquet",
        first.test_patients(config.tasks[name]).to_parquet(index=False),
    )
    return PreparedTask(
        name,
        stores,
        {fold: len(part.train) for fold, part in divided.items()},
        budgets,
        left_out,
        first.pictured(),
        _write_twins(folder / "tasks" / name / "twins.csv", name, first.twins),
        first.card.label_values,
        tuple(sorted(frozenset().union(*(part.unlearnt for part in divided.values())))),
        first.unused(),
    )


def _write_twins(path: Path, name: str, twins: Sequence[str]) -> Path | None:
    if not twins:
        return None
    logger.warning(
        "%s: %d test patients share an image with a training or validation patient and are left "
        "out of every score (%s)",
        name,
        len(twins),
        path,
    )
    write_text(path, pd.DataFrame({"patient_id": twins}).to_csv(index=False))
    return path


def _counted(count: int, what: str) -> str:
    first, *rest = what.split(" ", maxsplit=1)
    return " ".join([str(count), first if count == 1 else f"{first}s", *rest])


class _Divided:
    """A task's rows in one fold: who learns, who is tested, and which classes rows hold."""

    def __init__(self, store: Store, config: FinetuneConfig, name: str, folder: Path) -> None:
        self.store, self.config, self.name = store, config, name
        self.sequences = config.model.sequences
        self.usable = fitting_rows(store, self.sequences, folder)
        self.rows, self.splits = divide_task(store, config, self.usable)
        self.card = task_card(store, self.rows, config)
        self.train = patients_of(self.splits, ["train"])
        tested = patients_of(self.splits, ["test"])
        if not tested:
            raise DataError(
                f"Task '{name}' has no test patients: its data have splits, but no test. Mark rows "
                "in column split as test, or leave the column out to divide by patient."
            )
        self.twins = self._twins(tested)
        self.test = [patient for patient in tested if patient not in set(self.twins)]
        if not self.test:
            raise DataError(
                f"Task '{name}': every test patient has an image that is also one of a training or "
                "validation patient, so nobody is left to test. Divide the data anew."
            )
        self._found: dict[int, frozenset[str]] = {}
        self._require_something_to_score()

    def _require_something_to_score(self) -> None:
        """Refuse test patients who all have empty label maps: no run could be told from another.

        Stops at the first image with a class, so that as a rule next to nothing is read.
        """
        if self._segments and not any(self._classes_of(row) for row in self._rows_of(self.test)):
            raise DataError(
                f"Task '{self.name}': the label maps of all {len(self.test)} test patients are "
                "empty, so no run of it could be scored. Mark patients who have a class as test "
                "in column split, or leave the task out."
            )

    def _twins(self, tested: Sequence[str]) -> list[str]:
        """Return the test patients of whom an image is also one of those who learn or validate."""
        seen = seen_rows(self.store, self.sequences, self.rows.index.to_numpy())
        rows = self.store.columns(_OF_FINGERPRINTS, seen)
        patients = rows["patient_id"].astype(str)
        learnt = patients.isin(set(patients_of(self.splits, ["train", "val"])))
        found = overlap(fingerprint(rows[learnt]), rows[patients.isin(set(tested))])
        return list(found.same_pixels)

    def unused(self) -> tuple[str, ...]:
        """Say what of the data is in no run."""
        said: list[str] = []
        rejected = self.store.folder / REJECTED_NAME
        if rejected.is_file() and (files := len(pd.read_csv(rejected))):
            where = f"{REJECTED_NAME} of the store says why"
            said.append(f"{_counted(files, 'file')} that could not be used ({where})")
        index = self.store.columns(["modality", "label"])
        images = of_modality(index, self.config.data.modality, self.store.address)
        usable = images[self.usable[images.index.to_numpy()]]
        if others := len(images) - len(usable):
            said.append(
                f"{_counted(others, 'image')} of other sequences or of cases without all of "
                f"{', '.join(self.sequences)} on the same voxels ({CASES_LEFT_OUT} says which)"
            )
        shown = one_row_each(self.store, self.sequences, usable)
        if without := len(shown) - len(self.rows):
            label = "label map" if self._segments else "label"
            what = "slice of a case" if self.sequences else "image"
            said.append(f"{_counted(without, what)} without a {label}")
        return tuple(said)

    def missing_classes(self, patients: Sequence[str]) -> list[str]:
        """Return the classes of the training patients of which these have no image."""
        missing = set(self._training_classes)
        for row in self._rows_of(patients):
            missing -= self._classes_of(row)
            if not missing:
                break
        return sorted(missing)

    @cached_property
    def _training_classes(self) -> frozenset[str]:
        """Classes of all training patients; a class of none of them is nobody's fault."""
        found: set[str] = set()
        for row in self._rows_of(self.train):
            found |= self._classes_of(row) & self._known
            if found == self._known:
                break
        return frozenset(found)

    @property
    def unlearnt(self) -> frozenset[str]:
        """Classes that no training patient has."""
        return self._known - self._training_classes

    @property
    def _known(self) -> frozenset[str]:
        return frozenset(self.card.classes[1:] if self._segments else self.card.classes)

    @property
    def _segments(self) -> bool:
        return self.config.task.kind == "segment"

    def _rows_of(self, patients: Sequence[str]) -> np.ndarray:
        return self.rows.index[self.rows["patient_id"].isin(set(patients))].to_numpy()

    def _classes_of(self, row: int) -> frozenset[str]:
        """Return the classes of an image; a label map is read once, however many ask."""
        if row not in self._found:
            self._found[row] = self._look_at(row)
        return self._found[row]

    def _look_at(self, row: int) -> frozenset[str]:
        if not self._segments:
            return frozenset(label_names(self.rows.at[row, "label"], self.card.multi_label))
        found = np.unique(self._label_map(row))
        return frozenset(self.card.classes[k] for k in found if k > 0)

    def _label_map(self, row: int) -> np.ndarray:
        label_map = self.store.read(int(row)).label_map
        if label_map is None or self.card.label_values is None:
            raise DataError(f"{self.store.address}, row {row} has no label map.")
        return apply_mapping(label_map, self.card.label_values)

    def pictured(self) -> tuple[int, ...]:
        """Return for each test patient the slice with most of the classes, else the first."""
        chosen: list[int] = []
        for patient in self.test[:_MOST_PICTURED]:
            rows = self._rows_of([patient])
            if self._segments:
                chosen.append(max((int(row) for row in rows), key=self._content))
            else:
                chosen.append(int(rows[0]))
        return tuple(chosen)

    def _content(self, row: int) -> tuple[int, int]:
        label_map = self._label_map(row)
        return len(np.unique(label_map)), int(np.count_nonzero(label_map))

    def test_patients(self, task: StudyTask) -> pd.DataFrame:
        """Return patient_id, modality and subgroups of the test patients, one row for each.

        Raises:
            SettingError: A subgroup is no column of the store.
        """
        wanted, there = shown_apart(task), self.store.column_names
        extra = [name.removeprefix(_EXTRA) for name in there if name.startswith(_EXTRA)]
        # Of a store there is no table whose header could have been looked at before.
        require_subgroups(self.name, task, extra)
        columns = {name: f"{_EXTRA}{name}" for name in wanted if name in extra}
        columns |= {n: n for n in IN_EVERY_STORE if n in wanted and n not in columns}
        rows = seen_rows(self.store, self.sequences, self._rows_of(self.test))
        values = self.store.columns(["patient_id", MODALITY, *columns.values()], rows)
        values = values.astype(object).rename(columns={at: name for name, at in columns.items()})
        table = values.groupby("patient_id", sort=True).agg(_one_value).reset_index()
        return table.dropna(axis="columns", how="all").astype(str)


def _one_value(values: pd.Series) -> str | None:
    """Return the value that a patient's images share, or all of them, joined."""
    found = sorted({str(value) for value in values.dropna() if str(value)})
    return " and ".join(found) if found else None


def _choose_budgets(
    config: StudyConfig, name: str, divided: Mapping[int | None, _Divided]
) -> tuple[tuple[Budget, ...], tuple[LeftOut, ...]]:
    """Return the budgets that every fold and seed can have, rising, and the others."""
    chosen: dict[tuple[int, ...], Budget] = {}
    left_out: list[LeftOut] = []
    for budget in budgets_of(config):
        reason = _why_not(budget, config.seeds, divided)
        trained = [len(part.train) for part in divided.values()]
        counts = tuple(patients_at(budget.of(count), count) for count in trained)
        if reason is None and counts in chosen:
            reason = f"the same {counts[0]} patients as {chosen[counts].name}"
        if reason is None:
            chosen[counts] = budget
        else:
            left_out.append(LeftOut(name, budget, reason))
            logger.info("%s: the label budget %s is left out: %s", name, budget.name, reason)
    if not chosen:
        raise DataError(
            f"Task '{name}' can have none of the label budgets: "
            + "; ".join(f"{entry.budget.name}: {entry.reason}" for entry in left_out)
            + ". Give larger label_fractions or label_patients."
        )
    return tuple(chosen[counts] for counts in sorted(chosen)), tuple(left_out)


def _why_not(
    budget: Budget, seeds: Sequence[int], divided: Mapping[int | None, _Divided]
) -> str | None:
    for fold, part in divided.items():
        patients, share = len(part.train), budget.of(len(part.train))
        if share > 1:
            return f"there are only {patients} training patients"
        # A billionth for 0.1 of 10, which is not quite 1 in binary.
        if share * patients < 1 - 1e-9:
            return f"less than one of {patients} training patients"
        for seed in seeds:
            labelled = label_fraction_patients(part.rows, part.train, share, seed)
            missing = part.missing_classes(labelled)
            if missing:
                where = f"seed {seed}" if fold is None else f"fold {fold}, seed {seed}"
                return f"no image of class {', '.join(missing)} with {where}"
    return None
