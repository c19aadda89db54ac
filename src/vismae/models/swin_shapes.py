"""Sizes of a Swin network, read off the shapes of its tensors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models.backbone import SwinConfig

STEM = "encoder.patch_embed.proj.weight"
"""Our name of the convolution that makes tokens of patches."""


def infer_config(state: Mapping[str, Tensor], path: Path, **settings: Any) -> SwinConfig:
    """Return every size of the network, read off the shapes.

    Args:
        state: Tensors under our names; the bias tables of all stages have one size.
        path: For the message.
        settings: Fields of ``SwinConfig`` that no shape shows.

    Raises:
        ModelError: A tensor that shows a size is missing.
    """
    blocks: dict[int, set[int]] = {}
    for name in state:
        match = re.match(r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.", name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    stages = sorted(blocks)
    stem = state[STEM]
    try:
        tables = [
            state[f"encoder.layers.{stage}.blocks.0.attn.relative_position_bias_table"]
            for stage in stages
        ]
        inner = state["encoder.layers.0.blocks.0.mlp.fc1.weight"].shape[0]
        return SwinConfig(
            in_channels=stem.shape[1],
            patch_size=stem.shape[2],
            embed_dim=stem.shape[0],
            depths=tuple(len(blocks[stage]) for stage in stages),
            num_heads=tuple(table.shape[1] for table in tables),
            window_size=(round(tables[0].shape[0] ** 0.5) + 1) // 2,
            mlp_ratio=inner / stem.shape[0],
            **settings,
        )
    except LookupError as error:
        raise ModelError(
            f"{path}: the sizes of the network cannot be read off its tensors ({error} is missing "
            "or has too few dimensions). The file is incomplete or of another kind."
        ) from error


def require_sizes_of_weights(config: SwinConfig, state: Mapping[str, Tensor], where: Path) -> None:
    """Check every size of a Swin encoder against the weights, before anything is built.

    What is built can then be no larger than a file that was read already.

    Args:
        config: What a card says.
        state: Tensors under our names.
        where: For the message.

    Raises:
        ModelError: They differ; names the first size.
    """
    found = infer_config(state, where) if STEM in state else None
    for name in ("in_channels", "patch_size", "embed_dim", "depths", "num_heads", "window_size"):
        said = getattr(config, name)
        held = getattr(found, name) if found is not None else "no Swin encoder"
        if said != held:
            raise ModelError(
                f"{where}: architecture.swin.{name} is {said}, but the weights hold {held}. The "
                "card belongs to other weights; take a fresh copy of the model folder."
            )
    if found is not None and int(config.embed_dim * config.mlp_ratio) != int(
        found.embed_dim * found.mlp_ratio
    ):
        raise ModelError(
            f"{where}: architecture.swin.mlp_ratio is {config.mlp_ratio:g}, but the weights have "
            f"{found.mlp_ratio:g}. Take a fresh copy of the model folder."
        )
