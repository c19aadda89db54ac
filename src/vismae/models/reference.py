"""Official VIS-MAE checkpoints: read them, and write ours in their form.

Their names are ours without ``encoder.`` or ``decoder.`` in front; kind and sizes follow from the
tensors. Facts about the format: the official code (github.com/lzl199704/VIS-MAE, read only).
"""

import io
import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from vismae.core.errors import ModelError
from vismae.core.preprocessing import Preprocessing
from vismae.core.rundir import CHECKPOINT, MODEL, write_bytes
from vismae.models.backbone import SwinConfig
from vismae.models.classifier import SwinClassifier
from vismae.models.foreign import without_wrapper
from vismae.models.foreign_convolutional import load_foreign_classifier
from vismae.models.foreign_swin import load_foreign_swin
from vismae.models.mae import SwinMAE
from vismae.models.safe_pickle import load_tensors_only
from vismae.models.swin_shapes import STEM, infer_config
from vismae.models.unet import SwinUNet
from vismae.models.weights import (
    CARD_FILE,
    WEIGHTS_FILE,
    Model,
    kind_of,
    load_exactly,
    load_model,
    network_of,
    read_safetensors,
)
from vismae.models.windows import relative_position_index

logger = logging.getLogger(__name__)

_PART_OF = {
    "patch_embed": "encoder",
    "layers": "encoder",
    "first_patch_expanding": "decoder",
    "layers_up": "decoder",
    "norm_up": "decoder",
}
_STEM = "patch_embed.proj.weight"
_INDEX = ".relative_position_index"
# Written by the official code, never added to a token.
_POSITIONS = "pos_embed"
_CHANNELS_LAST_CONVOLUTIONS = ("skip_connection_layers.", "head.")


OfficialModel = SwinMAE | SwinUNet | SwinClassifier
"""What the official code has, apart from settings."""


