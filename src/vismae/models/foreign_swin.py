"""Swin weights of other projects (ImageNet and others) become a network of ours.

Liu et al. 2021 (arXiv 2103.14030), as published by Microsoft, timm and Hugging Face. Their
networks differ from VIS-MAE's in what no tensor shows: 1e-5 in the LayerNorms, and a grid no larger
than one window is not shifted. Both are settings of ``SwinConfig``, so the numbers agree.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vismae.core.errors import ModelError
from vismae.models.backbone import SwinConfig
from vismae.models.classifier import SwinClassifier
from vismae.models.foreign import ForeignAccount
from vismae.models.foreign_names import swin_naming, to_microsoft_names
from vismae.models.swin_shapes import infer_config
from vismae.models.weights import list_first, state_differences
from vismae.models.windows import relative_position_index

NORM_EPS = 1e-5
"""Added to the variance in every LayerNorm of these networks."""

_TABLE = ".relative_position_bias_table"
_INDEX = ".relative_position_index"
_ATTENTION_MASK = ".attn_mask"
# Signs of Swin V2 (arXiv 2111.09883): cosine attention and a position bias from a network.
_SECOND_VERSION = ("logit_scale", "cpb_mlp", "continuous_position_bias_mlp")
_ENCODER = ("patch_embed.", "layers.")
_REST = ("norm.", "head.")


def load_foreign_swin(found: Mapping[str, Tensor], path: Path) -> SwinClassifier | None:
    """Build the network that other projects' Swin weights belong to.

    Args:
        found: Tensors of the file by name.
        path: For messages.

    Returns:
        Network in evaluation mode; its ``origin`` says what became of each tensor. Without a head
        in the file it has one output, which means nothing. None where the file is no Swin of
        another project.

    Raises:
        ModelError: It is one, but of a kind that computes something else, or incomplete.
    """
    naming = swin_naming(found)
    if naming is None:
        return None
    state = to_microsoft_names(found, naming)
    _require_first_version(state, path)
    adapted: list[tuple[str, str]] = []
    ours: dict[str, Tensor] = {}
    unused: list[str] = []
    derived = 0
    for name, value in state.items():
        if name.endswith(_INDEX):
            _require_our_order(name, value, path)
            derived += 1
        elif name.endswith(_ATTENTION_MASK):
            derived += 1
        elif name.startswith(_ENCODER):
            ours[f"encoder.{name}"] = value
        elif name.startswith(_REST):
            ours[name] = value
        else:
            unused.append(name)
    if derived:
        adapted.append(("attention_mask, position indices", f"{derived} made from the sizes"))
    _same_windows(ours, path, adapted)
    config = infer_config(ours, path, norm_eps=NORM_EPS, shift_single_window=False)
    _add_missing_biases(ours, config, adapted)
    head = ours.get("head.weight")
    module = SwinClassifier(config, 1 if head is None else head.shape[0])
    absent = _load(module, ours, path)
    module.origin = ForeignAccount(
        naming=naming,
        taken=len(found) - len(unused) - derived,
        unused=tuple(unused),
        absent=absent,
        adapted=(
            ("encoder.norm_eps", f"{NORM_EPS:g} as theirs"),
            ("encoder.shift_single_window", "False as theirs"),
            *adapted,
        ),
    )
    return module.eval()


def widen_bias_table(table: Float[Tensor, "R heads"], rows: int) -> Float[Tensor, "{rows} heads"]:
    """Put a bias table into the middle of one for larger windows.

    A network built for small images has smaller windows in its last stages. Windows of the old size
    look only at the middle, so their numbers stay; offsets beyond it get the nearest one's bias.

    Args:
        table: One row per offset, (2M-1)² rows.
        rows: The same of the larger window.
    """
    old_side, new_side = round(table.shape[0] ** 0.5), round(rows**0.5)
    border = (new_side - old_side) // 2
    grid = table.T.reshape(1, -1, old_side, old_side)
    return F.pad(grid, (border,) * 4, mode="replicate").flatten(2)[0].T


def _require_first_version(state: Mapping[str, Tensor], path: Path) -> None:
    for name in state:
        if any(sign in name for sign in _SECOND_VERSION):
            raise ModelError(
                f"{path} holds a Swin V2 ({name}), whose attention computes something else. Give "
                "weights of a Swin V1, such as swin_tiny_patch4_window7_224."
            )
    for name in ("absolute_pos_embed", "embeddings.position_embeddings"):
        if name in state:
            raise ModelError(
                f"{path} adds a position embedding to its tokens ({name}), which our encoder has "
                "not. Give weights trained without (ape: false), as the published ones are."
            )


def _require_our_order(name: str, index: Tensor, path: Path) -> None:
    """Check that the rows of the bias table are ordered as ours."""
    if not torch.equal(index, relative_position_index(round(index.shape[0] ** 0.5))):
        raise ModelError(
            f"{path}: {name} orders window positions in another way than ours; its bias "
            "tables cannot be used."
        )


def _same_windows(ours: dict[str, Tensor], path: Path, adapted: list[tuple[str, str]]) -> None:
    """Bring the bias tables of all stages to the largest window."""
    tables = {name: value for name, value in ours.items() if name.endswith(_TABLE)}
    for name, table in tables.items():
        side = round(table.shape[0] ** 0.5)
        if side**2 != table.shape[0] or side % 2 == 0:
            raise ModelError(
                f"{path}: {name} has {table.shape[0]} rows, which is no square of an odd number; "
                "only square windows are known here."
            )
    _require_windows_not_to_grow(tables, path)
    rows = max((table.shape[0] for table in tables.values()), default=0)
    smaller = [name for name, table in tables.items() if table.shape[0] < rows]
    for name in smaller:
        ours[name] = widen_bias_table(ours[name], rows)
    if smaller:
        adapted.append((f"*{_TABLE}", f"{len(smaller)} put into the middle of larger windows"))


def _require_windows_not_to_grow(tables: Mapping[str, Tensor], path: Path) -> None:
    """Refuse windows that are smaller in an early stage than in a later one.

    Only a late stage has smaller ones because its grid is no larger; an early one has chosen them
    (AutoFormerV2's Swin-S3, arXiv 2111.14725), and with larger ones computes something else.
    """
    sides: dict[int, int] = {}
    for name, table in tables.items():
        stage = int(name.split(".")[2])
        sides[stage] = max(sides.get(stage, 0), (round(table.shape[0] ** 0.5) + 1) // 2)
    windows = [sides[stage] for stage in sorted(sides)]
    if windows != sorted(windows, reverse=True):
        raise ModelError(
            f"{path} has windows of {', '.join(map(str, windows))} tokens in its stages; here all "
            "stages have windows of one size. Give weights such as swin_tiny_patch4_window7_224."
        )


def _add_missing_biases(
    ours: dict[str, Tensor], config: SwinConfig, adapted: list[tuple[str, str]]
) -> None:
    """Give zero biases to attention that was trained without (qkv_bias: false)."""
    count = 0
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            name = f"encoder.layers.{stage}.blocks.{block}.attn.qkv.bias"
            if name not in ours:
                ours[name] = torch.zeros(3 * config.stage_dim(stage))
                count += 1
    if count:
        adapted.append(("encoder.*.attn.qkv.bias", f"{count} set to 0, for the file has none"))


def _load(module: SwinClassifier, ours: Mapping[str, Tensor], path: Path) -> tuple[str, ...]:
    """Copy everything; return the names after the encoder that the file does not have."""
    wanted = module.state_dict()
    absent = tuple(name for name in wanted if name not in ours and not name.startswith("encoder."))
    differences = state_differences(
        {name: value for name, value in wanted.items() if name not in absent}, ours
    )
    if differences:
        raise ModelError(
            f"{path} does not make a Swin encoder: {list_first(differences)} The file is "
            "incomplete, or of a variant that computes something else."
        )
    module.load_state_dict(ours, strict=not absent)
    return absent
