"""Prediction of real files end to end: equal to evaluation, in place, and nothing lost."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from typer.testing import CliRunner

import vismae
import vismae.workflows.predict as workflow
from factories import (
    PET_TAGS,
    ultrasound_region,
    write_concatenation,
    write_dicom_series,
    write_dicom_slice,
    write_nifti,
    write_png,
    write_tiff,
    write_zip,
)
from models_on_disk import (
    SMALL_CONTRACT,
    write_classifier,
    write_contrastive,
    write_mae,
    write_network,
    write_segmenter,
)
from vismae.cli import app
from vismae.core.config import PredictConfig
from vismae.core.errors import DataError, RunFolderError, SettingError
from vismae.core.types import Modality, PixelUnit
from vismae.data.store import Store
from vismae.files.dicom_labels import read_dicom_labels
from vismae.files.discover import source_file
from vismae.files.read import read_image
from vismae.inference.predictor import Predictor
from vismae.models.weights import load_model
from vismae.workflows.predict import PredictResult

FRAME = {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.1"}


def predict(model: Path, inputs: Any, out: Path, **settings: Any) -> PredictResult:
    """Predict on the CPU."""
    return vismae.predict(model=model, inputs=inputs, out=out, device="cpu", **settings)


def body(slices: int = 4, size: tuple[int, int] = (48, 38), seed: int = 0) -> np.ndarray:
    """A smooth volume without any symmetry, (S, H, W) of 0 to 1."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    waves = [
        np.sin(9 * rows + 0.7 * number) * np.cos(6 * columns - 0.4 * number) + 0.6 * rows
        for number in range(slices)
    ]
    field = np.stack(waves) + 0.1 * rng.random((slices, *size))
    return (field - field.min()) / (field.max() - field.min())


def write_inputs(folder: Path) -> dict[str, Path]:
    """One input of every kind, all of them different."""
    axes = np.array([[0, 0, 3.0, -20], [0.8, 0, 0, 5], [0, -0.8, 0, 9], [0, 0, 0, 1.0]])
    volume = (body(6) * 1500).astype(np.int16)
    regions = [ultrasound_region((5, 40, 8, 34))]
    frames = (body(3, seed=3) * 255).astype(np.uint8)
    return {
        "nifti": write_nifti(folder / "head_T1w.nii.gz", volume.transpose(2, 1, 0), axes),
        "float": write_nifti(folder / "float_T2w.nii", body(5).astype(np.float32)),
        "hu": write_nifti(folder / "a_ct.nii.gz", (body(3, seed=2) * 2000 - 1000).astype(np.int16)),
        "series": write_dicom_series(
            folder / "series", (body(5, seed=1) * 2000).astype(np.uint16), Modality="CT", **FRAME
        )[0].parent,
        "ultrasound": write_dicom_slice(
            folder / "us.dcm", frames, Modality="US", SequenceOfUltrasoundRegions=regions
        ),
        "png": write_png(folder / "film.png", (body(1, (70, 30))[0] * 255).astype(np.uint8)),
        "deep": write_png(folder / "deep.png", (body(1, (33, 64))[0] * 60000).astype(np.uint16)),
        "tiff": write_tiff(folder / "pages.tiff", list((body(3) * 255).astype(np.uint8))),
    }


def read_labels(result: PredictResult) -> np.ndarray:
    """Return the label maps of the only input, (S, H, W) as the slices were read."""
    [paths] = result.outputs.values()
    if paths[0].suffix == ".png":
        return np.stack([np.asarray(Image.open(path)) for path in paths])
    raise AssertionError(f"{paths[0]} is no picture")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_files_and_the_store_made_of_them_give_the_same_label_maps(
    batch_size: int, tmp_path: Path
) -> None:
    model = write_segmenter(tmp_path / "model")
    for name, path in write_inputs(tmp_path / "in").items():
        vismae.ingest(path, store=tmp_path / f"store-{name}", executor="here")
        store = Store(tmp_path / f"store-{name}")
        predictor = Predictor(load_model(model), SMALL_CONTRACT, batch_size)
        expected = [found for _, found in predictor.label_maps(store, np.arange(len(store)))]
        result = predict(model, path, tmp_path / f"out-{name}", format="png", batch_size=batch_size)
        assert result.failed == ()
        found = read_labels(result)
        if name == "ultrasound":
            found = found[:, 5:41, 8:35]
        assert len(np.unique(found)) == 3, name
        assert np.array_equal(found, np.stack(expected)), name


def test_files_and_the_store_made_of_them_give_the_same_probabilities(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "model")
    for name, path in write_inputs(tmp_path / "in").items():
        vismae.ingest(path, store=tmp_path / f"store-{name}", executor="here")
        store = Store(tmp_path / f"store-{name}")
        predictor = Predictor(load_model(model), SMALL_CONTRACT, 2)
        expected = predictor.probabilities(store, np.arange(len(store)))
        out = tmp_path / f"out-{name}"
        predict(model, path, out, batch_size=2)
        table = pd.read_csv(out / "predictions.csv", keep_default_na=False)
        found = table[table["level"] == "image"]
        columns = ["probability_bright", "probability_dark"]
        assert np.allclose(found[columns].to_numpy(), expected, atol=1e-6), name
        if len(expected) > 1:
            [mean] = table[table["level"] == "volume"][columns].to_numpy()
            assert np.allclose(mean, expected.mean(axis=0), atol=2e-6)


