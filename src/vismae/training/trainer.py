"""Running Lightning's Trainer from our settings, with exact resume."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import Dataset

from vismae.core.errors import ModelError, SettingError, TrainingError
from vismae.core.rundir import CHECKPOINT
from vismae.core.sections import TrainerSettings
from vismae.data.loaders import training_loader
from vismae.data.sampler import BatchStream, DrawStream
from vismae.training.callbacks import (
    AveragedWeights,
    EverySteps,
    FiniteLoss,
    ResumePoint,
    StepSeed,
    StopRequestedError,
)
from vismae.training.metrics_log import MetricsLog, TimedLoader
from vismae.training.modules import TrainingModule

logger = logging.getLogger(__name__)


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
    if settings.max_epochs is not None:
        steps = max(1, round(settings.max_epochs * epoch_length / images))
    return Schedule(images, steps, epoch_length)


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
    except (RuntimeError, KeyError, EOFError, OSError) as error:
        raise ModelError(
            f"{path}: the resume point cannot be read ({error}). Remove it to start again."
        ) from error


@dataclass(frozen=True)
class Fit:
    """What one training needs beside the module.

    Attributes:
        folder: Run folder.
        dataset: Training samples.
        stream: Their order.
        batch_size: Images on each device.
        workers: Loader processes.
        seed: Seed of drop path and dropout.
        schedule: Steps and images.
        actions: (every, function(step, log)) called on rank 0 between steps.
    """

    folder: Path
    dataset: Dataset
    stream: DrawStream
    batch_size: int
    workers: int
    seed: int
    schedule: Schedule
    actions: Sequence[tuple[int, Callable[[int, MetricsLog], None]]] = ()


def run_training(
    module: TrainingModule,
    fit: Fit,
    settings: TrainerSettings,
    average: AveragedWeights | None = None,
    extra_callbacks: Sequence[L.Callback] = (),
) -> None:
    """Train from the folder's resume point, or from the start, to the schedule's end.

    Args:
        module: Network and optimiser.
        fit: Data, order and schedule.
        settings: Devices, precision and intervals.
        average: Moving average of the weights to keep, if any.
        extra_callbacks: Further callbacks whose state belongs to the resume point.

    Raises:
        TrainingError: A loss was not finite, or memory ran out.
        KeyboardInterrupt: A signal asked to stop; the resume point is written.
    """
    start_step = resume_step(fit.folder)
    accelerator = _accelerator(settings)
    world = settings.devices * settings.nodes
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy="ddp" if world > 1 else "auto",
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
    batches = BatchStream(
        fit.stream,
        fit.batch_size,
        start_batch=start_step * settings.accumulate,
        rank=trainer.global_rank,
        world=world,
    )
    loader = TimedLoader(
        training_loader(fit.dataset, batches, fit.workers, pin_memory=accelerator == "cuda")
    )
    finite = FiniteLoss(fit.folder)
    callbacks: list[L.Callback] = [StepSeed(fit.seed, start_step * settings.accumulate), finite]
    callbacks += [average] if average else []
    if trainer.is_global_zero:
        callbacks += _watchers(fit, settings, loader, start_step)
    callbacks += extra_callbacks
    # Last, so that everything of a step is in the resume point of that step.
    callbacks.append(ResumePoint(fit.folder, settings.checkpoint_every, finite))
    trainer.callbacks.extend(callbacks)  # pyright: ignore[reportAttributeAccessIssue]
    _fit(trainer, module, loader, resume_path(fit.folder), fit.batch_size)


def _watchers(
    fit: Fit, settings: TrainerSettings, loader: TimedLoader, start_step: int
) -> list[L.Callback]:
    """Return the record of the run and what is done between steps; for rank 0 alone."""
    log = MetricsLog(
        fit.folder,
        loader,
        total_steps=fit.schedule.total_steps,
        images_per_step=fit.schedule.images_per_step,
        epoch_length=fit.schedule.epoch_length,
        every=settings.log_every,
        resume_step=start_step,
    )

    def bound(action: Callable[[int, MetricsLog], None]) -> Callable[[int], None]:
        return lambda step: action(step, log)

    return [log, *(EverySteps(every, bound(action)) for every, action in fit.actions if every)]


def _fit(
    trainer: L.Trainer,
    module: TrainingModule,
    loader: TimedLoader,
    checkpoint: Path | None,
    batch_size: int,
) -> None:
    try:
        with warnings.catch_warnings():
            # Our loaders are endless, seeded and resumable by position; Lightning's advice on
            # worker counts and resumable loaders does not apply to them.
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            trainer.fit(module, train_dataloaders=loader, ckpt_path=checkpoint, weights_only=True)
    except StopRequestedError:
        raise KeyboardInterrupt from None
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The device's memory ran out at data.batch_size={batch_size}. Try "
            f"data.batch_size={max(1, batch_size // 2)} with trainer.accumulate doubled, which "
            "learns the same, then go on with --resume."
        ) from error


def _accelerator(settings: TrainerSettings) -> str:
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if settings.device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[settings.device]:
        raise SettingError(
            f"trainer.device is {settings.device}, but torch finds no such device here. Use "
            "--device auto or cpu, or install a torch build for it."
        )
    return settings.device
