"""``vismae study``: which start is best with how many labels.

Tasks × starts × label budgets × folds × seeds; each cell is one fine-tuning and one evaluation
through the same functions as the commands. Arms share the labelled patients, the first weights of
new parts and the order of the data, so that they differ in their start alone.

::

    OUT/scores.parquet             all finished runs, one row per run, test patient, class, metric
    OUT/runs.csv                   every run: finished, failed (why) or to do
    OUT/left_out.csv               label budgets that a task cannot have, and why
    OUT/comparison.csv             every start against the baseline
    OUT/report/index.html          all of it on one page
    OUT/runs/TASK/START/LABELS/SEED/scores.parquet    there when that run is finished

The parts are in ``label_study/``: what is run in which order (``plan``), the tasks (``tasks``),
one run in a process (``run``), how far it is (``progress``).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vismae.core.config import FinetuneConfig
from vismae.core.errors import RunFolderError, SettingError, TrainingError
from vismae.core.executor import CLUSTER_PREFIX, Limits, Lost, open_executor
from vismae.core.processes import available_cores
from vismae.core.rundir import open_run, write_bytes, write_text
from vismae.core.settings import build_config
from vismae.core.study_config import StudyConfig
from vismae.data.splits import patients_at
from vismae.workflows.adapted_network import require_start_possible
from vismae.workflows.label_study.analysis import Found, compare_starts, flat
from vismae.workflows.label_study.learnt_before import labels_known, require_unseen_tests
from vismae.workflows.label_study.plan import SCORES, Budget, Cell, before, cells_of, folds_of
from vismae.workflows.label_study.progress import StudyProgress, study_progress
from vismae.workflows.label_study.run import (
    Chooser,
    Job,
    Outcome,
    read_failure,
    run_cell,
    write_failure,
)
from vismae.workflows.label_study.starts import (
    init_of,
    pretrain_configs,
    pretrain_starts,
    require_same_weights,
    require_sequences_known,
    require_tested_alike,
    require_weights,
    said_in_study,
    with_phantoms,
)
from vismae.workflows.label_study.tasks import PreparedTask, prepare_task
from vismae.workflows.study_report import write_study_report

_PRELOAD = ("vismae.workflows.label_study.run",)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """Where a study ended.

    Attributes:
        folder: Holds ``scores.parquet``, ``comparison.csv``, ``runs.csv``, ``report/index.html``.
        comparison: One row per task, label budget and start: the score, and the difference from
            the baseline with its interval.
        runs: Number of finished runs.
        to_do: Number of runs that are not.
    """

    folder: Path
    comparison: pd.DataFrame
    runs: int
    to_do: int = 0

    def summary(self) -> str:
        """Say how many runs there were and where the report lies."""
        rest = f", {self.to_do} to do" if self.to_do else ""
        return f"{self.runs} runs{rest}. Report: {self.folder / 'report' / 'index.html'}"


def study(config: StudyConfig) -> StudyResult:
    """Run what is missing of a study and report on all of it.

    A run that fails is recorded with its cause and the others go on.

    Raises:
        DataError: A task cannot be read.
        SettingError: A setting of a task or start is no setting of fine-tuning, a task has
            several classes per image, or weights of a start are not there.
        RunFolderError: The output folder cannot be used.
        TrainingError: Runs failed; all the others are done and reported.
    """
    with open_run(
        config.out, "study", config, resume=config.resume, overwrite=config.overwrite
    ) as folder:
        return _Study(config, folder).run()


class _Study:
    """The steps of a study, in order."""

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        self.folder = folder
        self.config = config = with_phantoms(config, folder)
        # All settings are checked before anything is read or run, which may take hours.
        self.pretrainings = pretrain_configs(config, folder)
        self._check_settings()
        self.tasks = {
            name: prepare_task(config, name, folder, self._of_folds(name)) for name in config.tasks
        }
        self.cells = list(cells_of(config, {n: task.budgets for n, task in self.tasks.items()}))
        # Of earlier calls, until the runs are tried again.
        self.failures = {
            cell: cause
            for cell in self.cells
            if not self._is_finished(cell) and (cause := read_failure(cell.folder(folder)))
        }
        self._require_whole_chains()
        self._write_left_out()

    def run(self) -> StudyResult:
        missing = [cell for cell in self.cells if not self._is_finished(cell)]
        logger.info("%d runs, %d of them to do", len(self.cells), len(missing))
        if missing and not self.config.only_report:
            require_weights(self.config, dict.fromkeys((c.start, c.task) for c in missing))
            pretrain_starts(self.pretrainings)
            finished = [cell for cell in self.cells if self._is_finished(cell)]
            require_same_weights(self.folder, self._inits(missing), self._inits(finished))
            for which in self._starts_on_tasks(missing):
                require_unseen_tests(*which)
            for sentence in self._labels_known(missing):
                logger.warning("%s", sentence)
            self._run_all(missing)
        result = self._write_results()
        if self.failures and not self.config.only_report:
            raise TrainingError(self._failed_text())
        return result

    def _starts_on_tasks(
        self, cells: Sequence[Cell]
    ) -> Iterator[tuple[str, Path | None, PreparedTask, FinetuneConfig]]:
        """Yield each start with its weights on each of its tasks, and the settings of a run."""
        for name, start in dict.fromkeys((cell.task, cell.start) for cell in cells):
            task, runs = self.tasks[name], self._of_folds(name)
            init = init_of(self.config, start, name, self.folder)
            yield start, init, task, runs[next(iter(task.stores))]

    def _inits(self, cells: Sequence[Cell]) -> set[tuple[str, Path]]:
        """Return the starts of runs with their weights, where they have any."""
        named = {(cell.start, cell.task) for cell in cells}
        inits = ((start, init_of(self.config, start, t, self.folder)) for start, t in named)
        return {(start, init) for start, init in inits if init is not None}

    def _labels_known(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        said = (labels_known(*which) for which in self._starts_on_tasks(cells))
        return tuple(sentence for sentence in said if sentence)

    def _run_all(self, missing: list[Cell]) -> None:
        config = self.config
        self.failures.clear()
        limits = Limits(None if config.run_hours is None else 3600 * config.run_hours)
        with (
            study_progress(len(self.cells), config.workers) as progress,
            open_executor(config.executor, config.workers, limits, _PRELOAD) as executor,
        ):
            self._count_finished(progress)
            left = list(missing)
            while ready := [cell for cell in left if self._may_begin(cell)]:
                for outcome in executor.run(run_cell, self._jobs(ready)):
                    ended = _ended(outcome)
                    left.remove(ended.cell)
                    if ended.failure is not None:
                        self.failures[ended.cell] = ended.failure
                        logger.warning("%s failed: %s", ended.cell, ended.failure)
                    if isinstance(outcome, Lost):  # a process that ended could not write
                        write_failure(ended.cell.folder(self.folder), str(ended.failure))
                    progress.finished(ended, left)
                    if left and ended.cell.run not in {cell.run for cell in left}:
                        self._report_on_the_way()
            for cell in left:
                self.failures[cell] = "the run that chooses its patients failed"
                write_failure(cell.folder(self.folder), self.failures[cell])

    def _report_on_the_way(self) -> None:
        """Report when a repetition of everything is done: a study stopped later is of use."""
        if any(self._is_finished(cell) for cell in self.cells):
            self._write_results()

    def _chooser(self, cell: Cell) -> Cell | None:
        return before(self.config, cell, self.tasks[cell.task].budgets)

    def _require_whole_chains(self) -> None:
        """Refuse a label budget that comes between runs of which one chose the other's patients."""
        for cell in self.cells:
            chooser = self._chooser(cell)
            if chooser and self._is_finished(cell) and not self._is_finished(chooser):
                raise RunFolderError(
                    f"{self.folder}: the patients of '{cell}' were chosen before "
                    f"{chooser.budget.name} was among the label budgets, so those of "
                    f"{chooser.budget.name} need not be among them. Leave "
                    f"{chooser.budget.name} out, or start a new study with another --out."
                )

    def _may_begin(self, cell: Cell) -> bool:
        """Tell whether the run that chooses this one's patients, if there is one, is done."""
        chooser = self._chooser(cell)
        return chooser is None or self._is_finished(chooser)

    def _count_finished(self, progress: StudyProgress) -> None:
        for cell in self.cells:
            if self._is_finished(cell):
                seconds = pd.read_parquet(cell.scores(self.folder), columns=["seconds"])
                progress.known(cell, float(seconds["seconds"].iloc[0]))

    def _jobs(self, cells: Sequence[Cell]) -> Iterator[Job]:
        first = self.cells[0].run
        for cell in cells:
            task = self.tasks[cell.task]
            strategy, chooser = self.config.starts[cell.start].select, self._chooser(cell)
            patients = task.training_patients[cell.fold]
            finetuning = self._finetuning(cell, task.stores[cell.fold], patients)
            chosen_by = None
            if chooser is not None and strategy is not None:
                count = patients_at(finetuning.label_fraction, patients)
                chosen_by = Chooser(chooser.folder(self.folder), strategy, count)
            yield Job(
                cell,
                finetuning,
                task.pictured if cell.run == first else (),
                # A model that chooses patients is wanted by the next run, also after a restart.
                self.config.keep_models or strategy is not None,
                self._threads(),
                task.twins,
                chosen_by,
                trivial=self.config.starts[cell.start].trivial,
            )

    def _threads(self) -> int | None:
        """Return the threads of a run; on a cluster the machine's cores are Dask's to divide."""
        if self.config.executor == "here":
            return None
        if self.config.executor.startswith(CLUSTER_PREFIX):
            return int(os.environ.get("OMP_NUM_THREADS", "1"))
        return max(1, available_cores() // self.config.workers)

    def _check_settings(self) -> None:
        for name, task in self.config.tasks.items():
            runs: dict[str, FinetuneConfig] = {}
            for start in self.config.starts:
                if not self.config.takes_part(start, name):
                    continue
                cell = Cell(name, start, Budget(fraction=1.0), None, 0)
                settings = self._finetuning(cell, self.folder)
                if settings.task.multi_label:
                    raise SettingError(
                        f"Task '{name}' has several classes per image (task.multi_label), which a "
                        "study cannot compare; it compares balanced accuracy of one class per "
                        "image. Use vismae finetune and vismae evaluate for this task."
                    )
                try:
                    require_start_possible(settings.init, settings.model.network_for(task.kind))
                    if not self.config.only_report:
                        require_sequences_known(settings)
                except SettingError as error:
                    raise said_in_study(error, self.config, start, name) from error
                if not (self.config.only_report or self._has_run(name, start)):
                    require_weights(self.config, [(start, name)])
                runs[start] = settings
            if not runs:
                raise SettingError(
                    f"No start takes part in task '{name}'. Name it in starts.*.tasks, or leave "
                    "the task out."
                )
            require_tested_alike(name, runs)

    def _of_folds(self, task: str) -> dict[int | None, FinetuneConfig]:
        start = next(name for name in self.config.starts if self.config.takes_part(name, task))
        cells = (Cell(task, start, Budget(fraction=1.0), f, 0) for f in folds_of(self.config))
        return {cell.fold: self._finetuning(cell, self.folder) for cell in cells}

    def _finetuning(self, cell: Cell, store: Path, training_patients: int = 1) -> FinetuneConfig:
        """Return the settings of one run; those of the start weigh most."""
        config = self.config
        task, start = config.tasks[cell.task], config.starts[cell.start]
        options = {
            **config.settings,
            **task.settings,
            **start.settings,
            **(start.segment if task.kind == "segment" else start.classify),
            "task.kind": task.kind,
            "data.sources": [store],
            "out": cell.folder(config.out),
            "init": init_of(config, cell.start, cell.task, self.folder),
            "label_fraction": cell.budget.of(training_patients),
            "fold": cell.fold,
            "seed": cell.seed,
            "subset_seed": cell.seed,
            "overwrite": True,
        }
        try:
            return build_config(FinetuneConfig, "finetune", options=options)
        except SettingError as error:
            raise said_in_study(error, config, cell.start, cell.task) from None

    def _has_run(self, task: str, start: str) -> bool:
        """Tell whether any run of a start on a task is finished."""
        return any((self.folder / "runs" / task / start).rglob(SCORES))

    def _is_finished(self, cell: Cell) -> bool:
        return cell.scores(self.folder).is_file()

    def _write_left_out(self) -> None:
        rows = [
            {"task": entry.task, "labels": entry.budget.name, "reason": entry.reason}
            for task in self.tasks.values()
            for entry in task.left_out
        ]
        frame = pd.DataFrame(rows, columns=pd.Index(["task", "labels", "reason"]))
        write_text(self.folder / "left_out.csv", frame.to_csv(index=False))

    def _write_results(self) -> StudyResult:
        """Join the scores of what is finished, compare, and report."""
        finished = [cell for cell in self.cells if self._is_finished(cell)]
        runs = self._run_table()
        write_text(self.folder / "runs.csv", runs.to_csv(index=False))
        if not finished:
            raise TrainingError(
                self._failed_text()
                if self.failures
                else f"No run of the study in {self.folder} is finished, so there is nothing to "
                "report. Leave out only_report."
            )
        scores = pd.concat(
            [pd.read_parquet(cell.scores(self.folder)) for cell in finished], ignore_index=True
        )
        write_bytes(self.folder / SCORES, scores.to_parquet(index=False))
        comparison = compare_starts(scores, self.config)
        write_text(self.folder / "comparison.csv", flat(comparison).to_csv(index=False))
        known = self._labels_known(finished)
        write_study_report(
            Found(self.config, self.folder, scores, comparison, self.tasks, finished, runs, known)
        )
        to_do = len(self.cells) - len(finished)
        return StudyResult(self.folder, comparison, len(finished), to_do)

    def _run_table(self) -> pd.DataFrame:
        def state(cell: Cell) -> str:
            if self._is_finished(cell):
                return "finished"
            return "failed" if cell in self.failures else "to do"

        return pd.DataFrame(
            {
                "task": cell.task,
                "start": cell.start,
                "labels": cell.budget.name,
                "fold": cell.fold,
                "seed": cell.seed,
                "state": state(cell),
                "cause": self.failures.get(cell),
                "folder": cell.folder(Path()).as_posix(),
            }
            for cell in self.cells
        )

    def _failed_text(self) -> str:
        most = 5
        told = list(self.failures.items())[:most]
        lines = [f"{cell}: {cause.removesuffix('.')}" for cell, cause in told]
        more = len(self.failures) - most
        others = ""
        if len(self.failures) < len(self.cells):
            others = "; the others are done and reported"
        rest = f"; and {more} more" if more > 0 else ""
        return (
            f"{len(self.failures)} of {len(self.cells)} runs failed{others}. "
            f"{'; '.join(lines)}{rest}. "
            f"{self.folder / 'runs.csv'} lists them. When the cause is mended, the same command "
            "with --resume runs them again."
        )


def _ended(outcome: Outcome | Lost[Job]) -> Outcome:
    """Return a run that took its process down as a failed one."""
    if isinstance(outcome, Outcome):
        return outcome
    how = {"died": "its process ended", "time": "it took too long", "memory": "out of memory"}
    during = f" while {outcome.step}" if outcome.step else ""
    failure = f"{how[outcome.cause]}{during} ({outcome.detail})"
    return Outcome(outcome.task.cell, float("nan"), failure=failure)
