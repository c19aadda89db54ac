import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from vismae.core.types import Modality, PixelUnit, SliceRecord
from vismae.data.store import Store, StoreWriter
from vismae.data.store_counts import count_store, sampling_columns, text_codes


@pytest.fixture(params=[3, 1000])
def store(request, tmp_path, monkeypatch) -> Store:
    """Sixty rows of all sorts, their index read in small pieces or whole."""
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "s") as writer:
        for number in range(60):
            modality = list(Modality)[rng.integers(4)]
            record = SliceRecord(
                *(f"i{number}", modality, PixelUnit.DISPLAY, f"P{rng.integers(9)}"),
                *(["patient", "group"][rng.integers(2)], f"V{rng.integers(20)}", number % 7),
                label=[None, "a", "a|b", "c"][rng.integers(4)],
                split=[None, "train", "test"][rng.integers(3)],
            )
            pixels = np.zeros(rng.integers(4, 9, 2), [np.uint8, np.int16][rng.integers(2)])
            writer.add(record, pixels, np.ones_like(pixels) if number % 3 else None)
    found = Store(tmp_path / "s")
    whole = found.index_batches

    def in_pieces(names):
        for batch in whole(names):
            for start in range(0, len(batch), request.param):
                yield batch.slice(start, request.param)

    monkeypatch.setattr(found, "index_batches", in_pieces)
    return found


def test_counts_are_those_of_the_whole_table(store: Store) -> None:
    index, counts = store.index, count_store(store)
    for name in ("modality", "split", "dtype"):
        assert counts.by[name] == index[name].fillna("none").value_counts().to_dict()
    labels = index["label"].fillna("none").str.split("|").explode()
    assert counts.by_label == labels.value_counts().to_dict()
    assert counts.volumes == index["volume_id"].nunique()
    assert counts.groups == index.groupby("group_kind")["patient_id"].nunique().to_dict()
    assert counts.with_label_map == index["has_label_map"].sum() == 40
    assert counts.height == index["height"].value_counts().to_dict()
    assert counts.width == index["width"].value_counts().to_dict()


def test_codes_tell_patients_and_volumes_apart_as_their_names_do(store: Store) -> None:
    index, columns = store.index, sampling_columns(store)
    assert columns["modality"].tolist() == index["modality"].tolist()
    assert columns["slice_index"].tolist() == index["slice_index"].tolist()
    for name in ("patient_id", "volume_id"):
        pairs = pd.DataFrame({"code": columns[name], "name": index[name]}).drop_duplicates()
        assert len(pairs) == pairs["code"].nunique() == pairs["name"].nunique()


def test_a_missing_text_has_the_code_0() -> None:
    codes = text_codes(pa.array(["a", None, "b", "a"]))
    assert codes[1] == 0
    assert codes[0] == codes[3]
    assert len({*codes.tolist()}) == 3
