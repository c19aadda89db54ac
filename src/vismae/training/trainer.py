"""Running Lightning's Trainer from our settings, with exact resume."""

import pickle
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import Dataset

from vismae.core.errors import ModelError, SettingError, TrainingError
from vismae.core.host_memory import keep_freed_memory
from vismae.core.rundir import CHECKPOINT, MODEL
from vismae.core.sections import TrainerSettings
from vismae.data.loaders import training_loader
from vismae.data.sampler import BatchStream, DrawStream
from vismae.models.out_of_memory import is_out_of_memory
from vismae.models.weights import CARD_FILE, read_card
from vismae.training.accelerator import accelerator
from vismae.training.callbacks import (
    AveragedWeights,
    EverySteps,
    ResumePoint,
    StepSeed,
)
from vismae.training.memory import out_of_memory_advice
from vismae.training.metrics_log import MetricsLog, TimedLoader
from vismae.training.modules import ContrastiveModule, TrainingModule
from vismae.training.nonfinite import FiniteLoss
from vismae.training.resume_file import ResumeFile
from vismae.training.step_losses import StepLosses
from vismae.training.surroundings import StopRequest, quiet_lightning, signals_given_back
from vismae.training.team import Team


@dataclass(frozen=True)
class Schedule:
    """The arithmetic of a run: images per step and steps."""

    images_per_step: int
    total_steps: int
    epoch_length: int


def plan_schedule(settings: TrainerSettings, batch_size: int, epoch_length: int) -> Schedule:
    """Return images per optimiser step over all devices, and the number of steps."""
    world = settings.devices * settings.nodes
    images = batch_size * settings.accumulate * world
    steps = settings.max_steps
    if settings.max_epochs is None and steps is None:
        raise SettingError("trainer.max_steps and trainer.max_epochs are unset; give one of them.")
    if settings.max_epochs is not None:
        steps = max(1, round(settings.max_epochs * epoch_length / images))
    return Schedule(images, steps or 1, epoch_length)


def resume_path(folder: Path) -> Path | None:
    """Return the resume point of a run folder, or None where there is none yet."""
    path = folder / CHECKPOINT
    return path if path.is_file() else None


def resume_step(folder: Path) -> int:
    """Return the optimiser step that a run folder's resume point stands at; 0 without one.

    Raises:
        ModelError: The file cannot be read.
    """
    path = resume_path(folder)
    if path is None:
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["global_step"])
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def is_finished(folder: Path, total_steps: int) -> bool:
    """Tell whether a run has done its steps and its model is that of the last one.

    Until it ends, a run that was lengthened keeps the model of its earlier end.

    Raises:
        ModelError: The resume point or the model cannot be read.
    """
    step = resume_step(folder)
    if step < total_steps or not (folder / MODEL / CARD_FILE).is_file():
        return False
    # Models of earlier versions do not say their step.
    return read_card(folder / MODEL).provenance.get("steps", step) == step


# What torch makes of a file that is cut off, or has other bytes than were written.
_DAMAGED = (
    *(RuntimeError, LookupError, TypeError, ValueError, AttributeError, EOFError, OSError),
    *(pickle.PickleError, zipfile.BadZipFile),
)


