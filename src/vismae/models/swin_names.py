"""Encoder weights of ours under the names of Microsoft's Swin code, timm and Hugging Face.

The way back of ``foreign_names.py``. Tensors only change their names: all order the quarters of a
merged patch and the rows of a bias table alike.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models.backbone import SwinConfig, SwinEncoder
from vismae.models.classifier import SwinClassifier
from vismae.models.contrastive import SwinSimCLR
from vismae.models.weights import Model, network_of
from vismae.models.windows import relative_position_index

_TABLE = ".relative_position_bias_table"
_INDEX = ".relative_position_index"


def microsoft_state(model: Model) -> dict[str, Tensor]:
    """Return encoder, final norm and, of a classifier, head under Microsoft's names.

    A head that also sees places (``place_grid``) is left out: theirs do not have it.
    The final norm of a model that has none (all but classifiers and contrastive networks) is 1 and
    0, which is how its features are pooled here.
    """
    encoder = swin_encoder(model)
    state = {name: value.detach().cpu().clone() for name, value in encoder.state_dict().items()}
    index = relative_position_index(encoder.config.window_size)
    for name in list(state):
        if name.endswith(_TABLE):
            state[name.removesuffix(_TABLE) + _INDEX] = index.clone()
    own = ["norm"] if isinstance(model, SwinClassifier | SwinSimCLR) else []
    own += ["head"] if isinstance(model, SwinClassifier) and model.place_head is None else []
    for part in own:
        for name, value in getattr(model, part).state_dict().items():
            state[f"{part}.{name}"] = value.detach().cpu().clone()
    if not own:
        state["norm.weight"] = torch.ones(encoder.out_dim)
        state["norm.bias"] = torch.zeros(encoder.out_dim)
    return state


def timm_state(model: Model) -> dict[str, Tensor]:
    """Return the same under timm's names: a stage begins with the merging, the head is ``fc``."""
    state: dict[str, Tensor] = {}
    for name, value in microsoft_state(model).items():
        parts = name.split(".")
        if len(parts) > 2 and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) + 1)
        if parts[0] == "head":
            parts.insert(1, "fc")
        state[".".join(parts)] = value
    return state


def transformers_state(
    microsoft: Mapping[str, Tensor], depths: tuple[int, ...]
) -> dict[str, Tensor]:
    """Return Microsoft's names as the ``SwinModel`` of Hugging Face transformers saves them.

    Args:
        microsoft: From ``microsoft_state``.
        depths: Blocks of each stage.
    """
    state: dict[str, Tensor] = {}
    plain = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "patch_embed.norm": "embeddings.norm",
        "norm": "layernorm",
    }
    for ours, theirs in plain.items():
        for end in ("weight", "bias"):
            state[f"{theirs}.{end}"] = microsoft[f"{ours}.{end}"]
    for stage, depth in enumerate(depths):
        for name in ("norm.weight", "norm.bias", "reduction.weight"):
            merging = f"layers.{stage}.downsample.{name}"
            if merging in microsoft:
                state[f"encoder.{merging}"] = microsoft[merging]
        for block in range(depth):
            place = f"layers.{stage}.blocks.{block}"
            state |= _transformers_block(microsoft, place)
    return state


def _transformers_block(microsoft: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    pairs = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    for end in ("weight", "bias"):
        for ours, theirs in pairs.items():
            state[f"encoder.{place}.{theirs}.{end}"] = microsoft[f"{place}.{ours}.{end}"]
        parts = microsoft[f"{place}.attn.qkv.{end}"].chunk(3)
        for word, part in zip(("query", "key", "value"), parts, strict=True):
            state[f"encoder.{place}.attention.self.{word}.{end}"] = part
    for word in ("bias_table", "index"):
        value = microsoft[f"{place}.attn.relative_position_{word}"]
        state[f"encoder.{place}.attention.self.relative_position_{word}"] = value
    return state


def swin_encoder(model: Model) -> SwinEncoder:
    """Return a model's Swin encoder.

    Raises:
        ModelError: It has none.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, SwinEncoder):
        raise ModelError(
            f"A {network_of(model)} has no Swin encoder, so it has no weights under Swin names. "
            "Use --format onnx, torch-export, monai or huggingface."
        )
    return encoder


def smallest_side_without_single_windows(config: SwinConfig) -> int:
    """Return the side in pixels at which every stage has two windows a side.

    There networks that shift a grid of a single window and those that do not are the same.
    """
    return config.patch_size * 2 ** (len(config.depths) - 1) * 2 * config.window_size
