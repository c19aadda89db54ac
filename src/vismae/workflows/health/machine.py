"""Python, torch, devices, memory and disk."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from vismae.models.arithmetic import has_fast_bf16
from vismae.workflows.health.check import Check

_GIB = 2**30
_LEAST_MEMORY = 4 * _GIB
_LEAST_DISK = 5 * _GIB


def machine_checks(folder: Path) -> Iterator[Check]:
    """Look at what everything else runs on.

    Args:
        folder: Where runs would be written.
    """
    yield Check("vismae", "ok", metadata.version("vismae"))
    yield Check("Python", "ok", f"{sys.version.split()[0]} on {platform.platform(terse=True)}")
    yield _torch()
    yield from _devices()
    yield _memory()
    yield _disk("disk, this folder", folder)
    yield _disk("disk, temporary files", Path(tempfile.gettempdir()))


def _torch() -> Check:
    product = torch.ones(8, 8) @ torch.ones(8, 8)
    if float(product.sum()) != 512.0:
        cure = "pip install --force-reinstall torch"
        return Check("torch", "failed", f"{torch.__version__} computes wrong products", cure)
    faster = "bf16" if has_fast_bf16("cpu") else "fp32"
    found = (
        f"{torch.__version__}, {torch.get_num_threads()} threads, this processor is faster in "
        f"{faster}"
    )
    return Check("torch", "ok", found)


def _devices() -> Iterator[Check]:
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            found = f"{facts.name}, {facts.total_memory / _GIB:.0f} GiB"
            try:
                torch.ones(8, device=f"cuda:{number}").sum().item()
            except RuntimeError as error:
                cure = "Install the torch build for this driver (pytorch.org, Get Started)."
                reason = str(error).splitlines()[0]
                yield Check(f"CUDA device {number}", "failed", f"{found}: {reason}", cure)
            else:
                yield Check(f"CUDA device {number}", "ok", found)
    elif torch.backends.mps.is_available():
        yield Check("MPS device", "ok", platform.processor() or "Apple GPU")
    else:
        cure = ""
        if shutil.which("nvidia-smi"):
            cure = "A GPU driver is here, but this torch cannot use it: install a CUDA build."
        state = "warning" if cure else "ok"
        found = f"CPU only, {os.cpu_count()} cores; pre-training of large archives wants a GPU"
        yield Check("device", state, found, cure)


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return Check("memory", "ok", "this system does not say")
    if total < _LEAST_MEMORY:
        cure = "Use small batches (data.batch_size, --batch-size) and few workers."
        return Check("memory", "warning", _gib(total), cure)
    return Check("memory", "ok", _gib(total))


def _disk(name: str, folder: Path) -> Check:
    if not os.access(folder, os.W_OK):
        return Check(name, "failed", f"{folder} is not writable", "Use another folder, or ask.")
    free = shutil.disk_usage(folder).free
    if free < _LEAST_DISK:
        cure = "Free some space, or work elsewhere (TMPDIR names the place of temporary files)."
        return Check(name, "warning", f"{_gib(free)} free in {folder}", cure)
    return Check(name, "ok", f"{_gib(free)} free in {folder}")


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
