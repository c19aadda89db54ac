"""The losses of all processes since the last row of the record, overall and by modality.

Sums are kept in float64, so that rows do not depend on where a run was stopped or how it is
divided between processes.
"""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from vismae.core.launch import is_main_process
from vismae.core.types import Modality
from vismae.training.modality_losses import ModalityLosses, means_by_modality
from vismae.training.modules import TrainingModule

_IMAGE_LOSSES_PER_ROW = 4


class StepLosses(L.Callback):
    """Collects losses; every process has one, and all exchange theirs at the same steps.

    Args:
        every: Optimiser steps between rows.
        total_steps: Optimiser steps of the run, whose last one has a row too.
        resume_step: Step the run goes on from.
    """

    def __init__(self, every: int, total_steps: int, resume_step: int = 0) -> None:
        self._every = every
        self._total = total_steps
        self._seen_step = resume_step
        self._image_losses_every = max(1, every // _IMAGE_LOSSES_PER_ROW)
        self._losses: list[Tensor] = []
        self._by_modality = ModalityLosses()
        self._carried = _no_sums()
        self.row: dict[str, float] | None = None
        """``loss`` and ``loss_ct`` and so on, where the step just done is due a row."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Ask for the losses of single images where they are due.

        Not always, as they take about a hundredth of a step.
        """
        if isinstance(pl_module, TrainingModule):
            pl_module.gives_image_losses = batch_idx % self._image_losses_every == 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Collect the losses of a batch; make the row when one is due."""
        if isinstance(pl_module, TrainingModule) and pl_module.last_loss is not None:
            self._losses.append(pl_module.last_loss)
            if pl_module.last_image_losses is not None:
                self._by_modality.add(batch["modality"], pl_module.last_image_losses)
        step = trainer.global_step
        due = step % self._every == 0 or step == self._total
        self.row = None
        if due and step != self._seen_step:
            self._seen_step = step
            sums = self._taken()
            self.row = {"loss": float(sums[0, 0] / sums[0, 1]), **means_by_modality(sums[1:])}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last row, which belong to the next one."""
        sums = self._taken()
        if is_main_process():
            self._carried = sums
        return {"sums": sums.clone()} if sums.any() else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back; the first process does so for all."""
        if is_main_process():
            self._carried = state_dict["sums"]

    def _taken(self) -> Tensor:
        """Return the sums and counts of all processes and begin anew, (1 + modalities, 2).

        Waits for the device and for the other processes.
        """
        sums = self._carried + torch.cat([_no_sums()[:1], self._by_modality.take()])
        if self._losses:
            losses = torch.stack(self._losses).cpu().double()
            sums[0] += torch.stack([losses.sum(), torch.tensor(float(len(losses)))])
        self._losses.clear()
        self._carried = _no_sums()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return sums


def _no_sums() -> Tensor:
    return torch.zeros(1 + len(Modality), 2, dtype=torch.float64)
