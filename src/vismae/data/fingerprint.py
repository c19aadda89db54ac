"""Which images and patients a model has learnt from, as hashes that fit into its card.

Evaluation uses them to refuse scores on training data. Three tests of falling certainty: the
same pixels, the same patient id, the same look (difference hash).
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vismae.core.model_card import FingerprintCard

WITHHELD = "withheld"
"""Stage of a model card: patients of the training split whose labels were set aside."""

FINGERPRINT_COLUMNS = ("patient_id", "group_kind", "modality", "pixel_sha256", "likeness")
"""Columns of a store's index that fingerprints are made of."""


@dataclass(frozen=True)
class Overlap:
    """Groups of the data at hand that a model may already have seen, by kind of evidence."""

    same_pixels: tuple[str, ...] = ()
    same_id: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()

    @property
    def certain(self) -> bool:
        """True when at least one image is identical to a training image."""
        return bool(self.same_pixels)


def fingerprint(index: pd.DataFrame) -> FingerprintCard:
    """Return the fingerprint of store rows.

    Args:
        index: Rows of a store's index that were used for training.
    """
    return FingerprintCard(
        images=len(index),
        patients=int(index["patient_id"].nunique()),
        by_modality={str(k): int(v) for k, v in index["modality"].value_counts().items()},
        groups=_pack(_group_hashes(index)),
        pixels=_pack(_pixel_hashes(index)),
        likeness=_pack(index["likeness"].to_numpy().astype(np.uint64)),
    )


def add_stages(
    earlier: Mapping[str, FingerprintCard], own: Mapping[str, FingerprintCard]
) -> dict[str, FingerprintCard]:
    """Return the stages of a model that started from another one.

    What the start model had learnt from stays known: a stage of the same name is kept as
    ``earlier NAME``.
    """
    stages = dict(own)
    for name, card in earlier.items():
        while name in stages:
            name = f"earlier {name}"
        stages[name] = card
    return stages


def overlap(card: FingerprintCard, index: pd.DataFrame) -> Overlap:
    """Return the groups of ``index`` that the fingerprint knows.

    Images without any structure (difference hash 0), such as the empty slices at the ends of a
    volume, are identical without being related, so they never count.
    """
    ids = index["patient_id"].astype(str).to_numpy()
    structured = index["likeness"].to_numpy().astype(np.uint64) != 0
    by_pixels = np.isin(_pixel_hashes(index), _unpack(card.pixels)) & structured
    by_id = np.isin(_group_hashes(index), _unpack(card.groups))
    by_id &= index["group_kind"].to_numpy() != "image"
    likeness = index["likeness"].to_numpy().astype(np.uint64)
    by_look = np.isin(likeness, _unpack(card.likeness)) & structured
    return Overlap(_names(ids[by_pixels]), _names(ids[by_id]), _names(ids[by_look & ~by_pixels]))


def _names(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(ids)))


def _group_hashes(index: pd.DataFrame) -> np.ndarray:
    names = index["group_kind"].astype(str) + ":" + index["patient_id"].astype(str)
    unique, inverse = np.unique(names.to_numpy().astype(str), return_inverse=True)
    hashes = [hashlib.sha256(name.encode()).digest()[:8] for name in unique]
    return np.frombuffer(b"".join(hashes), dtype="<u8")[inverse]


def _pixel_hashes(index: pd.DataFrame) -> np.ndarray:
    return np.array([int(text[:16], 16) for text in index["pixel_sha256"]], dtype=np.uint64)


def _pack(hashes: np.ndarray) -> str:
    return base64.b64encode(np.unique(hashes).astype("<u8").tobytes()).decode("ascii")


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<u8")
