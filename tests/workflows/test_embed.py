"""Features of stores and files: the encoder's own, in order, and nothing lost."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

import vismae
import vismae.workflows.embed as workflow
from factories import write_dicom_series, write_nifti, write_png, write_tiff
from models_on_disk import SMALL_CONTRACT, write_classifier, write_contrastive, write_mae
from stores import classification_store, pretrain_store, record, texture
from vismae.cli import app
from vismae.core.errors import DataError, ModelError, RunFolderError, SettingError
from vismae.core.types import Modality
from vismae.data.geometry import fitted_size
from vismae.data.loaders import LabelledImages
from vismae.data.sampler import Draw
from vismae.data.store import Store, StoreWriter
from vismae.inference.deployed import deployed
from vismae.models import SwinEncoder, load_model
from vismae.models.features import image_features, pooled_features


def embed(model: Path, inputs: Any, out: Path, **settings: Any) -> workflow.EmbedResult:
    return vismae.embed(model=model, inputs=inputs, out=out, device="cpu", **settings)


def expected_features(model: Path, store: Store) -> np.ndarray:
    """The features as the loaders of evaluation prepare the images, one by one."""
    images = LabelledImages(store, SMALL_CONTRACT)
    network = load_model(model)
    canvas = SMALL_CONTRACT.image_size
    found = []
    for row, size in enumerate(zip(store.index["height"], store.index["width"], strict=True)):
        extent = torch.tensor([fitted_size(size, canvas, SMALL_CONTRACT.fit)])
        with torch.inference_mode():
            found.append(image_features(network, images[Draw(row, 0)]["image"][None], extent))
    return torch.cat(found).numpy()


@pytest.mark.parametrize("write_model", [write_mae, write_classifier])
def test_a_store_gives_one_row_per_slice_with_its_pseudonyms(
    write_model: Any, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model")
    store = pretrain_store(tmp_path / "store", images=9)
    result = embed(model, tmp_path / "store", tmp_path / "out", batch_size=5)
    table = result.table
    assert np.allclose(result.features, expected_features(model, store), atol=1e-5)
    assert result.features.dtype == np.float32
    for name in ("image_id", "patient_id", "volume_id", "modality"):
        assert table[name].tolist() == store.index[name].tolist()
    assert table["row"].tolist() == list(range(len(store)))


def test_files_and_the_store_made_of_them_have_the_same_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = (rng.random((5, 40, 32)) * 900).astype(np.uint16)
    nifti = write_nifti(tmp_path / "in" / "head_T1w.nii.gz", volume.transpose(2, 1, 0))
    series = write_dicom_series(tmp_path / "in" / "series", volume, Modality="CT")[0].parent
    picture = write_png(tmp_path / "in" / "a.png", rng.integers(0, 255, (30, 60), np.uint8))
    pages = write_tiff(tmp_path / "in" / "b.tiff", list(volume.astype(np.uint8)[:3]))
    model = write_mae(tmp_path / "model")
    for path in (nifti, series, picture, pages):
        vismae.ingest(path, store=tmp_path / f"store-{path.name}", executor="here")
        result = embed(model, path, tmp_path / f"out-{path.name}")
        store = Store(tmp_path / f"store-{path.name}")
        assert np.allclose(result.features, expected_features(model, store), atol=1e-5)
        assert result.table["slice_index"].max() + 1 == len(store) or path == pages
        assert result.table["source"].str.startswith(str(path)).all()


def test_an_input_without_finite_features_is_listed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    model = write_mae(tmp_path / "model")
    pictures = [
        write_png(tmp_path / "in" / f"{name}.png", rng.integers(0, most, (32, 32), np.uint8))
        for name, most in (("a", 255), ("b", 2), ("c", 255))
    ]
    vismae.ingest(tmp_path / "in", store=tmp_path / "store", executor="here")
    whole = embed(model, tmp_path / "in", tmp_path / "whole").features
    forward = SwinEncoder.forward

    def failing(self: SwinEncoder, images: torch.Tensor, *more: Any, **named: Any) -> Any:
        dark = (images.amax(dim=(1, 2, 3)) < 0).view(-1, 1, 1, 1)
        return forward(self, torch.where(dark, torch.nan, images), *more, **named)

    monkeypatch.setattr(SwinEncoder, "forward", failing)
    result = embed(model, tmp_path / "in", tmp_path / "out")
    assert result.table["source"].tolist() == [str(pictures[0]), str(pictures[2])]
    assert np.allclose(result.features, whole[[0, 2]], atol=1e-5)
    assert [(item.source, item.reason) for item in result.failed] == [
        (str(pictures[1]), "not-finite")
    ]
    with pytest.raises(ModelError, match=r"store, row 1: .*not finite"):
        embed(model, tmp_path / "store", tmp_path / "of_store")


@pytest.mark.parametrize("write_model", [write_mae, write_contrastive, write_classifier])
def test_long_images_have_the_same_features_by_every_road(write_model: Any, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    rng = np.random.default_rng(0)
    sizes = [(20, 300), (300, 20), (24, 40)]
    images = [texture(rng, size) * 255 for size in sizes]
    pixels = [image.astype(np.uint8) for image in images]
    with StoreWriter(tmp_path / "store") as writer:
        for number, image in enumerate(pixels):
            writer.add(record(f"image{number}", image), image)
    expected = expected_features(model, Store(tmp_path / "store"))
    assert np.isfinite(expected).all()
    found = embed(model, tmp_path / "store", tmp_path / "of_store").features
    assert np.allclose(found, expected, atol=1e-5)
    paths = [
        write_png(tmp_path / "in" / f"{number}.png", image) for number, image in enumerate(pixels)
    ]
    found = embed(model, tmp_path / "in", tmp_path / "of_files").features
    assert np.allclose(found, expected, atol=1e-5)
    assert np.allclose(vismae.ImageFeatures(model).transform(paths), expected, atol=1e-5)
    if write_model is not write_classifier:
        exported = deployed(load_model(model))
        for image, features in zip(pixels, expected, strict=True):
            given = torch.from_numpy(image / np.float32(255))[None, None]
            with torch.inference_mode():
                assert np.allclose(exported(given)[0].numpy(), features, atol=1e-4)


def test_features_are_nearer_to_those_without_padding_than_a_mean_over_it_too(
    tmp_path: Path,
) -> None:
    model = write_mae(tmp_path / "model")
    image = (texture(np.random.default_rng(0), (32, 12)) * 255).astype(np.uint8)
    path = write_png(tmp_path / "narrow.png", image)
    narrow = embed(model, path, tmp_path / "out").features
    network = load_model(model)
    canvas = torch.from_numpy(image / np.float32(255) - 0.223)[None, None] / 0.202
    with torch.inference_mode():
        alone = pooled_features(network.encoder, canvas, torch.tensor([[32, 12]])).numpy()
        padded = torch.nn.functional.pad(canvas, (0, 20), value=-0.223 / 0.202)
        counted = pooled_features(network.encoder, padded, torch.tensor([[32, 32]])).numpy()
    assert np.linalg.norm(narrow - alone) < 0.7 * np.linalg.norm(counted - alone)


def test_features_that_an_earlier_version_pooled_otherwise_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_mae(tmp_path / "model")
    pretrain_store(tmp_path / "store", images=3)
    monkeypatch.setattr(workflow, "REVISION", 1)
    embed(model, tmp_path / "store", tmp_path / "out")
    monkeypatch.undo()
    again = embed(model, tmp_path / "store", tmp_path / "out", resume=True)
    assert (again.embedded, again.skipped) == (1, 0)
    again = embed(model, tmp_path / "store", tmp_path / "out", resume=True)
    assert (again.embedded, again.skipped) == (0, 1)


def test_an_input_that_cannot_be_read_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "good.png", np.random.default_rng(0).integers(0, 255, (9, 9), "u1"))
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    words = ["embed", tmp_path / "in", "--model", write_mae(tmp_path / "model")]
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1, done.output
    assert "1 images, 128 features each" in done.stdout
    assert "bad.png" in done.stdout
    failed = pd.read_csv(tmp_path / "out" / "failed.csv")
    assert failed["state"].tolist() == ["failed"]


def test_rows_of_a_modality_the_model_never_saw_are_left_out_by_name(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model", modalities=(Modality.CT, Modality.US))
    pretrain_store(tmp_path / "store", images=9)
    result = embed(model, tmp_path / "store", tmp_path / "out")
    assert set(result.table["modality"]) == {"ct", "us"}
    [failure] = result.failed
    assert "3 images of modality mr" in failure.message


def test_an_interrupted_run_goes_on_and_gives_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_mae(tmp_path / "model")
    rng = np.random.default_rng(0)
    for number in range(5):
        write_png(tmp_path / "in" / f"{number}.png", rng.integers(0, 255, (20, 24), np.uint8))
    whole = embed(model, tmp_path / "in", tmp_path / "whole", batch_size=1)
    embed_slices = workflow.embed_slices

    def stopped(*arguments: Any) -> Any:
        for number, answer in enumerate(embed_slices(*arguments)):
            if number == 3:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(workflow, "embed_slices", stopped)
    with pytest.raises(KeyboardInterrupt):
        embed(model, tmp_path / "in", tmp_path / "out", batch_size=1)
    monkeypatch.undo()
    with pytest.raises(RunFolderError, match="--resume"):
        embed(model, tmp_path / "in", tmp_path / "out")
    result = embed(model, tmp_path / "in", tmp_path / "out", batch_size=1, resume=True)
    assert (result.embedded, result.skipped) == (2, 3)
    pd.testing.assert_frame_equal(result.table, whole.table)

    write_png(tmp_path / "in" / "1.png", rng.integers(0, 255, (21, 24), np.uint8))
    changed = embed(model, tmp_path / "in", tmp_path / "out", batch_size=1, resume=True)
    assert (changed.embedded, changed.skipped) == (1, 4)
    assert (changed.features != whole.features).any(axis=1).tolist() == [False, True, *[False] * 3]


def test_what_a_store_says_anew_of_the_same_pixels_is_in_the_table(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 36), np.uint8)
    for label in ("bright", "dark"):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        with StoreWriter(tmp_path / "store") as writer:
            for name in ("a", "b"):
                writer.add(record(name, pixels, label=label), pixels)
        result = embed(model, tmp_path / "store", tmp_path / "out", resume=True)
        assert set(result.table["label"]) == {label}
    assert (tmp_path / "out" / "neighbours.csv").exists()
    again = embed(model, tmp_path / "store", tmp_path / "out", resume=True, neighbours=0)
    assert (again.embedded, again.skipped) == (0, 1)
    assert not (tmp_path / "out" / "neighbours.csv").exists()


def test_neighbours_are_of_other_volumes_and_the_map_shows_every_image(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "model")
    classification_store(tmp_path / "store", patients=10)
    result = embed(model, tmp_path / "store", tmp_path / "out", neighbours=2)
    near = pd.read_csv(result.folder / "neighbours.csv")
    assert near.groupby("row").size().tolist() == [2] * 10
    assert (near["row"] != near["neighbour_row"]).all()
    # Bright and dark pictures are further apart than two bright ones.
    assert (near["label"] == near["neighbour_label"]).mean() > 0.9
    places = pd.read_csv(result.folder / "map.csv")
    assert len(places) == 10
    assert {"pca_1", "pca_2"} < set(places)
    assert Image.open(result.folder / "map.png").width > 400


def test_scikit_learn_takes_the_table_or_the_files_in_three_lines(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "model")
    store = classification_store(tmp_path / "store", patients=16)
    result = vismae.embed(model=model, inputs=tmp_path / "store", out=tmp_path / "out")
    probe = LogisticRegression().fit(result.features, result.table["label"])
    assert probe.score(result.features, result.table["label"]) == 1.0

    paths = [
        write_png(tmp_path / "in" / f"{row}.png", store.read(row).pixels)
        for row in range(len(store))
    ]
    pipeline = make_pipeline(vismae.ImageFeatures(model), LogisticRegression())
    pipeline.fit(paths[:8], store.index["label"][:8])
    assert pipeline.score(paths[8:], store.index["label"][8:]) == 1.0
    assert np.allclose(vismae.ImageFeatures(model).transform(paths), result.features, atol=1e-5)


def test_a_path_of_several_slices_is_their_mean_for_scikit_learn(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    volume = np.random.default_rng(0).integers(0, 900, (4, 30, 20), np.int16)
    path = write_nifti(tmp_path / "head_T1w.nii.gz", volume.transpose(2, 1, 0))
    one = embed(model, path, tmp_path / "out").features
    found = vismae.ImageFeatures(model, batch_size=3).fit_transform([path])
    assert np.allclose(found, one.mean(axis=0, keepdims=True), atol=1e-5)
    (tmp_path / "two").mkdir()
    write_png(tmp_path / "two" / "a.png", volume[0].astype(np.uint8))
    write_png(tmp_path / "two" / "b.png", volume[1].astype(np.uint8))
    with pytest.raises(DataError, match="holds 2 images"):
        vismae.ImageFeatures(model).transform([tmp_path / "two"])


def test_what_cannot_be_embedded_at_all_is_refused(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    pretrain_store(tmp_path / "store", images=9)
    with pytest.raises(SettingError, match="is a store and was given with others"):
        embed(model, [tmp_path / "store", tmp_path], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Nothing could be embedded"):
        embed(model, tmp_path / "empty", tmp_path / "out2")
    with pytest.raises(ModelError, match=r"no model folder|does not exist"):
        embed(tmp_path / "nothing", tmp_path / "store", tmp_path / "out3")


def test_embedding_loads_neither_lightning_nor_monai(tmp_path: Path) -> None:
    model = write_mae(tmp_path / "model")
    pretrain_store(tmp_path / "store", images=9)
    code = (
        "import sys, vismae; "
        f"vismae.embed(model={str(model)!r}, inputs={str(tmp_path / 'store')!r}, "
        f"out={str(tmp_path / 'out')!r}, device='cpu'); "
        "print('HEAVY', [name for name in ('lightning', 'monai') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=500
    )
    assert "HEAVY []" in done.stdout
