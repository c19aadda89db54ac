"""AdamW with the groups that decay, layer-wise learning rates, warm-up and cosine.

Schedules count steps from the configuration, never from the trainer, so that a resumed run and an
uninterrupted one agree.
"""

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vismae.core.errors import SettingError
from vismae.core.sections import OptimizerSettings
from vismae.models.backbone import SwinConfig

_POLY_POWER = 0.9


def effective_lr(settings: OptimizerSettings, images_per_step: int) -> float:
    """Return the peak learning rate for a number of images per optimiser step."""
    ratio = images_per_step / settings.lr_batch_size
    factor = {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[settings.lr_scaling]
    return _given(settings.lr, "optimizer.lr") * factor


def _given(value: float | None, name: str) -> float:
    if value is None:
        raise SettingError(f"{name} is unset; give a number.")
    return value


def lr_factor(
    step: int, total_steps: int, settings: OptimizerSettings, encoder: bool = False
) -> float:
    """Return the share of the peak learning rate at a step: linear rise, then cosine fall.

    The first step already learns (factor 1/warm-up), the last reaches ``min_lr_fraction``.

    Args:
        step: Steps done.
        total_steps: Of the whole run.
        settings: Warm-up, floor, and the share of steps that the encoder waits for
            (``head_first_fraction``): in these the rest rises to its peak and stays there, then
            all begin anew together.
        encoder: For the encoder's parameters.
    """
    waiting = int(settings.head_first_fraction * total_steps)
    if step < waiting:
        return 0.0 if encoder else min(1.0, (step + 1) / max(1, waiting // 2))
    step, total_steps = step - waiting, total_steps - waiting
    warmup = int(settings.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    floor = settings.min_lr_fraction
    if settings.schedule == "poly":
        # nnU-Net's last step still learns: its fraction is of all steps, not of all but one.
        left = 1.0 - min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return floor + (1 - floor) * left**_POLY_POWER
    progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether weight decay applies: matrices do; norms, biases, bias tables, tokens do not."""
    return parameter.ndim >= 2 and not name.endswith(
        ("relative_position_bias_table", "mask_token", ".bias")
    )


def encoder_layers(network: nn.Module) -> list[tuple[str, ...]]:
    """Return the parameter-name prefixes of an encoder's layers, input side first.

    Swin: the patch embedding is a layer, each block is one, and patch merging belongs to the last
    block before it. ResNet and DenseNet: the stem is a layer and each stage is one. Empty for a
    network without an encoder of its own.
    """
    config, name = getattr(network, "config", None), getattr(network, "network", None)
    if isinstance(config, SwinConfig):
        return _swin_layers(config)
    return _CONVOLUTIONAL_LAYERS.get(str(name), [])


_RESNET_LAYERS = [
    ("encoder.conv1.", "encoder.bn1."),
    *[(f"encoder.layer{stage}.",) for stage in range(1, 5)],
]
_CONVOLUTIONAL_LAYERS: dict[str, list[tuple[str, ...]]] = {
    "resnet18": _RESNET_LAYERS,
    "resnet50": _RESNET_LAYERS,
    "densenet121": [
        ("encoder.features.conv0.", "encoder.features.norm0."),
        *[
            (f"encoder.features.denseblock{block}.", f"encoder.features.transition{block}.")
            for block in range(1, 4)
        ],
        ("encoder.features.denseblock4.", "encoder.features.norm5."),
    ],
}


def require_no_encoder_meant(settings: OptimizerSettings, network: str) -> None:
    """Refuse settings that tell an encoder from the rest, for a network that has none.

    Raises:
        SettingError: Names the setting, its value and what it may be.
    """
    if settings.head_first_fraction:
        raise SettingError(
            f"optimizer.head_first_fraction is {settings.head_first_fraction:g}, but {network} has "
            "no encoder that could wait. Set it to 0."
        )
    if settings.head_lr_factor not in (None, 1.0):
        raise SettingError(
            f"optimizer.head_lr_factor is {settings.head_lr_factor:g}, but {network} has no "
            "encoder that something could stand above. Leave it out, and set optimizer.lr."
        )


def _swin_layers(config: SwinConfig) -> list[tuple[str, ...]]:
    layers: list[tuple[str, ...]] = [("encoder.patch_embed.",)]
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            names = [f"encoder.layers.{stage}.blocks.{block}."]
            if block == depth - 1:
                names.append(f"encoder.layers.{stage}.downsample.")
            layers.append(tuple(names))
    return layers


def parameter_groups(
    model: nn.Module,
    lr: float,
    settings: OptimizerSettings,
    encoder_layers: Iterable[Iterable[str]] = (),
) -> list[dict[str, object]]:
    """Return AdamW's parameter groups; parameters that do not learn are left out.

    Args:
        model: What learns.
        lr: Peak learning rate.
        settings: Weight decay, the decay of lr from layer to layer, and the factor of what stands
            above the encoder.
        encoder_layers: Parameter-name prefixes of each encoder layer, input side first; lr of
            layer i of n is ``lr * layer_decay ** (n - i)`` (Bao et al. 2022, arXiv 2106.08254,
            appendix). What is in no layer learns at ``lr * head_lr_factor``, without an encoder
            at lr.
    """
    layers = [tuple(prefixes) for prefixes in encoder_layers]
    layer_decay = 1.0 if settings.layer_decay is None else settings.layer_decay
    head_factor = settings.head_lr_factor if layers and settings.head_lr_factor else 1.0

    def rate(layer: int) -> float:
        return lr * (head_factor if layer == len(layers) else layer_decay ** (len(layers) - layer))

    def depth(name: str) -> int:
        for number, prefixes in enumerate(layers):
            if name.startswith(prefixes):
                return number
        return len(layers)

    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((depth(name), decays(name, parameter)), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate(layer),
            "weight_decay": settings.weight_decay if decay else 0.0,
            "encoder": layer < len(layers),
        }
        for (layer, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(
    groups: list[dict[str, object]], settings: OptimizerSettings, total_steps: int, fused: bool
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Return the optimiser and its schedule over ``total_steps`` optimiser steps."""
    optimizer: torch.optim.Optimizer
    if settings.algorithm == "sgd":
        nesterov = settings.momentum > 0.0
        optimizer = torch.optim.SGD(
            groups, momentum=settings.momentum, nesterov=nesterov, fused=fused
        )
    else:
        optimizer = torch.optim.AdamW(groups, betas=settings.betas, fused=fused)
    # Lightning takes this flag of fused optimisers for gradients that still carry a loss scale, and
    # then refuses to clip them under any mixed precision. bfloat16 needs no loss scale.
    optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
    schedules = [
        partial(
            lr_factor, total_steps=total_steps, settings=settings, encoder=bool(g.get("encoder"))
        )
        for g in groups
    ]
    return optimizer, LambdaLR(optimizer, schedules)
