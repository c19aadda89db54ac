"""Which kind of device trains, and in which arithmetic."""

from typing import Any, TypeVar, cast

import torch
import yaml

from vismae.core.config import FinetuneConfig, PretrainConfig
from vismae.core.errors import SettingError
from vismae.core.sections import TrainerSettings
from vismae.models.arithmetic import resolve_precision, warn_of_slow_bf16

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)


def accelerator(settings: TrainerSettings) -> str:
    """Return cuda, mps or cpu: what the settings name, or the best that is there.

    Raises:
        SettingError: It is not there, or there are fewer than wanted on this machine.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    name = settings.device
    if name == "auto":
        name = next(each for each in ("cuda", "mps", "cpu") if available[each])
    if not available[name]:
        raise SettingError(
            f"trainer.device is {name}, but torch finds no such device here. Use "
            "--device auto or cpu, or install a torch build for it."
        )
    if name == "mps" and settings.devices > 1:
        raise SettingError("trainer.devices is above 1, but there is one MPS device. Use 1.")
    if name == "cuda" and settings.devices > torch.cuda.device_count():
        raise SettingError(
            f"trainer.devices is {settings.devices}, but this process sees "
            f"{torch.cuda.device_count()} GPUs. Give fewer, or let every process see all GPUs of "
            "its machine (SLURM: --gpus-per-node without --gpus-per-task or --gpu-bind)."
        )
    return name


def with_precision(config: Config) -> Config:
    """Return settings whose ``trainer.precision`` is decided, so that the run folder says it.

    A run that is resumed keeps what it began with, also on another machine.

    Raises:
        SettingError: The device is not there.
    """
    wanted = config.trainer.precision
    begun = config.out / "config.yaml"
    if wanted == "auto" and config.resume and begun.is_file():
        before = cast("dict[str, Any]", yaml.safe_load(begun.read_text(encoding="utf-8")) or {})
        kept = (before.get("trainer") or {}).get("precision")
        wanted = kept if kept in ("fp32", "bf16") else wanted
    device = accelerator(config.trainer)
    warn_of_slow_bf16(wanted, device, "trainer.precision")
    trainer = config.trainer.model_copy(update={"precision": resolve_precision(wanted, device)})
    return config.model_copy(update={"trainer": trainer})
