"""One run of a study, in whichever process it is put: fine-tune, score, keep little."""

import gc
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vismae.core.config import EvaluateConfig, FinetuneConfig, SelectConfig
from vismae.core.errors import DataError, ModelError, VismaeError
from vismae.core.executor import Step
from vismae.core.rundir import write_bytes, write_text
from vismae.core.types import Modality
from vismae.data.splits import patients_of, read_patients_csv, read_splits_csv
from vismae.data.store import Store
from vismae.evaluation.selection import Strategy
from vismae.inference.predictor import Predictor, choose_device
from vismae.models.weights import load_model
from vismae.workflows.evaluate import evaluate
from vismae.workflows.finetune import finetune
from vismae.workflows.label_study.devices import take_gpu
from vismae.workflows.label_study.plan import SCORES, Cell
from vismae.workflows.label_study.trivial import guess
from vismae.workflows.scoring import SaysLabelMaps
from vismae.workflows.select import select

FAILURE = "failure.txt"
PICTURED = "pictured.npz"
TRAINING_PATIENTS = "training_patients.csv"
# The widest a score's interval can be in a single run is of no interest here.
_RESAMPLES = 100


@dataclass(frozen=True)
class Chooser:
    """Who chooses a run's labelled patients: the run before it.

    Attributes:
        run: Folder of that run, with its model and its labelled patients.
        strategy: As of ``vismae select``.
        patients: Number of labelled patients that this run is to have.
    """

    run: Path
    strategy: Strategy
    patients: int


@dataclass(frozen=True)
class Job:
    """What a process needs to know of a run.

    Attributes:
        cell: Which run.
        finetuning: Its settings.
        pictured: Rows whose predicted label maps are kept for the report.
        keep_model: Keep the model folder.
        threads: Of this process; None leaves them as they are.
        leave_out: Table of test patients that are not scored, or None.
        chooser: Chooses the labelled patients; chance does when None.
        trivial: Guess without a network.
    """

    cell: Cell
    finetuning: FinetuneConfig
    pictured: tuple[int, ...]
    keep_model: bool
    threads: int | None
    leave_out: Path | None = None
    chooser: Chooser | None = None
    trivial: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        cell: Which run.
        seconds: Time it took; NaN where it took its process down.
        validation: Score on the validation patients; NaN where there is none, or it failed.
        failure: Why it failed; None when its scores are on disk.
    """

    cell: Cell
    seconds: float
    validation: float = float("nan")
    failure: str | None = None


def run_cell(job: Job, step: Step) -> Outcome:
    """Do a run; whatever goes wrong in it comes back as its failure.

    The scores are written last and at once: a run that is stopped at any moment has none.
    """
    started = time.perf_counter()
    run = job.finetuning.out
    try:
        if job.threads is not None:
            take_gpu(str(run.parents[4]))
            torch.set_num_threads(job.threads)
        scored = _guessed(job, step) if job.trivial else _fine_tuned(job, step)
        scores = _labelled(job, scored).assign(seconds=time.perf_counter() - started)
        _tidy(run, job.keep_model)
        write_bytes(run / SCORES, scores.to_parquet(index=False))
    except Exception as error:
        _tidy(run, keep_model=False)
        failure = str(error) if isinstance(error, VismaeError) else _first_line(error)
        write_failure(run, failure, traceback.format_exc())
        return Outcome(job.cell, time.perf_counter() - started, failure=failure)
    finally:
        gc.collect()  # also what the traceback of a failure held
    return Outcome(job.cell, time.perf_counter() - started, scored.validation)


def write_failure(run: Path, failure: str, details: str = "") -> None:
    """Leave the cause of a failure in a run's folder; the next attempt takes it away."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / FAILURE, f"{failure}\n\n{details}")


def read_failure(run: Path) -> str | None:
    """Return the cause that ``write_failure`` left; None where there is none."""
    path = run / FAILURE
    return path.read_text(encoding="utf-8").partition("\n\n")[0] if path.is_file() else None


