"""Which patients to label next: by what the model is unsure of, and by what it has not seen.

* ``random``: the order that chance gives; what every other order has to beat.
* ``entropy``: the most uncertain first.
* ``core-set``: each the farthest from all that are labelled or chosen (greedy k-centre; Sener and
  Savarese 2018, arXiv 1708.00489).
* ``hybrid``: core-set among the most uncertain, so that both count (Yang et al. 2017, "Suggestive
  annotation", arXiv 1706.04737).

Shapes: N patients that may be chosen, L labelled ones, D features.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from vismae.core.errors import SettingError

Strategy = Literal["random", "entropy", "core-set", "hybrid"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

HYBRID_POOL = 3
"""The hybrid looks for variety among this many times the patients asked for."""


class Choice(NamedTuple):
    """A patient that was chosen.

    Attributes:
        patient: Number among the N.
        distance: To the nearest patient labelled or chosen before, as 1 - cosine; infinite for
            the first of all; NaN where the strategy does not look.
    """

    patient: int
    distance: float


def needs_uncertainty(strategy: Strategy) -> bool:
    """Tell whether a strategy asks what a model is unsure of."""
    return strategy in ("entropy", "hybrid")


def needs_features(strategy: Strategy) -> bool:
    """Tell whether a strategy asks which patients look alike."""
    return strategy in ("core-set", "hybrid")


def choose_patients(
    strategy: Strategy,
    count: int,
    order: np.ndarray,
    uncertainty: Float[np.ndarray, " N"] | None = None,
    features: Float[np.ndarray, "N D"] | None = None,
    labelled: Float[np.ndarray, "L D"] | None = None,
) -> list[Choice]:
    """Return up to ``count`` patients, the most wanted first.

    Args:
        strategy: How to choose.
        count: How many are wanted; all where there are fewer.
        order: The N numbers by chance; decides for ``random`` and between equals.
        uncertainty: Of each patient, from 0 to 1.
        features: One vector for each patient; only directions count.
        labelled: Vectors of patients whose labels are there already.

    Raises:
        SettingError: The strategy needs what was not given.
    """
    count = min(count, len(order))
    if needs_uncertainty(strategy) and uncertainty is None:
        raise SettingError(
            f"The strategy {strategy} needs a model that predicts classes. Use core-set or random "
            "with a masked autoencoder."
        )
    if needs_features(strategy) and features is None:
        raise SettingError(f"The strategy {strategy} needs features of the images.")
    pool = np.asarray(order)
    if uncertainty is not None and needs_uncertainty(strategy):
        # Stable: chance decides between equals.
        pool = pool[np.argsort(-uncertainty[pool], kind="stable")]
    if strategy == "hybrid":
        pool = pool[: HYBRID_POOL * count]
    if features is None or not needs_features(strategy):
        return [Choice(int(patient), float("nan")) for patient in pool[:count]]
    return _farthest_first(pool, count, features, labelled)


def _farthest_first(
    pool: np.ndarray, count: int, features: np.ndarray, labelled: np.ndarray | None
) -> list[Choice]:
    """Take again and again the patient farthest from all that are taken; memory is O(N)."""
    vectors = _directions(features[pool])
    nearest = np.full(len(pool), np.inf)
    for vector in _directions(labelled) if labelled is not None else ():
        nearest = np.minimum(nearest, 1.0 - vectors @ vector)
    chosen: list[Choice] = []
    for _ in range(count):
        place = int(np.argmax(nearest))
        chosen.append(Choice(int(pool[place]), float(nearest[place])))
        nearest = np.minimum(nearest, 1.0 - vectors @ vectors[place])
        nearest[place] = -np.inf
    return chosen


def _directions(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
