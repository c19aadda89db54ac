"""Groups of settings that commands share: data, network, optimiser, trainer and so on.

Every default and description is written once, here or in ``core/config.py`` and its neighbours; the
table in ``docs/settings.md`` and the messages about wrong values are made from them.
"""

from collections.abc import Mapping
from typing import Literal, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from vismae.core.errors import SettingError
from vismae.core.setting_types import (
    Device,
    Modalities,
    MomentDecay,
    Paths,
    PositiveRange,
    Sequences,
    Size2D,
    SizeName,
    Window,
    Words,
)


class Settings(BaseModel):
    """Base of every group of settings: immutable, and unknown names are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_section_defaults(cls, values: object) -> object:
        """Let a section that is given in part keep the command's own defaults for the rest.

        Without this, naming ``trainer.device`` alone would bring back the section's general
        defaults in place of the command's, such as another number of steps.
        """
        if not isinstance(values, Mapping):
            return values
        filled = dict(cast("Mapping[str, object]", values))
        for name, field in cls.model_fields.items():
            given = filled.get(name)
            if isinstance(field.default, Settings) and isinstance(given, Mapping):
                filled[name] = field.default.model_dump() | dict(
                    cast("Mapping[str, object]", given)
                )
        return filled


class TrainerSettings(Settings):
    """How long, on what, and how often to look."""

    max_steps: int | None = Field(default=2000, ge=1)
    """Optimiser steps of the whole training, unless max_epochs is given; chosen by the recipe when
    unset (fine-tuning)."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Passes over the training images; replaces max_steps when set."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; weights stay fp32. auto takes bf16 where the device is
    faster in it, fp32 elsewhere; the run's config.yaml says which."""
    device: Device = "auto"
    """Where to train; auto takes CUDA, then MPS, then the CPU."""
    devices: int = Field(default=1, ge=1)
    """Processes (GPUs) on each machine."""
    nodes: int = Field(default=1, ge=1)
    """Machines, as started by torchrun or SLURM."""
    wait_minutes: float = Field(default=30.0, gt=0)
    """Processes that train together wait so long for each other, at the start and in a step."""
    silence_seconds: float = Field(default=60.0, ge=5.0)
    """A process that gives no sign of life for so long is lost, and the others stop."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are added before one optimiser step."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Optimiser steps between resume points."""
    log_every: int = Field(default=20, ge=1)
    """Optimiser steps between lines of metrics.csv."""
    picture_every: int = Field(default=1000, ge=0)
    """Optimiser steps between fill-in pictures; 0 makes none."""
    validate_every: int | None = Field(default=None, ge=1)
    """Optimiser steps between validations (fine-tuning); chosen by the recipe when unset."""
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Average the weights over steps with this decay; none when unset."""
    gradient_clip: float = Field(default=1.0, ge=0.0)
    """Largest gradient norm; 0 does not clip."""


class OptimizerSettings(Settings):
    """AdamW with linear warm-up and cosine decay, counted in optimiser steps; or SGD."""

    algorithm: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with Nesterov momentum, as nnU-Net trains."""
    momentum: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Of sgd."""
    schedule: Literal["cosine", "poly"] = "cosine"
    """How lr falls after the warm-up: as a cosine, or as nnU-Net's (1 - step / steps) ** 0.9."""

    lr: float | None = Field(default=1e-3, gt=0)
    """Peak learning rate at ``lr_batch_size`` images a step; chosen by the recipe when unset
    (fine-tuning)."""
    lr_scaling: Literal["none", "sqrt", "linear"] = "none"
    """How lr follows the number of images a step."""
    lr_batch_size: int = Field(default=256, ge=1)
    """Batch size that lr is given for, when it is scaled."""
    min_lr_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """lr at the end as a share of its peak."""
    warmup_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of all steps with rising lr."""
    weight_decay: float = Field(default=0.05, ge=0.0)
    """Decay of weight matrices; norms, biases and bias tables have none."""
    betas: tuple[MomentDecay, MomentDecay] = (0.9, 0.95)
    """AdamW's moment decays."""
    layer_decay: float | None = Field(default=None, gt=0.0, le=1.0)
    """lr of each block below the top is this times the one above (fine-tuning); chosen by the
    recipe when unset."""
    head_lr_factor: float | None = Field(default=None, gt=0.0)
    """lr of what stands above the encoder (a classifier's last layer, a segmenter's decoder) is
    this times lr (fine-tuning); chosen by the recipe when unset."""
    head_first_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of all steps in which the encoder keeps still while the rest learns; then everything
    warms up again (fine-tuning)."""


class DataSettings(Settings):
    """What is read, and how it reaches the network."""

    sources: Paths = ()
    """Folders, files, archives, csv manifests or a store (``--data``)."""
    image_size: Size2D | None = None
    """Height and width of the network's input in pixels, one number for a square; the start
    model's, else chosen by the recipe (fine-tuning) or 224."""
    batch_size: int = Field(default=64, ge=1)
    """Images in a batch on each device."""
    workers: int = Field(default=2, ge=0)
    """Processes that prepare images; 0 prepares in the training process."""
    modality: Modalities = ()
    """Only images of these modalities; all when empty."""


