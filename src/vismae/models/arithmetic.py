"""Which arithmetic a device computes fast: fp32 or bf16.

A processor's word for bf16 is not enough: with the same instructions an EPYC trained twice as fast
in it, and a Xeon multiplied at 0.57 times the rate of fp32 (docs/performance.md). So those that
have it are asked to multiply.
"""

import logging
import platform
import time
from functools import cache
from typing import Literal

import torch

logger = logging.getLogger(__name__)

# Emulated where the processor has neither, and then up to dozens of times slower than fp32.
_X86_PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
# Large enough for the full rate, small enough to take milliseconds.
_SIDE, _ROUNDS = 512, 5


def has_fast_bf16(device_type: str) -> bool:
    """Tell whether a kind of device multiplies bf16 in hardware and faster than fp32.

    A processor that has the instructions is measured once in a process, some 30 ms.

    Args:
        device_type: cpu, cuda or mps.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and _cpu_has_bf16() and _cpu_gains_by_bf16()


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
def _cpu_has_bf16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in _X86_PROBES)
    # Of other processors oneDNN itself says yes only if they compute it.
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


@cache
def _cpu_gains_by_bf16() -> bool:
    """Compare products in both arithmetics, in turn so that a busy moment hits both."""
    factors = [torch.ones(_SIDE, _SIDE, dtype=kind) for kind in (torch.float32, torch.bfloat16)]
    best = [float("inf")] * len(factors)
    for _ in range(_ROUNDS):
        for place, factor in enumerate(factors):
            begun = time.perf_counter()
            torch.mm(factor, factor)
            best[place] = min(best[place], time.perf_counter() - begun)
    in_fp32, in_bf16 = best
    return in_bf16 < in_fp32
