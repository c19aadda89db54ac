"""Carry trained parts from one model to another, whole or not at all, and report what arrived.

A part that fits only half would silently start the rest at random; that is an error here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.nn import functional as F

from vismae.core.errors import ModelError, SettingError
from vismae.models.backbone import SwinConfig, SwinDecoder
from vismae.models.convolutional_decoder import ConvolutionalDecoder
from vismae.models.foreign import ForeignAccount
from vismae.models.weights import list_first, state_differences

_JOINTS = ("skip_connection_layers", "final_patch_expanding")
PARTS = ("encoder", "norm", "decoder", *_JOINTS)
"""Parts that can be carried over. Heads and the pixel prediction belong to their task."""

# What sees the image itself: the first convolution of each encoder (Swin, ResNet, DenseNet), and
# the stem of a convolutional decoder.
_STEMS = (
    "patch_embed.proj.weight",
    "conv1.weight",
    "features.conv0.weight",
    "stem.0.conv1.0.weight",
    "stem.0.shortcut.0.weight",
)
_BIAS_TABLE = "relative_position_bias_table"
# Settings that change what the same weights compute, though no tensor shows them.
_SILENT_SETTINGS = ("norm_eps", "shift_single_window")


@dataclass(frozen=True)
class PartCopied:
    """How much of one part was copied.

    Attributes:
        tensors: Number of named tensors.
        parameters: Number of values.
    """

    tensors: int
    parameters: int


@dataclass(frozen=True)
class TransferReport:
    """What a transfer did.

    Attributes:
        copied: Amount by part.
        arrived_share: Share of the target's parameters that now come from the source, 0 to 1.
        left_at_start: Names of the target's parameters that keep their initial values.
        adapted: Name and what was done, where a tensor was changed to fit or the same weights
            now compute something else.
        origin: What became of the file, where the source was read from another project's.
    """

    copied: dict[str, PartCopied]
    arrived_share: float
    left_at_start: tuple[str, ...]
    adapted: tuple[tuple[str, str], ...]
    origin: ForeignAccount | None = None

    def text(self) -> str:
        """Say it in a few lines for a log."""
        lines = [self.origin.text()] if self.origin is not None else []
        lines += [
            f"{part}: {amount.tensors} tensors, {amount.parameters:,} parameters copied"
            for part, amount in self.copied.items()
        ]
        groups = dict.fromkeys(name.split(".")[0] for name in self.left_at_start)
        rest = f"; at their start: {', '.join(groups)}" if groups else ""
        lines.append(f"{self.arrived_share:.1%} of the target's parameters arrived{rest}")
        lines += [f"adapted {name}: {change}" for name, change in self.adapted]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a model card's provenance."""
        return asdict(self)


def transfer(
    source: nn.Module,
    target: nn.Module,
    parts: tuple[str, ...] = ("encoder",),
    middle: bool = False,
    sequences: int = 0,
) -> TransferReport:
    """Copy named parts of one model into another.

    Between window sizes the bias tables are interpolated (bicubic); to one image channel from more
    (colour, neighbouring slices) the stem is summed, to three from one it is spread, which keeps
    its output on grey images, or on a slice repeated, the same. With
    ``middle``, the channels are neighbouring slices: the stem's weights go to the middle one and
    those of the others start at 0 ("central frame initialisation", Arnab et al. 2021, arXiv
    2103.15691), so that at first the network computes what it did of the slice alone. With
    ``sequences`` the stem's sum is spread evenly over those of the slice, which keeps its output
    where all of them show the same.

    Args:
        source: Any model with the attributes named in ``parts``.
        target: Changed in place, only if every part fits.
        parts: Some of ``PARTS``.
        middle: The target's image channels are a slice and its neighbours.
        sequences: How many sequences the target sees of each slice, where the source did not see
            the same ones; 0 otherwise.

    Raises:
        SettingError: A part is unknown.
        ModelError: A part is missing or does not fit whole; lists what differs.
    """
    states: dict[str, dict[str, Tensor]] = {}
    adapted: list[tuple[str, str]] = []
    for part in parts:
        if part not in PARTS:
            raise SettingError(f"'{part}' cannot be transferred. Parts: {', '.join(PARTS)}.")
        old, new = _part_of(source, part), _part_of(target, part)
        wanted = new.state_dict()
        states[part] = _fit(old.state_dict(), wanted, part, adapted, middle, sequences)
        differences = state_differences(wanted, states[part])
        if differences:
            raise ModelError(
                f"The {part} of {type(source).__name__} does not fit that of "
                f"{type(target).__name__}: {list_first(differences)} Build the target with the "
                "source's network (size, depths, patch size), or leave this part out."
            )
        adapted += _silent_changes(old, new, part)
    for part, state in states.items():
        _part_of(target, part).load_state_dict(state)
    origin = getattr(source, "origin", None)
    return replace(
        _report(target, states, adapted),
        origin=origin if isinstance(origin, ForeignAccount) else None,
    )


def parts_in_common(source: nn.Module, target: nn.Module, decoder: bool = True) -> tuple[str, ...]:
    """Name the parts of one kind in both models: the encoder always, the others where they fit.

    The norm behind the encoder goes with it. Convolutional decoders are of one kind if their widths
    are equal. Between two Swin-UNets the skips' layers go with the decoder, which would be given
    noise otherwise.

    Args:
        source: What was trained.
        target: What is to start from it.
        decoder: Whether a decoder is wanted.
    """
    parts = ["encoder"]
    origin = getattr(source, "origin", None)
    lost = isinstance(origin, ForeignAccount) and "norm.weight" in origin.absent
    if not lost and _both_have("norm", source, target):
        parts.append("norm")
    if decoder and _decoders_alike(source, target):
        parts.append("decoder")
        parts += [joint for joint in _JOINTS if _both_have(joint, source, target)]
    return tuple(parts)


