"""Curation columns beside the index, and which rows are left to learn from."""

from pathlib import Path

import numpy as np
import pytest

from stores import numbered_record, random_slices
from vismae.core.errors import DataError, SettingError
from vismae.core.types import Flag
from vismae.data.store import PartWriter, Store, StoreWriter, assemble_store
from vismae.data.store_curation import kept_rows, write_curation

FLAGS = [(), (Flag.BLANK,), (Flag.LOSSY, Flag.NEARLY_BLANK), (Flag.LOSSY,), (), ()]
DUPLICATES = {
    "duplicate_of": np.array([-1, -1, -1, -1, 0, -1]),
    "near_duplicate_of": np.array([-1, -1, -1, -1, -1, 3]),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with StoreWriter(tmp_path / "s") as writer:
        for number, (pixels, flags) in enumerate(zip(random_slices(6), FLAGS, strict=True)):
            writer.add(numbered_record(number, flags=flags), pixels)
        return writer.finish()


def test_curation_columns_are_read_like_any_other(store: Store) -> None:
    curated = write_curation(store.folder, DUPLICATES)

    assert "duplicate_of" in curated.column_names
    found = curated.columns(["duplicate_of", "volume_id", "near_duplicate_of"])
    assert found["duplicate_of"].tolist() == [-1, -1, -1, -1, 0, -1]
    assert found["volume_id"].tolist() == [f"V{number}" for number in range(6)]
    assert found["near_duplicate_of"].tolist() == [-1, -1, -1, -1, -1, 3]
    assert curated.compact("duplicate_of")[4] == 0
    assert curated.verify() == []


def test_a_new_curation_replaces_the_old_one(store: Store) -> None:
    write_curation(store.folder, DUPLICATES)
    again = write_curation(store.folder, {"duplicate_of": np.array([-1, 0, 0, 0, 0, 0])})

    assert again.columns(["duplicate_of"])["duplicate_of"].tolist() == [-1, 0, 0, 0, 0, 0]
    assert "near_duplicate_of" not in again.column_names
    assert [path.name for path in store.folder.glob("curation*")] == ["curation-0002.parquet"]


def test_rows_that_are_added_make_the_curation_void(store: Store) -> None:
    curated = write_curation(store.folder, DUPLICATES)
    with PartWriter(store.folder, "more") as writer:
        writer.add(numbered_record(6), random_slices(1)[0])
        part = writer.finish()
    grown = assemble_store(store.folder, [part], encoding="zstd", previous=curated)

    with pytest.raises(DataError, match="has no column duplicate_of; it has image_id"):
        grown.columns(["duplicate_of"])
    assert not list(store.folder.glob("curation*"))
    assert curated.columns(["duplicate_of"])["duplicate_of"].tolist()[4] == 0


def test_a_damaged_curation_is_found_by_verify(store: Store) -> None:
    curated = write_curation(store.folder, DUPLICATES)
    path = store.folder / "curation-0001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    assert curated.verify() == [f"{path} differs from its checksum in manifest.json"]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("duplicate_of", np.array([-1, 0]), r"shape \(2,\) and type int64"),
        ("duplicate_of", np.zeros(6), "type float64; expected one whole number for each of 6"),
        ("duplicate_of", np.array([-2, 0, 0, 0, 0, 0]), "holds -2 to 0"),
        ("duplicate_of", np.array([-1, 6, 0, 0, 0, 0]), "row numbers up to 5"),
        ("modality", np.full(6, -1), "modality is part of the index"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(
    store: Store, name: str, rows: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_curation(store.folder, {name: rows})
    assert Store(store.folder).manifest == store.manifest


@pytest.mark.parametrize(
    ("skip", "kept"),
    [
        ((), [0, 1, 2, 3, 4, 5]),
        (("duplicate",), [0, 1, 2, 3, 5]),
        (("near-duplicate",), [0, 1, 2, 3, 4]),
        (("blank",), [0, 2, 3, 4, 5]),
        (("nearly-blank",), [0, 1, 3, 4, 5]),
        (("lossy",), [0, 1, 4, 5]),
        ({"duplicate", "near-duplicate", "blank", "lossy"}, [0]),
    ],
)
def test_rows_are_skipped_for_duplicates_and_flags(
    store: Store, skip: tuple[str, ...], kept: list[int]
) -> None:
    assert kept_rows(write_curation(store.folder, DUPLICATES), skip).tolist() == kept


def test_an_unknown_word_and_a_store_without_curation_are_named(store: Store) -> None:
    with pytest.raises(SettingError, match="'blurred' is nothing that rows can be skipped for"):
        kept_rows(store, ["blurred"])
    with pytest.raises(DataError, match="has no column duplicate_of"):
        kept_rows(store, ["duplicate"])
