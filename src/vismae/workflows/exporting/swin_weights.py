"""``--format microsoft`` and ``timm``: encoder weights under the names of other Swin code."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.models.backbone import SwinConfig, SwinEncoder
from vismae.models.classifier import SwinClassifier
from vismae.models.contrastive import SwinSimCLR
from vismae.models.foreign_swin import load_foreign_swin
from vismae.models.swin_names import (
    microsoft_state,
    smallest_side_without_single_windows,
    swin_encoder,
    timm_state,
    transformers_state,
)
from vismae.models.weights import Model
from vismae.workflows.exporting.outcome import Outcome, require_same
from vismae.workflows.exporting.trial import largest_difference

MICROSOFT_FILE = "model.pth"
TIMM_FILE = "model.safetensors"


def export_swin(folder: Path, model: Model, naming: str) -> Outcome:
    """Write an encoder's weights, read them back, and compare the numbers.

    Args:
        folder: Where to write.
        model: Any model with a Swin encoder.
        naming: ``microsoft`` or ``timm``.

    Raises:
        ModelError: The model has no Swin encoder, or the copy differs.
    """
    encoder = swin_encoder(model)
    config = encoder.config
    side = smallest_side_without_single_windows(config)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, config.in_channels, side, side, generator=generator)
    expected = _normed(model, encoder, images)
    state = microsoft_state(model)
    if naming == "microsoft":
        path = folder / MICROSOFT_FILE
        torch.save({"model": state}, path)
        written = torch.load(path, weights_only=True)["model"]
    else:
        path = folder / TIMM_FILE
        safetensors.torch.save_file(timm_state(model), path)
        written = safetensors.torch.load_file(path)
    differences = {
        f"read back, {side}×{side}": largest_difference(
            _read_back(written, config, path, images), expected
        )
    }
    notes = [
        f"Their code must use {config.norm_eps:g} in every LayerNorm, those of patch embedding and "
        "merging too (its own default is 1e-05; a setting may reach some of them alone)."
    ]
    if find_spec("transformers") is not None:
        differences[f"transformers' Swin, {side}×{side}"] = largest_difference(
            _transformers(state, config, images), expected
        )
    else:
        notes.append("Not compared with transformers' Swin, which is not installed.")
    require_same(differences, path)
    if isinstance(model, SwinClassifier) and model.place_head is not None:
        notes.append(
            f"The last layer is left out: it was trained with place_grid {model.place_grid}, which "
            "their code does not have."
        )
    if config.shift_single_window:
        notes.append(_single_window_note(model, encoder, config))
    return Outcome(path, differences, ("torch",), tuple(notes), {"swin": config.to_dict()})


@torch.inference_mode()
def _normed(model: Model, encoder: SwinEncoder, images: Tensor) -> Any:
    tokens = encoder(images).tokens
    if isinstance(model, SwinClassifier | SwinSimCLR):
        return model.norm(tokens).numpy()
    shape = tokens.shape[-1:]
    return torch.nn.functional.layer_norm(tokens, shape, eps=encoder.config.norm_eps).numpy()


@torch.inference_mode()
def _read_back(written: dict[str, Tensor], config: SwinConfig, path: Path, images: Tensor) -> Any:
    """Compute with the file as this package's reader of foreign weights understands it."""
    # A small head may be anybody's; without one the file can only be what it claims to be.
    encoder_only = {name: value for name, value in written.items() if not name.startswith("head.")}
    network = load_foreign_swin(encoder_only, path)
    if network is None:
        raise ModelError(f"{path.name} is not recognised as Swin weights. Keep the model folder.")
    like = SwinConfig.from_dict(
        {**network.config.to_dict(), "norm_eps": config.norm_eps, "drop_path": config.drop_path}
    )
    copy = SwinClassifier(like, network.num_classes).eval()
    copy.load_state_dict(network.state_dict())
    return copy.norm(copy.encoder(images).tokens).numpy()


@torch.inference_mode()
def _transformers(state: dict[str, Tensor], config: SwinConfig, images: Tensor) -> Any:
    """Compute with Hugging Face transformers' Swin, which is Microsoft's under other names."""
    from transformers import SwinConfig as TheirConfig
    from transformers import SwinModel

    side = images.shape[-1]
    theirs = TheirConfig(
        image_size=side,
        patch_size=config.patch_size,
        num_channels=config.in_channels,
        embed_dim=config.embed_dim,
        depths=list(config.depths),
        num_heads=list(config.num_heads),
        window_size=config.window_size,
        mlp_ratio=config.mlp_ratio,
        layer_norm_eps=config.norm_eps,
        drop_path_rate=0.0,
    )
    # Through files, so that whichever names its version has in memory are its own business.
    with tempfile.TemporaryDirectory(prefix="vismae-swin-") as folder:
        theirs.save_pretrained(folder)
        saved = transformers_state(state, config.depths)
        safetensors.torch.save_file(saved, Path(folder) / TIMM_FILE, {"format": "pt"})
        loaded: Any = SwinModel.from_pretrained(
            folder, add_pooling_layer=False, output_loading_info=True
        )
        network, account = loaded
    absent = [name for name in account["missing_keys"] if not name.endswith("position_index")]
    if absent:
        raise ModelError(
            f"transformers' Swin did not find {', '.join(sorted(absent)[:3])} in the weights. Its "
            "version may be newer than this package knows."
        )
    for module in network.modules():
        # Their setting reaches the norms of blocks alone: patch embedding and merging keep 1e-5.
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = config.norm_eps
    found = network.eval()(images).last_hidden_state
    rows = config.stage_grids(side, side)[-1]
    return found.reshape(len(images), *rows, -1).numpy()


def _single_window_note(model: Model, encoder: SwinEncoder, config: SwinConfig) -> str:
    """Measure what a grid of a single window changes, which the other code does not shift."""
    side = smallest_side_without_single_windows(config) // 2
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, config.in_channels, side, side, generator=generator)
    plain = SwinConfig.from_dict({**config.to_dict(), "shift_single_window": False})
    other = SwinEncoder(plain).eval()
    other.load_state_dict(encoder.state_dict())
    change = largest_difference(_normed(model, other, images), _normed(model, encoder, images))
    return (
        f"At {side}×{side} pixels and below, where a stage is a single window, their code shifts "
        f"nothing and this network does: features change by {change:.3g} there. From "
        f"{2 * side}×{2 * side} on they are the same."
    )
