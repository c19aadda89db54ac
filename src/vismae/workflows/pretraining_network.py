"""The network that is pre-trained, by the settings, and what it takes over from a start model."""

from typing import Any

import torch

from vismae.core.config import PretrainConfig
from vismae.models.contrastive import SwinSimCLR
from vismae.models.convolutional_decoder import filled_from
from vismae.models.mae import SwinMAE
from vismae.models.transfer import parts_in_common, transfer
from vismae.models.weights import Model
from vismae.workflows.preparation import network_config


def build_pretraining(config: PretrainConfig, source: Model | None) -> SwinMAE | SwinSimCLR:
    """Return the network to pre-train, at its first weights.

    Args:
        config: Method, sizes and seed.
        source: Start model, whose encoder is to fit.

    Raises:
        SettingError: A setting is outside its range.
        ModelError: The start model has no Swin encoder.
    """
    settings = config.model
    changes: dict[str, Any] = {
        "in_channels": settings.in_channels,
        "drop_path": settings.drop_path,
    }
    kind = settings.decoder_kind or getattr(source, "decoder_kind", "swin")
    width, branch = settings.decoder_width, settings.decoder_branch
    if kind == "convolutional":
        width, branch = filled_from(getattr(source, "decoder", None), width, branch)
    if settings.window_size is not None:
        changes["window_size"] = settings.window_size
    # The seed alone decides the first weights, whatever was drawn before.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = network_config(source, settings.size, **changes)
        if config.method == "simclr":
            contrast = config.contrastive
            model = SwinSimCLR(network, contrast.projection_dim, contrast.temperature)
            model.set_checkpointing(settings.checkpointing)
            return model
        model = SwinMAE(
            network,
            mask_ratio=settings.mask_ratio,
            mask_unit_px=settings.mask_unit_px,
            strategy=settings.mask_strategy,
            background_weight=settings.background_weight,
            normalise_patches=settings.normalise_patches,
            normalise_eps=settings.normalise_eps,
            encoder_input=settings.encoder_input,
            normalise_side_px=settings.normalise_side_px,
            decoder_kind=kind,
            decoder_width=width,
            decoder_branch=branch,
        )
    model.set_checkpointing(settings.checkpointing)
    return model


def start_from(source: Model, model: SwinMAE | SwinSimCLR) -> str:
    """Move what fits of a trained model into a new one, and say what did.

    Raises:
        ModelError: A part does not fit whole.
    """
    report = transfer(source, model, parts=parts_in_common(source, model)).text()
    if isinstance(source, SwinSimCLR) and isinstance(model, SwinSimCLR):
        if source.projection_dim == model.projection_dim:
            model.projection.load_state_dict(source.projection.state_dict())
            report += "\nprojection copied: the same task goes on"
    elif (
        isinstance(source, SwinMAE)
        and isinstance(model, SwinMAE)
        and source.config.in_channels == model.config.in_channels
        and source.mask_token.shape == model.mask_token.shape
        and source.decoder_kind == model.decoder_kind
        and source.decoder_width == model.decoder_width
        and source.decoder_branch == model.decoder_branch
    ):
        model.mask_token.data.copy_(source.mask_token.data)
        model.decoder_pred.load_state_dict(source.decoder_pred.state_dict())
        targets = [(m.normalise_patches, m.normalise_side_px) for m in (source, model)]
        goes_on = "the same task goes on" if targets[0] == targets[1] else "with other targets"
        report += f"\nmask_token and decoder_pred copied: {goes_on}"
    return report
