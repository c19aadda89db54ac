"""Proof that a transfer arrived: both encoders must make the same of an image.

A gain of pre-training cannot be judged, and its absence not explained, before this is known.

Shapes: B batch, C channels, H×W pixels.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.models.backbone import EncoderOutput
from vismae.models.transfer import TransferReport
from vismae.models.weights import Model

_SAME = 1e-3
"""Largest difference, relative to the features' own spread, that rounding can make."""


@dataclass(frozen=True)
class TransferAudit:
    """What both encoders make of the same image.

    Attributes:
        encoder_arrived: Share of the target encoder's parameters that came from the source.
        feature_difference: Largest difference between both encoders' features, as a share of
            their standard deviation.
        expected_same: False where the transfer itself changed what the weights compute (another
            window size, another number of image channels).
    """

    encoder_arrived: float
    feature_difference: float
    expected_same: bool

    def text(self) -> str:
        """Say it in a line."""
        why = "" if self.expected_same else " (weights were adapted, so some is expected)"
        return (
            f"{self.encoder_arrived:.1%} of the encoder's parameters arrived; on one image its "
            f"features differ from the start model's by {self.feature_difference:.2g} of their "
            f"spread{why}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def audit_transfer(
    source: Model,
    target: nn.Module,
    image: Float[Tensor, "B C H W"],
    report: TransferReport,
) -> TransferAudit:
    """Compare the encoders of both models on an image, in evaluation mode and float32.

    Args:
        source: The start model.
        target: What its encoder was moved into, not trained yet.
        image: Normalised, with the channels of the target.
        report: What the transfer says it did.

    Raises:
        ModelError: The features differ though nothing was adapted.
    """
    before, after = _encoder(source), _encoder(target)
    channels = source.config.in_channels
    grey = image.mean(dim=1, keepdim=True)
    # A grey image shows the same to a stem of one channel and to one of three.
    found = _features(after, grey.expand(-1, image.shape[1], -1, -1))
    expected = _features(before, grey.expand(-1, channels, -1, -1))
    difference = float((found - expected).abs().max() / expected.std().clamp(min=1e-12))
    left = set(report.left_at_start)
    sizes = {
        f"encoder.{name}": value.numel()
        for name, value in after.named_parameters()
        # What LoRA adds is new by intent, and changes nothing yet.
        if ".parametrizations.weight.0." not in name
    }
    arrived = sum(size for name, size in sizes.items() if name not in left)
    audit = TransferAudit(arrived / sum(sizes.values()), difference, not report.adapted)
    if audit.expected_same and not difference <= _SAME:
        raise ModelError(
            f"The encoder of the new network does not compute what the start model's does: "
            f"{audit.text()}. The start model may be damaged; take a fresh copy."
        )
    return audit


def _encoder(model: nn.Module) -> nn.Module:
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ModelError(f"{type(model).__name__} has no encoder to compare.")
    return encoder


@torch.no_grad()
def _features(encoder: nn.Module, image: Tensor) -> Tensor:
    was_training = encoder.training
    encoder.eval()
    try:
        output = encoder(image.to(next(encoder.parameters()).device))
    finally:
        encoder.train(was_training)
    return (output.tokens if isinstance(output, EncoderOutput) else output).float().cpu()
