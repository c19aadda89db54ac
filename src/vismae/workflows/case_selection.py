"""Which cases of several sequences a run can use; the others are told by name and number."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.errors import DataError
from vismae.core.launch import is_main_process
from vismae.core.rundir import write_text
from vismae.data.case_rows import CaseRows
from vismae.data.cases import LeftOutCase, fitting_cases
from vismae.data.store import Store
from vismae.data.store_format import REJECTED_NAME

CASES_LEFT_OUT = "cases_left_out.csv"

_SHOWN = 5

logger = logging.getLogger(__name__)


def fitting_rows(store: Store, sequences: Sequence[str], folder: Path) -> np.ndarray:
    """Return which rows of a store are of cases with all sequences on the same voxels, (N,) bool.

    Args:
        store: Where the images are.
        sequences: That are seen together; none for images that stand alone, which all fit.
        folder: Of the run; the other cases are listed there in ``cases_left_out.csv``.

    Raises:
        DataError: No case fits; says why.
    """
    if not sequences:
        return np.ones(len(store), dtype=bool)
    fits, left_out = fitting_cases(store, sequences)
    write_left_out(left_out, folder)
    tell_left_out(store, sequences, fits, left_out)
    return fits


def write_left_out(left_out: Sequence[LeftOutCase], folder: Path) -> None:
    """List cases that cannot be used in ``cases_left_out.csv`` of a run."""
    if is_main_process():
        listed = [(case.patient_id, case.case_id, case.reason) for case in left_out]
        table = pd.DataFrame(listed, columns=["patient_id", "case_id", "reason"])
        write_text(folder / CASES_LEFT_OUT, table.to_csv(index=False))


def tell_left_out(
    store: Store, sequences: Sequence[str], fits: np.ndarray, left_out: Sequence[LeftOutCase]
) -> None:
    """Warn of cases that cannot be used; of none that can, refuse the store.

    Args:
        store: Where the images are.
        sequences: That are seen together.
        fits, left_out: As from ``fitting_cases``.

    Raises:
        DataError: No case fits; says why.
    """
    if not fits.any():
        raise DataError(
            f"{store.address}: no case has the sequences {', '.join(sequences)} on the same "
            f"voxels: {_some(left_out)}. Images of one case share patient_id or group_id, and "
            f"case_id where a patient has several.{_not_stored(store)}"
        )
    if left_out:
        logger.warning(
            "%d cases without all of %s on the same voxels are left out (%s): %s.%s",
            len(left_out),
            ", ".join(sequences),
            CASES_LEFT_OUT,
            _some(left_out),
            _not_stored(store),
        )


def one_row_each(store: Store, sequences: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
    """Return one of the rows for each slice of a case, which stands for all its sequences.

    Args:
        store: Where the images are.
        sequences: That are seen together; without any, each row stands for itself.
        rows: Labelled by row number; with the column ``label``, since a label may stand on one of
            the sequences alone.
    """
    if not sequences:
        return rows
    numbers, said = rows.index.to_numpy(), rows["label"].notna().to_numpy()
    return rows.loc[CaseRows(store, sequences).one_each(numbers, said)]


def seen_rows(store: Store, sequences: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Return all rows that are looked at where ``rows`` stand for the sequences of their case."""
    return CaseRows(store, sequences).all_of(rows) if sequences else rows


def _not_stored(store: Store) -> str:
    """Say what ingest left out."""
    path = Path(store.address) / REJECTED_NAME
    if not path.is_file():
        return ""
    counts = pd.read_csv(path)["reason"].value_counts().sort_index()
    if counts.empty:
        return ""
    found = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    return (
        f" A sequence may be lacking because its file could not be used: ingest left out {found} "
        "(rejected.csv beside the store says which)."
    )


def _some(left_out: Sequence[LeftOutCase]) -> str:
    text = "; ".join(f"{case.name} {case.reason}" for case in left_out[:_SHOWN])
    more = len(left_out) - _SHOWN
    return f"{text}; and {more} more" if more > 0 else text
