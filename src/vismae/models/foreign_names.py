"""Names of Swin tensors in other projects' files, and the same in ours.

Microsoft (github.com/microsoft/Swin-Transformer) and timm name them as VIS-MAE does but for what
is said below; Hugging Face transformers has names of its own. All three concatenate the quarters
of a merged patch in the order (0,0), (1,0), (0,1), (1,1) (row, column) with the LayerNorm before
the reduction, and order the rows of a bias table as here, so tensors only change their names.
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from vismae.models.foreign import without_wrapper

SwinNaming = Literal["Microsoft", "timm", "Hugging Face"]

_STEM = "patch_embed.proj.weight"
_HF_STEM = "embeddings.patch_embeddings.projection.weight"
_MERGING = "layers.{}.downsample.reduction.weight"
# Only a VIS-MAE file has these.
_VISMAE = ("first_patch_expanding.", "layers_up.", "norm_up.", "decoder_pred.", "pos_embed")
_IMAGENET_CLASSES = (1000, 21841, 21843)

_HF_NAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.", "layers."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    # As saved; and as transformers 5 names them in memory.
    (r"\.attention\.self\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(self|relative_position_bias)\.relative_", ".attn.relative_"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def swin_naming(found: Mapping[str, Tensor]) -> SwinNaming | None:
    """Tell whose names the tensors of a Swin have; None for VIS-MAE's and for other networks.

    A classifier of VIS-MAE and one of Microsoft's may have the same names. Microsoft's is known
    by the attention_mask tensors in its files, by its position embedding, by a head for the
    classes of ImageNet or by having none.
    """
    if any(name.endswith(_HF_STEM) for name in found):
        return "Hugging Face"
    names = without_wrapper(found, _STEM)
    # A final norm beside the stages is never ours, whatever the part they stand in is called.
    in_encoder = without_wrapper(found, "encoder." + _STEM)
    ours = in_encoder and "encoder.norm.weight" not in in_encoder
    if not names or ours or any(name.startswith(_VISMAE) for name in names):
        return None
    moved = _MERGING.format(1) in names and _MERGING.format(0) not in names
    if moved or "head.fc.weight" in names:
        return "timm"
    head = names.get("head.weight")
    marked = any(name.endswith((".attn_mask", "absolute_pos_embed")) for name in names)
    if marked or head is None or head.shape[0] in _IMAGENET_CLASSES:
        return "Microsoft"
    return None


def to_microsoft_names(found: Mapping[str, Tensor], naming: SwinNaming) -> dict[str, Tensor]:
    """Return the tensors under Microsoft's names; what has no such name keeps its own."""
    if naming == "Hugging Face":
        return _join_qkv(
            {_renamed(name): value for name, value in without_wrapper(found, _HF_STEM).items()}
        )
    state = without_wrapper(found, _STEM)
    if naming == "Microsoft":
        return state
    # timm merges patches at the beginning of a stage, Microsoft at the end of the one before.
    moved = _MERGING.format(0) not in state

    def earlier(match: re.Match[str]) -> str:
        """The same tensor's name in the stage before."""
        return f"layers.{int(match[1]) - 1}.downsample."

    names = {name: name.replace("head.fc.", "head.") for name in state}
    if moved:
        pattern = re.compile(r"^layers\.(\d+)\.downsample\.")
        names = {name: pattern.sub(earlier, new) for name, new in names.items()}
    return {names[name]: value for name, value in state.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _HF_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack query, key and value, which others keep in one layer."""
    joined: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".attn.query." in name:
            parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if all(part in state for part in parts):
                joined[name.replace(".query.", ".qkv.")] = torch.cat(
                    [state[part] for part in parts]
                )
        elif ".attn.key." not in name and ".attn.value." not in name:
            joined[name] = value
    return joined
