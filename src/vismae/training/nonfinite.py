"""The guard against losses that are no finite numbers, and what it keeps of such a step.

::

    RUN/nan_step/step.json            step, seed, precision, network; rows and keys of the batch
    RUN/nan_step/weights.safetensors  the weights before the step
    RUN/nan_step/batch.safetensors    the images as the network saw them
    RUN/nan_step/config.yaml          the settings of the run

With several processes the step of each whose loss was bad lies in ``nan_step/rank_N``, of all where
only the gradient was. ``vismae pretrain --replay`` runs it again (``replay.py``).
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import safetensors.torch
import torch
from torch import Tensor, nn

from vismae.core.errors import TrainingError
from vismae.core.launch import is_main_process
from vismae.core.rundir import CHECKPOINT, write_bytes, write_json
from vismae.models.weights import Model, architecture_of, kind_of
from vismae.training.modules import Batch, ContrastiveModule, PretrainModule, TrainingModule

NAN_STEP = Path("nan_step")
STEP_FILE = "step.json"
STEP_WEIGHTS_FILE = "weights.safetensors"
BATCH_FILE = "batch.safetensors"
STEP_FORMAT = 1


@dataclass(frozen=True)
class _Pending:
    """A step whose value nobody has looked at yet.

    Attributes:
        finite: 1 where finite, else 0: of all processes, of this one's loss, of its gradient; (3,).
        copied: When ``finite`` has reached the host; None if it was there at once.
        step, batch, seed: What was computed, and with which random numbers.
        module: What computed it.
        precision: In which arithmetic.
    """

    finite: Tensor
    copied: torch.cuda.Event | None
    step: int
    batch: Batch
    seed: int
    module: TrainingModule
    precision: str


class FiniteLoss(L.Callback):
    """Stops every rank when a loss or a gradient is not a finite number, and keeps the step.

    On a GPU the value of a step is looked at one step later, so that the host does not wait. The
    module lets no further step change the weights, so they are still those before the bad one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending: _Pending | None = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Check the previous step's loss (GPU) or this one's (elsewhere)."""
        if not isinstance(pl_module, TrainingModule) or pl_module.last_loss is None:
            return
        in_step = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        own = torch.isfinite(pl_module.last_loss)
        gradient = torch.ones_like(own)
        if not in_step and pl_module.last_gradient_norm is not None:
            gradient = torch.isfinite(pl_module.last_gradient_norm)
        everywhere = (own & gradient).to(torch.float32)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(everywhere, op=torch.distributed.ReduceOp.MIN)
        finite = torch.stack([everywhere, own.float(), gradient.float()])
        copied = None
        if finite.is_cuda:
            self.check()
            finite = finite.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._pending = _Pending(
            finite,
            copied,
            trainer.global_step + in_step,
            batch,
            torch.initial_seed(),
            pl_module,
            str(trainer.precision),
        )
        if copied is None:
            self.check()

    def check(self) -> None:
        """Look at the step that was not looked at yet.

        Raises:
            TrainingError: It was not finite; names the step and where it is kept.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.copied is not None:
            pending.copied.synchronize()
        everywhere, own, gradient = (bool(value) for value in pending.finite)
        if everywhere:
            return
        kept = self._folder / NAN_STEP
        if is_main_process():
            # What an earlier stop left there may be of another process, and would be run again.
            shutil.rmtree(kept, ignore_errors=True)
        mine = pending.batch["row"].tolist()
        everybody = _from_all((own, mine))
        # An exchanged gradient is bad everywhere; the losses tell in which process it began.
        guilty = [rank for rank, (fine, _) in enumerate(everybody) if not fine]
        if not own or not (guilty or gradient):
            rank = f"rank_{torch.distributed.get_rank()}" if len(everybody) > 1 else ""
            _keep_step(kept / rank, self._folder, pending)
        what, where, rows = "gradient", "", mine
        if guilty:
            what, rows = "loss", [row for rank in guilty for row in everybody[rank][1]]
            if len(guilty) < len(everybody):
                where = f" in rank {', '.join(map(str, guilty))} of {len(everybody)} processes"
        again = ""
        if isinstance(pending.module, PretrainModule | ContrastiveModule):
            again = f" 'vismae pretrain --replay {kept}' says where it begins."
        cure = (
            "There is no resume point from before it: start again with a lower optimizer.lr, or "
            "without these images if they are broken."
        )
        if (self._folder / CHECKPOINT).is_file():
            cure = (
                f"The last resume point ({self._folder / CHECKPOINT}) is from before it: look for "
                "broken images in the batch and go on with --resume, or start again with a lower "
                "optimizer.lr."
            )
        raise TrainingError(
            f"The {what} of step {pending.step}{where} is not a finite number. The step is kept in "
            f"{kept}; its images are rows {_some(rows)} of the store.{again} {cure}"
        )


def _from_all(value: tuple[bool, list[int]]) -> list[tuple[bool, list[int]]]:
    """Return the values of all processes, which all ask for them, in order of rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _keep_step(folder: Path, run: Path, pending: _Pending) -> None:
    """Write all that is needed to run the step again."""
    folder.mkdir(parents=True, exist_ok=True)
    model = pending.module.model
    write_bytes(folder / STEP_WEIGHTS_FILE, _packed(model.state_dict()))
    write_bytes(folder / BATCH_FILE, _packed(pending.batch))
    if (run / "config.yaml").is_file():
        shutil.copyfile(run / "config.yaml", folder / "config.yaml")
    batch = {name: pending.batch[name].tolist() for name in ("row", "key") if name in pending.batch}
    write_json(
        folder / STEP_FILE,
        {
            "format_version": STEP_FORMAT,
            "step": pending.step,
            "seed": pending.seed,
            "precision": pending.precision,
            "device": pending.module.device.type,
            **_network(model),
            **batch,
        },
    )


def _packed(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save(
        {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    )


def _network(model: nn.Module) -> dict[str, Any]:
    known = cast("Model", model)
    return {"kind": kind_of(known), "architecture": architecture_of(known)}


def _some(rows: list[int]) -> str:
    """The first row numbers of a batch, for a message."""
    first = ", ".join(str(row) for row in rows[:8])
    return f"{first} ..." if len(rows) > 8 else first