def _both_have(part: str, source: nn.Module, target: nn.Module) -> bool:
    return all(isinstance(getattr(model, part, None), nn.Module) for model in (source, target))


def _decoders_alike(source: nn.Module, target: nn.Module) -> bool:
    old, new = getattr(source, "decoder", None), getattr(target, "decoder", None)
    if isinstance(old, ConvolutionalDecoder) and isinstance(new, ConvolutionalDecoder):
        return (old.width, old.branch) == (new.width, new.branch)
    return isinstance(old, SwinDecoder) and isinstance(new, SwinDecoder)


def resize_bias_table(table: Float[Tensor, "R heads"], rows: int) -> Float[Tensor, "{rows} heads"]:
    """Interpolate a relative position bias table to another window size (bicubic).

    Args:
        table: One row per offset, (2M-1)² rows.
        rows: The same of the new window.
    """
    old_side, new_side = round(table.shape[0] ** 0.5), round(rows**0.5)
    grid = table.T.reshape(1, -1, old_side, old_side).float()
    grid = F.interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return grid.flatten(2)[0].T.to(table.dtype)


def _part_of(module: nn.Module, part: str) -> nn.Module:
    found = getattr(module, part, None)
    if not isinstance(found, nn.Module):
        raise ModelError(
            f"{type(module).__name__} has no {part}. Leave '{part}' out of the parts to transfer."
        )
    return found


def _fit(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    part: str,
    adapted: list[tuple[str, str]],
    middle: bool,
    sequences: int,
) -> dict[str, Tensor]:
    """Change the tensors whose shape follows from window size or image channels."""
    fitted = dict(state)
    tables: dict[tuple[int, int], int] = {}
    for name in state.keys() & wanted.keys():
        old, new = state[name], wanted[name]
        if name in _STEMS and sequences:
            fitted[name], how = _spread_over(old, new.shape, sequences)
            adapted.append((f"{part}.{name}", how))
            continue
        if name in _STEMS and middle and old.shape[1] in (1, 3):
            many = new.shape[1]
            fitted[name] = old.new_zeros(new.shape)
            # The sum is what a stem of three channels makes of a grey image.
            fitted[name][:, many // 2] = old.sum(1)
            adapted.append((f"{part}.{name}", f"put to the middle of {many} slices, others at 0"))
            continue
        if old.shape == new.shape:
            continue
        if name.endswith(_BIAS_TABLE) and old.shape[1] == new.shape[1]:
            fitted[name] = resize_bias_table(old, new.shape[0])
            sides = (_window(old), _window(new))
            tables[sides] = tables.get(sides, 0) + 1
        # A grey image repeated gives the same sum of products either way.
        elif name in _STEMS and new.shape[1] == 1:
            fitted[name] = old.sum(1, keepdim=True)
            adapted.append((f"{part}.{name}", f"summed over {old.shape[1]} image channels"))
        elif name in _STEMS and (old.shape[1], new.shape[1]) == (1, 3):
            fitted[name] = old.repeat(1, 3, 1, 1) / 3
            adapted.append((f"{part}.{name}", "spread over 3 image channels"))
    for (old_window, new_window), count in tables.items():
        change = f"{count} tables interpolated from window {old_window} to {new_window}"
        adapted.append((f"{part}.*.{_BIAS_TABLE}", change))
    return fitted


def _spread_over(old: Tensor, shape: Size, sequences: int) -> tuple[Tensor, str]:
    """Give each sequence an even share of a stem, of the middle slice where there are several."""
    spread = old.new_zeros(shape)
    first = (shape[1] - sequences) // 2
    spread[:, first : first + sequences] = old.sum(1, keepdim=True) / sequences
    beside = shape[1] // sequences - 1
    rest = f" of the middle slice, the {beside} beside it at 0" if beside else ""
    return spread, f"spread over {sequences} sequences{rest}"


def _window(table: Tensor) -> int:
    return (round(table.shape[0] ** 0.5) + 1) // 2


def _silent_changes(old: nn.Module, new: nn.Module, part: str) -> list[tuple[str, str]]:
    before, after = getattr(old, "config", None), getattr(new, "config", None)
    if not isinstance(before, SwinConfig) or not isinstance(after, SwinConfig):
        return []
    return [
        (f"{part}.{name}", f"{getattr(before, name)} became {getattr(after, name)}")
        for name in _SILENT_SETTINGS
        if getattr(before, name) != getattr(after, name)
    ]


def _report(
    target: nn.Module, states: Mapping[str, Mapping[str, Tensor]], adapted: list[tuple[str, str]]
) -> TransferReport:
    arrived = {f"{part}.{name}" for part, state in states.items() for name in state}
    sizes = {name: parameter.numel() for name, parameter in target.named_parameters()}
    return TransferReport(
        copied={
            part: PartCopied(len(state), sum(value.numel() for value in state.values()))
            for part, state in states.items()
        },
        arrived_share=sum(sizes[name] for name in sizes if name in arrived) / sum(sizes.values()),
        left_at_start=tuple(name for name in sizes if name not in arrived),
        adapted=tuple(adapted),
    )