def choose_labelled(chooser: Chooser, finetuning: FinetuneConfig) -> Path:
    """Write the labelled patients of a run: those of the one before, and those its model chooses.

    Returns:
        The table, beside the run's folder.
    """
    known = read_patients_csv(chooser.run / TRAINING_PATIENTS)
    splits = read_splits_csv(chooser.run / "splits.csv")
    run = finetuning.out
    run.parent.mkdir(parents=True, exist_ok=True)
    among = run.with_name(f"{run.name}_training.csv")
    _write_patients(among, patients_of(splits, ["train"]))
    store = Store(finetuning.data.sources[0])
    # Also those that the few patients so far had no image of, which their model would pass over.
    every = tuple(map(Modality, store.columns(["modality"])["modality"].astype(str).unique()))
    chosen = select(
        SelectConfig(
            model=chooser.run / "model",
            store=finetuning.data.sources[0],
            out=run.with_name(f"{run.name}_selection"),
            n=max(1, chooser.patients - len(known)),
            strategy=chooser.strategy,
            labelled=chooser.run / TRAINING_PATIENTS,
            among=among,
            ignore_labels=True,
            modality=finetuning.data.modality or every,
            device=finetuning.trainer.device,
            seed=finetuning.seed,
            overwrite=True,
        )
    ).patients
    path = run.with_name(f"{run.name}_labelled.csv")
    _write_patients(path, sorted({*known, *chosen}))
    return path


def _write_patients(path: Path, patients: list[str]) -> None:
    write_text(path, pd.DataFrame({"patient_id": patients}).to_csv(index=False))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


@dataclass(frozen=True)
class _Scored:
    """Scores of a run's test cases, one row per case, class and metric, and what else is kept."""

    table: pd.DataFrame
    unit: str
    validation: float
    best_step: int


def _fine_tuned(job: Job, step: Step) -> _Scored:
    finetuning, cell = job.finetuning, job.cell
    if job.chooser is not None:
        step("choosing patients")
        labelled = choose_labelled(job.chooser, finetuning)
        finetuning = finetuning.model_copy(update={"labelled": labelled})
    step("fine-tuning")
    result = finetune(finetuning)
    # A trainer and what it trained refer to each other. Python looks for such circles too seldom: a
    # process grew by weights, moments and average of every network that it had trained.
    gc.collect()
    step("scoring")
    evaluated = evaluate(
        EvaluateConfig(
            model=result.model,
            out=finetuning.out / "evaluation",
            data=finetuning.data,
            fold=finetuning.fold,
            leave_out=job.leave_out,
            bootstrap=_RESAMPLES,
            report=False,
            seed=cell.seed,
            device=finetuning.trainer.device,
        )
    )
    step("picturing")
    if job.pictured and finetuning.task.kind == "segment":
        _keep_label_maps(job, _predictor(job, result.model))
    table = pd.read_parquet(evaluated.folder / SCORES)
    return _Scored(table, evaluated.unit, result.validation, result.best_step)


def _guessed(job: Job, step: Step) -> _Scored:
    step("guessing")
    out = job.finetuning.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    table, unit, mean = guess(job.finetuning, job.leave_out)
    if job.pictured and mean is not None:
        _keep_label_maps(job, mean)
    return _Scored(table, unit, float("nan"), 0)


def _labelled(job: Job, scored: _Scored) -> pd.DataFrame:
    """Say in every row which run it is of, so that the tables of all runs can be joined."""
    cell = job.cell
    patients = job.finetuning.out / TRAINING_PATIENTS
    if not patients.is_file():
        raise DataError(f"{patients} is missing; it lists the labelled patients of a run.")
    return scored.table.assign(
        task=cell.task,
        start=cell.start,
        budget=cell.budget.name,
        fraction=job.finetuning.label_fraction,
        labelled_patients=len(pd.read_csv(patients)),
        run=cell.run,
        fold=0 if cell.fold is None else cell.fold,
        seed=cell.seed,
        unit_of_cases=scored.unit,
        validation=scored.validation,
        best_step=scored.best_step,
    )


def _predictor(job: Job, folder: Path) -> Predictor:
    model = load_model(folder)
    if model.preprocessing is None:
        raise ModelError(f"{folder} does not say how images are prepared; fine-tune it again.")
    return Predictor(
        model.to(choose_device(job.finetuning.trainer.device)),
        model.preprocessing,
        job.finetuning.data.batch_size,
    )


def _keep_label_maps(job: Job, predictor: SaysLabelMaps) -> None:
    """Keep the predicted label map of one slice of each test patient, a few kilobytes in all."""
    store = Store(job.finetuning.data.sources[0])
    predicted = predictor.label_maps(store, np.array(job.pictured))
    maps = {str(row): classes.astype(np.uint8) for row, classes in predicted}
    # Compressed as a whole: a label map is mostly runs of one number.
    np.savez_compressed(job.finetuning.out / PICTURED, **maps)  # pyright: ignore[reportArgumentType]


def _tidy(run: Path, keep_model: bool) -> None:
    """Remove what only a resume would need; a study has many runs and disks have an end."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    shutil.rmtree(run / "figures", ignore_errors=True)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    if not keep_model:
        shutil.rmtree(run / "model", ignore_errors=True)
