"""A look at the whole store: duplicates, numbers of patients and volumes, and the report."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.intake_account import IntakeAccount, Repeats
from vismae.core.rundir import write_text
from vismae.core.types import Modality
from vismae.data.duplicates import duplicates_of_index, pairs_across
from vismae.data.store import Store
from vismae.data.store_curation import write_curation
from vismae.data.store_format import CONTACT_SHEET_NAME
from vismae.evaluation.intake_report import SheetImage, intake_report
from vismae.workflows.inspect import draw_contact_sheet, sample_pictures
from vismae.workflows.intake.work import meanings

REPORT_NAME = "report.html"
_PICTURES_OF_A_MODALITY = 12
_PICTURES_OF_ALL = 25


def curate(folder: Path, account: IntakeAccount) -> IntakeAccount:
    """Look for duplicates among all images of a store; note them there and in the account."""
    store = Store(folder)
    found = duplicates_of_index(folder / store.manifest["index"]["file"])
    write_curation(
        folder,
        {"duplicate_of": found.duplicate_of, "near_duplicate_of": found.near_duplicate_of},
    )
    return replace(
        _with_groups(store, account),
        exact=_repeats(store, found.duplicate_of),
        near=_repeats(store, found.near_duplicate_of),
    )


def write_report(path: Path, folder: Path, account: IntakeAccount, with_pictures: bool) -> None:
    """Write what came in, what did not and why, as one HTML file.

    Args:
        path: The file.
        folder: Of the store.
        account: What came in and what did not.
        with_pictures: Show some images of every modality, also as ``contact_sheet.png``.
    """
    store = Store(folder)
    sheets: dict[Modality, list[SheetImage]] = {}
    if with_pictures:
        for modality in account.modalities:
            shown = sample_pictures(store, _PICTURES_OF_A_MODALITY, modality)
            sheets[modality] = [SheetImage(picture, caption) for picture, caption in shown]
        draw_contact_sheet(store, folder / CONTACT_SHEET_NAME, _PICTURES_OF_ALL)
    write_text(path, intake_report(account, meanings(), sheets, store.classes))


def _repeats(store: Store, first_of: np.ndarray) -> Repeats:
    """Count the rows that repeat another, and the pairs that two patients or splits share."""
    columns = store.columns(["patient_id", "split"])
    patients, splits = (
        columns[name].cat.codes.to_numpy().astype(np.int64) + 1 for name in ("patient_id", "split")
    )
    names = ["", *map(str, columns["split"].cat.categories)]
    across = Counter[str](
        " and ".join(sorted((names[splits[one]], names[splits[other]]), reverse=True))
        for one, other in pairs_across(first_of, splits)
    )
    return Repeats(
        images=int((first_of >= 0).sum()),
        pairs_across_patients=len(pairs_across(first_of, patients)),
        pairs_across_splits=dict(sorted(across.items())),
    )


def _with_groups(store: Store, account: IntakeAccount) -> IntakeAccount:
    columns = store.columns(["modality", "patient_id", "volume_id", "split"])
    modalities = columns["modality"].cat
    of_modality = modalities.codes.to_numpy().astype(np.int64)

    def different(name: str) -> dict[Modality, int]:
        codes = columns[name].cat.codes.to_numpy().astype(np.int64)
        pairs = np.unique(codes * len(modalities.categories) + of_modality)
        counts = np.bincount(pairs % len(modalities.categories))
        return {
            Modality(word): int(count)
            for word, count in zip(modalities.categories, counts, strict=False)
        }

    return account.with_groups(
        len(columns["patient_id"].cat.categories),
        _divided(columns["patient_id"].cat.codes, columns["split"].cat.codes),
        different("patient_id"),
        different("volume_id"),
    )


def _divided(patients: pd.Series, splits: pd.Series) -> int:
    """Count the patients with images in several splits; of images without one nothing is known."""
    known = splits.to_numpy() >= 0
    count = int(splits.max()) + 1
    pairs = np.unique(patients.to_numpy().astype(np.int64)[known] * count + splits[known])
    return int((np.unique(pairs // max(count, 1), return_counts=True)[1] > 1).sum())
