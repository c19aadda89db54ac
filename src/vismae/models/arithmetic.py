"""Which arithmetic a device computes fast: fp32 or bf16."""

import logging
import platform
from functools import cache
from typing import Literal

import torch

logger = logging.getLogger(__name__)

# Emulated where the processor has neither, and then up to dozens of times slower than fp32.
_X86_PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def has_fast_bf16(device_type: str) -> bool:
    """Tell whether a kind of device multiplies bf16 in hardware, and so faster than fp32.

    Args:
        device_type: cpu, cuda or mps.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and _cpu_has_bf16()


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16"], device_type: str
) -> Literal["fp32", "bf16"]:
    """Decide ``auto``: bf16 where the device is fast in it, fp32 elsewhere."""
    if precision == "auto":
        return "bf16" if has_fast_bf16(device_type) else "fp32"
    return precision


def warn_of_slow_bf16(precision: str, device_type: str, setting: str) -> None:
    """Log a warning where bf16 was asked for by name and the device only emulates it.

    Args:
        precision: What was asked for.
        device_type: cpu, cuda or mps.
        setting: The setting or option that asks, for the message.
    """
    if precision == "bf16" and device_type in ("cpu", "cuda") and not has_fast_bf16(device_type):
        logger.warning(
            "%s is bf16, which this %s only emulates: slower than fp32, on processors many times. "
            "Use fp32.",
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