class PreprocessingSettings(Settings):
    """Wishes about the preprocessing contract; what is unset follows the start model."""

    fit: Literal["pad", "stretch"] | None = None
    """Keep the aspect ratio and pad bottom and right, or stretch; else pad."""
    ct_window_hu: Window | None = None
    """HU mapped to 0 and 1; else -1000 to 1000."""
    pet_range_suv: Window | None = None
    """SUV mapped to 0 and 1; else 0 to 10."""
    mean: float | None = None
    """Subtracted after scaling to 0..1; else 0.223, or as weights of another project want it."""
    std: float | None = Field(default=None, gt=0)
    """Divided by after that; else 0.202, or as weights of another project want it."""


class PretrainDataSettings(DataSettings):
    """Data of pre-training."""

    sampling: Literal["natural", "sqrt", "balanced"] = "sqrt"
    """Share of each modality: as found, square root of its count, or equal."""
    crop_scale: PositiveRange = (0.35, 1.0)
    """Area of the random crop as a share of the image."""
    crop_aspect: PositiveRange = (0.75, 1.333)
    """Aspect ratio of the random crop relative to the image's own."""
    flip: bool = True
    """Mirror half of the images left to right."""
    rotate: float = Field(default=10.0, ge=0.0, le=180.0)
    """Largest random rotation in degrees."""
    jitter: float = Field(default=0.2, ge=0.0, le=1.0)
    """Strength of the random gamma, contrast and brightness."""
    blur: float = Field(default=0.0, ge=0.0, le=3.0)
    """Largest standard deviation of the blur of half of the views, in pixels."""
    ct_window_chance: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the CT views that are seen through a random window, narrower than the contract's
    and within it."""
    ct_window_width: PositiveRange = (0.1, 1.0)
    """Width of that window as a share of the contract's."""
    use_test_rows: bool = False
    """Also learn from rows whose split is val or test."""
    min_side: int = Field(default=24, ge=1)
    """Leave out images whose shorter side has fewer pixels."""
    skip: Words = ("duplicate", "blank", "nearly-blank")
    """Leave out images that repeat another (duplicate, near-duplicate) or carry one of these
    flags of the store."""
    max_damaged_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of the images that may turn out damaged in the store while the run learns, each of them
    replaced by another image; more stop it, as any does at 0."""


class MAESettings(Settings):
    """The masked autoencoder."""

    size: SizeName = "vismae"
    """Named network size; vismae is the paper's."""
    in_channels: Literal[1, 3] = 1
    """Input channels: 1 grey, 3 colour (grey images are repeated)."""
    window_size: int | None = Field(default=None, ge=2)
    """Side of the attention window in tokens; the size's own when unset."""
    drop_path: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Largest rate of stochastic depth, rising linearly from 0."""
    mask_ratio: float = Field(default=0.75, gt=0.0, lt=1.0)
    """Share of mask units hidden from the encoder."""
    mask_unit_px: int = Field(default=16, ge=1)
    """Side of a mask unit in pixels."""
    mask_strategy: Literal["random", "block", "foreground"] = "random"
    """Which units are hidden."""
    background_weight: float = Field(default=1.0, ge=0.0)
    """Weight of background patches in the loss (foreground strategy)."""
    normalise_patches: bool = True
    """Reconstruct each patch scaled to mean 0 and variance 1."""
    normalise_eps: float = Field(default=1e-3, gt=0)
    """Added to the patch variance, so that flat patches do not blow up noise."""
    normalise_side_px: int | None = Field(default=None, ge=2)
    """Scale squares of this side instead of patches; a whole mask unit keeps its structure."""
    decoder_kind: Literal["swin", "convolutional"] | None = None
    """The encoder's mirror, as in VIS-MAE, or the hybrid network's decoder, which a hybrid then
    takes over; the start model's when unset, else swin."""
    decoder_width: int | None = Field(default=None, ge=1)
    """Channels at full resolution of a convolutional decoder; the start model's when unset, else by
    the network's size."""
    decoder_branch: bool | None = None
    """Let a convolutional decoder's stem go on beside the encoder, down to its coarsest grid; the
    start model's when unset, else true."""
    encoder_input: Literal["dense", "visible"] = "dense"
    """Whole images, a learned token in place of hidden patches (VIS-MAE), or visible patches
    alone, which is faster and another network."""
    checkpointing: bool = False
    """Compute the inside of each block again for its gradients: less memory, more time."""
    compile: bool = False
    """Compile the forward and backward pass with torch.compile; needs a C++ compiler."""


