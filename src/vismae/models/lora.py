"""LoRA: adapt an encoder by a low-rank change of its linear layers.

Hu et al. 2021 (arXiv 2106.09685): the weight W (D×C) stays, and W + alpha / r · U V is used, with U
(D×r) zero at first and V (r×C). Afterwards the sum becomes the weight, so that a model folder knows
nothing of it. The change is a parametrisation of the weight, so the arithmetic before and after
merging is the same.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vismae.core.errors import ModelError, SettingError

TARGETS = ("qkv", "proj", "fc1", "fc2")
"""Linear layers of a Swin block that can be adapted: attention's two and the MLP's two."""


class LowRankChange(nn.Module):
    """Adds a product of two thin matrices to a weight.

    Args:
        out_features: D.
        in_features: C.
        rank: r.
        alpha: The product counts alpha / r.
    """

    def __init__(self, out_features: int, in_features: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "D C"]) -> Float[Tensor, "D C"]:
        """Return the changed weight."""
        return weight + self.scale * (self.up @ self.down)


def add_lora(
    module: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("qkv", "proj"),
) -> int:
    """Freeze a module and give its target layers a low-rank change that learns.

    Its output stays the same until something is learnt.

    Args:
        module: A Swin encoder.
        rank: r, at least 1.
        alpha: The change counts alpha / r.
        targets: Some of ``TARGETS``.

    Returns:
        Number of parameters that now learn.

    Raises:
        SettingError: A target is unknown or the rank below 1.
        ModelError: The module has none of these layers, or has been changed before.
    """
    wrong = [target for target in targets if target not in TARGETS]
    if wrong or not targets or rank < 1:
        raise SettingError(
            f"model.lora_targets is {', '.join(targets) or 'empty'} and model.lora_rank {rank}; "
            f"name some of {', '.join(TARGETS)} and a rank of 1 or more."
        )
    layers = [
        layer
        for name, layer in module.named_modules()
        if name.split(".")[-1] in targets and isinstance(layer, nn.Linear)
    ]
    if not layers or any(parametrize.is_parametrized(layer) for layer in layers):
        raise ModelError(
            f"{type(module).__name__} has no linear layers named {', '.join(targets)} left to "
            "adapt. LoRA goes once into the Swin encoder of a network."
        )
    module.requires_grad_(False)
    for layer in layers:
        change = LowRankChange(layer.out_features, layer.in_features, rank, alpha)
        parametrize.register_parametrization(layer, "weight", change.to(layer.weight.device))
    return sum(value.numel() for value in module.parameters() if value.requires_grad)


def merge_lora(module: nn.Module) -> int:
    """Make every low-rank change part of its weight; names are then as without LoRA.

    Returns:
        Number of layers that were changed; 0 where there is no LoRA.
    """
    layers = [layer for layer in module.modules() if parametrize.is_parametrized(layer, "weight")]
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return len(layers)
