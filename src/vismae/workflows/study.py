"""``vismae study``: which start is best at which share of the labels.

Tasks × starts × label fractions × seeds; each cell is one fine-tuning and one evaluation through
the same functions as the commands. Arms share the labelled patients, the first weights of new
parts and the order of the data, so that they differ in their start alone.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from vismae.core.config import EvaluateConfig, FinetuneConfig, StudyConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.processes import spawning_without_main
from vismae.core.rundir import open_run, write_bytes, write_text
from vismae.core.settings import build_config
from vismae.workflows.evaluate import EvaluateResult, evaluate
from vismae.workflows.finetune import finetune
from vismae.workflows.ingest import open_or_ingest
from vismae.workflows.study_report import compare_starts, write_study_report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    task: str
    start: str
    fraction: float
    seed: int

    def folder(self, out: Path) -> Path:
        """Return where the run lies."""
        return out / "runs" / self.task / self.start / f"{self.fraction:g}" / str(self.seed)


@dataclass(frozen=True)
class StudyResult:
    """Where a study ended.

    Attributes:
        folder: Holds ``scores.parquet``, ``comparison.csv`` and ``report/index.html``.
        comparison: One row per task, fraction and start: the score, and the difference from the
            baseline with its interval.
        runs: Number of runs.
    """

    folder: Path
    comparison: pd.DataFrame
    runs: int

    def summary(self) -> str:
        """Say how many runs there were and where the report lies."""
        return f"{self.runs} runs. Report: {self.folder / 'report' / 'index.html'}"


def study(config: StudyConfig) -> StudyResult:
    """Run what is missing of a study and report on all of it.

    Raises:
        DataError: A task cannot be read.
        SettingError: A setting of a task or start is no setting of fine-tuning, or a task has
            several classes per image.
        RunFolderError: The output folder cannot be used.
    """
    with open_run(
        config.out, "study", config, resume=config.resume, overwrite=config.overwrite
    ) as folder:
        cells = list(_cells(config))
        # All settings are checked before anything is read or run, which may take hours.
        _require_one_class_per_image({c: _finetune_config(config, c, folder) for c in cells})
        stores = {
            name: open_or_ingest(task.sources, folder / "stores" / name, task=task.kind).folder
            for name, task in config.tasks.items()
        }
        finetunings = {cell: _finetune_config(config, cell, stores[cell.task]) for cell in cells}
        missing = [cell for cell in cells if not _scores_path(folder, cell).is_file()]
        logger.info("%d runs, %d of them to do", len(cells), len(missing))
        jobs = [(config, cell, finetunings[cell], _scores_path(folder, cell)) for cell in missing]
        for number, cell in enumerate(_run_all(jobs, config.workers), start=1):
            logger.info("run %d of %d is done: %s", number, len(missing), cell)
        scores = pd.concat([pd.read_parquet(_scores_path(folder, cell)) for cell in cells])
        write_bytes(folder / "scores.parquet", scores.to_parquet(index=False))
        comparison = compare_starts(scores, config)
        write_text(folder / "comparison.csv", _flat(comparison).to_csv(index=False))
        write_study_report(config, folder, scores, comparison)
    return StudyResult(folder, comparison, len(cells))


_Job = tuple[StudyConfig, Cell, FinetuneConfig, Path]


def _run_all(jobs: list[_Job], workers: int) -> Iterator[Cell]:
    """Run jobs here or in several processes; yield each cell when its scores are on disk."""
    if workers == 1 or len(jobs) < 2:
        yield from map(_run_job, jobs)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Forking a process that already runs torch threads can deadlock.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        with spawning_without_main():
            futures = [pool.submit(_run_job, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_job(job: _Job) -> Cell:
    config, cell, finetuning, path = job
    write_bytes(path, _run(config, cell, finetuning).to_parquet(index=False))
    return cell


def _cells(config: StudyConfig) -> Iterator[Cell]:
    for task in config.tasks:
        for fraction in sorted(set(config.label_fractions)):
            for seed in config.seeds:
                for start in config.starts:
                    yield Cell(task, start, fraction, seed)


def _require_one_class_per_image(finetunings: Mapping[Cell, FinetuneConfig]) -> None:
    for cell, finetuning in finetunings.items():
        if finetuning.task.multi_label:
            raise SettingError(
                f"Task '{cell.task}' has several classes per image (task.multi_label), which a "
                "study cannot compare; it compares balanced accuracy of one class per image. Use "
                "vismae finetune and vismae evaluate for this task."
            )


def _scores_path(folder: Path, cell: Cell) -> Path:
    return folder / "scores" / f"{cell.task}--{cell.start}--{cell.fraction:g}--{cell.seed}.parquet"


def _finetune_config(config: StudyConfig, cell: Cell, store: Path) -> FinetuneConfig:
    task, start = config.tasks[cell.task], config.starts[cell.start]
    options = {
        **config.settings,
        **task.settings,
        **start.settings,
        "task.kind": task.kind,
        "data.sources": [store],
        "out": cell.folder(config.out),
        "init": start.init,
        "label_fraction": cell.fraction,
        "seed": cell.seed,
        "subset_seed": cell.seed,
        "overwrite": True,
    }
    return build_config(FinetuneConfig, "finetune", options=options)


def _run(config: StudyConfig, cell: Cell, finetuning: FinetuneConfig) -> pd.DataFrame:
    """Fine-tune and evaluate one cell; return its scores, one row per case, class and metric."""
    result = finetune(finetuning)
    evaluated = evaluate(
        EvaluateConfig(
            model=result.model,
            out=finetuning.out / "evaluation",
            data=finetuning.data,
            bootstrap=100,
            report=False,
            seed=cell.seed,
            device=finetuning.trainer.device,
        )
    )
    scores = pd.read_parquet(evaluated.folder / "scores.parquet").assign(
        task=cell.task,
        start=cell.start,
        fraction=cell.fraction,
        seed=cell.seed,
        labelled_patients=_labelled_patients(finetuning),
        unit_of_cases=evaluated.unit,
        validation=result.validation,
    )
    _tidy(config, finetuning.out, evaluated)
    return scores


def _labelled_patients(finetuning: FinetuneConfig) -> int:
    table = finetuning.out / "training_patients.csv"
    if not table.is_file():
        raise DataError(f"{table} is missing; the run was not made by this version of vismae.")
    return len(pd.read_csv(table))


def _tidy(config: StudyConfig, run: Path, evaluated: EvaluateResult) -> None:
    """Remove what only a resume would need; a study has many runs and disks have an end."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    if not config.keep_models:
        shutil.rmtree(run / "model", ignore_errors=True)


def _flat(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the comparison with intervals as columns of numbers."""
    flat = comparison.drop(columns=["score", "difference"])
    for name in ("score", "difference"):
        intervals = comparison[name]
        flat[name] = [interval.estimate for interval in intervals]
        flat[f"{name}_low"] = [interval.low for interval in intervals]
        flat[f"{name}_high"] = [interval.high for interval in intervals]
    return flat
