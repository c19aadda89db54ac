"""SwinMAE: hide patches, encode what is left, draw the hidden pixels.

He et al. 2022 (arXiv 2111.06377) on a Swin Transformer as in Swin-MAE (arXiv 2212.13805) and
VIS-MAE (arXiv 2402.01034): a learned token takes a hidden patch's place, before the encoder as in
SimMIM (arXiv 2111.09886) or after the stages that run on visible tokens (``visible.py``).

Shapes: B batch, H×W pixels, K image channels, p patch side, h×w patch grid, L = h·w, C channels,
D = p·p·K pixel values of a patch.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vismae.core.errors import ModelError, SettingError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.models.backbone import (
    SwinConfig,
    SwinDecoder,
    SwinEncoder,
    SwinStage,
    config_for_size,
    nearest,
    split_settings,
)
from vismae.models.convolution import prediction_layer
from vismae.models.convolutional_decoder import ConvolutionalDecoder, stage_outputs
from vismae.models.masking import (
    STRATEGIES,
    foreground_units,
    hidden_count,
    keys_from_generator,
    sample_hidden,
    unit_grid,
    units_to_patches,
)
from vismae.models.reconstruction import (
    hidden_pixels,
    patchify,
    reconstruction_loss,
    square_statistics,
    unpatchify,
)
from vismae.models.swin import initialise
from vismae.models.visible import encode_visible, visible_stages

ENCODER_INPUTS = ("dense", "visible")
"""Names for ``encoder_input``."""
DECODERS = ("swin", "convolutional")
"""Names for ``decoder_kind``."""


class MAEOutput(NamedTuple):
    """What one forward pass gives.

    Attributes:
        loss: Scalar in float32.
        prediction: One row of p·p·K pixel values per patch, (B, L, p·p·K); scaled like the
            targets if the model normalises them.
        hidden: True where the encoder did not see the patch, (B, L), row by row.
    """

    loss: Tensor
    prediction: Tensor
    hidden: Tensor


class SwinMAE(nn.Module):
    """A masked autoencoder on a Swin Transformer.

    Args:
        config: The network.
        mask_ratio: Share of mask units that are hidden.
        mask_unit_px: Side of a mask unit in pixels, a multiple of the patch size.
        strategy: How hidden units are chosen, see ``masking.STRATEGIES``.
        normalise_patches: Predict patches scaled to mean 0, variance 1.
        normalise_eps: Added to the variance, see ``reconstruction_loss``.
        background_weight: Weight of hidden background patches in the loss; body weighs 1.
        encoder_input: ``dense``, the learned token stands in for hidden patches before the
            encoder, as in VIS-MAE; ``visible``, the encoder computes visible tokens only while
            a mask unit is a square of whole tokens. Two networks: weights of one are a start
            for the other, no more.
        normalise_side_px: Side of the squares that are scaled with ``normalise_patches``; None
            takes the patches.
        decoder_kind: ``swin``, the mirror of the encoder, as in VIS-MAE; ``convolutional``, that of
            ``HybridUNet``, whose stem sees the image with its hidden pixels at 0, so that a
            hybrid starts with a trained decoder too.
        decoder_width: Of a convolutional decoder, see ``ConvolutionalDecoder``.
        decoder_branch: Likewise; with one when None.

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
        "encoder_input",
        "normalise_side_px",
        "decoder_kind",
        "decoder_width",
        "decoder_branch",
    )
    """Settings beside the network's, as ``model.json`` keeps them."""
    UNNAMED: ClassVar[dict[str, Any]] = {"decoder_branch": False}
    """What a ``model.json`` means that does not name a setting: it is older than the setting."""
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
        encoder_input: str = "dense",
        normalise_side_px: int | None = None,
        decoder_kind: str = "swin",
        decoder_width: int | None = None,
        decoder_branch: bool | None = None,
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
        if encoder_input not in ENCODER_INPUTS:
            raise SettingError(
                f"encoder_input '{encoder_input}' is unknown. "
                f"{nearest(encoder_input, ENCODER_INPUTS)}"
            )
        if decoder_kind not in DECODERS:
            raise SettingError(
                f"decoder_kind '{decoder_kind}' is unknown. {nearest(decoder_kind, DECODERS)}"
            )
        if decoder_kind == "convolutional" and encoder_input != "dense":
            raise SettingError(
                f"encoder_input is '{encoder_input}', but a convolutional decoder joins the whole "
                "grid of every stage. Use 'dense', or the decoder 'swin'."
            )
        for name, value in (("decoder_width", decoder_width), ("decoder_branch", decoder_branch)):
            if decoder_kind == "swin" and value is not None and value is not False:
                raise SettingError(
                    f"{name} is {value}, but a decoder of the kind 'swin' mirrors the encoder. "
                    "Leave it out, or use 'convolutional'."
                )
        if normalise_side_px is not None and normalise_side_px < 2:
            raise SettingError(f"normalise_side_px is {normalise_side_px}; use 2 or more.")
        if normalise_side_px is not None and not normalise_patches:
            raise SettingError(
                f"normalise_side_px is {normalise_side_px}, but normalise_patches is false, so "
                "that nothing is scaled. Set that to true, or leave this out."
            )
        self.config = config
        self.mask_ratio = mask_ratio
        self.mask_unit_px = mask_unit_px
        self.strategy = strategy
        self.normalise_patches = normalise_patches
        self.normalise_eps = normalise_eps
        self.background_weight = background_weight
        self.encoder_input = encoder_input
        self.normalise_side_px = normalise_side_px
        self.decoder_kind = decoder_kind
        self._unit = mask_unit_px // config.patch_size
        self.encoder = SwinEncoder(config)
        entry = 0  # stage whose tokens the learned token is like
        if encoder_input == "visible":
            entry = visible_stages(self._unit, len(config.depths)) - 1
        dim = config.stage_dim(entry)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.decoder: SwinDecoder | ConvolutionalDecoder
        self.decoder_pred: nn.Linear | nn.Conv2d
        self.decoder_width: int | None = None
        self.decoder_branch: bool | None = None
        if decoder_kind == "swin":
            self.decoder = SwinDecoder(config)
            values = config.patch_size**2 * config.in_channels
            self.decoder_pred = nn.Linear(config.embed_dim, values)
            initialise(self.decoder_pred)
        else:
            self.decoder = ConvolutionalDecoder(config, decoder_width, decoder_branch is not False)
            self.decoder_width, self.decoder_branch = self.decoder.width, self.decoder.branch
            channels = self.decoder.dims[0]
            self.decoder_pred = prediction_layer(channels, config.in_channels, spread=0.02)

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
            images: Normalised images of any size; of whole mask units for an encoder of visible
                tokens.
            hidden: True where a patch is to be hidden; chosen by the strategy if left out.
            generator: Where keys come from if none are given.
            keys: One per sample; the same key hides the same patches whatever the batch.

        Raises:
            ModelError: The images have another number of channels, or ``hidden`` another shape.
            SettingError: The images are too small to hide anything, or no whole mask units.
        """
        weighs = self.background_weight != 1.0
        foreground = None
        if weighs or self.strategy == "foreground":
            foreground = foreground_units(images, self.mask_unit_px)
        visible_units = None
        if hidden is None:
            hidden = self._choose_hidden(images, generator, keys, foreground)
            visible_units = self._visible_units(images)
        prediction = self._draw(images, hidden, visible_units)
        patch_weights = None
        if weighs and foreground is not None:
            grid = self.config.patch_grid(*images.shape[2:])
            shown = units_to_patches(foreground, grid, self._unit)
            patch_weights = torch.where(shown, 1.0, self.background_weight)
        loss = reconstruction_loss(
            prediction,
            images,
            hidden,
            self.normalise_patches,
            self.normalise_eps,
            patch_weights,
            self.normalise_side_px,
        )
        return MAEOutput(loss, prediction, hidden)

    def forward_features(
        self,
        images: Float[Tensor, "B K H W"],
        hidden: Bool[Tensor, "B L"],
        visible_units: int | None = None,
    ) -> Float[Tensor, "B h w C"]:
        """Encode what is not hidden and return the latent, the last stage's tokens.

        Args:
            images: Normalised images.
            hidden: True where a patch is hidden.
            visible_units: Mask units visible in each image, where that is known; otherwise an
                encoder of visible tokens counts them, which waits for a GPU.

        Raises:
            ModelError: ``hidden`` has another shape, or an encoder of visible tokens finds parts
                of units hidden or images that differ in number.
        """
        self._require_place_for_each_patch(images, hidden)
        if self.encoder_input == "dense":
            return self.encoder.encode(self.embed_with_token(images, hidden)).tokens
        return encode_visible(
            self.encoder, images, hidden, self._unit, visible_units, self.mask_token
        )

    def embed_with_token(
        self, images: Float[Tensor, "B K H W"], hidden: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B h w C"]:
        """Embed images, the learned token in place of hidden patches (dense encoder)."""
        tokens = self.encoder.embed(images)  # (B, h, w, C)
        place = hidden.view(*tokens.shape[:3], 1)
        return torch.where(place, self.mask_token.to(tokens.dtype)[:, None], tokens)

    def _draw(
        self, images: Tensor, hidden: Tensor, visible_units: int | None
    ) -> Float[Tensor, "B L D"]:
        """Return the pixel values of every patch as the network imagines them."""
        size = images.shape[2], images.shape[3]
        if isinstance(self.decoder, SwinDecoder):
            latent = self.forward_features(images, hidden, visible_units)
            tokens = self.decoder(latent, self.config.stage_grids(*size))
            return self.decoder_pred(tokens).flatten(1, 2)
        self._require_place_for_each_patch(images, hidden)
        patch_size = self.config.patch_size
        tokens = stage_outputs(self.encoder, self.embed_with_token(images, hidden))
        seen = images.masked_fill(hidden_pixels(hidden, patch_size, *size), 0.0)
        return patchify(self.decoder_pred(self.decoder(seen, tokens)[0]), patch_size)

    def set_checkpointing(self, on: bool) -> None:
        """Trade time for memory: compute the inside of each block again for its gradients."""
        for part in self.modules():
            if isinstance(part, SwinStage):
                part.checkpointing = on

    def fill_in(
        self, images: Float[Tensor, "B K H W"], output: MAEOutput
    ) -> Float[Tensor, "B K H W"]:
        """Return the images with the prediction in place of hidden patches, in float32.

        Predictions of scaled squares get back the mean and spread of the true ones.
        """
        patch_size, size = self.config.patch_size, (images.shape[2], images.shape[3])
        images = images.float()
        drawn = unpatchify(output.prediction.detach().float(), patch_size, *size)
        if self.normalise_patches:
            side = patch_size if self.normalise_side_px is None else self.normalise_side_px
            mean, spread = square_statistics(images, side, self.normalise_eps)
            drawn = drawn * spread + mean
        return torch.where(hidden_pixels(output.hidden, patch_size, *size), drawn, images)

    def _require_place_for_each_patch(self, images: Tensor, hidden: Tensor) -> None:
        rows, columns = self.config.patch_grid(images.shape[2], images.shape[3])
        if hidden.shape != (images.shape[0], rows * columns):
            raise ModelError(
                f"hidden has the shape {tuple(hidden.shape)}, the images have {images.shape[0]} × "
                f"{rows * columns} patches. Give one value per patch, row by row."
            )

    def _visible_units(self, images: Tensor) -> int:
        """Visible units of each image, under any strategy."""
        grid = self.config.patch_grid(images.shape[2], images.shape[3])
        rows, columns = unit_grid(grid, self._unit)
        return rows * columns - hidden_count(rows * columns, self.mask_ratio)

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
            self._unit,
            self.mask_ratio,
            self.strategy,
            foreground,
        )
