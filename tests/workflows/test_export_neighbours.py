"""Exports of models that see a slice with those beside it (2.5D): as predict, slice by slice."""

import importlib.util
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import vismae
from factories import write_nifti
from models_on_disk import SMALL_CONTRACT, write_network
from stores import segmentation_store
from vismae.core.errors import SettingError
from vismae.core.types import Modality, PixelUnit
from vismae.data.neighbours import in_sequence, of_whole_volume

CONTRACT = SMALL_CONTRACT.model_copy(
    update={"neighbours": 2, "pixel_units": {Modality.MR: (PixelUnit.ARBITRARY,)}}
)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside") / "model"
    return write_network(folder, "swin_unet", preprocessing=CONTRACT, modalities=(Modality.MR,))


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_a_whole_volume_at_once_is_the_same_as_slice_by_slice(reach: int) -> None:
    slices = torch.randn(4, 2, 5, 3)
    assert torch.equal(
        of_whole_volume(slices, reach), torch.stack(list(in_sequence(slices, reach)))
    )


def test_the_runner_gives_what_predict_gives_whatever_the_batch(
    segmenter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "onnx"
    result = vismae.export(model=segmenter, out=out, format="onnx")
    assert result.difference < 1e-4
    rng = np.random.default_rng(0)
    waves = np.sin(np.mgrid[:7, :40, :33].sum(axis=0) / 5) + 0.3 * rng.random((7, 40, 33))
    volume = ((waves - waves.min()) * 700).astype(np.int16)
    place = write_nifti(
        tmp_path / "a_mr.nii.gz", volume.transpose(2, 1, 0), np.diag([-0.8, -0.8, 5.0, 1.0])
    )
    predicted = vismae.predict(
        model=segmenter, inputs=place, out=tmp_path / "out", device="cpu", modality="mr"
    )
    [(path,)] = predicted.outputs.values()
    expected = np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)
    assert len(np.unique(expected)) == 3
    run = _runner(out)
    whole, in_parts = run(volume), run(volume, batch=2)
    assert (whole == expected).mean() > 0.9995  # a tie in the last bit
    assert (in_parts == whole).mean() > 0.9995
    alone = np.concatenate([run(volume[number : number + 1]) for number in range(7)])
    assert (alone == whole).mean() < 0.999


def test_a_program_of_torch_takes_volumes_of_any_length(segmenter: Path, tmp_path: Path) -> None:
    result = vismae.export(model=segmenter, out=tmp_path / "out", format="torch-export")
    program = torch.export.load(result.file).module()
    for slices in (1, 2, 9):
        given = (
            torch.rand(slices, 1, 20, 30),
            torch.full((slices,), 3),
            torch.tensor([[1.0, 0.0, 0.0, 1.0]] * slices),
        )
        assert program(*given).shape == (slices, 3, 20, 30)


def test_what_int8_loses_is_measured_with_the_slices_beside(
    segmenter: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    segmentation_store(store, patients=2, slices=4)
    result = vismae.export(model=segmenter, out=tmp_path / "out", format="onnx-int8", data=store)
    assert any(note.startswith("Mean dice on ") for note in result.notes)


def test_weights_say_what_their_channels_are(segmenter: Path, tmp_path: Path) -> None:
    result = vismae.export(model=segmenter, out=tmp_path / "out", format="timm")
    assert "Its channels are a slice and 2 on each side of it, in their order." in result.notes


def test_a_bundle_is_refused_and_the_hub_is_not(segmenter: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"2 slices on each side .* Use --format onnx"):
        vismae.export(model=segmenter, out=tmp_path / "bundle", format="monai")
    result = vismae.export(model=segmenter, out=tmp_path / "hub", format="huggingface")
    assert result.difference == 0.0
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "with each slice come 2 on each side" in page


def _runner(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("exported_runner", folder / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run
