"""2.5D through every command: trained from a grey start, scored by volume, predicted on files."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from factories import write_png, write_tiff
from models_on_disk import SMALL_CONTRACT, write_segmenter
from stores import classification_store
from vismae.core.config import EvaluateConfig, FinetuneConfig, PredictConfig, PretrainConfig
from vismae.core.errors import SettingError
from vismae.data.store import Store
from vismae.inference.predictor import Predictor
from vismae.models import HybridUNet
from vismae.models.weights import load_model
from vismae.workflows.evaluate import evaluate
from vismae.workflows.finetune import finetune
from vismae.workflows.ingest import open_or_ingest
from vismae.workflows.predict import predict
from vismae.workflows.pretrain import pretrain

MakeConfig = Callable[..., FinetuneConfig]

BESIDE = {"model.neighbours": 1, "model.network": "hybrid"}


def test_a_grey_start_sees_the_middle_slice_at_first(
    pretrained: Path, discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    settings = {**BESIDE, "init": pretrained, "optimizer.lr": 1e-12, "trainer.max_steps": 1}
    first = finetune(finetune_config("segment", tmp_path / "a", discs, **settings)).model
    model = load_model(first)
    assert isinstance(model, HybridUNet)
    assert model.preprocessing is not None
    assert (model.preprocessing.neighbours, model.config.in_channels) == (1, 3)
    stem = model.encoder.patch_embed.proj.weight
    source = load_model(pretrained).state_dict()["encoder.patch_embed.proj.weight"]
    assert torch.allclose(stem[:, 1:2], source, atol=1e-6)
    assert not stem[:, ::2].abs().max() > 1e-6
    on = {**BESIDE, "model.neighbours": None, "init": first}
    again = load_model(finetune(finetune_config("segment", tmp_path / "b", discs, **on)).model)
    assert again.preprocessing is not None
    assert again.preprocessing.neighbours == 1


def test_pretraining_from_a_model_of_several_slices_sees_single_ones(
    pretrained: Path,
    discs: Path,
    finetune_config: MakeConfig,
    pretrain_config: Callable[..., PretrainConfig],
    tmp_path: Path,
) -> None:
    still = {"optimizer.lr": 1e-12, "trainer.max_steps": 1}
    settings = {**BESIDE, **still, "init": pretrained}
    first = finetune(finetune_config("segment", tmp_path / "a", discs, **settings)).model
    watched = {**still, "monitor.every": 1, "monitor.most_time_fraction": 1.0, "init": first}
    again = load_model(pretrain(pretrain_config(tmp_path / "b", discs, **watched)).model)
    assert again.preprocessing is not None
    assert (again.preprocessing.neighbours, again.preprocessing.input_channels) == (0, 1)
    on = {**still, "model.network": "hybrid", "init": first, "task_pretrain_steps": 1}
    model = load_model(finetune(finetune_config("segment", tmp_path / "c", discs, **on)).model)
    assert isinstance(model, HybridUNet)
    assert model.preprocessing is not None
    assert model.preprocessing.neighbours == 1
    assert not model.encoder.patch_embed.proj.weight[:, ::2].abs().max() > 1e-6


def test_a_volume_on_disk_is_predicted_as_its_rows_are_and_scored_by_patient(
    finetune_config: MakeConfig, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    lines = ["image,label_map,patient_id,modality,split"]
    for number in range(4):
        volume = (rng.random((24, 20, 5)) * 900).astype(np.int16)
        label = np.zeros_like(volume, dtype=np.uint8)
        label[6:14, 5:12, 1:4] = 1
        volume[label > 0] += 900
        for word, values in (("t", volume), ("l", label)):
            image = nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0]))
            nibabel.save(image, tmp_path / f"{word}{number}.nii.gz")
        split = ("train", "train", "val", "test")[number]
        lines.append(f"t{number}.nii.gz,l{number}.nii.gz,p{number},mr,{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    store = open_or_ingest([tmp_path / "manifest.csv"], tmp_path / "store", task="segment")
    settings = {**BESIDE, "optimizer.lr": 3e-3, "trainer.max_steps": 4}
    run = finetune(finetune_config("segment", tmp_path / "run", Path(store.address), **settings))
    evaluated = evaluate(
        EvaluateConfig.model_validate(
            {
                "model": run.model,
                "out": tmp_path / "scores",
                "data": {"sources": [Path(store.address)]},
                "bootstrap": 100,
                "device": "cpu",
            }
        )
    )
    scores = pd.read_parquet(evaluated.folder / "scores.parquet")
    assert scores["patient_id"].nunique() == 1
    predict(
        PredictConfig.model_validate(
            {
                "model": [run.model],
                "inputs": [tmp_path / "t3.nii.gz"],
                "out": tmp_path / "out",
                "modality": "mr",
                "device": "cpu",
            }
        )
    )
    written = next((tmp_path / "out").rglob("*.nii.gz"))
    found = np.asarray(nibabel.load(written).dataobj)  # pyright: ignore[reportAttributeAccessIssue]
    model = load_model(run.model)
    assert model.preprocessing is not None
    rows = store.columns(["split", "slice_index"])
    test = rows[rows["split"] == "test"].sort_values("slice_index").index.to_numpy()
    maps = [
        m for _, m in Predictor(model, model.preprocessing).label_maps(Store(store.address), test)
    ]
    ours = np.stack(maps)
    assert found.shape == (24, 20, 5)
    assert sorted(np.unique(found, return_counts=True)[1]) == sorted(
        np.unique(ours, return_counts=True)[1]
    )


def test_a_slice_without_its_volume_is_predicted_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contract = SMALL_CONTRACT.model_copy(update={"neighbours": 1})
    model = write_segmenter(tmp_path / "model", preprocessing=contract)
    pages = [np.full((32, 32), 40 * number, np.uint8) for number in range(3)]
    write_tiff(tmp_path / "in" / "volume.tiff", pages)
    for number, page in enumerate(pages[:2]):
        write_png(tmp_path / "in" / f"{number}.png", page)
    settings = {"model": [model], "inputs": [tmp_path / "in"], "out": tmp_path / "out"}
    with caplog.at_level("WARNING"):
        result = predict(PredictConfig.model_validate({**settings, "device": "cpu"}))
    assert result.predicted == 3
    assert "2 inputs were single slices" in caplog.text


def test_single_images_start_from_a_model_of_neighbouring_slices(
    discs: Path, shades: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    beside = {**BESIDE, "model.neighbours": 2, "trainer.max_steps": 1}
    first = finetune(finetune_config("segment", tmp_path / "a", discs, **beside)).model
    single = finetune(finetune_config("classify", tmp_path / "c", shades, init=first)).model
    assert (alone := load_model(single)).preprocessing is not None
    assert (alone.preprocessing.neighbours, alone.config.in_channels) == (0, 1)


def test_neighbours_need_volumes_and_grey_images(
    discs: Path, finetune_config: MakeConfig, tmp_path: Path
) -> None:
    single = classification_store(tmp_path / "store", patients=12).folder
    with pytest.raises(SettingError, match="holds single images"):
        finetune(finetune_config("classify", tmp_path / "a", single, **{"model.neighbours": 1}))
    colour = {**BESIDE, "model.in_channels": 3}
    with pytest.raises(SettingError, match="which is for grey images"):
        finetune(finetune_config("segment", tmp_path / "b", discs, **colour))