def test_a_patients_images_are_put_together(tmp_path: Path) -> None:
    for number, patient in enumerate(("P1", "P1", "P2")):
        write_dicom_slice(
            tmp_path / "in" / f"{number}.dcm", (body(1, seed=number)[0] * 255).astype(np.uint8),
            Modality="DX", PatientID=patient,
        )  # fmt: skip
    predict(write_classifier(tmp_path / "model"), tmp_path / "in", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    images = table[table["level"] == "image"].groupby("patient_id")["probability_dark"].mean()
    patients = table[table["level"] == "patient"].set_index("patient_id")["probability_dark"]
    assert images.index.tolist() == ["P1", "P2"]
    assert np.allclose(images, patients, atol=2e-6)


def test_storage_order_of_a_volume_does_not_move_its_label_map(tmp_path: Path) -> None:
    """The same head stored in several ways has the same label at the same place in the patient."""
    model = write_segmenter(tmp_path / "model")
    data = (body(6, (28, 33)) * 1500).astype(np.int16).transpose(2, 1, 0)
    affine = np.array([[-0.9, 0, 0.2, 14], [0, -0.9, 0.1, 21], [0.05, 0, 3.0, -9], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(data, affine)
    plain = write_nifti(tmp_path / "in" / "LPS_T1w.nii.gz", data, affine)
    turned = []
    for codes in ("PIR", "SRA", "RAS", "IPL"):
        target = nib.orientations.axcodes2ornt(codes)
        start = nib.orientations.io_orientation(affine)
        moved = image.as_reoriented(nib.orientations.ornt_transform(start, target))
        path = tmp_path / "in" / f"{codes}_T1w.nii.gz"
        turned.append(write_nifti(path, np.asarray(moved.dataobj), moved.affine))
    result = predict(model, tmp_path / "in", tmp_path / "out")
    expected = nib.load(result.outputs[str(plain)][0])
    assert len(np.unique(expected.dataobj)) == 3
    for path in turned:
        found, source = nib.load(result.outputs[str(path)][0]), nib.load(path)
        assert np.array_equal(found.affine, source.affine)
        assert found.shape == source.shape
        ornt = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(found.affine),
            nib.orientations.io_orientation(affine),
        )
        back = found.as_reoriented(ornt)
        assert np.allclose(back.affine, affine, atol=1e-4)
        assert np.array_equal(np.asarray(back.dataobj), np.asarray(expected.dataobj))


def test_every_format_comes_back_in_its_own(tmp_path: Path) -> None:
    model, inputs = write_segmenter(tmp_path / "model"), write_inputs(tmp_path / "in")
    result = predict(model, tmp_path / "in", tmp_path / "out")
    names = {
        str(path.relative_to(tmp_path / "out"))
        for paths in result.outputs.values()
        for path in paths
    }
    assert names == {
        "head_T1w.nii.gz", "float_T2w.nii.gz", "a_ct.nii.gz", "series.dcm", "us.dcm",
        "film.png", "deep.png", *(f"pages.slices/000{number}.png" for number in (1, 2, 3)),
    }  # fmt: skip
    assert (tmp_path / "out" / "failed.csv").read_text().count("\n") == 1
    [image] = read_image([source_file(path) for path in sorted(inputs["series"].iterdir())])
    labels, _ = read_dicom_labels(
        source_file(tmp_path / "out" / "series.dcm"), image, {"disc": 1, "ring": 2}
    )
    predict(model, inputs["series"], tmp_path / "png", format="png")
    pictures = sorted((tmp_path / "png").rglob("*.png"))
    assert np.array_equal(labels, np.stack([np.asarray(Image.open(path)) for path in pictures]))
    assert np.asarray(Image.open(tmp_path / "out" / "film.png")).shape == (70, 30)


def test_a_cropped_ultrasound_is_put_back_into_its_frame(tmp_path: Path) -> None:
    path = write_inputs(tmp_path / "in")["ultrasound"]
    predict(write_segmenter(tmp_path / "model"), path, tmp_path / "out")
    seg = pydicom.dcmread(tmp_path / "out" / "us.dcm")
    assert (seg.Rows, seg.Columns) == (48, 38)
    anywhere = seg.pixel_array.reshape(-1, 48, 38).any(axis=0)
    rows, columns = np.nonzero(anywhere)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 40, 8, 34)


def test_volumes_are_counted_in_ml_only_where_spacing_is_known(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "in")
    predict(write_segmenter(tmp_path / "model"), tmp_path / "in", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "volumes.csv", keep_default_na=False)
    labels = np.asarray(nib.load(tmp_path / "out" / "head_T1w.nii.gz").dataobj)
    rows = table[table["name"] == "head_T1w"].set_index("class")
    for number, name in ((1, "disc"), (2, "ring")):
        count = int((labels == number).sum())
        assert rows.loc[name, "pixels"] == count > 0
        assert float(rows.loc[name, "volume_ml"]) == pytest.approx(count * 0.8 * 0.8 * 3.0 / 1000)
    assert set(table[table["input"] == str(inputs["png"])]["volume_ml"]) == {""}
    assert set(table[table["name"] == "us"]["volume_ml"]) == {""}
    assert all(float(value) > 0 for value in table[table["name"] == "series"]["volume_ml"])


def test_one_bad_input_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = write_inputs(tmp_path / "in")["series"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    mr = write_nifti(tmp_path / "head_T1w.nii", body().astype(np.float32))
    grey = write_nifti(tmp_path / "c_ct.nii", (body() * 200).astype(np.uint8))
    silent = write_png(tmp_path / "silent.png", np.eye(30, dtype=np.uint8))
    model = write_segmenter(
        tmp_path / "model",
        modalities=(Modality.CT,),
        preprocessing=SMALL_CONTRACT.model_copy(
            update={"pixel_units": {Modality.CT: (PixelUnit.HU,)}}
        ),
    )
    result = predict(model, [broken, mr, good, grey, silent], tmp_path / "out")
    assert result.predicted == 1
    messages = {failure.source: failure.message for failure in result.failed}
    assert "MR image; the model was trained on ct" in messages[str(mr)]
    assert "preprocessing.pixel_units.ct" in messages[str(grey)]
    assert "--modality ct" in messages[str(silent)]
    table = pd.read_csv(tmp_path / "out" / "failed.csv")
    assert set(table["input"]) == set(messages) == {str(p) for p in (broken, mr, grey, silent)}
    assert set(table["state"]) == {"failed"}
    assert "4 could not be predicted" in result.summary()


def test_a_pet_without_its_dose_is_no_ct_whatever_is_said(tmp_path: Path) -> None:
    volume = (body() * 2000).astype(np.uint16)
    write_dicom_series(tmp_path / "in" / "pet", volume, **{**PET_TAGS, "PatientWeight": None})
    contract = SMALL_CONTRACT.model_copy(update={"pixel_units": {Modality.CT: (PixelUnit.HU,)}})
    model = write_segmenter(tmp_path / "model", preprocessing=contract, modalities=(Modality.CT,))
    result = predict(model, tmp_path / "in", tmp_path / "out", modality="ct")
    assert [failure.reason for failure in result.failed] == ["no-suv"]
    with pytest.raises(DataError):
        vismae.ingest(tmp_path / "in", store=tmp_path / "store", modality="ct", executor="here")


def test_reports_and_texts_in_a_folder_are_left_out_without_failing(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in")
    write_dicom_slice(tmp_path / "in" / "report.dcm", np.zeros((4, 4), np.uint8), Modality="SR")
    (tmp_path / "in" / "program.exe").write_bytes(b"MZ not an image")
    result = predict(write_segmenter(tmp_path / "model"), tmp_path / "in", tmp_path / "out")
    assert result.failed == ()
    assert {Path(failure.source).name for failure in result.failures} == {
        "report.dcm", "program.exe",
    }  # fmt: skip


def test_no_result_overwrites_another(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    pixels = [(body(1, seed=seed)[0] * 255).astype(np.uint8) for seed in range(4)]
    write_png(tmp_path / "in" / "a.png", pixels[0])
    write_png(tmp_path / "in" / "a.bmp", pixels[1])
    write_png(tmp_path / "other" / "a.png", pixels[2])
    evil = write_png(tmp_path / "evil.png", pixels[3])
    write_zip(tmp_path / "a.zip", {"../../a.png": evil, "sub/a.png": evil})
    result = predict(
        model, [tmp_path / "in", tmp_path / "other", tmp_path / "a.zip"], tmp_path / "out"
    )
    made = [path for paths in result.outputs.values() for path in paths]
    assert len(made) == len(set(made)) == 5
    assert all(path.resolve().is_relative_to((tmp_path / "out").resolve()) for path in made)
    assert not (tmp_path / "a.png").exists()


def test_names_as_long_as_a_name_may_be_leave_room_for_results(tmp_path: Path) -> None:
    for ending in ("a.png", "b.png"):
        pixels = (body(1, seed=ord(ending[0]))[0] * 255).astype(np.uint8)
        write_png(tmp_path / "in" / f"{'ä' * 125}{ending}", pixels)
    model = write_segmenter(tmp_path / "model")
    result = predict(model, tmp_path / "in", tmp_path / "out", uncertainty=True)
    assert result.failures == ()
    names = {"ä" * 100 + ending for ending in (".png", "_uncertainty.png")}
    names |= {"ä" * 100 + ending for ending in ("-2.png", "-2_uncertainty.png")}
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == names


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = write_segmenter(tmp_path / "model"), tmp_path / "out"
    write_inputs(tmp_path / "in")
    whole = predict(model, tmp_path / "in", tmp_path / "whole")
    finish, count = workflow._finish, 0

    def stop_after_three(run: Any, read: Any) -> None:
        nonlocal count
        if count == 3:
            raise KeyboardInterrupt
        finish(run, read)
        count += 1

    monkeypatch.setattr(workflow, "_finish", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        predict(model, tmp_path / "in", out)
    monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*z")}
    with pytest.raises(RunFolderError):
        predict(model, tmp_path / "in", out)
    (out / ".4711.unfinished.png").write_bytes(b"half of what a killed process wrote")
    result = predict(model, tmp_path / "in", out, resume=True)
    assert (result.skipped, result.predicted) == (3, whole.predicted - 3)
    assert not list(out.rglob(".*.unfinished*"))
    assert all(path.stat().st_mtime_ns == found for path, found in before.items())
    for name in ("volumes.csv", "failed.csv"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()
    again = predict(model, tmp_path / "in", out, resume=True)
    assert (again.skipped, again.predicted) == (whole.predicted, 0)


def test_what_changed_is_predicted_again(tmp_path: Path) -> None:
    model, out = write_segmenter(tmp_path / "model"), tmp_path / "out"
    first = write_png(tmp_path / "in" / "a.png", (body(1)[0] * 255).astype(np.uint8))
    write_png(tmp_path / "in" / "b.png", (body(1, seed=1)[0] * 255).astype(np.uint8))
    predict(model, tmp_path / "in", out)
    write_png(first, (body(1, (20, 60), seed=2)[0] * 255).astype(np.uint8))
    result = predict(model, tmp_path / "in", out, resume=True)
    assert (result.predicted, result.skipped) == (1, 1)
    assert np.asarray(Image.open(out / "a.png")).shape == (20, 60)
    (out / "b.png").unlink()
    assert predict(model, tmp_path / "in", out, resume=True).predicted == 1
    assert predict(model, tmp_path / "in", out, resume=True, uncertainty=True).predicted == 2
    assert (out / "a_uncertainty.png").is_file()
    # What is no longer asked for does not stay behind.
    assert predict(model, tmp_path / "in", out, resume=True).predicted == 2
    assert not (out / "a_uncertainty.png").exists()
    other = write_segmenter(tmp_path / "other", seed=5)
    assert predict(other, tmp_path / "in", out, resume=True).predicted == 2
    assert predict(other, tmp_path / "in", out, overwrite=True).predicted == 2


def test_nothing_stays_of_an_input_that_changed_and_can_no_longer_be_read(tmp_path: Path) -> None:
    model, out = write_classifier(tmp_path / "model"), tmp_path / "out"
    first = write_png(tmp_path / "in" / "a.png", (body(1)[0] * 255).astype(np.uint8))
    write_png(tmp_path / "in" / "b.png", (body(1, seed=1)[0] * 255).astype(np.uint8))
    predict(model, tmp_path / "in", out, explain=True)
    assert (out / "a_evidence.png").is_file()
    first.write_bytes(first.read_bytes()[:60])
    result = predict(model, tmp_path / "in", out, resume=True, explain=True)
    assert (result.predicted, result.skipped, len(result.failed)) == (0, 1, 1)
    assert set(pd.read_csv(out / "predictions.csv")["name"].dropna()) == {"b"}
    assert not (out / "a_evidence.png").exists()
    assert (out / "b_evidence.png").is_file()


def test_file_names_need_not_be_in_the_encoding_of_the_system(tmp_path: Path) -> None:
    models = {"predict": write_segmenter(tmp_path / "seg"), "embed": write_mae(tmp_path / "mae")}
    picture = write_png(tmp_path / "a.png", (body(1)[0] * 255).astype(np.uint8)).read_bytes()
    (tmp_path / "in").mkdir()
    for name, content in ((b"M\xfcller.png", picture), (b"L\xf6we.png", picture[:60])):
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(content)
    for command, model in models.items():
        words = [command, "--model", model, tmp_path / "in", tmp_path / "in" / "M\udcfcller.png"]
        out = tmp_path / command
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "vismae",
                *map(os.fspath, words),
                "--out",
                out,
                "--device",
                "cpu",
            ],
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 1, done.stderr
        assert b"L\\udcf6we.png" in done.stdout
        assert "L\\udcf6we.png" in (out / "failed.csv").read_text()
    assert (tmp_path / "predict" / "M\udcfcller.png").is_file()
    assert "M\\udcfcller.png" in (tmp_path / "predict" / "volumes.csv").read_text()
    assert len(pd.read_parquet(tmp_path / "embed" / "features.parquet")) == 1


def test_no_table_stays_of_inputs_that_have_no_result_any_more(tmp_path: Path) -> None:
    model, out = write_segmenter(tmp_path / "model"), tmp_path / "out"
    first = write_png(tmp_path / "in" / "a.png", (body(1)[0] * 255).astype(np.uint8))
    predict(model, tmp_path / "in", out)
    assert len(pd.read_csv(out / "volumes.csv")) == 2
    first.write_bytes(first.read_bytes()[:60])
    predict(model, tmp_path / "in", out, resume=True)
    assert not (out / "volumes.csv").exists()


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_series_that_grows_takes_the_place_of_what_it_was(place: int, tmp_path: Path) -> None:
    model, out = write_segmenter(tmp_path / "model"), tmp_path / "out"
    volume = (body(5) * 2000).astype(np.uint16)
    late = write_dicom_series(tmp_path / "in" / "ct", volume, **FRAME)[place]
    away = late.rename(tmp_path / late.name)
    other = write_png(tmp_path / "in" / "a.png", (body(1)[0] * 255).astype(np.uint8))
    predict(model, tmp_path / "in", out, format="png")
    assert len(list(out.rglob("ct.slices/*.png"))) == 4
    away.rename(late)
    result = predict(model, tmp_path / "in", out, resume=True, format="png")
    assert (result.predicted, result.skipped) == (1, 1)
    assert len(list(out.rglob("*.slices/*.png"))) == 5
    assert pd.read_csv(out / "volumes.csv")["name"].tolist() == ["a", "a", "ct", "ct"]
    # A slice by itself is another question, and takes nothing away.
    alone = predict(model, late, out, resume=True, format="png")
    assert alone.predicted == 1
    assert other.is_file()
    assert set(pd.read_csv(out / "volumes.csv")["name"]) == {"a", "ct", late.stem}


def test_slices_named_one_by_one_are_a_series(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    paths = write_dicom_series(tmp_path / "in" / "ct", (body(5) * 2000).astype(np.uint16), **FRAME)
    other = write_png(tmp_path / "in" / "a.png", (body(1)[0] * 255).astype(np.uint8))
    named = [paths[3], other, *paths[:3], paths[4], paths[0]]
    result = predict(model, named, tmp_path / "out", format="png")
    assert (result.predicted, result.failures) == (2, ())
    whole = predict(model, tmp_path / "in" / "ct", tmp_path / "whole", format="png")
    assert [path.name for path in whole.outputs[str(paths[0])]] == [
        path.name for path in result.outputs[str(paths[3])]
    ]
    found, expected = (
        [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob(f"{out}/ct.slices/*"))]
        for out in ("out", "whole")
    )
    assert np.array_equal(found, expected)
    assert len(found) == 5


def test_results_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    model, out = write_segmenter(tmp_path / "model"), tmp_path / "in" / "out"
    write_png(tmp_path / "in" / "a.png", (body(1)[0] * 255).astype(np.uint8))
    predict(model, tmp_path / "in", out)
    result = predict(model, tmp_path / "in", out, resume=True)
    assert (result.predicted, result.skipped, result.failures) == (0, 1, ())


@pytest.mark.parametrize("named", ["in", "in/a.png", "link"])
def test_results_do_not_go_into_the_input_itself(named: str, tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    image = write_png(tmp_path / "in" / "a.png", (body(1)[0] * 255).astype(np.uint8))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    source = image if named == "in/a.png" else tmp_path / "in"
    with pytest.raises(SettingError, match=f"out: .*{named} is the input .*Name another folder"):
        predict(model, source, tmp_path / named)
    assert list((tmp_path / "in").iterdir()) == [image]


@pytest.mark.parametrize("write", [write_segmenter, write_classifier])
def test_answers_that_are_no_numbers_are_no_answers(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = write(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["head.weight"] *= 1e7  # beyond what 16 bits hold
    save_file(weights, model / "model.safetensors")
    picture = write_png(tmp_path / "a.png", (body(1)[0] * 255).astype(np.uint8))
    assert predict(model, picture, tmp_path / "whole").predicted == 1
    result = predict(model, picture, tmp_path / "half", precision="fp16")
    assert (result.predicted, result.outputs) == (0, {})
    (failure,) = result.failed
    assert failure.reason == "not-finite"
    assert failure.message.startswith(f"{picture}: The answers for an image are not finite in fp16")


@pytest.mark.parametrize("write", [write_segmenter, write_classifier, write_mae])
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("kind", ["not-finite", "memory"])
def test_an_input_without_an_answer_is_listed_and_the_others_go_on(
    write: Callable[[Path], Path],
    batch_size: int,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = write(tmp_path / "model")
    rng = np.random.default_rng(0)
    sources = [write_nifti(tmp_path / "in" / f"{n}_T1w.nii", rng.random((40, 40, 3))) for n in "ac"]
    bad = np.zeros((40, 40, 7))
    bad[0, 0, 4] = 1.0  # nothing but this in the fifth slice is above the black of the others
    sources.insert(1, write_nifti(tmp_path / "in" / "b_T1w.nii", bad))
    forward = {"seg": "SwinUNet", "cla": "SwinClassifier", "mae": "SwinMAE"}[write.__name__[6:9]]
    network = getattr(vismae.models, forward)
    compute = network.forward

    def failing(self: torch.nn.Module, images: torch.Tensor, *more: Any, **named: Any) -> Any:
        broken = (images > images.mean()).sum(dim=(1, 2, 3)) < 9
        if broken.any() and kind == "memory":
            torch.empty(1 << 50)
        return compute(
            self, torch.where(broken.view(-1, 1, 1, 1), torch.nan, images), *more, **named
        )

    whole = predict(model, [sources[0], sources[2]], tmp_path / "whole", batch_size=batch_size)
    monkeypatch.setattr(network, "forward", failing)

    result = predict(model, tmp_path / "in", tmp_path / "out", batch_size=batch_size)

    assert (result.predicted, len(result.failed)) == (2, 1)
    assert set(result.outputs) == {str(sources[0]), str(sources[2])}
    failed = pd.read_csv(tmp_path / "out" / "failed.csv")
    assert failed[["input", "state", "reason"]].to_numpy().tolist() == [
        [str(sources[1]), "failed", kind]
    ]
    assert f"{sources[1]}: " in result.summary()
    for source, paths in whole.outputs.items():
        for one, other in zip(paths, result.outputs[source], strict=True):
            assert one.read_bytes() == other.read_bytes(), source
    monkeypatch.setattr(network, "forward", compute)
    again = predict(model, tmp_path / "in", tmp_path / "out", batch_size=batch_size, resume=True)
    assert (again.predicted, again.skipped, len(again.failed)) == (1, 2, 0)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    volume = write_nifti(tmp_path / "b_T1w.nii", np.random.default_rng(0).random((90, 90, 9)))
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
        "from vismae.cli import app; app()"
    )
    words = ["predict", "--model", model, volume, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert f"{tmp_path / 'out' / 'b_T1w.nii.gz'}: File too large" in done.stderr


def test_uncertainty_is_the_entropy_of_the_mean_probabilities(tmp_path: Path) -> None:
    models = [write_segmenter(tmp_path / str(seed), seed=seed) for seed in range(2)]
    pixels = (body(1, (32, 32))[0] * 255).astype(np.uint8)
    path = write_png(tmp_path / "a.png", pixels)
    vismae.predict(
        model=models, inputs=path, out=tmp_path / "out", device="cpu", uncertainty=True,
        flips=["horizontal"],
    )  # fmt: skip
    image = torch.from_numpy((pixels / np.float32(255) - SMALL_CONTRACT.mean) / SMALL_CONTRACT.std)
    image = image.float()[None, None]
    with torch.inference_mode():
        views = [
            view.softmax(dim=1)
            for network in map(load_model, models)
            for view in (network(image), network(image.flip(-1)).flip(-1))
        ]
    mean = torch.stack(views).mean(dim=0)[0]
    entropy = -(mean * mean.log()).sum(dim=0) / np.log(3)
    found = np.asarray(Image.open(tmp_path / "out" / "a_uncertainty.png")) / 65535
    assert np.allclose(found, entropy, atol=1e-4)
    labels = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(labels, mean.argmax(dim=0))


def test_large_images_are_tiled_only_when_asked(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    large = (body(1, (90, 70))[0] * 255).astype(np.uint8)
    inputs = [
        write_png(tmp_path / "large.png", large),
        write_png(tmp_path / "small.png", large[:32, :32]),
        write_png(tmp_path / "long.png", large[:20]),
    ]
    predict(model, inputs, tmp_path / "fit")
    predict(model, inputs, tmp_path / "tiled", tiling=True, uncertainty=True)
    read = {
        (kind, name): np.asarray(Image.open(tmp_path / kind / f"{name}.png"))
        for kind in ("fit", "tiled")
        for name in ("large", "small", "long")
    }
    assert np.array_equal(read["fit", "small"], read["tiled", "small"])
    for name, shape in (("large", (90, 70)), ("long", (20, 70))):
        assert read["fit", name].shape == read["tiled", name].shape == shape
        assert not np.array_equal(read["fit", name], read["tiled", name])
    # The window in the corner is nobody else's but for the overlap.
    only = predict(model, inputs[0], tmp_path / "apart", tiling=True, overlap=0.0)
    assert np.array_equal(read_labels(only)[0][:32, :32], read["fit", "small"])


def test_a_fourth_dimension_comes_back_and_pieces_are_cleaned(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    run = np.stack([body(4, seed=seed).transpose(2, 1, 0) * 900 for seed in range(3)], axis=-1)
    path = write_nifti(tmp_path / "a_bold.nii.gz", run.astype(np.int16))
    predict(model, path, tmp_path / "plain")
    predict(
        model, path, tmp_path / "clean", largest_component=["disc"], fill_holes=["ring"],
    )  # fmt: skip
    plain, clean = (
        np.asarray(nib.load(tmp_path / kind / "a_bold.nii.gz").dataobj)
        for kind in ("plain", "clean")
    )
    assert plain.shape == clean.shape == run.shape
    for number in range(3):
        pieces = ndimage.label(clean[..., number] == 1, np.ones((3, 3, 3)))[1]
        assert pieces == 1
    assert ndimage.label(plain[..., 0] == 1, np.ones((3, 3, 3)))[1] > 1


def test_explanations_and_error_maps_lie_on_their_image(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "in")
    wanted = [inputs["nifti"], inputs["png"], inputs["series"], inputs["ultrasound"]]
    predict(write_classifier(tmp_path / "c"), wanted, tmp_path / "c-out", explain=True)
    predict(write_mae(tmp_path / "m"), wanted, tmp_path / "m-out")
    for out, ending in ((tmp_path / "c-out", "_evidence"), (tmp_path / "m-out", "_error")):
        source, found = nib.load(inputs["nifti"]), nib.load(out / f"head_T1w{ending}.nii.gz")
        assert np.array_equal(source.affine, found.affine)
        assert source.shape == found.shape
        assert 0 < float(found.get_fdata().max()) <= 1
        assert np.asarray(Image.open(out / f"film{ending}.png")).shape == (70, 30)
        assert nib.load(out / f"series{ending}.nii.gz").shape == (38, 48, 5)
        assert len(list((out / f"us{ending}.slices").iterdir())) == 3


@pytest.mark.parametrize("other", ["classifier", "classes", "segmenter"])
def test_a_patient_s_mean_is_of_the_models_that_answer_now(other: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pixels = (body(2, seed=ord(name)) * 2000).astype(np.uint16)
        write_dicom_series(tmp_path / name, pixels, Modality="CT", PatientID="P1", **FRAME)
    first = predict(write_classifier(tmp_path / "first"), tmp_path / "a", tmp_path / "out")
    writers = {
        "classifier": lambda folder: write_classifier(folder, seed=1),
        "classes": lambda folder: write_classifier(folder, ("early", "late"), seed=1),
        "segmenter": write_segmenter,
    }
    model = writers[other](tmp_path / "model")
    predict(model, tmp_path / "b", tmp_path / "out", resume=True)
    table = pd.read_csv(first.folder / "predictions.csv")
    patients = table[table["level"] == "patient"]
    if other == "segmenter":
        assert patients.empty
        return
    alone = predict(model, tmp_path / "b", tmp_path / "alone")
    expected = pd.read_csv(alone.folder / "predictions.csv").query("level == 'patient'")
    columns = [name for name in expected if name.startswith("probability_")]
    assert np.array_equal(patients[columns].to_numpy(), expected[columns].to_numpy())
    assert set(table["name"].dropna()) == {"a", "b"}


@pytest.mark.parametrize(
    ("kind", "settings", "part"),
    [
        ("classifier", {"tiling": True}, "tiling is for a segmenter"),
        ("classifier", {"format": "png"}, "format is png"),
        ("segmenter", {"format": "dicomsr"}, "nifti or png or dicomseg"),
        ("segmenter", {"explain": True}, "explain is for a classifier"),
        ("segmenter", {"largest_component": ["liver"]}, "no class 'liver'"),
        ("mae", {"flips": ["vertical"]}, "flips"),
        ("contrastive", {}, "predicts nothing. Use vismae embed"),
        ("resnet", {"explain": True}, "classifiers of the kind swin"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(
    kind: str, settings: dict[str, Any], part: str, tmp_path: Path
) -> None:
    writers: dict[str, Callable[[Path], Path]] = {
        "classifier": write_classifier,
        "segmenter": write_segmenter,
        "mae": write_mae,
        "contrastive": write_contrastive,
        "resnet": lambda folder: write_network(folder, "resnet18"),
    }
    model = writers[kind](tmp_path / "model")
    path = write_png(tmp_path / "a.png", np.eye(8, dtype=np.uint8))
    with pytest.raises(SettingError, match=part):
        predict(model, path, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_formats_that_cannot_hold_an_input_are_told(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    path = write_png(tmp_path / "a.png", (body(1)[0] * 255).astype(np.uint8))
    for wanted, part in (("nifti", "no known place"), ("dicomseg", "must refer to DICOM")):
        result = predict(model, path, tmp_path / wanted, format=wanted)
        assert part in result.failed[0].message
        assert not list((tmp_path / wanted).glob("a*"))


def test_nothing_to_predict_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image was found"):
        predict(write_segmenter(tmp_path / "model"), tmp_path / "empty", tmp_path / "out")


def test_pages_of_another_size_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = list((body(3) * 255).astype(np.uint8))
    write_tiff(tmp_path / "in" / "even.tiff", pages)
    write_tiff(tmp_path / "in" / "odd.tiff", [*pages, pages[0][:20], pages[0][:9]])
    with caplog.at_level(logging.WARNING, "vismae"):
        result = predict(write_segmenter(tmp_path / "model"), tmp_path / "in", tmp_path / "out")
    assert [len(paths) for paths in result.outputs.values()] == [3, 3]
    [remark] = result.remarks
    assert "odd.tiff: 2 pages left out, of another size than the first" in remark
    assert remark in result.summary()
    assert "1 pictures have pages of another size" in caplog.text


def test_the_log_names_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_dicom_series(
        tmp_path / "Doe_Jane", (body() * 2000).astype(np.uint16), PatientName="Doe^Jane", **FRAME
    )[0].parent
    (path / "Doe.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with caplog.at_level(logging.DEBUG, "vismae"):
        predict(write_segmenter(tmp_path / "model"), path, tmp_path / "out")
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "1 inputs predicted" in log
    assert "Doe" not in log
    assert (tmp_path / "out" / "records").stat().st_mode & 0o077 == 0


def test_the_command_has_the_settings_of_the_function_and_a_status(tmp_path: Path) -> None:
    model = write_segmenter(tmp_path / "model")
    good = write_png(tmp_path / "a.png", (body(1)[0] * 255).astype(np.uint8))
    bad = tmp_path / "b.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    words = ["predict", "--model", model, "--model", model, "--device", "cpu", "--flip", "vertical"]
    words += ["--uncertainty", "--largest-component", "disc", "--fill-holes", "ring", good]
    fine = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "x")])
    assert fine.exit_code == 0, fine.output
    assert "1 inputs predicted" in fine.stdout
    assert (tmp_path / "x" / "a_uncertainty.png").is_file()
    kept = json.loads(next((tmp_path / "x" / "records").iterdir()).read_text())
    assert kept["outputs"] == ["a.png", "a_uncertainty.png"]
    partly = CliRunner().invoke(app, [*map(str, words), str(bad), "--out", str(tmp_path / "y")])
    assert partly.exit_code == 1
    assert "b.png" in partly.stdout
    assert (tmp_path / "y" / "a.png").is_file()
    wrong = CliRunner().invoke(app, ["predict", str(good), "--out", str(tmp_path / "z")])
    assert wrong.exit_code == 2
    assert "model is needed" in wrong.stderr


def test_the_progress_bar_moves_within_a_volume_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_nifti(tmp_path / "in" / "a_ct.nii.gz", body(6).T.astype(np.float32))
    (tmp_path / "in" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    shown: list[float] = []

    def update(_: object, task: object, completed: float) -> None:
        shown.append(completed)

    monkeypatch.setattr("rich.progress.Progress.update", update)
    predict(write_segmenter(tmp_path / "model"), path.parent, tmp_path / "out")
    assert shown[-1] == 2
    assert len(shown) == 6 + 1
    assert shown == sorted(shown)


def test_a_configuration_says_everything() -> None:
    config = PredictConfig(model="m", inputs="a,b", out="o", flips=["vertical"])
    assert config.model == (Path("m"),)
    assert config.inputs == (Path("a"), Path("b"))


def test_predicting_a_picture_loads_neither_lightning_nor_monai(tmp_path: Path) -> None:
    """They would double the seconds before the first result."""
    path = write_png(tmp_path / "a.png", (body(1)[0] * 255).astype(np.uint8))
    words = [
        "predict",
        "--model",
        write_segmenter(tmp_path / "model"),
        path,
        "--out",
        tmp_path / "o",
    ]
    heavy = ("lightning", "monai", "highdicom", "sklearn")
    code = (
        "import sys, atexit; from vismae.cli import main; atexit.register("
        f"lambda: print('HEAVY', [name for name in {heavy} if name in sys.modules])); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    assert "1 inputs predicted" in done.stdout
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("named", ["folder", "header", "both"])
def test_a_pair_of_header_and_voxels_is_one_input(named: str, tmp_path: Path) -> None:
    data = body().astype(np.float32).transpose(1, 2, 0)
    affine = np.diag([0.8, 0.8, 3.0, 1.0])
    single = write_nifti(tmp_path / "single_T1w.nii", data, affine)
    folder = tmp_path / "in"
    folder.mkdir()
    nib.save(nib.Nifti1Pair(data, affine), folder / "scan_T1w.hdr")
    files = [folder / "scan_T1w.hdr", folder / "scan_T1w.img"]
    inputs = {"folder": folder, "header": files[0], "both": files}[named]
    model = write_segmenter(tmp_path / "model")

    result = predict(model, inputs, tmp_path / "out")
    predict(model, single, tmp_path / "expected")

    assert (result.predicted, list(result.failed)) == (1, [])
    found = nib.load(tmp_path / "out" / "scan_T1w.nii.gz")
    expected = nib.load(tmp_path / "expected" / "single_T1w.nii.gz")
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    assert np.allclose(found.affine, expected.affine)
    assert found.header["sform_code"] == expected.header["sform_code"] == 2


def test_each_part_of_a_divided_image_has_references_of_its_own(tmp_path: Path) -> None:
    volume, heights = (body(6) * 1000).astype(np.uint16), (9.0, 3.0, 0.0, 15.0, 6.0, 12.0)
    positions = [(0.0, 0.0, height) for height in heights]
    shared = {"FrameOfReferenceUID": "1.2.3", "SeriesNumber": 1}
    parts = write_concatenation(tmp_path / "in" / "ct", volume, positions, [4, 2], **shared)
    model = write_segmenter(tmp_path / "model")

    result = predict(model, tmp_path / "in", tmp_path / "out")

    [written] = result.outputs.values()
    [image] = read_image([source_file(path) for path in parts])
    labels = np.zeros(image.pixels.shape, np.int32)
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(parts)]
    assert len(written) == 2
    for path, uid in zip(written, uids, strict=True):
        [series] = pydicom.dcmread(path).ReferencedSeriesSequence
        [instance] = series.ReferencedInstanceSequence
        assert instance.ReferencedSOPInstanceUID == uid
        labels += read_dicom_labels(source_file(path), image, {"disc": 1, "ring": 2})[0]
    predict(model, tmp_path / "in", tmp_path / "png", format="png")
    pictures = sorted((tmp_path / "png").rglob("*.png"))
    expected = np.stack([np.asarray(Image.open(path)) for path in pictures])
    assert len(expected) == 6
    assert np.array_equal(labels, expected)


def test_a_report_on_a_divided_image_refers_to_all_its_parts(tmp_path: Path) -> None:
    positions = [(0.0, 0.0, 3.0 * number) for number in range(4)]
    volume = (body(4) * 1000).astype(np.uint16)
    parts = write_concatenation(tmp_path / "in", volume, positions, [3, 1], StudyID="1")
    model = write_classifier(tmp_path / "model")
    predict(model, tmp_path / "in", tmp_path / "out", format="dicomsr")
    [path] = (tmp_path / "out").rglob("*.dcm")
    [evidence] = pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence
    [series] = evidence.ReferencedSeriesSequence
    found = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    assert found == {pydicom.dcmread(part).SOPInstanceUID for part in parts}


def test_a_mosaic_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write_dicom_slice(
        tmp_path / "in" / "m.dcm",
        np.zeros((60, 60), np.uint16),
        Modality="MR",
        ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
        SpacingBetweenSlices=3.0,
    )
    dataset = pydicom.dcmread(path)
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", 4)
    dataset.save_as(path)
    good = write_png(tmp_path / "in" / "good.png", np.eye(30, dtype=np.uint8))

    result = predict(write_segmenter(tmp_path / "model"), [path, good], tmp_path / "out")

    assert result.predicted == 1
    [failure] = result.failed
    assert failure.reason == "mosaic"
    assert "Convert it to NIfTI" in failure.message
