"""``vismae select``: which patients of a store to label next."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from vismae.core.config import SelectConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.rundir import open_run, write_text
from vismae.data.case_rows import CaseRows
from vismae.data.cases import fitting_cases
from vismae.data.fingerprint import FINGERPRINT_COLUMNS, WITHHELD, overlap
from vismae.data.splits import rank_patients, read_patients_csv
from vismae.data.store import Store
from vismae.evaluation.overlay import contact_sheet, save_png
from vismae.evaluation.selection import (
    Choice,
    Strategy,
    choose_patients,
    needs_features,
    needs_uncertainty,
)
from vismae.inference.embedder import batch_features, stored_slices
from vismae.inference.ensemble import Ensemble, load_ensemble
from vismae.inference.predictor import choose_device
from vismae.inference.slices import canvas_batches
from vismae.inference.uncertainty import image_uncertainty
from vismae.models.features import require_features
from vismae.models.weights import Model
from vismae.workflows.case_selection import tell_left_out, write_left_out
from vismae.workflows.inspect import picture_of
from vismae.workflows.preparation import of_modality

SELECTION = "selection.csv"
CONTACT_SHEET = "contact_sheet.png"

_COLUMNS = ("modality", "split", "label", "has_label_map", "volume_id", "slice_index")
_PICTURES_IN_A_ROW = 5
_MOST_PICTURES = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelectResult:
    """What to label next.

    Attributes:
        folder: Holds the table and the contact sheet.
        strategy: How patients were chosen.
        patients: Chosen ones, the most wanted first.
        candidates: Number of patients that could be chosen.
        labelled: Number of patients that were known to be labelled.
    """

    folder: Path
    strategy: Strategy
    patients: tuple[str, ...]
    candidates: int
    labelled: int

    def summary(self) -> str:
        """Say how many were chosen out of how many, and where the list lies."""
        return (
            f"{len(self.patients)} of {self.candidates} patients or groups chosen by "
            f"{self.strategy} ({self.labelled} are labelled): {self.folder / SELECTION}\n"
            f"Pictures: {self.folder / CONTACT_SHEET}"
        )


def select(config: SelectConfig) -> SelectResult:
    """Rank unlabelled patients and write the first of them with a picture of each.

    Raises:
        ModelError: The folder holds no model, or one without what the strategy needs.
        DataError: The store holds nobody to choose, or a listed patient is not in it.
        SettingError: The strategy does not go with the model.
        RunFolderError: ``out`` cannot be used.
    """
    ensemble = load_ensemble([config.model], choose_device(config.device))
    card = ensemble.cards[0]
    strategy: Strategy = config.strategy or ("core-set" if card.task is None else "hybrid")
    if needs_uncertainty(strategy) and card.task is None:
        raise SettingError(
            f"strategy is {strategy}, but {config.model} is a masked autoencoder, which predicts "
            "no classes. Use --strategy core-set or random, or a fine-tuned model."
        )
    if needs_features(strategy):
        require_features(cast(Model, ensemble.models[0]))
    store = Store(config.store)
    index = store.columns([*dict.fromkeys((*FINGERPRINT_COLUMNS, *_COLUMNS))])
    sequences, usable, left_out = card.preprocessing.sequences, index, []
    if sequences:
        fits, left_out = fitting_cases(store, sequences)
        tell_left_out(store, sequences, fits, left_out)
        usable = index[fits]
    rows = of_modality(usable, config.modality or card.modalities, store.address)
    labelled = _labelled(rows, card, config)
    if config.labelled is not None:
        # Lists are of the whole store: some patients may have no images of the model's modalities.
        labelled |= _listed(config.labelled, index, store.address) & set(rows["patient_id"])
    candidates = rows[~rows["patient_id"].isin(labelled)]
    if config.among is not None:
        candidates = candidates[
            candidates["patient_id"].isin(_listed(config.among, index, store.address))
        ]
    elif config.split:
        candidates = candidates[candidates["split"].isin(config.split)]
    else:
        candidates = candidates[~candidates["split"].isin(("val", "test"))]
    if candidates.empty:
        raise DataError(
            f"{store.address}: nobody is left to choose. All {rows['patient_id'].nunique()} "
            "patients of the model's modalities have labels, or are set aside for validation and "
            "testing. Add unlabelled images, or name others with --set split=[val]."
        )
    with open_run(config.out, "select", config, overwrite=config.overwrite) as folder:
        if sequences:
            write_left_out(left_out, folder)
        looks = _Looks(store, ensemble, strategy, config)
        shown = _one_each(store, sequences, candidates)
        known = _one_each(store, sequences, rows[rows["patient_id"].isin(labelled)])
        seen, of_labelled = looks.of(shown), looks.of(known, features_only=True)
        patients = list(seen)
        place = {patient: number for number, patient in enumerate(patients)}
        chance = rank_patients(patients, config.seed)
        choices = choose_patients(
            strategy,
            config.n,
            np.array([place[patient] for patient in chance]),
            np.array([seen[patient].uncertainty for patient in patients])
            if needs_uncertainty(strategy)
            else None,
            _matrix(seen),
            _matrix(of_labelled),
        )
        chosen = [patients[choice.patient] for choice in choices]
        _write_table(folder / SELECTION, choices, chosen, seen, candidates, shown)
        _write_pictures(folder / CONTACT_SHEET, store, ensemble.preprocessing, chosen, seen)
    return SelectResult(folder, strategy, tuple(chosen), len(patients), len(labelled))


@dataclass
class _Look:
    """What was seen of a patient.

    Attributes:
        uncertainty: Mean over its images; NaN where the strategy does not ask.
        vector: Mean feature vector; empty where nothing was asked.
        row: The image to show: the most uncertain one, else the middle one.
        images: How many were looked at.
    """

    uncertainty: float
    vector: np.ndarray
    row: int
    images: int


@dataclass
class _Looks:
    """Runs the model over some images of every patient."""

    store: Store
    ensemble: Ensemble
    strategy: Strategy
    config: SelectConfig
    _none: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def of(self, rows: pd.DataFrame, features_only: bool = False) -> dict[str, _Look]:
        """Return a look at every patient of the rows, sorted by patient."""
        chosen = {
            str(patient): _spread(members, self.config.images_per_patient)
            for patient, members in rows.groupby("patient_id", sort=True, observed=True)
        }
        wants_uncertainty = needs_uncertainty(self.strategy) and not features_only
        if not (wants_uncertainty or needs_features(self.strategy)):
            return {
                patient: _Look(float("nan"), self._none, numbers[len(numbers) // 2], 0)
                for patient, numbers in chosen.items()
            }
        rows_of_all = [row for numbers in chosen.values() for row in numbers]
        stream = self._seen(rows_of_all, wants_uncertainty)
        looks = {}
        for patient, numbers in chosen.items():
            seen = [next(stream) for _ in numbers]
            unsure = np.array([value for value, _ in seen])
            most = int(unsure.argmax()) if wants_uncertainty else len(numbers) // 2
            vector = np.mean([vector for _, vector in seen], axis=0)
            looks[patient] = _Look(float(unsure.mean()), vector, numbers[most], len(numbers))
        return looks

    def _seen(self, rows: list[int], wants_uncertainty: bool) -> Iterator[tuple[float, np.ndarray]]:
        ensemble, task = self.ensemble, self.ensemble.cards[0].task
        slices = stored_slices(self.store, rows, ensemble.preprocessing)
        for batch, images in canvas_batches(slices, ensemble.preprocessing, self.config.batch_size):
            unsure = torch.full((len(batch),), float("nan"))
            if wants_uncertainty and task is not None:
                unsure = image_uncertainty(ensemble.scores(images), task.multi_label).cpu()
            vectors = torch.zeros(len(batch), 0)
            if needs_features(self.strategy):
                vectors = batch_features(ensemble, batch, images)
            yield from zip(unsure.tolist(), vectors.numpy(), strict=True)


def _one_each(store: Store, sequences: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
    """Return one of the rows for each slice of a case, that of the first sequence."""
    if not sequences:
        return rows
    none = np.zeros(len(rows), dtype=bool)
    return rows.loc[CaseRows(store, sequences).one_each(rows.index.to_numpy(), none)]


def _labelled(rows: pd.DataFrame, card: ModelCard, config: SelectConfig) -> set[str]:
    """Return the patients whose labels are there: in the store, or in the model."""
    has_label = rows["has_label_map"] | rows["label"].notna()
    found = set() if config.ignore_labels else set(rows.loc[has_label, "patient_id"].astype(str))
    for stage in ("finetune", WITHHELD):
        if stage in card.training and not config.ignore_labels:
            known = overlap(card.training[stage], rows)
            found |= {*known.same_id, *known.same_pixels}
    return found


def _listed(path: Path, index: pd.DataFrame, address: str) -> set[str]:
    listed = read_patients_csv(path)
    strangers = sorted(listed - set(index["patient_id"].astype(str)))
    if strangers:
        raise DataError(
            f"{path}: patient {strangers[0]} ({len(strangers)} in all) is not in {address}. List "
            "ids as the store has them (column patient_id)."
        )
    return listed


def _spread(members: pd.DataFrame, most: int) -> list[int]:
    """Return up to ``most`` of a patient's rows: the middles of equal parts of its volumes."""
    ordered = members.sort_values(["volume_id", "slice_index"]).index.to_numpy()
    count = min(most, len(ordered))
    places = (np.arange(count) + 0.5) * len(ordered) / count
    return [int(row) for row in ordered[places.astype(int)]]