def _require_whole(path: Path) -> None:
    """Raise if a resume point is not what was written: torch itself reads numbers unchecked.

    Raises:
        ModelError: The file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
    if part is not None:
        raise _unreadable(path, f"{part} in it differs from its checksum")


def _unreadable(path: Path, why: object) -> ModelError:
    return ModelError(
        f"{path}: the resume point cannot be read ({why}). Put back a copy of it if there is one, "
        "or remove it to start again."
    )


@dataclass(frozen=True)
class Fit:
    """What one training needs beside the module.

    Attributes:
        team: The processes that train together.
        folder: Run folder.
        dataset: Training samples.
        stream: Their order.
        batch_size: Images on each device.
        workers: Loader processes.
        seed: Seed of drop path and dropout.
        schedule: Steps and images.
        actions: (every, function(step, log)) called on rank 0 between steps.
        mlflow: Also keep the record in MLflow, which must be installed.
        damaged: Told which rows of a batch were damaged, where the data set says so.
    """

    team: Team
    folder: Path
    dataset: Dataset
    stream: DrawStream
    batch_size: int
    workers: int
    seed: int
    schedule: Schedule
    actions: Sequence[tuple[int, Callable[[int, MetricsLog], None]]] = ()
    mlflow: bool = False
    damaged: Callable[[list[int]], None] | None = None


def run_training(
    module: TrainingModule,
    fit: Fit,
    settings: TrainerSettings,
    average: AveragedWeights | None = None,
) -> None:
    """Train from the folder's resume point, or from the start, to the schedule's end.

    With several devices, processes other than the first end here: what follows is for one.

    Args:
        module: Network and optimiser.
        fit: Data, order and schedule.
        settings: Devices, precision and intervals.
        average: Moving average of the weights to keep, if any.

    Raises:
        TrainingError: A loss was not finite, memory ran out, too many images are damaged, or the
            processes do not agree.
        TimeUpError: SIGUSR1 asked to stop; the resume point is written.
        KeyboardInterrupt: Another signal did.
        SystemExit: In processes other than the first, when training is over.
    """
    start_step = resume_step(fit.folder)
    if start_step and fit.team.is_first:
        _require_whole(fit.folder / CHECKPOINT)
    with ExitStack() as after:
        after.enter_context(quiet_lightning())
        after.enter_context(signals_given_back())
        fit.team.require_same(
            {
                "the step of the resume point": start_step,
                "the number of steps": fit.schedule.total_steps,
                "the number of images": fit.schedule.epoch_length,
                "the order of images": fit.stream.checksum(),
                "trainer.precision": settings.precision,
            }
        )
        trainer = _trainer(fit, settings)
        first_batch = start_step * settings.accumulate
        batches = BatchStream(
            fit.stream, fit.batch_size, first_batch, trainer.global_rank, trainer.world_size
        )
        device = trainer.strategy.root_device.type
        if device == "cpu":
            keep_freed_memory()
        images = training_loader(fit.dataset, batches, fit.workers, device == "cuda")
        loader = TimedLoader(images, fit.damaged)
        finite = FiniteLoss(fit.folder)
        callbacks: list[L.Callback] = [StepSeed(fit.seed, first_batch), finite]
        callbacks += [average] if average else []
        losses = StepLosses(settings.log_every, fit.schedule.total_steps, start_step)
        callbacks.append(losses)
        if trainer.is_global_zero:
            log = _metrics_log(fit, loader, losses, start_step)
            after.callback(log.close)
            callbacks += [log, *_actions(fit, log)]
        # Last, so that everything of a step is in the resume point of that step.
        callbacks.append(ResumePoint(fit.folder, settings.checkpoint_every, finite))
        trainer.callbacks.extend(callbacks)  # pyright: ignore[reportAttributeAccessIssue]
        _fit(trainer, module, loader, resume_path(fit.folder), fit.batch_size)
        if not trainer.is_global_zero:
            raise SystemExit(0)


def _trainer(fit: Fit, settings: TrainerSettings) -> L.Trainer:
    environment = fit.team.environment()
    several = fit.team.launch.world > 1
    point = ResumeFile()
    strategy = DDPStrategy(cluster_environment=environment, checkpoint_io=point)
    return L.Trainer(
        accelerator=accelerator(settings),
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=strategy if several else "auto",
        plugins=None if several else [environment, point],
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        max_steps=fit.schedule.total_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip or None,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        default_root_dir=fit.folder,
        callbacks=[],
    )


def _metrics_log(fit: Fit, loader: TimedLoader, losses: StepLosses, start_step: int) -> MetricsLog:
    return MetricsLog(
        fit.folder,
        loader,
        total_steps=fit.schedule.total_steps,
        images_per_step=fit.schedule.images_per_step,
        epoch_length=fit.schedule.epoch_length,
        losses=losses,
        resume_step=start_step,
        mlflow=fit.mlflow,
    )


def _actions(fit: Fit, log: MetricsLog) -> list[L.Callback]:
    def bound(action: Callable[[int, MetricsLog], None]) -> Callable[[int], None]:
        return lambda step: action(step, log)

    return [EverySteps(every, bound(action)) for every, action in fit.actions if every]


def _fit(
    trainer: L.Trainer,
    module: TrainingModule,
    loader: TimedLoader,
    checkpoint: Path | None,
    batch_size: int,
) -> None:
    try:
        trainer.fit(module, train_dataloaders=loader, ckpt_path=checkpoint, weights_only=True)
    except (StopRequest, TrainingError) as stop:
        alike = isinstance(stop, TrainingError) or stop.agreed
        if alike and not trainer.is_global_zero:
            # All processes stop alike; the first one tells.
            raise SystemExit(0) from None
        raise
    except (RuntimeError, MemoryError) as error:
        if "DataLoader worker" in str(error):
            raise TrainingError(
                f"A process that prepares images was lost ({error}). If it was killed, memory ran "
                "out most likely: lower data.workers."
            ) from error
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            out_of_memory_advice(
                batch_size,
                trainer.accumulate_grad_batches,
                trainer.strategy.root_device,
                compares=isinstance(module, ContrastiveModule),
            )
        ) from error
    except SystemExit as end:
        # Lightning's answer to Ctrl-C before the first step.
        if isinstance(end.__context__, KeyboardInterrupt):
            raise StopRequest from None
        raise
