"""SwinMAE: hide patches, encode what is left, draw the hidden pixels.

He et al. 2022 (arXiv 2111.06377) on a Swin Transformer as in Swin-MAE (arXiv 2212.13805) and
VIS-MAE (arXiv 2402.01034): a learned token takes a hidden patch's place before the encoder, since
windows need a whole grid (SimMIM, arXiv 2111.09886).

Shapes: B batch, H×W pixels, K image channels, p patch side, h×w patch grid, L = h·w, C channels.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vismae.core.errors import ModelError, SettingError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.backbone import (
    EncoderOutput,
    SwinConfig,
    SwinDecoder,
    SwinEncoder,
    config_for_size,
    nearest,
    pad_to_patches,
    split_settings,
    stage_grids,
)
from vismae.models.masking import (
    STRATEGIES,
    foreground_units,
    keys_from_generator,
    sample_hidden,
    units_to_patches,
)
from vismae.models.swin import initialise


class MAEOutput(NamedTuple):
    """What one forward pass gives.

    Attributes:
        loss: Scalar in float32.
        prediction: One row of p·p·K pixel values per patch, (B, L, p·p·K); scaled per patch if
            the model normalises its targets.
        hidden: True where the encoder did not see the patch, (B, L), row by row.
    """

    loss: Tensor
    prediction: Tensor
    hidden: Tensor


def patchify(images: Float[Tensor, "B K H W"], patch_size: int) -> Float[Tensor, "B L D"]:
    """Cut images into patches, row by row, each a row of (row, column, channel) values.

    Images are padded with zeros at the right and bottom to whole patches.
    """
    images = pad_to_patches(images, patch_size)
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = images.view(batch, channels, rows, patch_size, columns, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


def unpatchify(
    patches: Float[Tensor, "B L D"], patch_size: int, height: int, width: int
) -> Float[Tensor, "B K {height} {width}"]:
    """Put patches back into images of this size; the inverse of ``patchify``."""
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    x = patches.view(patches.shape[0], rows, columns, patch_size, patch_size, -1)
    x = x.permute(0, 5, 1, 3, 2, 4)
    x = x.reshape(x.shape[0], x.shape[1], rows * patch_size, columns * patch_size)
    return x[:, :, :height, :width]


def real_pixels(images: Float[Tensor, "B K H W"], patch_size: int) -> Float[Tensor, "1 L D"] | None:
    """1 for each real value of each patch, 0 for padding; None if nothing is padded."""
    if images.shape[2] % patch_size == 0 and images.shape[3] % patch_size == 0:
        return None
    return patchify(torch.ones_like(images[:1], dtype=torch.float32), patch_size)


def patch_statistics(
    patches: Float[Tensor, "B L D"], real: Float[Tensor, "1 L D"] | None, normalise_eps: float
) -> tuple[Float[Tensor, "B L 1"], Float[Tensor, "B L 1"]]:
    """Mean and spread of each patch over its real pixels.

    The variance is unbiased and ``normalise_eps`` is added before the root, as in MAE's code.
    """
    weight = torch.ones_like(patches[:1]) if real is None else real
    count = weight.sum(dim=-1, keepdim=True)
    mean = (patches * weight).sum(dim=-1, keepdim=True) / count
    square = ((patches - mean).square() * weight).sum(dim=-1, keepdim=True)
    return mean, (square / (count - 1).clamp(min=1) + normalise_eps).sqrt()


def reconstruction_loss(
    prediction: Float[Tensor, "B L D"],
    image: Float[Tensor, "B K H W"],
    hidden: Bool[Tensor, "B L"],
    normalise_patches: bool = False,
    normalise_eps: float = 1e-6,
    patch_weights: Float[Tensor, "B L"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error per pixel over hidden patches only.

    He et al. 2022 (arXiv 2111.06377, sec. 3, "Reconstruction target"); VIS-MAE (arXiv 2402.01034)
    uses the same. Computed in float32; pixels that only pad a patch never count.

    Args:
        prediction: One row of p·p·K pixel values per patch, order (row, column, channel).
        image: Normalised image, values about 0 with unit spread.
        hidden: True where the encoder did not see the patch.
        normalise_patches: Compare with each patch scaled to mean 0, variance 1.
        normalise_eps: Added to the patch variance; 1e-6 is MAE's, but then flat patches of medical
            images blow up noise, and 1e-3 trains better.
        patch_weights: Weight of each patch in the mean; None weighs all alike.

    Returns:
        Scalar; 0 only for a perfect fill-in, NaN if no patch is hidden (a mean over nothing;
        checking would make the computer wait for the GPU in every step).
    """
    patch_size = _patch_side(prediction, image)
    target = patchify(image.float(), patch_size)
    real = real_pixels(image, patch_size)
    if normalise_patches:
        mean, spread = patch_statistics(target, real, normalise_eps)
        target = (target - mean) / spread
    weight = hidden.float() if patch_weights is None else hidden * patch_weights.float()
    square = (prediction.float() - target).square()
    if real is None:
        return (square.mean(dim=-1) * weight).sum() / weight.sum()
    pixel_weight = weight[:, :, None] * real
    return (square * pixel_weight).sum() / pixel_weight.sum()


