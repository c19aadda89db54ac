"""Model folders: ``model.safetensors`` (the numbers) beside ``model.json`` (what they mean).

The only form in which a trained model leaves vismae. No pickle, so opening one runs no code.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.model_card import MODEL_FORMAT_VERSION, ModelCard, TaskCard
from vismae.core.rundir import MODEL, write_bytes
from vismae.models.backbone import SwinConfig
from vismae.models.classifier import SwinClassifier
from vismae.models.comparison import ComparisonClassifier, ComparisonSegmenter
from vismae.models.comparison_plan import CLASSIFIERS, SEGMENTERS, ComparisonConfig
from vismae.models.contrastive import SwinSimCLR
from vismae.models.hybrid import HybridUNet
from vismae.models.mae import SwinMAE
from vismae.models.swin_shapes import require_sizes_of_weights
from vismae.models.unet import SwinUNet

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
MOST_CLASSES = 65536

Kind = Literal["mae", "contrastive", "segmenter", "classifier"]
Model = (
    SwinMAE
    | SwinSimCLR
    | SwinUNet
    | HybridUNet
    | ComparisonSegmenter
    | SwinClassifier
    | ComparisonClassifier
)

NETWORKS: dict[Kind, dict[str, type[Model]]] = {
    "mae": {"swin_mae": SwinMAE},
    "contrastive": {"simclr": SwinSimCLR},
    "segmenter": {
        "swin_unet": SwinUNet,
        "swin_unet_conv": SwinUNet,
        "hybrid": HybridUNet,
        **dict.fromkeys(SEGMENTERS, ComparisonSegmenter),
    },
    "classifier": {"swin": SwinClassifier, **dict.fromkeys(CLASSIFIERS, ComparisonClassifier)},
}
"""Every network a model folder may hold, by kind and by its name; the paper's come first."""


def kind_of(module: nn.Module) -> Kind:
    """Return the word ``model.json`` uses for this model.

    Raises:
        ModelError: The module is none of vismae's models.
    """
    for kind, networks in NETWORKS.items():
        if type(module) in networks.values():
            return kind
    known = dict.fromkeys(known.__name__ for kind in NETWORKS.values() for known in kind.values())
    raise ModelError(f"{type(module).__name__} is no vismae model. Known: {', '.join(known)}.")


def network_of(module: Model) -> str:
    """Return the network's name among those of its kind.

    Raises:
        ModelError: The module is none of vismae's models.
    """
    kind = kind_of(module)
    return "swin_mae" if isinstance(module, SwinMAE) else _known_name(kind, module.network)


def architecture_of(module: Model) -> dict[str, Any]:
    """Return plain data from which ``build_module`` makes the same network.

    ``swin`` holds the fields of ``SwinConfig``, ``comparison`` those of ``ComparisonConfig``;
    ``network`` names the network unless it is the paper's; the other entries are the model's own
    settings.

    Raises:
        ModelError: The module is none of vismae's models.
    """
    kind, network = kind_of(module), network_of(module)
    named = {} if network == _default_name(kind) else {"network": network}
    sizes = "swin" if isinstance(module.config, SwinConfig) else "comparison"
    own = {name: getattr(module, name) for name in module.SETTINGS}
    return {**named, sizes: module.config.to_dict(), **own}


def build_module(kind: str, architecture: Mapping[str, Any], task: TaskCard | None = None) -> Model:
    """Make an untrained network from what ``architecture_of`` gave.

    Args:
        kind: ``mae``, ``contrastive``, ``segmenter`` or ``classifier``.
        architecture: Entry ``architecture`` of a model card.
        task: Entry ``task``; names the classes and, again, the segmentation network.

    Raises:
        ModelError: The settings do not describe a network this version knows.
        SettingError: The network comes from MONAI, which is not installed.
    """
    own = dict(architecture)
    network = _known_name(kind, own.pop("network", None))
    if task is not None and kind == "segmenter" and task.network != network:
        # An unknown name says more about the folder than the contradiction does.
        _known_name(kind, task.network)
        raise ModelError(
            f"task.network is '{task.network}', but architecture.network is '{network}'. Take a "
            "fresh copy of the model folder."
        )
    known = NETWORKS[cast("Kind", kind)][network]
    from_monai = issubclass(known, ComparisonSegmenter | ComparisonClassifier)
    sizes_name = "comparison" if from_monai else "swin"
    sizes = own.pop(sizes_name, None)
    own = {**getattr(known, "UNNAMED", {}), **own}
    unknown = sorted(set(own) - set(known.SETTINGS))
    if unknown or sizes is None:
        wrong = f"{unknown[0]} is unknown" if unknown else f"{sizes_name} is missing"
        raise ModelError(f"architecture.{wrong} in a '{kind}'. Update vismae or take a fresh copy.")
    if isinstance(classes := own.get("num_classes"), int) and classes > MOST_CLASSES:
        raise ModelError(
            f"architecture.num_classes is {classes}; at most {MOST_CLASSES} are read. Take a fresh "
            "copy of the model folder."
        )
    if task is not None and len(task.classes) != own.get("num_classes"):
        raise ModelError(
            f"task.classes names {len(task.classes)} classes, but architecture.num_classes is "
            f"{own.get('num_classes')}. Give one name per output of the network."
        )
    try:
        if issubclass(known, ComparisonSegmenter | ComparisonClassifier):
            return known(network, ComparisonConfig.from_dict(sizes), **own)
        return known(SwinConfig.from_dict(sizes), **own)
    except TypeError as error:
        raise ModelError(
            f"architecture of a '{kind}' lacks a setting or holds one of the wrong type ({error}). "
            "Take a fresh copy of the model folder."
        ) from error


