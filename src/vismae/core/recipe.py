"""The recipe of fine-tuning: what a setting becomes that nobody has set, and why.

A function of what is known of the task and the start, so the same question has the same answer
everywhere; every default that depends on them is written here and nowhere else. nnU-Net (Isensee et
al. 2021, doi 10.1038/s41592-020-01008-z) is the model: a fingerprint, rules, an editable plan.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vismae.core.config import FinetuneConfig
from vismae.core.sections import WITH_SWIN_ENCODER
from vismae.core.settings import build_config, to_yaml
from vismae.core.types import Modality

CHOSEN = (
    "model.network",
    "model.in_channels",
    "model.neighbours",
    "model.place_grid",
    "data.image_size",
    "optimizer.lr",
    "optimizer.layer_decay",
    "optimizer.head_lr_factor",
    "trainer.max_steps",
    "trainer.validate_every",
    "task.class_weights",
    "augment.rotate",
)
"""Settings that the recipe fills where they are unset."""

_LARGEST_SIDE = 224
_SMALLEST_SIDE = 64
_SIDE_STEP = 32
KEPT_DICE = 0.95
"""What every class must keep of its Dice when its label maps are shrunk to the network's input."""
SIDES_PX = tuple(range(32, 384 + 1, _SIDE_STEP))
"""Sides among which the smallest that keeps it is looked for; a step at the last one needs three
times the memory of one at 224."""
# Passes over the training images, and fewest and most steps.
_STEPS = {"segment": (100, 2000, 20_000), "classify": (50, 1000, 10_000)}
_PROBE_STEPS = 500
_VALIDATIONS = 20
# A validation image costs about a third of a training image; all of them a tenth of the time.
_VALIDATION_COST, _VALIDATION_SHARE = 1 / 3, 0.1


@dataclass(frozen=True)
class Fingerprint:
    """What is known of a task before anything is learnt.

    Attributes:
        kind: ``segment`` or ``classify``.
        images, patients: That learn.
        validation_images: That validate.
        height, width: Median over the images, in pixels.
        colour: The images have three channels.
        modalities: Of the images.
        physical: Values are in physical units (HU, SUV).
        shares: Class name -> share of the pixels (segmentation) or of the images.
        multi_label: Several classes may be true of one image.
        slices_per_volume: Median; 1 for single images.
        detail_side_px: Smallest of ``SIDES_PX`` at which no class loses more than ``KEPT_DICE``
            allows; None where it is not looked for.
    """

    kind: Literal["segment", "classify"]
    images: int
    patients: int
    validation_images: int
    height: int
    width: int
    colour: bool
    modalities: tuple[str, ...]
    physical: bool
    shares: Mapping[str, float]
    multi_label: bool = False
    slices_per_volume: int = 1
    detail_side_px: int | None = None

    def lines(self) -> list[str]:
        """Say it, a fact a line."""
        facts = asdict(self)
        facts["shares"] = {name: float(f"{share:.3g}") for name, share in self.shares.items()}
        return [f"{name}: {_words(value)}" for name, value in facts.items()]


@dataclass(frozen=True)
class StartFacts:
    """What is known of a start model.

    Attributes:
        kind: ``mae``, ``contrastive``, ``segmenter`` or ``classifier``.
        network: Its network's name.
        in_channels: Channels of the images it has learnt from.
        image_size: Of them; None where its file does not say.
        neighbours: Slices on each side that it saw with each slice.
    """

    kind: str
    network: str
    in_channels: int
    image_size: tuple[int, int] | None
    neighbours: int = 0


@dataclass(frozen=True)
class Plan:
    """A configuration without open questions.

    Attributes:
        config: The settings.
        reasons: Dotted name -> why, for those that the recipe has chosen.
        fingerprint: What it was chosen from.
    """

    config: FinetuneConfig
    reasons: Mapping[str, str]
    fingerprint: Fingerprint

    def to_yaml(self) -> str:
        """Return the settings as YAML that ``--config`` takes, the reasons behind the values."""
        head = ["# Settings of vismae finetune, chosen for this task; change what you know better."]
        head += [f"# {line}" for line in self.fingerprint.lines()]
        # How a run is asked for is no part of the plan.
        asked = ("out:", "resume:", "overwrite:")
        body = [line for line in to_yaml(self.config).splitlines() if not line.startswith(asked)]
        return "\n".join([*head, *self._with_reasons(body)]) + "\n"

    def _with_reasons(self, lines: list[str]) -> list[str]:
        section = ""
        said: list[str] = []
        for line in lines:
            name, colon, value = line.partition(":")
            inner = name.startswith("  ") and not name.startswith("   ")
            if colon and not name.startswith((" ", "-")):
                section = name
            dotted = f"{section}.{name.strip()}" if inner else name
            why = self.reasons.get(dotted)
            if why is not None and not value:
                said.append(f"  # {why}")
            said.append(f"{line}  # {why}" if why is not None and value else line)
        return said


