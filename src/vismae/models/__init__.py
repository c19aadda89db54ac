"""Floor 1: the networks and their losses, as plain PyTorch modules.

One backbone (``swin.py``, ``backbone.py``), three models on it (``mae.py``, ``unet.py``,
``classifier.py``), and their files (``weights.py``, ``reference.py``, ``transfer.py``).
"""

from vismae.models.backbone import (
    SIZES,
    EncoderOutput,
    SwinConfig,
    SwinDecoder,
    SwinEncoder,
    config_for_size,
)
from vismae.models.classifier import SwinClassifier, classification_loss
from vismae.models.mae import MAEOutput, SwinMAE, patchify, reconstruction_loss, unpatchify
from vismae.models.masking import foreground_units, keys_from_generator, sample_hidden
from vismae.models.reference import (
    load_checkpoint,
    load_reference_checkpoint,
    save_reference_checkpoint,
)
from vismae.models.transfer import TransferReport, transfer
from vismae.models.unet import SwinUNet, segmentation_loss, soft_dice
from vismae.models.weights import (
    architecture_of,
    build_module,
    kind_of,
    load_model,
    read_card,
    save_model,
)

__all__ = [
    "SIZES",
    "EncoderOutput",
    "MAEOutput",
    "SwinClassifier",
    "SwinConfig",
    "SwinDecoder",
    "SwinEncoder",
    "SwinMAE",
    "SwinUNet",
    "TransferReport",
    "architecture_of",
    "build_module",
    "classification_loss",
    "config_for_size",
    "foreground_units",
    "keys_from_generator",
    "kind_of",
    "load_checkpoint",
    "load_model",
    "load_reference_checkpoint",
    "patchify",
    "read_card",
    "reconstruction_loss",
    "sample_hidden",
    "save_model",
    "save_reference_checkpoint",
    "segmentation_loss",
    "soft_dice",
    "transfer",
    "unpatchify",
]
