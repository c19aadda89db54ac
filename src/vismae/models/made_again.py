"""Less kept for the backward pass: what is cheap to make again is made again.

A matrix product keeps its input for the gradient of its weights. Where that input is a GELU or a
LayerNorm of something kept anyway, it can be made again when it is needed, bit by bit the same. In
float32 a training step of the ``vismae`` size then needs a fifth less memory, for some 3 % of its
time, on a CPU; other devices were not measured and keep all. Gradient checkpointing goes further
and also computes the products again.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def made_again(result: Tensor, make: Callable[[], Tensor]) -> AbstractContextManager[object]:
    """Inside, an operation that would keep ``result`` for its gradient keeps ``make`` instead.

    Nothing changes where no gradient is wanted, on other devices than a CPU, inside
    ``keeping_all``, and where a compiler looks on, which decides for itself what to keep.

    Args:
        result: What ``make`` gave.
        make: Gives the same again; what it takes stays in memory until the backward pass.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or _keeps_all():
        return nullcontext()
    if result.device.type != "cpu":
        return nullcontext()
    # Not the tensor itself, which the hooks would keep alive.
    place, numbers, dtype = result.data_ptr(), result.numel(), result.dtype
    autocast = torch.autocast(
        "cpu",
        dtype=torch.get_autocast_dtype("cpu"),
        enabled=torch.is_autocast_enabled("cpu"),
        cache_enabled=False,
    )

    def pack(kept: Tensor) -> "Tensor | _Recipe":
        same = (kept.data_ptr(), kept.numel(), kept.dtype) == (place, numbers, dtype)
        return _Recipe(make, kept.shape, autocast) if same else kept

    return saved_tensors_hooks(pack, _unpack)


def product_input(norm: nn.Module, x: Tensor) -> Tensor:
    """Return ``norm(x)`` in the type that a matrix product takes under autocast.

    Autocast would make that copy inside the product, where it could not be told from others.
    """
    normed = norm(x)
    if normed.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return normed
    return normed.to(torch.get_autocast_dtype("cpu"))


def keeping_all(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function in which ``made_again`` changes nothing.

    For gradient checkpointing, which must see all that is kept.
    """

    def run(*arguments: object) -> Tensor:
        before = _keeps_all()
        _state.keeps_all = True
        try:
            return function(*arguments)
        finally:
            _state.keeps_all = before

    return run


@dataclass(frozen=True)
class _Recipe:
    make: Callable[[], Tensor]
    shape: torch.Size
    autocast: torch.autocast


def _unpack(kept: "Tensor | _Recipe") -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    with kept.autocast:
        return kept.make().reshape(kept.shape)


# The backward pass may run, and check again, in threads of its own.
_state = threading.local()


def _keeps_all() -> bool:
    return getattr(_state, "keeps_all", False)