def plan_finetuning(
    config: FinetuneConfig, fingerprint: Fingerprint, start: StartFacts | None
) -> Plan:
    """Fill every setting that is unset and depends on the task or the start.

    Args:
        config: What was asked for; what is set stays.
        fingerprint: The task.
        start: The start model, if any.

    Raises:
        SettingError: What is set does not go with what was chosen.
    """
    chosen: dict[str, tuple[Any, str]] = {}
    settings = config.model_dump()

    def choose(name: str, value: Any, why: str) -> Any:
        """Set a dotted name if it is unset; return what it is then."""
        section, _, last = name.partition(".")
        if settings[section][last] is None:
            settings[section][last] = value
            chosen[name] = (value, why)
        return settings[section][last]

    network = choose("model.network", *_network(fingerprint.kind, start))
    grey = (1, "each sequence is grey")
    alone = not config.model.sequences
    choose("model.in_channels", *(_channels(fingerprint, start) if alone else grey))
    choose("model.neighbours", *_neighbours(fingerprint, start))
    if network == "swin":
        choose("model.place_grid", *_place_grid(config))
    choose("data.image_size", *_image_size(fingerprint, start))
    pretrained = start is not None or config.task_pretrain_steps > 0
    choose("optimizer.lr", *_lr(config, network, pretrained))
    choose("optimizer.layer_decay", *_layer_decay(config, network, pretrained))
    if network == "swin":
        choose("optimizer.head_lr_factor", *_head_lr_factor(config, start, pretrained))
    if config.trainer.max_epochs is None:
        choose("trainer.max_steps", *_steps(config, fingerprint))
    choose("trainer.validate_every", *_validate_every(config, settings, fingerprint))
    if fingerprint.kind == "classify":
        choose("task.class_weights", *_class_weights(fingerprint))
    choose("augment.rotate", *_rotate(fingerprint))
    made = build_config(
        FinetuneConfig,
        "finetune",
        options={name: value for name, (value, _) in chosen.items()},
        base=config,
    )
    return Plan(made, {name: why for name, (_, why) in chosen.items()}, fingerprint)


def _network(kind: str, start: StartFacts | None) -> tuple[str, str]:
    wanted = "segmenter" if kind == "segment" else "classifier"
    if start is not None and start.kind == wanted:
        return start.network, "the start model's own"
    if kind == "classify":
        return "swin", "the encoder, pooled, and one layer"
    return "hybrid", "Swin encoder with convolutions at full resolution"


def _channels(fingerprint: Fingerprint, start: StartFacts | None) -> tuple[int, str]:
    if start is not None:
        return start.in_channels, "the start model's"
    return (3, "colour images") if fingerprint.colour else (1, "grey images")


def _neighbours(fingerprint: Fingerprint, start: StartFacts | None) -> tuple[int, str]:
    if fingerprint.slices_per_volume < 2:
        return 0, "single images"
    return (start.neighbours, "the start model's") if start is not None else (0, "slices alone")


def _place_grid(config: FinetuneConfig) -> tuple[int, str]:
    if config.model.train == "head":
        return 3, "frozen features tell more place by place than on average"
    return 0, "as published; where the encoder learns, places helped one real task of four"