def load_checkpoint(path: str | PathLike[str]) -> Model:
    """Read any trained model: a model folder, an official ``.pth``, a ``.safetensors`` file.

    A file of another project is known by its names: Swin weights in Microsoft, timm or Hugging
    Face naming become a ``SwinClassifier``, ResNet and DenseNet weights in torchvision naming a
    ``ComparisonClassifier``; ``origin`` then says what became of each tensor.

    Raises:
        ModelError: It is none of these, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return load_model(path)
    if path.name == WEIGHTS_FILE and (path.parent / CARD_FILE).is_file():
        return load_model(path.parent)
    found = _read_state(path)
    foreign = load_foreign_swin(found, path) or load_foreign_classifier(found, path)
    try:
        return foreign or _reference_model(found, path)
    except ModelError as error:
        raise ModelError(f"{error}{_weights_of_its_run(path)}") from error


def _weights_of_its_run(path: Path) -> str:
    """Say where the weights are, if the file is what a run of this package continues from."""
    run = path.parent.parent
    if run / CHECKPOINT != path or not (run / "config.yaml").is_file():
        return ""
    return (
        " A run continues from this file after an interruption; give its model folder, "
        f"{run / MODEL}, which is there once it has finished (--resume with a lower "
        "trainer.max_steps ends it sooner)."
    )


def load_reference_checkpoint(
    path: str | PathLike[str], normalise_patches: bool = False
) -> OfficialModel:
    """Read weights under official names (or ours) and build the network they belong to.

    Args:
        path: ``.pth`` in the official form or a plain dictionary of tensors, or ``.safetensors``.
            No code in a pickle is ever run.
        normalise_patches: How a masked autoencoder was trained; its file does not say.

    Returns:
        Network in evaluation mode. Official files get the official way to prepare images as
        ``preprocessing``; files under our names have None, since they do not say.

    Raises:
        ModelError: The file is unreadable, or its tensors make no network we know.
    """
    path = Path(path)
    return _reference_model(_read_state(path), path, normalise_patches)


def _reference_model(
    found: Mapping[str, Tensor], path: Path, normalise_patches: bool = False
) -> OfficialModel:
    # Parallel training, a compiler or a training module puts its own word before every name.
    ours = without_wrapper(found, STEM)
    found = without_wrapper(found, _STEM) or found
    state = ours or _to_our_names(found, path)
    if STEM not in state:
        raise ModelError(
            f"{path} has no patch_embed.proj.weight, so it is no VIS-MAE checkpoint. It holds "
            f"{len(found)} tensors: {', '.join(list(found)[:5])}…"
        )
    config = infer_config(state, path)
    module = _build(config, state, normalise_patches, path)
    load_exactly(module, state, str(path))
    if not ours:
        module.preprocessing = _official_preprocessing(module, found, path)
    return module.eval()


def save_reference_checkpoint(module: Model, path: str | PathLike[str]) -> None:
    """Write a model as ``{'model': tensors}`` under official names, for the official code.

    A head bias of a segmenter that is all zero is left out, as the official head has none; one
    that is not is kept as ``head.bias``, with a warning in the log.

    Raises:
        ModelError: The official code would compute something else with these weights.
    """
    path = Path(path)
    kind = kind_of(module)
    module = require_official(module)
    config = module.config
    official = (config.norm_eps, config.shift_single_window, config.mlp_ratio)
    if official != (1e-6, True, 4.0):
        raise ModelError(
            "The official code has norm_eps 1e-6, shift_single_window true and mlp_ratio 4; this "
            f"model has {official[0]}, {official[1]} and {official[2]}. Keep the model folder."
        )
    if isinstance(module, SwinMAE) and module.encoder_input != "dense":
        raise ModelError(
            "The official code puts the mask token before the encoder; this masked autoencoder was "
            f"trained with encoder_input '{module.encoder_input}'. Keep the model folder."
        )
    if isinstance(module, SwinMAE) and module.decoder_kind != "swin":
        raise ModelError(
            "The official code's decoder mirrors the Swin encoder; this masked autoencoder has a "
            f"{module.decoder_kind} one. Keep the model folder."
        )
    if isinstance(module, SwinClassifier) and module.place_head is not None:
        raise ModelError(
            "The official classifier sees the mean over all positions alone; this one was trained "
            f"with place_grid {module.place_grid}. Keep the model folder."
        )
    state: OrderedDict[str, Tensor] = OrderedDict()
    if kind == "mae":
        size = module.preprocessing.image_size if module.preprocessing else (224, 224)
        rows, columns = config.patch_grid(*size)
        state[_POSITIONS] = torch.zeros(1, rows * columns, config.embed_dim)
    index = relative_position_index(config.window_size)
    for name, value in module.state_dict().items():
        official_name = re.sub(r"^(encoder|decoder)\.", "", name)
        value = value.detach().cpu().clone()
        if kind == "segmenter" and name == "head.bias":
            if not value.any():
                continue
            logger.warning(
                "%s: the official segmenter has no head bias; kept as head.bias, which the "
                "official code must be told to read",
                path,
            )
        if kind == "segmenter" and _is_convolution(name, value):
            value = value[:, :, None, None]
        state[official_name] = value
        if name.endswith(".relative_position_bias_table"):
            state[official_name.rsplit(".", 1)[0] + _INDEX] = index.clone()
    buffer = io.BytesIO()
    torch.save({"model": state}, buffer)
    write_bytes(path, buffer.getvalue())


def require_official(module: Model) -> OfficialModel:
    """Return a model of one of the three kinds the official code has.

    Raises:
        ModelError: The official code has no such network.
    """
    if not isinstance(module, OfficialModel) or (
        isinstance(module, SwinUNet) and module.head_kind != "linear"
    ):
        raise ModelError(
            f"The official code has no network '{network_of(module)}', so this model cannot be "
            "written in its form. Keep the model folder."
        )
    return module


def _read_state(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file, whichever of the known forms it has."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content = load_tensors_only(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{path} holds a {type(content).__name__}, expected a dictionary of tensors or "
            "{'model': tensors}."
        )
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _to_our_names(found: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    state = {}
    for name, value in found.items():
        if name.endswith(_INDEX):
            side = round(value.shape[0] ** 0.5)
            if not torch.equal(value, relative_position_index(side)):
                raise ModelError(
                    f"{path}: {name} orders window positions in another way than VIS-MAE does; "
                    "its bias tables cannot be used."
                )
        elif name != _POSITIONS:
            part = _PART_OF.get(name.split(".")[0])
            if value.ndim == 4 and name.startswith(_CHANNELS_LAST_CONVOLUTIONS):
                value = value.flatten(1)  # a 1×1 convolution is a linear layer on channels
            state[f"{part}.{name}" if part else name] = value
    return state


def _is_convolution(name: str, value: Tensor) -> bool:
    return name.startswith(_CHANNELS_LAST_CONVOLUTIONS) and value.ndim == 2


def _build(
    config: SwinConfig, state: Mapping[str, Tensor], normalise_patches: bool, path: Path
) -> OfficialModel:
    if "decoder_pred.weight" in state:
        unit_px = 4 * config.patch_size  # the official mask unit is four patches wide
        return SwinMAE(config, mask_unit_px=unit_px, normalise_patches=normalise_patches)
    if "head.weight" in state:
        classes = state["head.weight"].shape[0]
        if "final_patch_expanding.expand.weight" in state:
            return SwinUNet(config, classes, head_bias="head.bias" in state)
        return SwinClassifier(config, classes)
    raise ModelError(
        f"{path} has an encoder but neither decoder_pred (masked autoencoder) nor head (segmenter, "
        "classifier), so its kind is unknown."
    )


def _official_preprocessing(
    module: OfficialModel, found: Mapping[str, Tensor], path: Path
) -> Preprocessing:
    """How the official code prepares images for a model of this kind; it differs by kind."""
    channels = module.config.in_channels
    if channels != 1 and channels != 3:
        raise ModelError(f"{path} expects images with {channels} channels; vismae gives 1 or 3.")
    if isinstance(module, SwinUNet):
        return Preprocessing(
            image_size=(320, 320),
            in_channels=channels,
            fit="stretch",
            percentiles=(0.0, 100.0),
            mean=0.0,
            std=1.0,
        )
    if isinstance(module, SwinClassifier):
        return Preprocessing(in_channels=channels, fit="stretch", mean=0.0, std=1.0)
    side = 224
    if _POSITIONS in found:
        side = module.config.patch_size * round(found[_POSITIONS].shape[1] ** 0.5)
    return Preprocessing(image_size=(side, side), in_channels=channels, fit="stretch")
