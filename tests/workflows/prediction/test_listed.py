"""Inputs of a manifest: volumes of pictures are prepared for prediction as ingest prepares them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vismae
from factories import write_dicom_series, write_png
from models_on_disk import SMALL_CONTRACT, write_mae, write_segmenter
from vismae.core.preprocessing import Preprocessing
from vismae.data.loaders import SliceReader
from vismae.data.store import Store
from vismae.inference.predictor import Predictor
from vismae.models.weights import load_model
from vismae.workflows.predict import PredictResult
from vismae.workflows.prediction.listed import find_listed_inputs
from vismae.workflows.prediction.reading import prepared_slices, read_input

NEIGHBOURS = SMALL_CONTRACT.model_copy(update={"neighbours": 1})


def predict(model: Path, inputs: Any, out: Path, **settings: Any) -> PredictResult:
    """Predict on the CPU."""
    return vismae.predict(model=model, inputs=inputs, out=out, device="cpu", **settings)


def write_volume(folder: Path, slices: int = 4) -> Path:
    """Write 16-bit slices, one brighter than the other, and the manifest that joins them."""
    rng = np.random.default_rng(0)
    lines = ["path,volume_id,slice_index,patient_id,modality,spacing_mm"]
    for number in range(slices):
        pixels = (rng.random((40, 30)) * 1000 + 9000 * number + 500).astype(np.uint16)
        write_png(folder / "scans" / f"s{number}.png", pixels)
        # The order of the table is not that of the volume.
        lines.insert(1, f"scans/s{number}.png,chest,{number},p1,mr,2;1;1")
    write_png(folder / "scans" / "alone.png", rng.integers(0, 60000, (20, 20)).astype(np.uint16))
    lines.append("scans/alone.png,,,p2,mr,")
    table = folder / "manifest.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.mark.parametrize("contract", [SMALL_CONTRACT, NEIGHBOURS])
def test_slices_of_a_volume_have_the_brightness_range_that_ingest_gives_them(
    contract: Preprocessing, tmp_path: Path
) -> None:
    table = write_volume(tmp_path / "in")
    vismae.ingest(table, store=tmp_path / "store", executor="here")
    store = Store(tmp_path / "store")
    facts = store.columns(["height", "slice_index"]).to_numpy()
    reader = SliceReader(store, contract)
    expected = {
        (int(facts[row][0]), int(facts[row][1])): reader.read_input(row)[0].numpy()
        for row in range(len(store))
    }
    for source in (table, table.parent):
        inputs, failures = find_listed_inputs([source])
        assert failures == []
        read = [read_input(item, (), None, frozenset()) for item in inputs]
        slices = [part for each in read for part in prepared_slices(each, contract)]
        found = {(part.size[0], part.key[2]): part.image.numpy() for part in slices}
        assert found.keys() == expected.keys()
        assert len(found) == 5
        for key, image in found.items():
            assert np.array_equal(image, expected[key]), key


def test_a_volume_of_pictures_is_predicted_as_it_is_evaluated(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    table = write_volume(tmp_path / "in")
    vismae.ingest(table, store=tmp_path / "store", executor="here")
    store = Store(tmp_path / "store")
    facts = store.columns(["height", "slice_index"])
    rows = facts[facts["height"] == 40].sort_values("slice_index").index.to_numpy()
    maps = Predictor(load_model(model), SMALL_CONTRACT, 2).label_maps(store, rows)
    expected = np.stack([found for _, found in maps])
    result = predict(model, table, tmp_path / "out")
    assert (result.predicted, result.failures) == (2, ())
    found = [
        np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("out/p1/chest.slices/*"))
    ]
    assert len(np.unique(expected)) > 1
    assert np.array_equal(np.stack(found), expected)
    alone = predict(model, tmp_path / "in" / "scans", tmp_path / "each")
    assert alone.predicted == 5
    single = np.asarray(Image.open(tmp_path / "each" / "s1.png"))
    assert not np.array_equal(single, found[1])
    volumes = pd.read_csv(tmp_path / "out" / "volumes.csv").set_index(["name", "class"])
    assert volumes.loc[("p1/chest", "disc"), "volume_ml"] == pytest.approx(
        (expected == 1).sum() * 2 / 1000
    )


def test_images_named_with_their_table_are_predicted_once(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    table = write_volume(tmp_path / "in")
    table = table.rename(table.parent / "scans" / "list.csv")
    table.write_text(table.read_text().replace("scans/", ""))
    other = write_png(table.parent / "zz.png", np.eye(8, dtype=np.uint16) * 700)
    named = sorted(table.parent.iterdir())
    result = predict(model, named, tmp_path / "out")
    assert result.predicted == 3
    assert str(other) in result.outputs
    again = predict(model, named, tmp_path / "out", resume=True)
    assert (again.predicted, again.skipped) == (0, 3)
    table.write_text(table.read_text().replace(",mr,", ",us,"))
    told = predict(model, named, tmp_path / "out", resume=True)
    assert (told.predicted, told.skipped) == (2, 1)


def test_a_series_of_dicom_files_in_a_table_is_one_input(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 2000, (3, 24, 24)).astype(np.uint16)
    paths = write_dicom_series(tmp_path / "ct", pixels, Modality="MR")
    lines = [f"ct/{path.name},head" for path in paths]
    table = tmp_path / "manifest.csv"
    for text in ("path,volume_id\n" + "\n".join(lines), "path\nct"):
        table.write_text(text + "\n")
        [item], failures = find_listed_inputs([table])
        assert failures == []
        assert {file.path for file in item.group.files} == set(paths)
        assert item.told is not None
        assert item.told.volume is None
    assert predict(model, table, tmp_path / "out").predicted == 1


def test_what_a_table_lists_in_vain_is_told(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    table = write_volume(tmp_path / "in")
    write_png(tmp_path / "in" / "scans" / "s1.png", np.eye(9, dtype=np.uint16))
    (tmp_path / "in" / "scans" / "s2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with table.open("a") as file:
        file.write("scans/gone.png,,,p3,mr,\n")
    result = predict(model, table, tmp_path / "out")
    assert result.predicted == 1
    messages = " ".join(failure.message for failure in result.failed)
    assert "gone.png" in messages
    assert "The slices of the volume chest differ in size" in messages
    notes = tmp_path / "notes.csv"
    notes.write_text("mood\ngood\n")
    [failure] = find_listed_inputs([notes])[1]
    assert "no column names the images" in failure.message
