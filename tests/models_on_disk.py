"""Small functions that write model folders of the smallest network, untrained but not constant."""

from pathlib import Path
from typing import Any

import torch

from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.models import (
    ComparisonClassifier,
    ComparisonSegmenter,
    HybridUNet,
    SwinClassifier,
    SwinMAE,
    SwinSimCLR,
    SwinUNet,
    architecture_of,
    plan_network,
    save_model,
)
from vismae.models.comparison_plan import SEGMENTERS

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
    network = SwinUNet.from_size(
        "nano", in_channels=preprocessing.input_channels, num_classes=len(classes)
    )
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
    network = SwinClassifier.from_size(
        "nano", in_channels=preprocessing.in_channels, num_classes=len(classes)
    )
    with torch.no_grad():
        network.head.weight.normal_(std=0.5)
    task = TaskCard(classes=classes, multi_label=multi_label)
    return _save(folder, network, "classifier", preprocessing, task=task, **card)


def write_mae(
    folder: Path, seed: int = 0, preprocessing: Preprocessing = SMALL_CONTRACT, **card: Any
) -> Path:
    """A masked autoencoder."""
    torch.manual_seed(seed)
    network = SwinMAE.from_size("nano", in_channels=preprocessing.in_channels, mask_unit_px=8)
    return _save(folder, network, "mae", preprocessing, **card)


def write_contrastive(
    folder: Path, seed: int = 0, preprocessing: Preprocessing = SMALL_CONTRACT, **card: Any
) -> Path:
    """An encoder that was trained to tell images apart."""
    torch.manual_seed(seed)
    network = SwinSimCLR.from_size("nano", in_channels=preprocessing.in_channels)
    return _save(folder, network, "contrastive", preprocessing, **card)


PLACED = "swin that sees places"


def write_network(
    folder: Path,
    network: str,
    classes: tuple[str, ...] = ("background", "disc", "ring"),
    preprocessing: Preprocessing = SMALL_CONTRACT,
    **card: Any,
) -> Path:
    """Any network by its name, whose answers follow the image."""
    if network == "swin_unet":
        return write_segmenter(folder, classes, preprocessing=preprocessing, **card)
    torch.manual_seed(0)
    channels, count = preprocessing.in_channels, len(classes)
    task = TaskCard(classes=classes, network="swin" if network == PLACED else network)
    if network == "simclr":
        return write_contrastive(folder, preprocessing=preprocessing, **card)
    if network == "swin_mae":
        made = SwinMAE.from_size("nano", in_channels=channels, mask_unit_px=8)
        return save_network(folder, made, "mae", preprocessing, **card)
    sizes = {"num_classes": count, "in_channels": channels}
    swin = {
        "swin_unet_conv": lambda: SwinUNet.from_size("nano", head_kind="convolutional", **sizes),
        "hybrid": lambda: HybridUNet.from_size("nano", **sizes),
        "swin": lambda: SwinClassifier.from_size("nano", **sizes),
        PLACED: lambda: SwinClassifier.from_size("nano", place_grid=3, **sizes),
    }
    if network in swin:
        made = swin[network]()
    else:
        width = 12 if network == "swin_unetr" else 8 if network in SEGMENTERS else None
        plan = plan_network(network, channels, preprocessing.image_size, width)
        kind = ComparisonSegmenter if network in SEGMENTERS else ComparisonClassifier
        made = kind(network, plan, count)
    with torch.no_grad():
        for parameter in list(made.parameters())[-2:]:
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    kind = "classifier" if hasattr(made, "features") else "segmenter"
    return save_network(folder, made, kind, preprocessing, task=task, **card)


def save_network(
    folder: Path,
    network: Any,
    kind: Any,
    preprocessing: Preprocessing = SMALL_CONTRACT,
    **card: Any,
) -> Path:
    """Write a network of one's own making as a model folder."""
    return _save(folder, network, kind, preprocessing, **card)


def _save(folder: Path, network: Any, kind: Any, preprocessing: Preprocessing, **card: Any) -> Path:
    made = ModelCard(
        kind=kind, architecture=architecture_of(network), preprocessing=preprocessing, **card
    )
    save_model(network, made, folder)
    return folder