def _matrix(looks: dict[str, _Look]) -> np.ndarray | None:
    vectors = [look.vector for look in looks.values()]
    return np.stack(vectors) if vectors and vectors[0].size else None


def _write_table(
    path: Path,
    choices: list[Choice],
    chosen: list[str],
    looks: dict[str, _Look],
    rows: pd.DataFrame,
    shown: pd.DataFrame,
) -> None:
    """Write ``selection.csv``; of ``rows``, ``shown`` has one for each input of the network."""
    images = shown.groupby("patient_id", observed=True).size()
    modality = rows.groupby("patient_id", observed=True)["modality"].agg(
        lambda values: "|".join(sorted(set(map(str, values))))
    )
    table = pd.DataFrame(
        {
            "rank": range(1, len(chosen) + 1),
            "patient_id": chosen,
            "modality": [modality[patient] for patient in chosen],
            "images": [int(images[patient]) for patient in chosen],
            "uncertainty": [looks[patient].uncertainty for patient in chosen],
            "distance": [choice.distance for choice in choices],
            "shown_row": [looks[patient].row for patient in chosen],
        }
    )
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def _write_pictures(
    path: Path,
    store: Store,
    preprocessing: Preprocessing,
    chosen: list[str],
    looks: dict[str, _Look],
) -> None:
    """Draw one image of each of the first chosen patients, with its rank."""
    shown = chosen[:_MOST_PICTURES]
    pictures = (picture_of(store, looks[patient].row, preprocessing) for patient in shown)
    captions = [f"{rank}: {patient[:16]}" for rank, patient in enumerate(shown, start=1)]
    save_png(path, contact_sheet(pictures, captions, _PICTURES_IN_A_ROW))
