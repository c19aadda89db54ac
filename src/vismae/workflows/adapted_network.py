"""The network that fine-tuning adapts: chosen by the settings, started from a model or not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from vismae.core.errors import ModelError, SettingError
from vismae.core.preprocessing import Preprocessing
from vismae.core.sections import FROM_MONAI, NetworkName, NetworkSettings
from vismae.models.backbone import SwinConfig
from vismae.models.classifier import SwinClassifier
from vismae.models.comparison import ComparisonClassifier, ComparisonSegmenter
from vismae.models.comparison_plan import CLASSIFIERS, SEGMENTERS, plan_network
from vismae.models.convolutional_decoder import filled_from
from vismae.models.hybrid import HybridUNet
from vismae.models.trainable import choose_trainable
from vismae.models.transfer import TransferReport, parts_in_common, transfer
from vismae.models.unet import SwinUNet
from vismae.models.weights import Model, network_of
from vismae.workflows.preparation import network_config

Network = SwinUNet | HybridUNet | ComparisonSegmenter | SwinClassifier | ComparisonClassifier


def require_start_possible(init: Path | None, network: NetworkName) -> None:
    """Refuse a start for a network that no weights fit, before anything is read.

    Raises:
        SettingError: Names the networks that take one.
    """
    if init is not None and network in SEGMENTERS:
        raise SettingError(
            f"model.network is {network}, which always starts from scratch, but --init is {init}. "
            "Leave out --init, or use hybrid, swin_unet or swin_unet_conv."
        )


def require_start_exists(init: Path | None) -> None:
    """Refuse a start that is not there, before images are read.

    Raises:
        ModelError: There is no such file or folder.
    """
    if init is not None and not init.exists():
        raise ModelError(f"{init} does not exist. Give a checkpoint file or a model folder.")


def require_start_fits(source: Model, init: Path | None, network: NetworkName) -> None:
    """Check that a start model has the encoder that a network needs.

    Raises:
        SettingError: It has another one; says which networks can take it.
    """
    found = network_of(source)
    if found in SEGMENTERS:
        raise SettingError(
            f"--init {init} is a {found}, whose weights are no start: {', '.join(SEGMENTERS)} "
            "always start from scratch, and no other network has their encoder. Leave out --init."
        )
    if (network in FROM_MONAI or found in FROM_MONAI) and found != network:
        takers = found if found in CLASSIFIERS else "hybrid, swin_unet, swin_unet_conv or swin"
        raise SettingError(
            f"--init {init} is a {found}, and model.network is {network}, which needs another "
            f"encoder. This start fits: {takers}."
        )


def require_known_sequences(
    known: Preprocessing | None, init: Path | None, settings: NetworkSettings
) -> None:
    """Check that what a start model knows of sequences is not put to other channels in silence.

    Args:
        known: The start model's contract.
        init: The start model.
        settings: Section ``model`` of the run.

    Raises:
        SettingError: It sees several sequences and the run single images, or other slices.
    """
    if known is None or not known.sequences:
        return
    listed = ", ".join(known.sequences)
    if not settings.sequences:
        raise SettingError(
            f"--init {init} sees the sequences {listed} together, but model.sequences is empty. "
            f"Set model.sequences=[{listed}], or start from a model of single images."
        )
    same = settings.sequences == known.sequences
    if same and settings.neighbours not in (None, known.neighbours):
        raise SettingError(
            f"--init {init} sees {known.neighbours} slices on each side of a slice, and "
            f"model.neighbours is {settings.neighbours}. With model.sequences leave it out, or "
            "start from a model of single images."
        )


def build_network(
    settings: NetworkSettings,
    kind: Literal["segment", "classify"],
    source: Model | None,
    preprocessing: Preprocessing,
    num_classes: int,
    seed: int,
    shares: Callable[[], Sequence[float]],
) -> tuple[Network, TransferReport | None]:
    """Build the network, move the start model's weights in, and freeze what is not to learn.

    Args:
        settings: Section ``model``.
        kind: Of the task.
        source: The start model.
        preprocessing: The run's contract; gives channels and size of the images.
        num_classes: K.
        seed: Alone decides the first weights, whatever was drawn before.
        shares: Gives each class's share of the pixels (segmentation). Ordinary initialisation
            keeps a small network at all-background for hundreds of steps where the foreground is
            a few percent of the pixels.

    Returns:
        The network, and what was moved.

    Raises:
        SettingError: A setting does not fit the network.
        ModelError: The start model does not fit whole.
    """
    report = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _new_network(settings, kind, source, preprocessing, num_classes)
        if source is not None:
            report = transfer(
                source,
                network,
                parts=parts_in_common(source, network, decoder=settings.decoder == "transfer"),
                middle=preprocessing.neighbours > 0 and not _sees_neighbours(source),
                sequences=_new_sequences(source, preprocessing),
            )
        choose_trainable(
            network,
            settings.train,
            settings.lora_rank,
            settings.lora_alpha,
            settings.lora_targets,
        )
    if not isinstance(network, SwinClassifier | ComparisonClassifier):
        network.set_class_shares(shares())
    return network, report


def _new_network(
    settings: NetworkSettings,
    kind: Literal["segment", "classify"],
    source: Model | None,
    preprocessing: Preprocessing,
    num_classes: int,
) -> Network:
    name, channels = settings.network_for(kind), preprocessing.input_channels
    if name in FROM_MONAI:
        config = plan_network(name, channels, preprocessing.image_size, settings.width)
        if isinstance(source, ComparisonClassifier):
            config = source.config.with_channels(channels)
        if name in CLASSIFIERS:
            return ComparisonClassifier(name, config, num_classes)
        coarse = settings.deep_supervision is not False and name == "dynunet"
        return ComparisonSegmenter(name, config, num_classes, deep_supervision=coarse)
    swin = _swin_config(settings, source, channels)
    if name == "swin":
        return SwinClassifier(swin, num_classes, place_grid=settings.place_grid or 0)
    if name == "hybrid":
        width, branch = settings.width, settings.branch
        if settings.decoder == "transfer":
            width, branch = filled_from(getattr(source, "decoder", None), width, branch)
        coarse = settings.deep_supervision is True
        return HybridUNet(swin, num_classes, width, coarse, branch is not False)
    head_kind = "convolutional" if name == "swin_unet_conv" else "linear"
    return SwinUNet(swin, num_classes, head_kind=head_kind)


def _sees_neighbours(source: Model) -> bool:
    return source.preprocessing is not None and source.preprocessing.neighbours > 0


def _new_sequences(source: Model, preprocessing: Preprocessing) -> int:
    known = source.preprocessing.sequences if source.preprocessing is not None else ()
    return 0 if preprocessing.sequences == known else len(preprocessing.sequences)


def _swin_config(settings: NetworkSettings, source: Model | None, channels: int) -> SwinConfig:
    # Frozen features that come and go at random teach the rest nothing.
    drop_path = 0.0 if settings.train == "head" else settings.drop_path
    changes: dict[str, Any] = {"in_channels": channels, "drop_path": drop_path}
    if settings.window_size is not None:
        changes["window_size"] = settings.window_size
    return network_config(source, settings.size, **changes)
