"""Volumes of a table of which slices could not be used: what lay apart does not become adjacent."""

from pathlib import Path

import numpy as np
import pytest

from factories import write_png
from vismae.core.config import IngestConfig
from vismae.data.neighbours import Neighbours
from vismae.data.store import Store
from vismae.workflows.ingest import IngestResult, ingest

SLICES = 5


def picture(number: int) -> np.ndarray:
    return (np.arange(48, dtype=np.uint8).reshape(6, 8) + 40 * number).astype(np.uint8)


def write_table(folder: Path, numbers: tuple[int, ...] | None = None) -> Path:
    """Write one volume of five pictures, its rows in the order of its slices."""
    rows = []
    for number in range(SLICES):
        write_png(folder / f"{number}.png", picture(number))
        index = "" if numbers is None else f",{numbers[number]}"
        rows.append(f"{number}.png,P,V,mr,{number}.png{index}")
    head = "path,patient_id,volume_id,modality,label_map" + (",slice_index" if numbers else "")
    path = folder / "m.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def run(source: Path, store: Path) -> IngestResult:
    config = IngestConfig(sources=(source,), store=store, keep_ids=True, executor="here")
    return ingest(config)


def places(store: Store) -> dict[int, int]:
    """Return slice of the table -> slice_index in the store, after checking the pixels."""
    first = [int(store.read(row).pixels[0, 0]) // 40 for row in range(len(store))]
    return dict(zip(first, store.index["slice_index"].tolist(), strict=True))


def spoil(folder: Path, how: str, number: int) -> str:
    """Make a slice unusable; return the reason code that it then has."""
    file = folder / f"{number}.png"
    if how == "gone":
        file.unlink()
        return "not-found"
    if how == "no image":
        file.write_bytes(b"nothing at all")
        return "undecodable"
    if how == "empty":
        file.write_bytes(b"")
        return "empty"
    file.write_bytes(file.read_bytes()[:40])
    return "undecodable"


@pytest.mark.parametrize("numbers", [None, (1, 2, 3, 4, 5), (2, 4, 6, 8, 10)])
@pytest.mark.parametrize("how", ["gone", "empty", "no image", "damaged"])
def test_a_slice_that_was_left_out_keeps_its_place_empty(
    how: str, numbers: tuple[int, ...] | None, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "t", numbers)
    reason = spoil(tmp_path / "t", how, 2)

    result = run(path, tmp_path / "s")

    assert result.reasons == {reason: 1}
    store = result.store
    found = places(store)
    start = found[0]
    assert {number: place - start for number, place in found.items()} == {0: 0, 1: 1, 3: 3, 4: 4}
    assert store.index["volume_id"].nunique() == 1
    assert all("missing-slices" in flags.split("|") for flags in store.index["flags"])
    # The nearest slice towards the middle stands in for one that is missing.
    assert Neighbours(store, 1).of(1) == [0, 1, 1]
    assert Neighbours(store, 1).of(2) == [2, 2, 3]


def test_a_slice_stays_without_the_label_map_that_does_not_fit_it(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t")
    write_png(tmp_path / "t" / "other.png", np.zeros((3, 3), np.uint8))
    path.write_text(path.read_text().replace("mr,2.png", "mr,other.png"))

    result = run(path, tmp_path / "s")

    assert result.reasons == {"label-shape": 1}
    assert places(result.store) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    assert not any("missing-slices" in flags for flags in result.store.index["flags"])
    assert result.store.index["has_label_map"].tolist() == [True, True, False, True, True]


def test_a_volume_with_all_its_slices_has_no_gap(tmp_path: Path) -> None:
    store = run(write_table(tmp_path / "t"), tmp_path / "s").store
    assert places(store) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    assert not any("missing-slices" in flags for flags in store.index["flags"])


def test_numbers_that_skip_some_are_gaps(tmp_path: Path) -> None:
    store = run(write_table(tmp_path / "t", (10, 11, 14, 15, 16)), tmp_path / "s").store
    assert list(places(store).values()) == [10, 11, 14, 15, 16]
    assert all("missing-slices" in flags for flags in store.index["flags"])


@pytest.mark.parametrize("numbers", [None, (1, 2, 3, 4, 5)])
def test_a_slice_that_comes_later_takes_its_place(
    numbers: tuple[int, ...] | None, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "t", numbers)
    spoil(tmp_path / "t", "gone", 2)
    run(path, tmp_path / "s")
    write_png(tmp_path / "t" / "2.png", picture(2))

    result = run(path, tmp_path / "s")

    assert result.reasons == {}
    start = 0 if numbers is None else 1
    expected = {0: 0, 1: 1, 3: 3, 4: 4, 2: 2}
    assert places(result.store) == {number: start + place for number, place in expected.items()}
    assert result.store.index["volume_id"].nunique() == 1
    assert Neighbours(result.store, 1).of(4) == [1, 4, 2]
