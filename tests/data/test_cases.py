"""Which cases fit: the same voxels as far as headers say, each sequence once, one split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores import record
from vismae.core.errors import DataError
from vismae.data.case_rows import CaseRows
from vismae.data.cases import Grid, fitting_cases, place_as_text, sequence_numbers
from vismae.data.store import Store, StoreWriter

NAN = float("nan")
HERE = np.diag([-0.9, 0.9, 4.0, 1.0])
EXTRA = ("sequence", "case_id", "place")


def grid(affine: np.ndarray | None = None, slice_mm: float = 4.0) -> Grid:
    return Grid((5, 30, 40), (slice_mm, 0.9, 0.9), affine)


def write_store(folder: Path, *images: tuple[str, str, dict[str, Any]]) -> Store:
    """Write images given as ``patient/case``, sequence, and other facts; each a slice of 8×8."""
    with StoreWriter(folder, extra_columns=EXTRA) as writer:
        for number, (name, sequence, facts) in enumerate(images):
            patient, _, case = name.partition("/")
            place = facts.pop("place", "")
            size = facts.pop("size", (8, 8))
            extra = {"sequence": sequence, "case_id": case, "place": place}
            facts = {"volume_id": f"{name}-{sequence}-{number}", "patient_id": patient, **facts}
            pixels = np.full(size, number, np.uint8)
            writer.add(record(f"i{number}", pixels, extra=extra, **facts), pixels)
    return Store(folder)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (Grid((5, 30, 40), (4.0, 0.9, 0.9), HERE + 1e-4), None),
        (
            Grid((6, 30, 40), (4.0, 0.9, 0.9), HERE),
            "30×40 pixels on 6 slices, not 30×40 pixels on 5",
        ),
        (
            Grid((5, 40, 30), (4.0, 0.9, 0.9), HERE),
            "40×30 pixels on 5 slices, not 30×40 pixels on 5",
        ),
        (Grid((5, 30, 40), (4.0, 0.9, 0.9), HERE + np.eye(4, k=3)), "its corners lie up to 1 mm"),
        (
            Grid((5, 30, 40), (4.0, 0.9, 0.9), HERE * [[-1], [1], [1], [1]]),
            "corners lie up to 70.2",
        ),
        (Grid((5, 30, 40), (4.0, 0.9, 0.9)), None),
        (Grid((5, 30, 40), (2.0, 0.9, 0.9)), "a spacing of 2×0.9×0.9 mm, not 4×0.9×0.9 mm"),
        (Grid((5, 30, 40), (NAN, 0.9, 0.9)), None),
    ],
)
def test_a_grid_tells_another_one_as_far_as_both_are_known(other: Grid, says: str | None) -> None:
    found = grid(HERE).difference(other)
    assert found is None if says is None else says in (found or "")


def test_a_lone_slice_may_have_any_thickness() -> None:
    thin, thick = (Grid((1, 8, 8), (NAN, 1.0, 1.0), np.diag([1.0, 1, z, 1])) for z in (0.01, 5.0))
    assert thin.difference(thick) is None
    shifted = Grid((1, 8, 8), (NAN, 1.0, 1.0), np.diag([1.0, 1, 0.01, 1]) + 0.5 * np.eye(4, k=3))
    assert "corners" in (thin.difference(shifted) or "")


def test_places_in_the_store_are_exact_enough() -> None:
    turned = HERE @ np.array(
        [[0.8, -0.6, 0, 1234.5678], [0.6, 0.8, 0, -9], [0, 0, 1, 7], [0, 0, 0, 1]]
    )
    text = place_as_text(turned)
    again = np.vstack([np.array(text.split(), float).reshape(3, 4), [0, 0, 0, 1]])
    assert grid(turned).difference(grid(again)) is None


def test_cases_that_do_not_fit_are_told_with_the_reason(tmp_path: Path) -> None:
    store = write_store(
        tmp_path / "store",
        ("p1/a", "T1", {}),
        ("p1/a", "flair", {"label": "sick"}),
        ("p1/b", "T1", {}),
        ("p1/b", "FLAIR", {}),
        ("p1/b", "T1", {}),
        ("p2", "T1", {}),
        ("p2", "ADC", {}),
        ("p3", "T1", {"split": "train"}),
        ("p3", "FLAIR", {"split": "test"}),
        ("p4", "T1", {"label": "sick"}),
        ("p4", "FLAIR", {"label": "well"}),
        ("p5", "T1", {}),
        ("p5", "FLAIR", {"size": (8, 9)}),
        ("p6", "T1", {"place": place_as_text(HERE)}),
        ("p6", "FLAIR", {"place": place_as_text(HERE + np.eye(4, k=3))}),
        ("p7", "T1", {"slice_index": 2}),
        ("p7", "FLAIR", {"slice_index": 3}),
        ("p8", "", {}),
    )
    fits, left_out = fitting_cases(store, ("T1", "FLAIR"))
    assert np.flatnonzero(fits).tolist() == [0, 1]
    assert {case.name: case.reason.split(",")[0].split(";")[0] for case in left_out} == {
        "p1/b": "has 2 images of T1",
        "p2": "lacks FLAIR",
        "p3": "has sequences of different splits (test",
        "p4": "has sequences of different labels (sick",
        "p5": "has of FLAIR",
        "p6": "has of FLAIR",
        "p7": "lacks other slices of FLAIR than of T1",
        "p8": "lacks T1",
    }
    with pytest.raises(DataError, match=r"no image is of the sequence T2; column sequence has ADC"):
        sequence_numbers(store, ("T1", "T2"))


def test_rows_of_a_slice_are_found_from_any_of_them(tmp_path: Path) -> None:
    slices = [
        (name, sequence, {"volume_id": f"{name}-{sequence}", "slice_index": number})
        for name in ("p1/a", "p1/b")
        for sequence in ("FLAIR", "ADC", "T1")
        for number in (0, 1)
    ]
    store = write_store(tmp_path / "store", *slices, ("p2", "T1", {}))
    rows = CaseRows(store, ("t1", "flair"))
    assert [rows.of(row) for row in (0, 1, 4, 5, 10)] == [[4, 0], [5, 1], [4, 0], [5, 1], [10, 6]]
    everything, none = np.arange(13), np.zeros(13, bool)
    assert rows.one_each(everything, none).tolist() == [4, 5, 10, 11, 12]
    # A label may stand on another sequence than the first.
    said = none.copy()
    said[[1, 5, 6]] = True
    assert rows.one_each(everything, said).tolist() == [4, 5, 6, 11, 12]
    assert rows.all_of(np.array([4, 11])).tolist() == [0, 4, 7, 11]
    with pytest.raises(DataError, match="Row 12 is of a case that lacks flair"):
        rows.of(12)


def test_a_store_without_the_columns_is_refused_with_the_cure(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store") as writer:
        writer.add(record("a", np.zeros((8, 8), np.uint8)), np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="ingest it with --keep-column sequence"):
        fitting_cases(Store(tmp_path / "store"), ("T1",))
    silent = write_store(tmp_path / "silent", ("p1", "", {}))
    with pytest.raises(DataError, match=r"none says its sequence. Name a manifest"):
        fitting_cases(silent, ("T1",))