def _default_name(kind: Kind) -> str:
    return next(iter(NETWORKS[kind]))


def _known_name(kind: str, network: str | None) -> str:
    """Return the network's name, the paper's where none is given, if there is such a network."""
    networks = NETWORKS.get(cast("Kind", kind), {})
    name = network or next(iter(networks), "")
    if name not in networks:
        every = [f"{word} {known}" for word, names in NETWORKS.items() for known in names]
        raise ModelError(
            f"A model of kind '{kind}' with network '{name}' is unknown here. Known: "
            f"{', '.join(every)}. It may come from a newer vismae; update it."
        )
    return name


def save_model(module: Model, card: ModelCard, folder: str | PathLike[str]) -> None:
    """Write a model folder; each file appears whole or not at all.

    Args:
        module: One of vismae's models.
        card: Its ``kind`` and ``architecture`` must be the module's.
        folder: Made if missing; a model already there is replaced.

    Raises:
        ModelError: The card describes another network.
    """
    folder = Path(folder)
    kind, network = kind_of(module), network_of(module)
    architecture = architecture_of(module)
    if card.kind != kind or card.architecture != architecture:
        raise ModelError(
            f"The card describes a '{card.kind}' {card.architecture}, but the model is a "
            f"'{kind}' {architecture}. Fill the card from kind_of and architecture_of."
        )
    if card.task is not None and kind == "segmenter" and card.task.network != network:
        raise ModelError(
            f"The card's task.network is '{card.task.network}', but the model is a '{network}'."
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous().cpu() for name, value in module.state_dict().items()}
    write_bytes(folder / WEIGHTS_FILE, safetensors.torch.save(state))
    write_bytes(folder / CARD_FILE, (card.model_dump_json(indent=2) + "\n").encode())


def load_model(folder: str | PathLike[str]) -> Model:
    """Read a model folder.

    Returns:
        The network in evaluation mode on the CPU, with ``card`` and ``preprocessing`` set.

    Raises:
        ModelError: A file is missing, damaged, or from a newer version; weights and card differ.
    """
    folder = Path(folder)
    card = read_card(folder)
    state = read_safetensors(folder / WEIGHTS_FILE)
    # A card from outside must not make us build a network that no memory holds.
    if "swin" in card.architecture:
        require_sizes_of_weights(SwinConfig.from_dict(card.architecture["swin"]), state, folder)
    module = build_module(card.kind, card.architecture, card.task)
    load_exactly(module, state, str(folder / WEIGHTS_FILE))
    module.card = card
    module.preprocessing = card.preprocessing
    return module.eval()


def read_card(folder: Path) -> ModelCard:
    """Read ``model.json`` alone.

    Raises:
        ModelError: It is missing, damaged, or from a newer version.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        cure = f"Expected {CARD_FILE} and {WEIGHTS_FILE}, as pretrain and finetune write them."
        if (folder / MODEL / CARD_FILE).is_file():
            cure = f"It is a run, whose model is {folder / MODEL}: give that."
        raise ModelError(f"{path} does not exist, so {folder} is no model folder. {cure}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON ({error}). Take a fresh copy.") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    # Looked at before the fields: a newer card may have fields this version cannot name.
    if not isinstance(version, int):
        raise ModelError(f"{path} has no format_version. Take a fresh copy of the model folder.")
    if version > MODEL_FORMAT_VERSION:
        raise ModelError(
            f"{path} has format_version {version}; this vismae reads up to "
            f"{MODEL_FORMAT_VERSION}. Update vismae (pip install -U vismae)."
        )
    try:
        return ModelCard.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {field}: {first['msg']}. Take a fresh copy.") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ModelError: The file is missing or damaged.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist. Take a fresh copy of the model folder.")
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} cannot be read ({error}). Take a fresh copy.") from error


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a module that must have the same names and shapes.

    Raises:
        ModelError: Names or shapes differ; lists the first ten.
    """
    differences = state_differences(module.state_dict(), state)
    if differences:
        raise ModelError(
            f"{source} does not fit the network: {list_first(differences)} "
            "The weights belong to another architecture."
        )
    module.load_state_dict(dict(state))


def state_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Say how two sets of named tensors differ: one phrase per name."""
    differences = []
    for name in sorted({*expected, *found}):
        if name not in found:
            differences.append(f"{name} {tuple(expected[name].shape)} is missing")
        elif name not in expected:
            differences.append(f"{name} {tuple(found[name].shape)} has no counterpart")
        elif expected[name].shape != found[name].shape:
            differences.append(
                f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
            )
    return differences


def list_first(phrases: list[str], limit: int = 10) -> str:
    """Join phrases for a message, at most ``limit`` of them, ending with a full stop."""
    more = f"; and {len(phrases) - limit} more" if len(phrases) > limit else ""
    return "; ".join(phrases[:limit]) + more + "."
