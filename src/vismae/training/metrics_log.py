"""The record of a run: ``metrics.csv``, TensorBoard, MLflow if wanted, and one line of progress.

The line says what a user wants to know: step, loss, images a second, time left, and the share of
time the device waited for data.
"""

import csv
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from vismae.core.errors import VismaeError
from vismae.core.processes import spawning_without_main, stop_signals_held
from vismae.core.rundir import write_text
from vismae.training.board import Board
from vismae.training.memory import peak_memory_gib
from vismae.training.mlflow_record import MlflowRecord
from vismae.training.modules import TrainingModule
from vismae.training.step_losses import StepLosses

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0


class TimedLoader:
    """A loader that adds up the time spent waiting for its batches.

    Args:
        loader: What gives the batches.
        damaged: Is told which images of a batch were damaged, where the data set says so.
    """

    def __init__(
        self, loader: DataLoader, damaged: Callable[[list[int]], None] | None = None
    ) -> None:
        self._loader = loader
        self._damaged = damaged
        self.wait_seconds = 0.0

    def __iter__(self) -> Iterator[Any]:
        """Yield the loader's batches."""
        with spawning_without_main(), stop_signals_held():
            batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except VismaeError as error:
                raise _as_it_was(error) from error
            self.wait_seconds += time.perf_counter() - start
            # Here the batch is still on the host: nothing waits for a device.
            if self._damaged is not None:
                self._damaged([row for row in batch.pop("damaged").tolist() if row >= 0])
            yield batch


def _as_it_was(error: VismaeError) -> VismaeError:
    """Return an error of a loader process as it was raised there.

    torch puts the text of the traceback in place of the message, which is for people.
    """
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    before, found, message = str(error).rpartition(name)
    came_from_worker = bool(found) and "Original Traceback" in before
    return type(error)(message.strip()) if came_from_worker else error


class MetricsTable:
    """``metrics.csv``: one row per logged step; columns may come later and stay empty before.

    A row that cannot be written, as on a full disk, is written with a later one.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        self._path = path
        self._rows: list[dict[str, str]] = []
        if resume_step and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            # A killed process may have left half a line at the end.
            whole = [row for row in rows if None not in row.values() and row["step"].isdecimal()]
            self._rows = [row for row in whole if int(row["step"]) <= resume_step]
        self._columns = list(dict.fromkeys(name for row in self._rows for name in row)) or ["step"]
        self._is_behind = False
        self._rewrite()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add values to the row of a step."""
        texts = {name: f"{value:.6g}" for name, value in values.items()}
        new = [name for name in texts if name not in self._columns]
        same_step = bool(self._rows) and self._rows[-1]["step"] == str(step)
        if same_step:
            self._rows[-1].update(texts)
        else:
            self._rows.append({"step": str(step), **texts})
        self._columns += new
        try:
            if new or same_step or self._is_behind:
                self._rewrite()
            else:
                with self._path.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
                    writer.writerow(self._rows[-1])
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                why = error.strerror or error
                logger.warning("%s cannot be written (%s); tried again later", self._path, why)
            self._is_behind = True

    def close(self) -> None:
        """Write what could not be written before."""
        if self._is_behind:
            with suppress(OSError):
                self._rewrite()

    def _rewrite(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())


class MetricsLog(L.Callback):
    """Writes the record at a set interval; other parts add their numbers through ``write``.

    Args:
        folder: Run folder.
        loader: Timed loader of the training data.
        total_steps: Optimiser steps of the run.
        images_per_step: Images of one optimiser step over all ranks.
        epoch_length: Images of one epoch.
        losses: Says when a row is due, and the losses in it; must come before this callback.
        resume_step: Step the run goes on from; later rows of an older try are dropped.
        mlflow: Also keep the record in MLflow, which must be installed.
    """

    def __init__(
        self,
        folder: Path,
        loader: TimedLoader,
        *,
        total_steps: int,
        images_per_step: int,
        epoch_length: int,
        losses: StepLosses,
        resume_step: int,
        mlflow: bool = False,
    ) -> None:
        self._table = MetricsTable(folder / "metrics.csv", resume_step)
        self._board = Board(folder / "tensorboard", purge_step=resume_step + 1)
        self._mlflow = MlflowRecord(folder, resume_step) if mlflow else None
        self._loader = loader
        self._total = total_steps
        self._images = images_per_step
        self._epoch_length = epoch_length
        self._losses = losses
        self._start = resume_step
        self._begun = False
        self._since = (0.0, resume_step, 0.0)
        self._first = (0.0, resume_step)
        self._last_line = 0.0
        self._progress: Progress | None = None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add numbers to the record of a step."""
        self._table.write(step, values)
        self._board.scalars(step, values)
        if self._mlflow is not None:
            self._mlflow.write(step, values)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Show a picture file in TensorBoard too."""
        with Image.open(path) as image:
            self._board.picture(step, name, np.asarray(image.convert("RGB")))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the line on a terminal."""
        if sys.stderr.isatty() and trainer.is_global_zero:
            columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._progress.start()
            self._progress.add_task("", total=self._total, completed=self._start)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock with the first batch; starting the loader's processes is no waiting."""
        if not self._begun:
            self._begun = True
            now = time.perf_counter()
            self._since = (now, self._start, self._loader.wait_seconds)
            self._first = (now, self._start)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a row when one is due."""
        if self._losses.row is None:
            return
        # Reading losses and norms is the one place where the host waits for the device.
        more = dict(self._losses.row)
        lr = float("nan")
        if isinstance(pl_module, TrainingModule) and pl_module.last_gradient_norm is not None:
            more["gradient_norm"] = float(pl_module.last_gradient_norm)
            lr = lr if pl_module.last_lr is None else pl_module.last_lr
        more["peak_memory_gib"] = peak_memory_gib(pl_module.device)
        self._log(trainer.global_step, lr, more)

    def _log(self, step: int, lr: float, more: dict[str, float]) -> None:
        loss = more.pop("loss")
        now, waited = time.perf_counter(), self._loader.wait_seconds
        since_time, since_step, since_wait = self._since
        self._since = (now, step, waited)
        seconds = max(now - since_time, 1e-9)
        rate = (step - since_step) * self._images / seconds
        left = (now - self._first[0]) / max(1, step - self._first[1]) * (self._total - step)
        values = {
            "epoch": step * self._images / self._epoch_length,
            "loss": loss,
            "lr": lr,
            "images_per_second": rate,
            "data_wait_share": min(1.0, (waited - since_wait) / seconds),
            "seconds_left": left,
            **more,
        }
        self.write(step, values)
        line = (
            f"step {step}/{self._total}  loss {loss:.4f}  {rate:.1f} images/s  "
            f"waiting for data {values['data_wait_share']:.0%}"
        )
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=step, description=line)
        elif now - self._last_line > _SECONDS_BETWEEN_LINES or step == self._total:
            self._last_line = now
            logger.info("%s  %s left", line, _duration(left))

    def close(self) -> None:
        """End the line and close the record."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._table.close()
        self._board.close()
        if self._mlflow is not None:
            self._mlflow.close(finished=self._since[1] >= self._total)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
