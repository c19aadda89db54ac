"""Small functions that write model folders of the smallest network, untrained but not constant."""

from pathlib import Path
from typing import Any

import torch

from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.models import SwinClassifier, SwinMAE, SwinUNet, architecture_of, save_model

SMALL_CONTRACT = Preprocessing(image_size=(32, 32), in_channels=1)


def write_segmenter(
    folder: Path,
    classes: tuple[str, ...] = ("background", "disc", "ring"),
    seed: int = 0,
    preprocessing: Preprocessing = SMALL_CONTRACT,
    **card: Any,
) -> Path:
    """A segmenter whose classes follow the image, so that every class occurs on most images."""
    torch.manual_seed(seed)
    network = SwinUNet.from_size("nano", in_channels=1, num_classes=len(classes))
    with torch.no_grad():
        # Ordinary first weights are so small that one class would win everywhere.
        network.head.weight.normal_(std=1.0)
    task = TaskCard(classes=classes, label_values={k: k for k in range(len(classes))})
    return _save(folder, network, "segmenter", preprocessing, task=task, **card)


def write_classifier(
    folder: Path,
    classes: tuple[str, ...] = ("bright", "dark"),
    seed: int = 0,
    preprocessing: Preprocessing = SMALL_CONTRACT,
    multi_label: bool = False,
    **card: Any,
) -> Path:
    """A classifier whose probabilities follow the image."""
    torch.manual_seed(seed)
    network = SwinClassifier.from_size("nano", in_channels=1, num_classes=len(classes))
    with torch.no_grad():
        network.head.weight.normal_(std=0.5)
    task = TaskCard(classes=classes, multi_label=multi_label)
    return _save(folder, network, "classifier", preprocessing, task=task, **card)


def write_mae(folder: Path, seed: int = 0, **card: Any) -> Path:
    """A masked autoencoder."""
    torch.manual_seed(seed)
    network = SwinMAE.from_size("nano", in_channels=1, mask_unit_px=8)
    return _save(folder, network, "mae", SMALL_CONTRACT, **card)


def _save(folder: Path, network: Any, kind: Any, preprocessing: Preprocessing, **card: Any) -> Path:
    made = ModelCard(
        kind=kind, architecture=architecture_of(network), preprocessing=preprocessing, **card
    )
    save_model(network, made, folder)
    return folder
