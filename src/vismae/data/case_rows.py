"""Rows of a store that show one slice in all sequences of a case: what a network sees together."""

from collections.abc import Sequence

import numpy as np

from vismae.core.errors import DataError
from vismae.data.cases import sequence_numbers
from vismae.data.store import Store


class CaseRows:
    """Finds the rows that are seen with a row; picklable.

    Args:
        store: Where the images are.
        sequences: Names, in the order of the channels.

    Raises:
        DataError: As for ``sequence_numbers``.
    """

    def __init__(self, store: Store, sequences: Sequence[str]) -> None:
        table = sequence_numbers(store, sequences)
        table["slice_index"] = store.columns(["slice_index"])["slice_index"]
        keys = ["patient_id", "case", "slice_index"]
        self._sequences = tuple(sequences)
        self._numbers = table["number"].to_numpy()
        self._slices = table.groupby(keys, observed=True).ngroup().to_numpy()
        self._rows = np.full((int(self._slices.max()) + 1, len(sequences)), -1)
        seen = np.flatnonzero(self._numbers >= 0)
        self._rows[self._slices[seen], self._numbers[seen]] = seen

    def of(self, row: int) -> list[int]:
        """Return the rows of the same slice in the order of the sequences.

        Raises:
            DataError: One is missing; ``fitting_cases`` finds such cases beforehand.
        """
        found = self._rows[self._slices[row]]
        if (found < 0).any():
            lacking = [name for name, of in zip(self._sequences, found, strict=True) if of < 0]
            raise DataError(f"Row {row} is of a case that lacks {', '.join(lacking)}.")
        return [int(other) for other in found]

    def one_each(self, rows: np.ndarray, preferred: np.ndarray) -> np.ndarray:
        """Return one row of each slice that ``rows`` show, that of the first sequence; sorted.

        Args:
            rows: (N,) row numbers.
            preferred: (N,) bool; such a row comes before others, whatever its sequence.
        """
        place = np.lexsort((self._numbers[rows], ~preferred, self._slices[rows]))
        ordered = rows[place]
        ordered = ordered[self._numbers[ordered] >= 0]
        _, first = np.unique(self._slices[ordered], return_index=True)
        return np.sort(ordered[first])

    def all_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all sequences of the slices that ``rows`` show; sorted."""
        found = np.unique(self._rows[self._slices[rows]])
        return found[found >= 0]
