"""Columns of the index: right values, few bytes, and loader processes that stay small."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stores import numbered_record, pretrain_store
from vismae.core.errors import DataError
from vismae.core.types import Modality
from vismae.data.store import PartWriter, Store, StoreWriter, assemble_store
from vismae.data.store_encoding import encode_slice
from vismae.data.store_index import CodedColumn

PIXELS = np.arange(16, dtype=np.uint8).reshape(4, 4)


def many_rows(folder: Path, count: int) -> Store:
    """A store of tiny images whose texts and numbers differ from row to row."""
    piece = encode_slice(numbered_record(), PIXELS, encoding="raw")
    with PartWriter(folder, "a", encoding="raw") as writer:
        for number in range(count):
            facts = {
                **piece.facts,
                "image_id": f"image{number:09d}",
                "patient_id": f"patient{number // 50:09d}",
                "volume_id": f"volume{number // 5:09d}",
                "scale_high": number / 7,
                "label": ("cat", None, "dog")[number % 3],
                "modality": ("mr", "ct")[number % 2],
            }
            writer.add_encoded(piece._replace(facts=facts))
        part = writer.finish()
    return assemble_store(folder, [part], encoding="raw")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return many_rows(tmp_path_factory.mktemp("small") / "s", 300)


def test_columns_hold_what_the_index_holds(small: Store) -> None:
    found = small.columns(small.column_names)
    expected = small.index

    assert list(found.columns) == list(expected.columns)
    for name in found.columns:
        values = found[name].astype(expected[name].dtype)
        pd.testing.assert_series_equal(values, expected[name], check_names=False)


def test_texts_are_categories_in_alphabetical_order(small: Store) -> None:
    found = small.columns(["modality", "label", "split"])

    assert found["modality"].cat.categories.tolist() == ["ct", "mr"]
    assert found["modality"].cat.codes[:4].tolist() == [1, 0, 1, 0]
    assert found["label"].cat.categories.tolist() == ["cat", "dog"]
    assert found["label"].cat.codes[:4].tolist() == [0, -1, 1, 0]
    assert found["label"].isna().sum() == 100
    assert found["split"].isna().all()


def test_texts_of_many_row_groups_are_one_set_of_categories(tmp_path: Path) -> None:
    store = None
    for number, modality in enumerate((Modality.XR, Modality.CT, Modality.MR, Modality.CT)):
        with PartWriter(tmp_path, f"p{number}") as writer:
            writer.add(numbered_record(number, modality=modality), PIXELS)
            part = writer.finish()
        store = assemble_store(tmp_path, [part], encoding="zstd", previous=store)

    assert store is not None
    found = store.columns(["modality"])["modality"]
    assert found.tolist() == ["xr", "ct", "mr", "ct"]
    assert found.cat.categories.tolist() == ["ct", "mr", "xr"]
    assert [store.compact("modality")[row] for row in range(4)] == found.tolist()


def test_chosen_rows_keep_their_numbers_and_only_their_categories(small: Store) -> None:
    found = small.columns(["label", "image_id", "scale_high"], np.array([8, 2, 5]))

    assert found.index.tolist() == [8, 2, 5]
    assert found["image_id"].tolist() == [f"image{number:09d}" for number in (8, 2, 5)]
    assert found["label"].cat.categories.tolist() == ["dog"]
    assert found["scale_high"].tolist() == [8 / 7, 2 / 7, 5 / 7]


def test_a_column_changed_by_its_user_stays_what_it_was(small: Store) -> None:
    found = small.columns(["scale_high"])
    found.loc[0, "scale_high"] = 99.0
    assert small.columns(["scale_high"])["scale_high"][0] == 0.0


def test_an_unknown_column_is_named_with_those_there_are(small: Store) -> None:
    for read in (lambda name: small.columns([name]), small.compact):
        with pytest.raises(DataError, match="no column colour; it has image_id, modality"):
            read("colour")


def test_compact_columns_give_the_same_values_row_by_row(tmp_path: Path) -> None:
    store = pretrain_store(tmp_path / "s", images=9)
    expected = store.index
    for name in store.column_names:
        column = store.compact(name)
        for row in range(len(store)):
            value, wanted = column[row], expected[name][row]
            if isinstance(wanted, float) and np.isnan(wanted):
                assert value is None or value == -1 or np.isnan(value)
            else:
                assert value == wanted


def test_compact_columns_take_few_bytes_a_row(tmp_path: Path) -> None:
    store = many_rows(tmp_path, 40_000)
    needed = {
        "shard": 1,
        "pixels_offset": 4,
        "height": 1,
        "modality": 1,
        "dtype": 1,
        "slope": 1,
        "scale_low": 1,
        "scale_high": 8,
        "label": 1,
        "label_map_offset": 1,
    }
    for name, byte_count in needed.items():
        column = store.compact(name)
        array = column.codes if isinstance(column, CodedColumn) else column
        assert isinstance(array, np.ndarray)
        assert array.itemsize == byte_count, name


def test_numbers_that_fit_are_held_as_float32_without_loss(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s") as writer:
        for number in range(40):
            facts = {"scale_low": number / 4, "scale_high": number / 3}
            writer.add(dataclasses.replace(numbered_record(number), **facts), PIXELS)
        store = writer.finish()

    low, high = store.compact("scale_low"), store.compact("scale_high")
    assert isinstance(low, np.ndarray)
    assert isinstance(high, np.ndarray)
    assert (low.dtype, high.dtype) == (np.float32, np.float64)
    assert [float(low[row]) for row in range(40)] == [number / 4 for number in range(40)]
    assert [float(high[row]) for row in range(40)] == [number / 3 for number in range(40)]


_LOADER = """
import json, sys
from pathlib import Path
from vismae.core.preprocessing import Preprocessing
from vismae.data.loaders import SliceReader
from vismae.data.store import Store

reader = SliceReader(Store(sys.argv[1]), Preprocessing(image_size=(32, 32), in_channels=1))
for row in range(0, len(reader.store), len(reader.store) // 100):
    reader.read(row)
private = 0
for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
    if line.startswith("Private"):
        private += int(line.split()[1]) * 1024
print(json.dumps(private))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps")
def test_private_memory_of_a_reader_hardly_grows_with_the_rows(tmp_path: Path) -> None:
    sizes = []
    for count in (500, 60_000):
        store = many_rows(tmp_path / str(count), count)
        command = [sys.executable, "-c", _LOADER, str(store.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        sizes.append(json.loads(done.stdout))
    # A table of the whole index takes about a kilobyte a row, 60 MB here.
    assert sizes[1] - sizes[0] < 15e6
