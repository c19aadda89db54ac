import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vismae
from models_on_disk import write_classifier, write_mae, write_segmenter
from stores import record, texture
from vismae.core.config import SelectConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.settings import build_config
from vismae.core.types import Modality, PixelUnit
from vismae.data.store import StoreWriter
from vismae.workflows import inspect, select

NEEDED = {"model": "model", "store": "store", "out": "out"}


def _store(folder: Path, also_ct: str | None = None) -> Path:
    """Twelve patients of three images; P00 and P01 have labels, P11 is set aside for testing.

    ``also_ct`` is a further patient, of another modality.
    """
    rng = np.random.default_rng(0)
    with StoreWriter(folder) as writer:
        for patient in range(12):
            for place in range(3):
                pixels = rng.integers(0, 256, (40, 36)).astype(np.uint8)
                writer.add(
                    record(
                        f"image-{patient}-{place}",
                        pixels,
                        patient_id=f"P{patient:02d}",
                        volume_id=f"V{patient}",
                        slice_index=place,
                        label="bright" if patient < 2 else None,
                        split="test" if patient == 11 else None,
                    ),
                    pixels,
                )
        if also_ct is not None:
            pixels = np.zeros((40, 36), np.int16)
            facts = record(also_ct, pixels, modality=Modality.CT, unit=PixelUnit.HU)
            writer.add(facts, pixels)
    return folder


def test_the_list_leaves_out_labelled_and_test_patients(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    model = write_classifier(tmp_path / "model", modalities=(Modality.XR,))
    result = vismae.select(model=model, store=store, n=4, out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "selection.csv")
    assert (result.strategy, result.candidates, result.labelled) == ("hybrid", 9, 2)
    assert table["patient_id"].tolist() == list(result.patients)
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert not set(result.patients) & {"P00", "P01", "P11"}
    assert table["uncertainty"].between(0, 1).all()
    assert Image.open(tmp_path / "out" / "contact_sheet.png").size[0] > 100


def test_entropy_takes_the_patients_a_model_is_least_sure_of(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    model = write_segmenter(tmp_path / "model")
    all_of_them = vismae.select(
        model=model, store=store, n=99, strategy="entropy", out=tmp_path / "all"
    )
    table = pd.read_csv(tmp_path / "all" / "selection.csv")
    assert len(all_of_them.patients) == 9
    assert table["uncertainty"].is_monotonic_decreasing
    first = vismae.select(model=model, store=store, n=2, strategy="entropy", out=tmp_path / "two")
    assert first.patients == all_of_them.patients[:2]


def test_a_masked_autoencoder_chooses_by_look_and_not_by_uncertainty(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    model = write_mae(tmp_path / "model")
    result = vismae.select(model=model, store=store, n=3, out=tmp_path / "out")
    assert result.strategy == "core-set"
    table = pd.read_csv(tmp_path / "out" / "selection.csv")
    assert np.isfinite(table["distance"]).all()  # the labelled patients are where it starts
    assert table["uncertainty"].isna().all()  # nobody asked, and 0 would mean sure
    with pytest.raises(SettingError, match="predicts no classes"):
        vismae.select(model=model, store=store, strategy="entropy", out=tmp_path / "other")


def test_images_are_compared_by_the_features_that_embed_gives(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        for name, size in (("a", (20, 90)), ("b", (90, 20)), ("c", (40, 40))):
            pixels = (texture(rng, size) * 255).astype(np.uint8)
            writer.add(record(name, pixels), pixels)
    settings = {"model": model, "device": "cpu"}
    table = vismae.embed(inputs=tmp_path / "store", out=tmp_path / "embedded", **settings).table
    vectors = table.set_index("patient_id").filter(like="feature_")
    vismae.select(store=tmp_path / "store", n=2, out=tmp_path / "out", **settings)
    chosen = pd.read_csv(tmp_path / "out" / "selection.csv")
    one, other = (vectors.loc[patient].to_numpy() for patient in chosen["patient_id"])
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    assert chosen["distance"][1] == pytest.approx(1 - cosine, abs=1e-5)


def test_a_list_of_labelled_patients_counts_and_strangers_are_named(tmp_path: Path) -> None:
    store = _store(tmp_path / "store", also_ct="P12")
    model = write_mae(tmp_path / "model", modalities=(Modality.XR,))
    listed = tmp_path / "labelled.csv"
    listed.write_text("patient_id\nP05\nP06\n")
    result = vismae.select(
        model=model, store=store, n=99, strategy="random", labelled=listed, out=tmp_path / "out"
    )
    assert (result.candidates, result.labelled) == (7, 4)
    listed.write_text("patient_id\nP05\nP12\n")
    among = {"labelled": listed, "among": listed, "ignore_labels": True}
    with pytest.raises(DataError, match="nobody is left"):  # P12 has no image for this model
        vismae.select(model=model, store=store, out=tmp_path / "none", **among)
    listed.write_text("patient_id\nnobody\n")
    with pytest.raises(DataError, match="patient nobody"):
        vismae.select(model=model, store=store, labelled=listed, out=tmp_path / "again")


def test_chance_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    model = write_mae(tmp_path / "model")

    def chosen(seed: int, out: str) -> tuple[str, ...]:
        return vismae.select(
            model=model, store=store, n=9, strategy="random", seed=seed, out=tmp_path / out
        ).patients

    assert chosen(0, "a") == chosen(0, "b")
    assert chosen(0, "c") != chosen(1, "d")


def test_nobody_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    model = write_mae(tmp_path / "model")
    listed = tmp_path / "labelled.csv"
    listed.write_text("patient_id\n" + "\n".join(f"P{number:02d}" for number in range(12)))
    with pytest.raises(DataError, match="nobody is left") as caught:
        vismae.select(model=model, store=store, labelled=listed, out=tmp_path / "out")
    # What the message says to give can be given.
    assignment = str(caught.value).rpartition("--set ")[2].rstrip(".").replace("val", "test")
    assert build_config(SelectConfig, "select", None, [assignment], NEEDED).split == ("test",)


def test_only_pictures_that_are_shown_are_read_and_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path / "store")
    model = write_mae(tmp_path / "model")
    seen: list[weakref.ref[np.ndarray]] = []

    def picture_of(*args: Any) -> np.ndarray:
        assert sum(reference() is not None for reference in seen) <= 1
        picture = inspect.picture_of(*args)
        seen.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(select, "picture_of", picture_of)
    monkeypatch.setattr(select, "_MOST_PICTURES", 4)
    options = {"model": model, "store": store, "strategy": "random"}
    result = vismae.select(**options, n=9, out=tmp_path / "out")
    assert (len(result.patients), len(seen)) == (9, 4)
    vismae.select(**options, n=4, out=tmp_path / "four")
    sheets = [(tmp_path / out / "contact_sheet.png").read_bytes() for out in ("out", "four")]
    assert sheets[0] == sheets[1]