def _image_size(fingerprint: Fingerprint, start: StartFacts | None) -> tuple[tuple[int, int], str]:
    longer = max(fingerprint.height, fingerprint.width)
    whole = max(_SMALLEST_SIDE, -(-longer // _SIDE_STEP) * _SIDE_STEP)
    if start is not None and start.image_size is not None:
        size, why = start.image_size, "the start model's"
    else:
        side = min(_LARGEST_SIDE, whole)
        size = (side, side)
        why = f"median longer side {longer}, up to whole {_SIDE_STEP}, at most {_LARGEST_SIDE}"
    finer = min(fingerprint.detail_side_px or 0, whole)
    if finer > max(size):
        lost = f"shrunk below, a class would lose more than {1 - KEPT_DICE:.0%} of its Dice"
        return (finer, finer), f"{lost}; otherwise {max(size)}, {why}"
    return size, why


def _lr(config: FinetuneConfig, network: str, pretrained: bool) -> tuple[float, str]:
    if config.model.train == "head" and config.task.kind == "classify":
        return 3e-3, "linear probe"
    if pretrained and network == "swin" and config.model.train != "lora":
        return 3e-4, "more makes a classifier lose its pre-training where labels are many"
    if pretrained:
        return 1e-3, "of what is new; the encoder's follows from layer_decay"
    if network in ("swin_unet", "swin", "swin_unetr"):
        return 5e-4, "a transformer from scratch"
    return 1e-3, "convolutions at full resolution, from scratch"


def _head_lr_factor(
    config: FinetuneConfig, start: StartFacts | None, pretrained: bool
) -> tuple[float, str]:
    if config.optimizer.lr is not None:
        return 1.0, "optimizer.lr is given, for all alike"
    if start is not None and start.kind == "classifier":
        return 1.0, "the start model may bring its last layer too"
    if pretrained and config.model.train not in ("head", "lora"):
        return 10.0, "the last layer is new, and then learnt in fewer steps"
    return 1.0, "everything learns alike"


def _layer_decay(config: FinetuneConfig, network: str, pretrained: bool) -> tuple[float, str]:
    if not pretrained:
        return 1.0, "nothing pre-trained to keep"
    if config.model.train == "lora":
        return 1.0, "low-rank changes start at nothing in every layer"
    if network not in WITH_SWIN_ENCODER:
        return 0.75, "stages of a pre-trained convolutional encoder"
    return 0.85, "a pre-trained encoder changes less towards its input"


def _steps(config: FinetuneConfig, fingerprint: Fingerprint) -> tuple[int, str]:
    if config.model.train == "head" and fingerprint.kind == "classify":
        return _PROBE_STEPS, "a linear layer learns fast"
    passes, fewest, most = _STEPS[fingerprint.kind]
    steps = round(passes * fingerprint.images / _images_per_step(config))
    steps = max(fewest, min(most, steps))
    return steps, f"{passes} passes over {fingerprint.images} images, {fewest} to {most} steps"


def _validate_every(
    config: FinetuneConfig, settings: Mapping[str, Any], fingerprint: Fingerprint
) -> tuple[int, str]:
    trainer = settings["trainer"]
    steps = trainer["max_steps"]
    if trainer["max_epochs"] is not None:
        steps = max(1, round(trainer["max_epochs"] * fingerprint.images / _images_per_step(config)))
    # One process validates while the others wait, so its own batches measure the time.
    batch = config.data.batch_size * config.trainer.accumulate
    cost = fingerprint.validation_images * _VALIDATION_COST / batch / _VALIDATION_SHARE
    every = max(1, min(steps, max(-(-steps // _VALIDATIONS), round(cost))))
    return every, f"{_VALIDATIONS} times, and at most a tenth of the time"


def _images_per_step(config: FinetuneConfig) -> int:
    trainer = config.trainer
    return config.data.batch_size * trainer.accumulate * trainer.devices * trainer.nodes


def _class_weights(fingerprint: Fingerprint) -> tuple[str, str]:
    shares = [share for share in fingerprint.shares.values() if share > 0]
    ratio = max(shares) / min(shares) if shares else 1.0
    if ratio < 1.5 and not fingerprint.multi_label:
        return "none", "classes are about as frequent"
    return "sqrt", f"the commonest class is {ratio:.1f} times the rarest"


def _rotate(fingerprint: Fingerprint) -> tuple[float, str]:
    upright = {Modality.XR.value, Modality.US.value}
    if fingerprint.modalities and set(fingerprint.modalities) <= upright:
        return 15.0, "radiographs and ultrasound are taken upright"
    return 30.0, "as a body may lie"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {share:g}" for name, share in value.items())  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (tuple, list)):
        return ", ".join(str(part) for part in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
