"""``vismae pretrain --plan``: what a pre-training will need, measured on a few steps of it.

The steps are real ones, with the run's data, network, batch and arithmetic, in a folder that is
thrown away; so loading, compilation and memory are those of the run.
"""

import csv
import logging
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vismae.core.config import PretrainConfig
from vismae.core.errors import TrainingError
from vismae.core.rundir import CHECKPOINT
from vismae.models.contrastive import SwinSimCLR
from vismae.models.mae import SwinMAE
from vismae.models.weights import load_model
from vismae.training.trainer import Schedule, plan_schedule
from vismae.workflows.pretrain import pretrain

logger = logging.getLogger(__name__)

_STEPS, _LOG_EVERY = 20, 5
_WARM_UP = _LOG_EVERY  # the first row: the loader, the compiler and the allocator start in it


@dataclass(frozen=True)
class PretrainPlan:
    """What a pre-training will need.

    Attributes:
        parameters: Weights of the network.
        flops_per_image: Floating-point operations of one image, forward and backward, counting a
            multiply-add as two; convolutions, matrix products and attention alone.
        schedule: Images and steps.
        devices: Processes that train together.
        images_per_second: Measured on one device.
        data_wait_share: Share of that time spent waiting for images.
        peak_memory_gib: Measured on one device; on a CPU, of the whole process.
        disk_gib: Resume point (old and new for a moment), model folder and pictures.
    """

    parameters: int
    flops_per_image: int
    schedule: Schedule
    devices: int
    images_per_second: float
    data_wait_share: float
    peak_memory_gib: float
    disk_gib: float

    @property
    def hours(self) -> float:
        """Expected time, if several devices cost nothing to bring together."""
        images = self.schedule.total_steps * self.schedule.images_per_step
        return images / self.devices / self.images_per_second / 3600

    def summary(self) -> str:
        """Say it in lines for a terminal."""
        schedule = self.schedule
        epochs = schedule.total_steps * schedule.images_per_step / schedule.epoch_length
        several = f" on {self.devices} devices, their exchange not counted" * (self.devices > 1)
        return "\n".join(
            [
                f"Network: {self.parameters / 1e6:.2f} M parameters, "
                f"{self.flops_per_image / 1e9:.2f} GFLOP per image (forward and backward).",
                f"Steps: {schedule.total_steps} of {schedule.images_per_step} images "
                f"({epochs:.1f} passes over {schedule.epoch_length} images).",
                f"Speed on one device: {self.images_per_second:.1f} images/s, "
                f"{self.data_wait_share:.0%} of the time waiting for data "
                f"({_STEPS - _WARM_UP} steps measured after {_WARM_UP} to warm up).",
                f"Time: about {self.hours:.1f} h{several}, without pictures and looks at the "
                "features.",
                f"Memory: {self.peak_memory_gib:.1f} GiB on each device at most.",
                f"Disk: {self.disk_gib:.2f} GiB in the run folder.",
            ]
        )


def plan(config: PretrainConfig) -> PretrainPlan:
    """Measure a few steps of a pre-training and say what the whole of it will need.

    Nothing is left behind; ``config.out`` is not touched.

    Raises:
        DataError: No image is left to learn from.
        TrainingError: Memory ran out; names the batch size to try.
    """
    trainer = config.trainer.model_copy(
        update={
            "max_steps": _STEPS,
            "max_epochs": None,
            "devices": 1,
            "nodes": 1,
            "log_every": _LOG_EVERY,
            "picture_every": 0,
            "checkpoint_every": _STEPS,
        }
    )
    monitor = config.monitor.model_copy(update={"every": 0, "mlflow": "off"})
    logger.info("measuring %d steps", _STEPS)
    with tempfile.TemporaryDirectory(prefix="vismae-plan-") as folder:
        run = Path(folder) / "run"
        started = {"out": run, "resume": False, "overwrite": False}
        trial = config.model_copy(update={**started, "trainer": trainer, "monitor": monitor})
        with _without_news_of_the_trial():
            model = load_model(pretrain(trial).model)
        images_per_step = config.data.batch_size * config.trainer.accumulate
        rate, wait, memory = _measured(run / "metrics.csv", images_per_step)
        disk = _disk_bytes(run)
        picture = sum(path.stat().st_size for path in run.glob("figures/fill_in.png"))
    if not isinstance(model, SwinMAE | SwinSimCLR) or model.card is None:
        raise TrainingError(f"{run} did not end with a pre-trained model.")
    learnt = model.card.training["pretrain"].images
    schedule = plan_schedule(config.trainer, config.data.batch_size, learnt)
    every = config.trainer.picture_every
    # Each picture is a file and lies in TensorBoard's log too.
    pictures = 2 * picture * (schedule.total_steps // every if every else 0)
    return PretrainPlan(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops_per_image=flops_per_image(model, model.card.preprocessing.image_size),
        schedule=schedule,
        devices=config.trainer.devices * config.trainer.nodes,
        images_per_second=rate,
        data_wait_share=wait,
        peak_memory_gib=memory,
        disk_gib=(disk + pictures) / 2**30,
    )


@contextmanager
def _without_news_of_the_trial() -> Generator[None]:
    """Keep the trial's own lines from the user: its steps, rate and folder are not the run's."""

    def concerns_user(record: logging.LogRecord) -> bool:
        """Tell whether somebody has to know, as of an image that cannot be read."""
        return record.levelno >= logging.WARNING or not record.name.startswith("vismae")

    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(concerns_user)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(concerns_user)


def flops_per_image(model: SwinMAE | SwinSimCLR, image_size: tuple[int, int]) -> int:
    """Count the operations of one image, forward and backward.

    Args:
        model: On the CPU.
        image_size: Height and width in pixels.
    """
    image = torch.zeros(1, model.config.in_channels, *image_size)
    # Written out, attention is matrix products, which the counter knows on every machine.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if isinstance(model, SwinMAE):
            model(image, keys=torch.zeros(1, dtype=torch.int64)).loss.backward()
        else:
            model.loss(image, image).backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def _measured(path: Path, images_per_step: int) -> tuple[float, float, float]:
    """Return images a second, share of waiting, and peak GiB, the first steps left out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    settled = [row for row in rows if int(row["step"]) > _WARM_UP]
    images = _LOG_EVERY * images_per_step
    seconds = [images / float(row["images_per_second"]) for row in settled]
    waited = [float(row["data_wait_share"]) for row in settled]
    shares = sum(s * w for s, w in zip(seconds, waited, strict=True)) / sum(seconds)
    memory = max(float(row["peak_memory_gib"]) for row in rows)
    return images * len(settled) / sum(seconds), shares, memory


def _disk_bytes(run: Path) -> int:
    """Bytes of a run folder, a second resume point beside the first included."""
    files = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return files + (run / CHECKPOINT).stat().st_size