SegmentationNetwork = Literal[
    "swin_unet", "swin_unet_conv", "hybrid", "unet", "dynunet", "swin_unetr"
]
ClassificationNetwork = Literal["swin", "resnet18", "resnet50", "densenet121"]
NetworkName = SegmentationNetwork | ClassificationNetwork
WITH_SWIN_ENCODER = ("swin_unet", "swin_unet_conv", "hybrid", "swin")
CONVOLUTIONAL_CLASSIFIERS = ("resnet18", "resnet50", "densenet121")
FROM_MONAI = ("unet", "dynunet", "swin_unetr", *CONVOLUTIONAL_CLASSIFIERS)


class NetworkSettings(Settings):
    """The network that is adapted."""

    size: SizeName = "vismae"
    """Named size when starting from scratch; a start model brings its own."""
    window_size: int | None = Field(default=None, ge=2)
    """Side of a Swin network's attention window in tokens; the start model's, else the size's own,
    when unset."""
    in_channels: Literal[1, 3] | None = None
    """Input channels; the start model's, else 3 for colour images and 1 for grey ones."""
    neighbours: int | None = Field(default=None, ge=0, le=5)
    """Slices of the volume on each side that are seen with each slice, as channels (2.5D, grey
    images); the start model's where there are volumes, else 0."""
    sequences: Sequences = ()
    """Sequences of a case that are seen together as channels in this order, such as T1 and FLAIR,
    named as in the manifest's column sequence. None: each image stands alone."""
    drop_path: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Largest rate of stochastic depth; none where the encoder is frozen."""
    network: NetworkName | None = None
    """Network: hybrid, swin_unet (the paper's), swin_unet_conv, unet, dynunet or swin_unetr to
    segment; swin (the paper's), resnet18, resnet50 or densenet121 to classify; when unset the start
    model's own where it is an adapted one, else hybrid and swin. unet, dynunet, swin_unetr, the
    ResNets and DenseNet need the extra compare."""
    width: int | None = Field(default=None, ge=1)
    """Channels of the finest level (hybrid and the networks of the extra compare); the network's
    own when unset."""
    branch: bool | None = None
    """Let the hybrid's convolutions go on beside the encoder, down to its coarsest grid; when unset
    as in the start model's decoder where that is taken, else true."""
    deep_supervision: bool | None = None
    """Also judge coarser outputs in training (hybrid, dynunet); when unset only dynunet does."""
    place_grid: int | None = Field(default=None, ge=0, le=8)
    """Let the last layer of swin also see the means over a grid of so many rows and columns: where
    something is; 0, as published: the mean over all alone; chosen by the recipe when unset."""
    train: str = Field(default="all", pattern=r"^(all|head|lora|last_[1-9][0-9]*)$")
    """What of the encoder learns: all; head, nothing of it (a linear probe where the network is a
    classifier); last_N, its last N blocks; lora, low-rank changes. The rest always learns."""
    lora_rank: int = Field(default=8, ge=1)
    """Rank of the low-rank changes."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """Weight of the low-rank changes, times their rank."""
    lora_targets: Words = ("qkv", "proj")
    """Layers that get low-rank changes: some of qkv, proj, fc1, fc2."""
    decoder: Literal["transfer", "scratch"] = "transfer"
    """Take the start model's decoder too, where it is of the same kind, or begin it at random."""

    def network_for(self, kind: Literal["segment", "classify"]) -> NetworkName:
        """Return the network's name for a kind of task.

        Raises:
            SettingError: The network is for the other kind, or would ignore a setting.
        """
        known: tuple[NetworkName, ...] = get_args(
            SegmentationNetwork if kind == "segment" else ClassificationNetwork
        )
        name = self.network or ("hybrid" if kind == "segment" else "swin")
        if name not in known:
            raise SettingError(
                f"model.network is {name}, which cannot {kind}. Use one of {', '.join(known)}."
            )
        self._refuse_ignored(name)
        return name

    @model_validator(mode="after")
    def _check_what_the_network_has(self) -> "NetworkSettings":
        """Refuse settings that a named network would ignore."""
        if self.network is not None:
            self._refuse_ignored(self.network)
        return self

    @model_validator(mode="after")
    def _sequences_are_grey(self) -> "NetworkSettings":
        if self.sequences and self.in_channels == 3:
            raise SettingError(
                f"sequences are {', '.join(self.sequences)}, each of one channel, but in_channels "
                "is 3. Leave out in_channels"
            )
        return self

    def _refuse_ignored(self, network: NetworkName) -> None:
        rules = (
            (self.width is not None, "width", ("hybrid", *FROM_MONAI)),
            (self.branch is not None, "branch", ("hybrid",)),
            ((self.place_grid or 0) > 1, "place_grid", ("swin",)),
            (self.deep_supervision is True, "deep_supervision", ("hybrid", "dynunet")),
            (self.train == "head", "train=head", (*WITH_SWIN_ENCODER, *CONVOLUTIONAL_CLASSIFIERS)),
            (self.train not in ("all", "head"), f"train={self.train}", WITH_SWIN_ENCODER),
        )
        for used, setting, networks in rules:
            if used and network not in networks:
                raise SettingError(
                    f"{setting} does not go with network {network}; it is for {', '.join(networks)}"
                )
