"""Which parameters learn: all, the head alone, the last blocks, or low-rank changes.

Shapes do not matter here; names of layers are those of ``SwinEncoder``.
"""

from collections.abc import Sequence
from typing import cast

from torch import nn

from vismae.core.errors import SettingError
from vismae.models.backbone import SwinEncoder, SwinStage
from vismae.models.lora import add_lora


def choose_trainable(
    network: nn.Module,
    train: str,
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_targets: Sequence[str] = ("qkv", "proj"),
) -> int:
    """Freeze what is not to learn; all that is not in the encoder always learns.

    Args:
        network: Changed in place; its part ``encoder`` holds what was pre-trained.
        train: ``all``; ``head``, nothing of the encoder; ``last_N``, its last N blocks; or
            ``lora``, low-rank changes of it.
        lora_rank: Of ``add_lora``.
        lora_alpha: Of ``add_lora``.
        lora_targets: Of ``add_lora``.

    Returns:
        Number of parameters that learn.

    Raises:
        SettingError: The network has no encoder, or none of the kind that is needed.
    """
    encoder = getattr(network, "encoder", None)
    if train != "all":
        if not isinstance(encoder, nn.Module):
            raise SettingError(
                f"model.train is {train}, but {type(network).__name__} has no encoder that could "
                "be frozen. Use all, or another model.network."
            )
        if train == "head":
            encoder.requires_grad_(False)
        elif not isinstance(encoder, SwinEncoder):
            raise SettingError(
                f"model.train is {train}, which needs a Swin encoder; "
                f"{type(network).__name__} has none. Use all or head."
            )
        elif train == "lora":
            add_lora(encoder, lora_rank, lora_alpha, lora_targets)
        else:
            _last_blocks(encoder, train)
    return sum(value.numel() for value in network.parameters() if value.requires_grad)


def _last_blocks(encoder: SwinEncoder, train: str) -> None:
    """Let the last N blocks learn, and the patch merging that follows each of them."""
    word, _, number = train.partition("_")
    blocks = [(stage, place) for stage, depth in enumerate(encoder.config.depths)
              for place in range(depth)]  # fmt: skip
    count = int(number) if word == "last" and number.isdigit() else 0
    if not 1 <= count <= len(blocks):
        raise SettingError(
            f"model.train is {train}; use all, head, lora, or last_1 to last_{len(blocks)}, for "
            f"the encoder has {len(blocks)} blocks."
        )
    encoder.requires_grad_(False)
    for stage, place in blocks[-count:]:
        layer = cast("SwinStage", encoder.layers[stage])
        layer.blocks[place].requires_grad_(True)
        if layer.downsample is not None and place == len(layer.blocks) - 1:
            layer.downsample.requires_grad_(True)
