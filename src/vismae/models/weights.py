"""Model folders: ``model.safetensors`` (the numbers) beside ``model.json`` (what they mean).

The only form in which a trained model leaves vismae. No pickle, so opening one runs no code.
"""

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.model_card import MODEL_FORMAT_VERSION, ModelCard, TaskCard
from vismae.models.backbone import SwinConfig
from vismae.models.classifier import SwinClassifier
from vismae.models.mae import SwinMAE
from vismae.models.unet import SwinUNet

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"

Kind = Literal["mae", "segmenter", "classifier"]
Model = SwinMAE | SwinUNet | SwinClassifier

_CLASSES: dict[tuple[Kind, str], type[Model]] = {
    ("mae", ""): SwinMAE,
    ("segmenter", "swin_unet"): SwinUNet,
    ("classifier", ""): SwinClassifier,
}


def kind_of(module: nn.Module) -> Kind:
    """Return the word ``model.json`` uses for this model.

    Raises:
        ModelError: The module is none of vismae's models.
    """
    return _names_of(module)[0]


def architecture_of(module: Model) -> dict[str, Any]:
    """Return plain data from which ``build_module`` makes the same network.

    ``swin`` holds the fields of ``SwinConfig``; the other entries are the model's own settings.

    Raises:
        ModelError: The module is none of vismae's models.
    """
    _names_of(module)
    own = {name: getattr(module, name) for name in module.SETTINGS}
    return {"swin": module.config.to_dict(), **own}


def build_module(kind: str, architecture: Mapping[str, Any], task: TaskCard | None = None) -> Model:
    """Make an untrained network from what ``architecture_of`` gave.

    Args:
        kind: ``mae``, ``segmenter`` or ``classifier``.
        architecture: Entry ``architecture`` of a model card.
        task: Entry ``task``; names the segmentation network and its classes.

    Raises:
        ModelError: The settings do not describe a network this version knows.
    """
    network = task.network if task is not None and kind == "segmenter" else "swin_unet"
    found = [
        known for (word, net), known in _CLASSES.items() if word == kind and net in ("", network)
    ]
    if not found:
        raise ModelError(
            f"A model of kind '{kind}' with network '{network}' is unknown here. Known: "
            f"{', '.join(' '.join(names).strip() for names in _CLASSES)}. It may come from a newer "
            "vismae; update it."
        )
    own = {name: value for name, value in architecture.items() if name != "swin"}
    unknown = sorted(set(own) - set(found[0].SETTINGS))
    if unknown or "swin" not in architecture:
        wrong = f"{unknown[0]} is unknown" if unknown else "swin is missing"
        raise ModelError(f"architecture.{wrong} in a '{kind}'. Update vismae or take a fresh copy.")
    if task is not None and len(task.classes) != own.get("num_classes"):
        raise ModelError(
            f"task.classes names {len(task.classes)} classes, but architecture.num_classes is "
            f"{own.get('num_classes')}. Give one name per output of the network."
        )
    try:
        return found[0](SwinConfig.from_dict(architecture["swin"]), **own)
    except TypeError as error:
        raise ModelError(
            f"architecture of a '{kind}' lacks a setting or holds one of the wrong type ({error}). "
            "Take a fresh copy of the model folder."
        ) from error


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
    kind, network = _names_of(module)
    architecture = architecture_of(module)
    if card.kind != kind or card.architecture != architecture:
        raise ModelError(
            f"The card describes a '{card.kind}' {card.architecture}, but the model is a "
            f"'{kind}' {architecture}. Fill the card from kind_of and architecture_of."
        )
    if card.task is not None and network and card.task.network != network:
        raise ModelError(
            f"The card's task.network is '{card.task.network}', but the model is a '{network}'."
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous().cpu() for name, value in module.state_dict().items()}
    write_atomically(folder / WEIGHTS_FILE, safetensors.torch.save(state))
    write_atomically(folder / CARD_FILE, (card.model_dump_json(indent=2) + "\n").encode())


def load_model(folder: str | PathLike[str]) -> Model:
    """Read a model folder.

    Returns:
        The network in evaluation mode on the CPU, with ``card`` and ``preprocessing`` set.

    Raises:
        ModelError: A file is missing, damaged, or from a newer version; weights and card differ.
    """
    folder = Path(folder)
    card = read_card(folder)
    module = build_module(card.kind, card.architecture, card.task)
    load_exactly(module, read_safetensors(folder / WEIGHTS_FILE), str(folder / WEIGHTS_FILE))
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
        raise ModelError(
            f"{path} does not exist, so {folder} is no model folder. Expected {CARD_FILE} and "
            f"{WEIGHTS_FILE}, as pretrain and finetune write them."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
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


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it, not even after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _names_of(module: nn.Module) -> tuple[Kind, str]:
    for names, known in _CLASSES.items():
        if type(module) is known:
            return names
    raise ModelError(
        f"{type(module).__name__} is no vismae model. Known: "
        f"{', '.join(known.__name__ for known in _CLASSES.values())}."
    )
