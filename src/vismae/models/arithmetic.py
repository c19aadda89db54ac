"""Which arithmetic a device computes fast: fp32 or bf16.

A processor's word for bf16 is not enough: with the same instructions, and no matrix unit, an EPYC
trained twice as fast in it, and a Xeon multiplied at 0.57 times the rate of fp32
(docs/performance.md). What is decided hangs on the processor's kind alone. A short measurement was
tried instead: on a busy machine two runs of one study took different arithmetics.
"""

import logging
import platform
from functools import cache
from pathlib import Path
from typing import Literal

import torch

logger = logging.getLogger(__name__)

# Emulated where the processor has neither, and then up to dozens of times slower than fp32.
_MATRIX_UNIT, _VECTORS = "_is_amx_tile_supported", "_is_avx512_bf16_supported"
_CPU_FACTS = Path("/proc/cpuinfo")
_INTEL = "GenuineIntel"


def has_fast_bf16(device_type: str) -> bool:
    """Tell whether a kind of device multiplies bf16 in hardware and faster than fp32.

    Args:
        device_type: cpu, cuda or mps.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and _cpu_is_fast_in_bf16()


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16"], device_type: str
) -> Literal["fp32", "bf16"]:
    """Decide ``auto``: bf16 where the device is fast in it, fp32 elsewhere."""
    if precision == "auto":
        return "bf16" if has_fast_bf16(device_type) else "fp32"
    return precision


def warn_of_slow_bf16(precision: str, device_type: str, setting: str) -> None:
    """Log a warning where bf16 was asked for by name and the device is slow in it.

    Args:
        precision: What was asked for.
        device_type: cpu, cuda or mps.
        setting: The setting or option that asks, for the message.
    """
    if precision == "bf16" and device_type in ("cpu", "cuda") and not has_fast_bf16(device_type):
        logger.warning(
            "%s is bf16, in which this %s is slower than in fp32; where it only emulates it, many "
            "times. Use fp32.",
            setting,
            "GPU" if device_type == "cuda" else "processor",
        )


@cache
def _cpu_is_fast_in_bf16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return _has(_MATRIX_UNIT) or (_has(_VECTORS) and not _is_by_intel())
    # Of other processors oneDNN itself says yes only if they compute it.
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _has(probe: str) -> bool:
    return getattr(torch.cpu, probe, lambda: False)()


def _is_by_intel() -> bool:
    # Windows tells the maker in the processor's name, Linux in a file of its own.
    if _CPU_FACTS.is_file():
        return _INTEL in _CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    return _INTEL in platform.processor()
