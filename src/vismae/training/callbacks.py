"""What happens beside the optimiser step: resume points, random state, averaged weights."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vismae.core.errors import TrainingError
from vismae.core.rundir import CHECKPOINT
from vismae.training.modules import TrainingModule
from vismae.training.nonfinite import FiniteLoss
from vismae.training.surroundings import STOP_SIGNALS, StopRequest

logger = logging.getLogger(__name__)

# torchrun passes on a Ctrl-C that its processes have had from the terminal already.
_ONE_WISH_SECONDS = 1.0


class StepSeed(L.Callback):
    """Seeds torch before every batch, so that random state is a function of the position.

    Drop path and dropout of batch n are then the same in a resumed and an uninterrupted run.
    """

    def __init__(self, seed: int, start_batch: int) -> None:
        self._seed = seed
        self._batch = start_batch

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed from (seed, batch number, rank)."""
        rank = trainer.global_rank
        torch.manual_seed(hash((self._seed, self._batch, rank)) % 2**63)
        self._batch += 1


class ResumePoint(L.Callback):
    """Writes ``checkpoints/last.ckpt`` atomically at a set interval and when asked to stop."""

    def __init__(self, folder: Path, every: int, finite: FiniteLoss) -> None:
        self._path = folder / CHECKPOINT
        self._every = every
        self._finite = finite
        self._saved_step = -1
        self._signal = 0
        self._signal_time = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take Ctrl-C, SIGTERM and SIGUSR1 as a wish to stop after the step at hand.

        In place of Lightning's own handler, which ends in the middle of a step.
        """
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._signal:
            logger.info("stopping after this step; once more stops at once")
            self._signal, self._signal_time = number, now
        elif now - self._signal_time > _ONE_WISH_SECONDS:
            raise StopRequest(number)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count the batches of the steps done as if the run had always been cut as it is now.

        With another number of processes the same steps may have been of more batches or fewer, and
        Lightning ends a step after every so many batches counted from the first.
        """
        batches = checkpoint["global_step"] * trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            more = batches - counts["processed"]
            counts.update({name: count + more for name, count in counts.items()})

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when due; on a wish to stop, save and raise ``StopRequest``."""
        at_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not at_step:
            return
        number = self._signal_anywhere(trainer)
        if number or (trainer.global_step % self._every == 0):
            self.save(trainer)
        if number:
            raise StopRequest(number, agreed=True)

    def _signal_anywhere(self, trainer: L.Trainer) -> int:
        """Return the signal that asked a rank to stop, so that all stop together; 0 if none."""
        if trainer.world_size == 1:
            return self._signal
        # On the CPU, where nothing waits for the steps a GPU has still to do.
        number = torch.tensor(self._signal)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        return int(number)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the run."""
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the resume point of the step just done, replacing the old one at once.

        Raises:
            TrainingError: The loss or the weights are not finite, or the disk is full; the old one
                stays.
        """
        self._finite.check()
        step = trainer.global_step
        if step == self._saved_step:
            return
        _require_finite_weights(trainer.lightning_module, step)
        self._saved_step = step
        partial = self._path.with_suffix(".partial")
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                os.replace(partial, self._path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise TrainingError(
                f"{self._path}: the resume point of step {step} cannot be written "
                f"({error.strerror or error}). The one before it, if any, stays as it was. Make "
                "room on the disk or see to the rights there, and go on with --resume."
            ) from error


def _require_finite_weights(module: nn.Module, step: int) -> None:
    """Raise if a weight is not finite; a finite loss can still have an infinite gradient."""
    finite = [torch.isfinite(parameter).all() for parameter in module.parameters()]
    if not bool(torch.stack(finite).all()):
        raise TrainingError(
            f"The weights after step {step} are not finite numbers. The last resume point is from "
            "before it. Start again with a lower optimizer.lr, or with trainer.gradient_clip."
        )


class AveragedWeights(L.Callback):
    """Exponential moving average of the weights, updated after every optimiser step.

    The decay of update n is at most (1 + n) / (10 + n), so that the average of a short run does not
    stay near the weights it began with.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.average = AveragedModel(model)
        self._decay = decay
        self._updates = 0
        self._seen_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the average beside the model and go on from the run's step."""
        self.average.to(pl_module.device)
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Average in the weights of a new step."""
        if trainer.global_step > self._seen_step and isinstance(pl_module, TrainingModule):
            self._seen_step = trainer.global_step
            self.update(pl_module.model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages towards the weights; the first update copies them.

        Not by ``AveragedModel`` itself, which looks at its count of updates: that lies on the
        device, and reading it would wait for all its work.
        """
        averaged: list[Tensor] = [*self.average.module.parameters()]
        current: list[Tensor] = [*model.parameters()]
        n = self._updates
        decay = min(self._decay, (1.0 + n) / (10.0 + n)) if n else 0.0
        get_ema_multi_avg_fn(decay)(averaged, current, n)
        for own, other in zip(self.average.module.buffers(), model.buffers(), strict=True):
            own.copy_(other)
        self.average.n_averaged += 1
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the average for the resume point."""
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average back from a resume point."""
        self.average.load_state_dict(state_dict)
        self._updates = int(self.average.n_averaged)


class EverySteps(L.Callback):
    """Calls a function after each n-th optimiser step, on rank 0."""

    def __init__(self, every: int, action: Callable[[int], None]) -> None:
        self._every = every
        self._action = action
        self._seen_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting where the run stands."""
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Call the action when a due step is done, with the model out of training mode."""
        step = trainer.global_step
        if step == self._seen_step or step % self._every or not trainer.is_global_zero:
            return
        self._seen_step = step
        pl_module.eval()
        try:
            with torch.inference_mode():
                self._action(step)
        finally:
            pl_module.train()