def _patch_side(prediction: Tensor, image: Tensor) -> int:
    """Side of a patch, from the length of a row and the image's channels."""
    channels = image.shape[1]
    side = round((prediction.shape[-1] / channels) ** 0.5)
    patches = -(-image.shape[2] // max(side, 1)) * -(-image.shape[3] // max(side, 1))
    if side * side * channels != prediction.shape[-1] or patches != prediction.shape[1]:
        raise ModelError(
            f"The prediction {tuple(prediction.shape)} does not cover the images "
            f"{tuple(image.shape)}. Expected one row of p·p·{channels} values per patch."
        )
    return side


class SwinMAE(nn.Module):
    """A masked autoencoder on a Swin Transformer.

    Args:
        config: The network.
        mask_ratio: Share of mask units that are hidden.
        mask_unit_px: Side of a mask unit in pixels, a multiple of the patch size.
        strategy: How hidden units are chosen, see ``masking.STRATEGIES``.
        normalise_patches: Predict patches scaled to mean 0, variance 1.
        normalise_eps: Added to the patch variance, see ``reconstruction_loss``.
        background_weight: Weight of hidden background patches in the loss; body weighs 1.

    Raises:
        SettingError: A setting is outside its range.
    """

    SETTINGS = (
        "mask_ratio",
        "mask_unit_px",
        "strategy",
        "normalise_patches",
        "normalise_eps",
        "background_weight",
    )
    """Settings beside the network's, as ``model.json`` keeps them."""
    preprocessing: Preprocessing | None = None
    """How images become its input, once known."""
    card: ModelCard | None = None
    """What the model folder says of it, if it comes from one."""

    def __init__(
        self,
        config: SwinConfig,
        mask_ratio: float = 0.75,
        mask_unit_px: int = 16,
        strategy: str = "random",
        normalise_patches: bool = False,
        normalise_eps: float = 1e-6,
        background_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 < mask_ratio < 1.0:
            raise SettingError(f"mask_ratio is {mask_ratio}; use a number between 0 and 1.")
        if mask_unit_px < 1 or mask_unit_px % config.patch_size:
            raise SettingError(
                f"mask_unit_px is {mask_unit_px}; use a multiple of the patch size, "
                f"{config.patch_size} px."
            )
        if strategy not in STRATEGIES:
            raise SettingError(f"strategy '{strategy}' is unknown. {nearest(strategy, STRATEGIES)}")
        if normalise_eps <= 0.0 or background_weight < 0.0:
            raise SettingError(
                f"normalise_eps is {normalise_eps} and background_weight {background_weight}; "
                "the first must be above 0, the second not below."
            )
        self.config = config
        self.mask_ratio = mask_ratio
        self.mask_unit_px = mask_unit_px
        self.strategy = strategy
        self.normalise_patches = normalise_patches
        self.normalise_eps = normalise_eps
        self.background_weight = background_weight
        self.encoder = SwinEncoder(config)
        self.decoder = SwinDecoder(config)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.embed_dim).normal_(std=0.02))
        values = config.patch_size**2 * config.in_channels
        self.decoder_pred = nn.Linear(config.embed_dim, values)
        initialise(self.decoder_pred)

    @classmethod
    def from_size(cls, size: str, in_channels: int = 3, **overrides: Any) -> "SwinMAE":
        """Build a named network with the paper's settings, some of them replaced.

        Args:
            size: Name in ``backbone.SIZES``.
            in_channels: Image channels.
            overrides: Settings of ``SwinConfig`` or of this class.

        Raises:
            SettingError: The size or a setting is unknown; names the nearest.
        """
        network, own = split_settings(overrides, cls.SETTINGS)
        return cls(config_for_size(size, in_channels=in_channels, **network), **own)

    def forward(
        self,
        images: Float[Tensor, "B K H W"],
        hidden: Bool[Tensor, "B L"] | None = None,
        generator: torch.Generator | None = None,
        keys: Int[Tensor, " B"] | None = None,
    ) -> MAEOutput:
        """Hide patches, predict them, and score the prediction.

        Args:
            images: Normalised images of any size.
            hidden: True where a patch is to be hidden; chosen by the strategy if left out.
            generator: Where keys come from if none are given.
            keys: One per sample; the same key hides the same patches whatever the batch.

        Raises:
            ModelError: The images have another number of channels, or ``hidden`` another shape.
            SettingError: The images are too small to hide anything.
        """
        weighs = self.background_weight != 1.0
        foreground = None
        if weighs or self.strategy == "foreground":
            foreground = foreground_units(images, self.mask_unit_px)
        if hidden is None:
            hidden = self._choose_hidden(images, generator, keys, foreground)
        output = self.forward_features(images, hidden)
        prediction = self.predict(output)
        patch_weights = None
        if weighs and foreground is not None:
            unit = self.mask_unit_px // self.config.patch_size
            grid = self.config.patch_grid(*images.shape[2:])
            shown = units_to_patches(foreground, grid, unit)
            patch_weights = torch.where(shown, 1.0, self.background_weight)
        loss = reconstruction_loss(
            prediction,
            images,
            hidden,
            self.normalise_patches,
            self.normalise_eps,
            patch_weights,
        )
        return MAEOutput(loss, prediction, hidden)

    def forward_features(
        self, images: Float[Tensor, "B K H W"], hidden: Bool[Tensor, "B L"]
    ) -> EncoderOutput:
        """Encode images with some patches replaced by the learned token.

        ``tokens`` is the latent; ``skips[0]`` are the tokens just after hiding.
        """
        tokens = self.encoder.embed(images)  # (B, h, w, C)
        batch, height, width, _ = tokens.shape
        if hidden.shape != (batch, height * width):
            raise ModelError(
                f"hidden has the shape {tuple(hidden.shape)}, the images have {batch} × "
                f"{height * width} patches. Give one value per patch, row by row."
            )
        place = hidden.view(batch, height, width, 1)
        tokens = torch.where(place, self.mask_token.to(tokens.dtype)[:, None], tokens)
        return self.encoder.encode(tokens)

    def predict(self, encoded: EncoderOutput) -> Float[Tensor, "B L D"]:
        """Decode the latent into pixel values of every patch."""
        tokens = self.decoder(encoded.tokens, stage_grids(encoded.skips))
        return self.decoder_pred(tokens).flatten(1, 2)

    def fill_in(
        self, images: Float[Tensor, "B K H W"], output: MAEOutput
    ) -> Float[Tensor, "B K H W"]:
        """Return the images with the prediction in place of hidden patches, in float32.

        Predictions of scaled patches get back the mean and spread of the true patch.
        """
        patch_size = self.config.patch_size
        target = patchify(images.float(), patch_size)
        prediction = output.prediction.detach().float()
        if self.normalise_patches:
            real = real_pixels(images, patch_size)
            mean, spread = patch_statistics(target, real, self.normalise_eps)
            prediction = prediction * spread + mean
        filled = torch.where(output.hidden[:, :, None], prediction, target)
        return unpatchify(filled, patch_size, images.shape[2], images.shape[3])

    def _choose_hidden(
        self,
        images: Tensor,
        generator: torch.Generator | None,
        keys: Tensor | None,
        foreground: Tensor | None,
    ) -> Tensor:
        if keys is None:
            keys = keys_from_generator(images.shape[0], generator, images.device)
        return sample_hidden(
            keys,
            self.config.patch_grid(images.shape[2], images.shape[3]),
            self.mask_unit_px // self.config.patch_size,
            self.mask_ratio,
            self.strategy,
            foreground,
        )
