"""Class probabilities of a stream of slices, with a map of where each answer comes from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from vismae.data.geometry import unfit_logits
from vismae.inference.ensemble import Ensemble
from vismae.inference.explain import class_evidence
from vismae.inference.slices import Key, Slice, batches_of, canvas_of, to_full_scale
from vismae.inference.unanswered import Unanswered, answers_or_reasons
from vismae.models.classifier import SwinClassifier


@dataclass(frozen=True)
class SliceClasses:
    """What a classifier says of a slice.

    Attributes:
        probabilities: (K,), float32.
        evidence: Probability of the most probable class that each place alone would give,
            ``FULL_SCALE`` for 1, (h, w) uint16 in the slice's own size; None unless wanted.
    """

    probabilities: np.ndarray
    evidence: np.ndarray | None


def gives_evidence(ensemble: Ensemble) -> bool:
    """Tell whether there is a map of evidence: networks of other families have none."""
    return all(isinstance(model, SwinClassifier) for model in ensemble.models)


def classify_slices(
    ensemble: Ensemble, slices: Iterable[Slice[Key]], batch_size: int, explain: bool = False
) -> Iterator[tuple[Key, SliceClasses | Unanswered]]:
    """Yield the class probabilities of each slice, in order, or why there are none.

    Args:
        ensemble: Classifiers.
        slices: The stream; read no further than one batch ahead.
        batch_size: Slices at a time.
        explain: Give the evidence too, the mean over models; see ``gives_evidence``.
    """
    contract = ensemble.preprocessing

    def classes(batch: list[Slice[Key]]) -> Iterator[SliceClasses]:
        images = canvas_of(batch, contract)
        found = ensemble.probabilities(images).cpu().numpy()
        evidence = None
        if explain:
            maps = [
                class_evidence(
                    cast(SwinClassifier, model),
                    images.to(ensemble.device),
                    ensemble.task.multi_label,
                )
                for model in ensemble.models
            ]
            evidence = torch.stack(maps).mean(dim=0)
        for place, (item, probabilities) in enumerate(zip(batch, found, strict=True)):
            shown = None
            if evidence is not None:
                chosen = evidence[place, int(probabilities.argmax())][None]
                shown = to_full_scale(unfit_logits(chosen, item.size, contract.fit)[0])
            yield SliceClasses(probabilities, shown)

    for batch in batches_of(slices, batch_size):
        for item, found in answers_or_reasons(batch, classes):
            yield item.key, found
