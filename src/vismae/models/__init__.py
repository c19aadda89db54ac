"""Floor 1: the networks and their losses, as plain PyTorch modules.

One backbone (``swin.py``, ``backbone.py``), the models on it (``mae.py``, ``unet.py``,
``hybrid.py``, ``classifier.py``, ``contrastive.py``), networks to compare with
(``comparison.py``), and their files (``weights.py``, ``reference.py``, ``foreign_swin.py``,
``transfer.py``).
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
from vismae.models.comparison import ComparisonClassifier, ComparisonSegmenter
from vismae.models.comparison_plan import ComparisonConfig, plan_network
from vismae.models.contrastive import SwinSimCLR, nt_xent
from vismae.models.hybrid import HybridUNet
from vismae.models.lora import add_lora, merge_lora
from vismae.models.mae import MAEOutput, SwinMAE
from vismae.models.masking import foreground_units, keys_from_generator, sample_hidden
from vismae.models.reconstruction import patchify, reconstruction_loss, unpatchify
from vismae.models.reference import (
    load_checkpoint,
    load_reference_checkpoint,
    save_reference_checkpoint,
)
from vismae.models.segmentation_loss import segmentation_loss, soft_dice, soft_tversky
from vismae.models.transfer import TransferReport, transfer
from vismae.models.unet import SwinUNet
from vismae.models.weights import (
    architecture_of,
    build_module,
    kind_of,
    load_model,
    network_of,
    read_card,
    save_model,
)

__all__ = [
    "SIZES",
    "ComparisonClassifier",
    "ComparisonConfig",
    "ComparisonSegmenter",
    "EncoderOutput",
    "HybridUNet",
    "MAEOutput",
    "SwinClassifier",
    "SwinConfig",
    "SwinDecoder",
    "SwinEncoder",
    "SwinMAE",
    "SwinSimCLR",
    "SwinUNet",
    "TransferReport",
    "add_lora",
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
    "merge_lora",
    "network_of",
    "nt_xent",
    "patchify",
    "plan_network",
    "read_card",
    "reconstruction_loss",
    "sample_hidden",
    "save_model",
    "save_reference_checkpoint",
    "segmentation_loss",
    "soft_dice",
    "soft_tversky",
    "transfer",
    "unpatchify",
]
