"""A model with its preprocessing contract as one module of tensor operations, to be exported.

``data/intensity.py`` and ``data/geometry.py`` in operations that an exported program can hold; the
export compares every program with them.

Shapes: B images of one size, C channels, h×w their own size, H×W the contract's canvas, K classes,
D features.
"""

from enum import IntEnum
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.preprocessing import Preprocessing
from vismae.data.neighbours import of_whole_volume
from vismae.data.resampling import (
    enlarging_weights,
    occupied_lengths,
    places_along,
    shrinking_weights,
)
from vismae.models.features import image_features, require_features
from vismae.models.weights import Kind, Model, kind_of

OUTPUTS: dict[Kind, str] = {
    "segmenter": "logits",
    "classifier": "probabilities",
    "mae": "features",
    "contrastive": "features",
}
"""What each kind of model gives, by its kind."""


class Scale(IntEnum):
    """How physical values become 0..1; the number an exported program is given for each image."""

    HU = 0
    """By the contract's window of Hounsfield units."""
    SUV = 1
    """By the contract's range of SUV."""
    GREY = 2
    """Grey levels of 0 to 255; an image of a single level becomes zeros."""
    RANGE = 3
    """Between the two given values."""


class UnitRangeModel(nn.Module):
    """Images of 0..1 in, answers in the images' own size out.

    Args:
        model: The network, in evaluation mode.
        preprocessing: Its contract.
        multi_label: A classifier's classes do not exclude each other.

    Raises:
        ModelError: The network gives nothing that can be exported.
    """

    def __init__(self, model: Model, preprocessing: Preprocessing, multi_label: bool) -> None:
        super().__init__()
        self.kind: Kind = kind_of(model)
        if self.output == "features":
            require_features(model)
        self.network = model
        self.preprocessing = preprocessing
        self.multi_label = multi_label

    @property
    def output(self) -> str:
        """Name of what comes out."""
        return OUTPUTS[self.kind]

    def forward(self, images: Float[Tensor, "B C h w"]) -> Tensor:
        """Return logits (B, K, h, w), probabilities (B, K) or features (B, D).

        Args:
            images: One or three channels for a model of one channel, else three; one for each of
                the contract's sequences; where it wants neighbours, the slices of one volume in
                order.
        """
        contract = self.preprocessing
        if contract.in_channels == 1 and not contract.sequences:
            images = images.mean(dim=1, keepdim=True)
        rows, columns = places_along(images, 2), places_along(images, 3)
        canvas = contract.image_size
        height, width = occupied_lengths(rows, columns, canvas, contract.fit)
        images = _resample(
            images,
            shrinking_weights(rows, height, canvas[0]),
            shrinking_weights(columns, width, canvas[1]),
        )
        images = (images - contract.mean) / contract.std
        if contract.neighbours:
            images = of_whole_volume(images, contract.neighbours)
        if self.output == "features":
            extent = torch.stack((height, width)).float()
            return image_features(
                cast(Model, self.network), images, extent.expand(images.shape[0], 2)
            )
        logits = self.network(images).float()
        if self.kind == "classifier":
            return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        return _resample(
            logits,
            enlarging_weights(rows, height, canvas[0]),
            enlarging_weights(columns, width, canvas[1]),
        )


class StoredPixelModel(nn.Module):
    """Stored pixels in, answers in the images' own size out.

    Args:
        body: What follows the intensities.
    """

    def __init__(self, body: UnitRangeModel) -> None:
        super().__init__()
        self.body = body

    def forward(
        self,
        pixels: Float[Tensor, "B C h w"],
        scale: Int[Tensor, "B *each"],
        scaling: Float[Tensor, "B *each 4"],
    ) -> Tensor:
        """Return logits (B, K, h, w), probabilities (B, K) or features (B, D).

        Args:
            pixels: Stored values as numbers, not yet scaled; one or three channels.
            scale: A number of ``Scale`` for each image.
            scaling: Of each image slope, intercept (physical value = stored · slope + intercept),
                and the physical values that become 0 and 1 with ``RANGE``; they also stand for
                values that are not finite. Where the contract has sequences, both are given for
                each of them: (B, C) and (B, C, 4).
        """
        contract = self.body.preprocessing
        if not contract.sequences:
            # One image, whatever its channels.
            scale, scaling = scale[:, None], scaling[:, None]
        slope, intercept, low, high = (value[..., None, None] for value in scaling.unbind(dim=-1))
        values = pixels * slope + intercept
        values = torch.where(torch.isnan(values), low, values)
        values = torch.where(values == float("inf"), high, values)
        values = torch.where(values == float("-inf"), low, values)
        chosen = scale[..., None, None]
        low = _by_scale(chosen, contract.ct_window_hu[0], contract.pet_range_suv[0], 0.0, low)
        high = _by_scale(chosen, contract.ct_window_hu[1], contract.pet_range_suv[1], 255.0, high)
        # Where nothing varies the image shows nothing, whatever its level.
        axes = (2, 3) if contract.sequences else (1, 2, 3)
        flat = values.amin(dim=axes, keepdim=True) == values.amax(dim=axes, keepdim=True)
        empty = ((chosen == Scale.GREY) & flat) | (high <= low)
        width = torch.where(high > low, high - low, 1.0)
        unit = torch.where(empty, 0.0, ((values - low) / width).clamp(0.0, 1.0))
        if contract.in_channels == 3:
            # Grey three times, colours as they are: an index, since a program asks for no length.
            unit = unit[:, torch.arange(3, device=unit.device).clamp(max=unit.shape[1] - 1)]
        return self.body(unit)


def deployed(model: Model) -> UnitRangeModel:
    """Return a model from a folder with its contract as one module.

    Raises:
        ModelError: The model does not say how images become its input.
    """
    if model.card is None or model.preprocessing is None:
        raise ModelError("The model has no model card. Take a fresh copy of the model folder.")
    task = model.card.task
    several = task is not None and task.multi_label
    return UnitRangeModel(model, model.preprocessing, several).eval()


def _by_scale(scale: Tensor, hu: float, suv: float, grey: float, given: Tensor) -> Tensor:
    value = torch.where(scale == Scale.HU, hu, given)
    value = torch.where(scale == Scale.SUV, suv, value)
    return torch.where(scale == Scale.GREY, grey, value)


def _resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply by the weights of both axes, (B, C, h, w) to (B, C, H, W)."""
    return torch.matmul(torch.matmul(rows, images), columns.T)
