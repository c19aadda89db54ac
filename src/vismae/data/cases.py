"""Cases of several sequences: what one patient has of each, and which cases do not fit together.

A case is what one patient or group has under one ``case_id``, or in all where a table has no such
column. Its volumes fit if each sequence is there once, and all lie on the same voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from vismae.core.errors import DataError
from vismae.data.manifest import CASE_COLUMN, SEQUENCE_COLUMN
from vismae.data.store import Store

PLACE_COLUMN = "place"
"""Extra column of a store: voxel (column, row, slice) to patient mm, three rows of four numbers."""

# Corners that lie closer than this share of a voxel are the same: headers round.
_SAME_SHARE = 0.1
_SPACINGS = ("spacing_slice_mm", "spacing_row_mm", "spacing_column_mm")
_SEQUENCE, _CASE, _PLACE = (
    f"extra_{name}" for name in (SEQUENCE_COLUMN, CASE_COLUMN, PLACE_COLUMN)
)


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: Slices, height, width.
        spacing_mm: Between slices, rows, columns; NaN where unknown.
        affine: Voxel (column, row, slice) to patient mm, (4, 4); None where unknown.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray | None = None

    def difference(self, other: "Grid") -> str | None:
        """Say in what ``other`` differs; None if both are the same voxels as far as is known."""
        if self.shape != other.shape:
            return f"{_size(other.shape)}, not {_size(self.shape)}"
        if self.affine is not None and other.affine is not None:
            return self._displacement(other.affine, self.affine)
        mine, others = np.array(self.spacing_mm), np.array(other.spacing_mm)
        known = np.isfinite(mine) & np.isfinite(others)
        if not np.allclose(mine[known], others[known], rtol=0.01):
            return f"a spacing of {_spacing(others)}, not {_spacing(mine)}"
        return None

    def _displacement(self, there: np.ndarray, here: np.ndarray) -> str | None:
        slices, height, width = self.shape
        corners = np.array(
            [(*corner, 1) for corner in product((0, width - 1), (0, height - 1), (0, slices - 1))]
        )
        apart = np.linalg.norm((corners @ (there - here).T)[:, :3], axis=1).max()
        # A lone slice has a side that tells nothing.
        sides = np.linalg.norm(here[:3, :3], axis=0)[: 3 if slices > 1 else 2]
        if apart <= _SAME_SHARE * sides.min():
            return None
        return f"another place: its corners lie up to {apart:.3g} mm away"


@dataclass(frozen=True)
class LeftOutCase:
    """A case that cannot be used.

    Attributes:
        patient_id, case_id: As the store has them; no case is ''.
        reason: Continues a sentence that begins with the name.
    """

    patient_id: str
    case_id: str
    reason: str

    @property
    def name(self) -> str:
        """``patient`` or ``patient/case``."""
        return "/".join(filter(None, (self.patient_id, self.case_id)))


def place_as_text(affine: np.ndarray) -> str:
    """Return an affine as the store keeps it."""
    return " ".join(f"{value:.7g}" for value in affine[:3].ravel())


def sequence_numbers(store: Store, sequences: Sequence[str]) -> pd.DataFrame:
    """Return ``patient_id``, ``case`` and ``number`` (which of the sequences, else -1) of all rows.

    Raises:
        DataError: The store does not say which sequence an image is, or has none of one.
    """
    names = store.columns(["patient_id"])
    if not {_SEQUENCE, _CASE, _PLACE} <= set(store.column_names):
        raise DataError(
            f"{store.address} does not say which sequence of its case an image is, and "
            f"{', '.join(sequences)} are to be seen together (sequences). Name the manifest with "
            f"the column {SEQUENCE_COLUMN} itself, or ingest it with --keep-column "
            f"{SEQUENCE_COLUMN}."
        )
    told = store.columns([_SEQUENCE, _CASE])
    words, cases = told[_SEQUENCE].cat, told[_CASE].cat
    wanted = {name.casefold(): number for number, name in enumerate(sequences)}
    # The last entry is that of rows without a word, whose code is -1.
    of_words = [*(wanted.get(str(word).strip().casefold(), -1) for word in words.categories), -1]
    absent = [name for number, name in enumerate(sequences) if number not in of_words]
    if absent:
        there = ", ".join(map(str, filter(None, words.categories)))
        found = f"column {SEQUENCE_COLUMN} has {there}. Correct it, or model.sequences."
        silent = (
            f"none says its sequence. Name a manifest with the column {SEQUENCE_COLUMN}, as vismae "
            "convert nnunet writes one."
        )
        raise DataError(
            f"{store.address}: no image is of the sequence {', '.join(absent)}; "
            + (found if there else silent)
        )
    of_cases = np.array([*map(str, cases.categories), ""], dtype=object)
    return names.assign(
        case=pd.Categorical(of_cases[cases.codes]),
        number=np.array(of_words)[words.codes],
    )


def fitting_cases(store: Store, sequences: Sequence[str]) -> tuple[np.ndarray, list[LeftOutCase]]:
    """Return which rows are of cases that fit, (N,) bool, and the other cases.

    Rows of further sequences are of no use, whatever their case.

    Raises:
        DataError: As for ``sequence_numbers``.
    """
    numbers = sequence_numbers(store, sequences)
    facts = ["volume_id", "slice_index", "height", "width", "label", "split", *_SPACINGS, _PLACE]
    frame = pd.concat([numbers, store.columns(facts)], axis=1)
    fits = np.zeros(len(frame), dtype=bool)
    left_out: list[LeftOutCase] = []
    for (patient, case), members in frame.groupby(["patient_id", "case"], observed=True):
        seen = members[members["number"] >= 0]
        reason = _misfit(seen, sequences)
        if reason is None:
            fits[seen.index.to_numpy()] = True
        else:
            left_out.append(LeftOutCase(str(patient), str(case), reason))
    return fits, left_out


def _misfit(members: pd.DataFrame, sequences: Sequence[str]) -> str | None:
    """Say why a case cannot be used; None if it can."""
    volumes: list[pd.DataFrame] = []
    lacking: list[str] = []
    for number, name in enumerate(sequences):
        own = members[members["number"] == number]
        count = own["volume_id"].astype(str).nunique()
        if count > 1:
            return (
                f"has {count} images of {name}; tell cases of one patient apart by column "
                f"{CASE_COLUMN}"
            )
        if count == 0:
            lacking.append(name)
        volumes.append(own.sort_values("slice_index"))
    if lacking:
        return f"lacks {', '.join(lacking)}"
    first = volumes[0]
    for name, other in zip(sequences[1:], volumes[1:], strict=True):
        difference = _grid(first).difference(_grid(other))
        if difference is not None:
            return f"has of {name}, beside {sequences[0]}, {difference}"
        if not np.array_equal(first["slice_index"], other["slice_index"]):
            return f"lacks other slices of {name} than of {sequences[0]}"
    for column, what in (("split", "splits"), ("label", "labels")):
        said = members.dropna(subset=[column]).groupby("slice_index", observed=True)[column]
        if said.nunique().max() > 1:
            found = ", ".join(sorted(set(map(str, members[column].dropna()))))
            return f"has sequences of different {what} ({found})"
    return None


def _grid(volume: pd.DataFrame) -> Grid:
    first = volume.iloc[0]
    place = first[_PLACE]
    affine = None
    if isinstance(place, str) and place:
        affine = np.vstack([np.array(place.split(), float).reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
    slices, row, column = (float(first[name]) for name in _SPACINGS)
    return Grid(
        (len(volume), int(first["height"]), int(first["width"])), (slices, row, column), affine
    )


def _size(shape: tuple[int, int, int]) -> str:
    slices, height, width = shape
    return f"{height}×{width} pixels" + (f" on {slices} slices" if slices > 1 else "")


def _spacing(values: np.ndarray) -> str:
    return "×".join("?" if np.isnan(value) else f"{value:.4g}" for value in values) + " mm"
