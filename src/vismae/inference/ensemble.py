"""One answer from one model or several, seen plainly or also mirrored.

Several views (models × mirrorings) are joined as the mean of their probabilities. For label maps
that mean is handed on as its logarithm: up to a constant in each pixel this is what the logits of
a single model are, so that resizing, blending and choosing the class are one code for both.

Shapes: B batch, C channels, H×W pixels, K classes.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vismae.core.errors import ModelError
from vismae.core.host_memory import keep_freed_memory
from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.inference.unanswered import NotFiniteError
from vismae.models.arithmetic import warn_of_slow_bf16
from vismae.models.weights import WEIGHTS_FILE, load_model

Flip = Literal["horizontal", "vertical"]
Precision = Literal["fp32", "bf16", "fp16"]

_FLIP_AXIS: dict[Flip, int] = {"vertical": -2, "horizontal": -1}
# What a batch of slices needs again for the next one; volumes, which come once, are larger.
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 256 << 20, 64 << 20
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Ensemble:
    """Models that answer together.

    Args:
        models: At least one, of one kind and one contract; moved to ``device``.
        cards: What each says of itself.
        digest: Names the weights; see ``load_ensemble``.
        device: Where to compute.
        flips: Mirrorings that are seen too; with two also both at once.
        precision: Of the forward pass; results are float32.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        cards: Sequence[ModelCard],
        digest: str,
        device: torch.device,
        flips: Sequence[Flip] = (),
        precision: Precision = "fp32",
    ) -> None:
        self.models = [model.to(device).eval() for model in models]
        self.cards = tuple(cards)
        self.digest = digest
        self.device = device
        self.precision = precision
        axes = sorted({_FLIP_AXIS[flip] for flip in flips})
        self._flips = list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))

    @property
    def kind(self) -> Literal["mae", "contrastive", "segmenter", "classifier"]:
        """What the models give."""
        return self.cards[0].kind

    @property
    def preprocessing(self) -> Preprocessing:
        """The contract they share."""
        return self.cards[0].preprocessing

    @property
    def task(self) -> TaskCard:
        """The task they share; a class's threshold is the mean of theirs, as probabilities are.

        Raises:
            ModelError: A model that was only pre-trained has none.
        """
        task = self.cards[0].task
        if task is None:
            raise ModelError("The model has no task: model.json names no classes.")
        chosen = [card.task.thresholds for card in self.cards if card.task is not None]
        own = [thresholds or (0.5,) * len(task.classes) for thresholds in chosen]
        if len(own) < 2 or not any(chosen):
            return task
        mean = tuple(sum(of_class) / len(own) for of_class in zip(*own, strict=True))
        return task.model_copy(update={"thresholds": mean})

    def scores(self, images: Tensor) -> Tensor:
        """Return values (B, K, ...) whose softmax over K is the mean of all views' probabilities.

        Logits where there is one view only.

        Args:
            images: Normalised, (B, C, H, W), on any device.
        """
        first, *others = self._views(images)
        if not others:
            return first()
        joined = first().log_softmax(dim=1)
        for view in others:
            joined = torch.logaddexp(joined, view().log_softmax(dim=1))
        return joined - math.log(1 + len(others))

    def probabilities(self, images: Tensor) -> Tensor:
        """Return a classifier's class probabilities, (B, K), the mean over all views."""
        several = self.task.multi_label
        found = [
            logits.sigmoid() if several else logits.softmax(dim=1)
            for logits in (view() for view in self._views(images))
        ]
        return found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)

    def _views(self, images: Tensor) -> list[Callable[[], Tensor]]:
        images = images.to(self.device)
        return [
            lambda model=model, axes=axes: self._forward(model, images, axes)
            for model in self.models
            for axes in self._flips
        ]

    @torch.inference_mode()
    def _forward(self, model: nn.Module, images: Tensor, axes: tuple[int, ...]) -> Tensor:
        with self.autocast():
            logits = model(images.flip(axes) if axes else images)
        if axes and logits.ndim == 4:
            logits = logits.flip(axes)
        self.require_finite(logits)
        return logits.float()

    def require_finite(self, answers: Tensor) -> None:
        """Refuse answers that are no numbers: the most probable of them would be the first class.

        Raises:
            NotFiniteError: Some are not finite.
        """
        if not bool(torch.isfinite(answers).all()):
            cure = (
                "Look for values in it that no scanner gives; if other images have no answer "
                "either, the weights are damaged."
                if self.precision == "fp32"
                else "Use --precision fp32; if they are not finite then either, the weights are "
                "damaged."
            )
            raise NotFiniteError(
                f"The answers for an image are not finite in {self.precision}. {cure}"
            )

    def autocast(self) -> torch.autocast:
        """Return the context in which a forward pass has the wanted precision."""
        return torch.autocast(
            self.device.type,
            dtype=_AUTOCAST.get(self.precision, torch.bfloat16),
            enabled=self.precision in _AUTOCAST,
        )


def load_ensemble(
    folders: Sequence[Path],
    device: torch.device,
    flips: Sequence[Flip] = (),
    precision: Precision = "fp32",
) -> Ensemble:
    """Load model folders that answer together.

    ``digest`` of the result is a SHA-256 over the weights and cards in the order given.

    Raises:
        ModelError: A folder holds no model, or two differ in kind, classes or contract.
    """
    warn_of_slow_bf16(precision, device.type, "precision")
    if device.type == "cpu":
        keep_freed_memory(_KEPT_BYTES, _LARGEST_KEPT_BYTES)
    models, cards = [], []
    digest = hashlib.sha256()
    for folder in folders:
        model = load_model(folder)
        if model.card is None:
            raise ModelError(f"{folder} has no model card. Take a fresh copy of the model folder.")
        if cards:
            _require_same(cards[0], model.card, folders[0], folder)
        models.append(model)
        cards.append(model.card)
        with (folder / WEIGHTS_FILE).open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
        digest.update(model.card.model_dump_json().encode())
    if len(models) > 1 and cards[0].kind == "mae":
        raise ModelError(
            "Several masked autoencoders were given; their error maps cannot be joined. Name one."
        )
    return Ensemble(models, cards, digest.hexdigest(), device, flips, precision)


def _require_same(first: ModelCard, other: ModelCard, first_at: Path, other_at: Path) -> None:
    if first.kind != other.kind:
        raise ModelError(
            f"{other_at} holds a {other.kind}, {first_at} a {first.kind}. Models that answer "
            "together must be of one kind."
        )
    if first.task is not None and other.task is not None:
        for name in ("classes", "multi_label"):
            if getattr(first.task, name) != getattr(other.task, name):
                raise ModelError(
                    f"task.{name} of {other_at} is {getattr(other.task, name)}, of {first_at} "
                    f"{getattr(first.task, name)}. Models that answer together must have the same."
                )
    first.preprocessing.require_same(other.preprocessing, str(other_at))
    if first.preprocessing.image_size != other.preprocessing.image_size:
        raise ModelError(
            f"preprocessing.image_size of {other_at} is {other.preprocessing.image_size}, of "
            f"{first_at} {first.preprocessing.image_size}. Models that answer together must have "
            "the same."
        )
