"""Which GPU a process takes when several runs share a machine.

Each process takes one place: a file that it locks until it ends, however it ends. Places go round
the GPUs, so with as many runs at a time as GPUs each has one, and with more they share evenly.
"""

import fcntl
import logging
import os
import tempfile
from pathlib import Path

from vismae.core.errors import SettingError

logger = logging.getLogger(__name__)

_VISIBLE = "CUDA_VISIBLE_DEVICES"
# The open file of this process's place; closing it would give the place up.
_held: list[int] = []


def take_gpu(study: str) -> str | None:
    """Take a GPU of this machine for this process, before CUDA is used in it.

    Args:
        study: Runs of one study share the places; the name of its folder.

    Returns:
        Its number or id, which is all that CUDA then sees; None on a machine without any, or
        with one, which is everybody's.
    """
    if _held:
        return os.environ.get(_VISIBLE)
    gpus = visible_gpus()
    if len(gpus) < 2:
        return None
    place, descriptor = take_place(_folder(study))
    _held.append(descriptor)
    gpu = gpus[place % len(gpus)]
    os.environ[_VISIBLE] = gpu
    logger.info("this process uses GPU %s", gpu)
    return gpu


def visible_gpus() -> list[str]:
    """Return what names the GPUs that this process may use."""
    if _VISIBLE in os.environ:
        return [name.strip() for name in os.environ[_VISIBLE].split(",") if name.strip()]
    import torch

    # Counted without starting CUDA, which reads the variable when it starts.
    return [str(number) for number in range(torch.cuda.device_count())]


def take_place(folder: Path, most: int = 4096) -> tuple[int, int]:
    """Return the first free place, and the open file that holds it.

    Raises:
        SettingError: All are taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(most):
        descriptor = os.open(folder / f"{place}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return place, descriptor
    raise SettingError(f"{folder}: {most} processes of this study run already; start fewer.")


def _folder(study: str) -> Path:
    """Return the folder of a study's places on this machine: GPUs are a machine's own."""
    letters = [letter if letter.isalnum() else "_" for letter in study]
    return Path(tempfile.gettempdir()) / f"vismae-gpus-{os.getuid()}" / "".join(letters)[-200:]
