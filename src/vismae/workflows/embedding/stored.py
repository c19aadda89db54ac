"""Rows of a store as pieces to embed, with the pseudonymous facts that the store has of them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.errors import PreprocessingError
from vismae.core.model_card import ModelCard
from vismae.core.types import Modality, PixelUnit
from vismae.data.store import Store
from vismae.data.store_files import is_remote
from vismae.data.store_format import MANIFEST_NAME
from vismae.workflows.embedding.pieces import Piece
from vismae.workflows.prediction.inputs import Failure

_ROWS = 4096
_FACTS = (
    *("image_id", "patient_id", "volume_id", "study_id", "series_id", "slice_index"),
    *("modality", "body_part", "label", "split"),
)

# What the features are computed from.
_SCALING = ("pixel_sha256", "unit", "slope", "intercept", "scale_low", "scale_high")


def is_store(path: Path) -> bool:
    """Tell whether a path is a store, here or at an address."""
    return is_remote(path) or (path / MANIFEST_NAME).is_file()


def usable_rows(store: Store, card: ModelCard) -> tuple[np.ndarray, list[Failure]]:
    """Return the rows the model was made for, and what is left out, by modality and unit."""
    known = store.columns(["modality", "unit"]).astype(str)
    usable = np.ones(len(known), bool)
    failures: list[Failure] = []
    for _, part in known.groupby(["modality", "unit"]):
        modality, unit = part.iloc[0]
        rows = part.index.to_numpy()
        try:
            _require_known(Modality(modality), PixelUnit(unit), len(rows), card, store.address)
        except PreprocessingError as error:
            usable[rows] = False
            failures.append(Failure(store.address, error.code, str(error)))
    return np.flatnonzero(usable), failures


def stored_pieces(store: Store, rows: np.ndarray) -> Iterator[tuple[Piece, np.ndarray]]:
    """Yield blocks of rows, each as a piece without features and its row numbers."""
    extra = [name for name in store.column_names if name.startswith("extra_")]
    names = [name for name in (*_FACTS, *extra) if name in store.column_names]
    # Rows keep their numbers when a store grows; one ingested anew may say something else of them.
    deciding = (*_SCALING, *names)
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        known = store.columns(deciding, block).to_csv().encode()
        fingerprint = hashlib.sha256(known).hexdigest()
        identity = f"{store.address}|{block[0]}-{block[-1]}"
        facts = store.columns(names, block).reset_index(names="row")
        yield Piece(identity, fingerprint, _plain(facts)), block


def _plain(facts: pd.DataFrame) -> pd.DataFrame:
    """Return categories as texts."""
    return facts.apply(
        lambda column: column if pd.api.types.is_integer_dtype(column) else column.astype(object)
    )


def _require_known(
    modality: Modality, unit: PixelUnit, count: int, card: ModelCard, where: str
) -> None:
    if card.modalities and modality not in card.modalities:
        raise PreprocessingError(
            f"{where}: {count} images of modality {modality}; the model was trained on "
            f"{', '.join(card.modalities)} (model.json, modalities). Use a model that knows them."
        )
    card.preprocessing.require_units([(modality, unit)], where)
