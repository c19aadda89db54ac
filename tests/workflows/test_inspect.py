from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vismae.core.config import InspectConfig
from vismae.core.errors import DataError
from vismae.core.types import Modality, PixelUnit, SliceRecord
from vismae.data.store import Store, StoreWriter
from vismae.workflows.inspect import inspect, sample_rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Ten CT slices of two patients, and three labelled ultrasound images."""
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "s") as writer:
        for number in range(10):
            record = SliceRecord(
                *(f"c{number}", Modality.CT, PixelUnit.HU),
                *(f"P{number // 5}", "patient", f"V{number // 5}", number % 5),
                intercept=-1024.0,
                split="train" if number < 5 else "test",
            )
            pixels = rng.integers(0, 2000, (20, 30 + number)).astype(np.int16)
            writer.add(record, pixels, (pixels > 1000).astype(np.uint8) * 2)
        for number, label in enumerate(["a|b", "a", None]):
            record = SliceRecord(
                *(f"u{number}", Modality.US, PixelUnit.DISPLAY),
                *(f"u{number}", "image", f"u{number}"),
                label=label,
            )
            writer.add(record, rng.integers(0, 255, (16, 16, 3)).astype(np.uint8))
    return Store(tmp_path / "s")


def test_counts_are_those_of_the_store(store: Store) -> None:
    report = inspect(InspectConfig(store=store.folder))

    assert (report.images, report.volumes, report.with_label_map) == (13, 5, 10)
    assert report.groups == {"image": 3, "patient": 2}
    assert report.by_modality == {"ct": 10, "us": 3}
    assert report.by_split == {"train": 5, "test": 5, "none": 3}
    assert report.by_label == {"none": 11, "a": 2, "b": 1}
    assert report.by_dtype == {"int16": 10, "uint8": 3}
    assert report.label_values == (0, 2)
    assert (report.height, report.width) == ((16, 20, 20), (16, 33, 39))
    assert not report.verified
    assert "modality   ct 10, us 3" in report.summary()


def test_the_contact_sheet_is_written_where_asked(store: Store, tmp_path: Path) -> None:
    inspect(InspectConfig(store=store.folder))
    report = inspect(InspectConfig(store=store.folder, out=tmp_path / "p.png", images=4))

    assert report.contact_sheet == tmp_path / "p.png"
    with (
        Image.open(tmp_path / "p.png") as small,
        Image.open(store.folder / "contact_sheet.png") as large,
    ):
        assert small.mode == "RGB"
        assert small.height < large.height


def test_a_sample_has_every_modality_and_many_patients() -> None:
    rows = pd.DataFrame(
        {
            "modality": ["ct"] * 90 + ["pet"] * 2 + ["us"] * 8,
            "patient_id": [f"P{number // 9}" for number in range(100)],
            "volume_id": "V",
            "slice_index": range(100),
        }
    )

    chosen = rows.iloc[sample_rows(rows, 12)]

    assert chosen["modality"].value_counts().to_dict() == {"ct": 5, "us": 5, "pet": 2}
    assert chosen[chosen["modality"] == "ct"]["patient_id"].nunique() == 5
    assert sorted(sample_rows(rows, 1000)) == list(range(100))


def test_verify_passes_a_sound_store_and_names_a_damaged_shard(store: Store) -> None:
    assert inspect(InspectConfig(store=store.folder, verify=True)).verified
    shard = store.folder / "shards" / "000001-000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)

    with pytest.raises(DataError, match=r"000001-000\.arrow differs from its checksum"):
        inspect(InspectConfig(store=store.folder, verify=True))


def test_a_folder_without_a_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a finished store"):
        inspect(InspectConfig(store=tmp_path))
