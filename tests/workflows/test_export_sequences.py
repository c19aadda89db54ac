"""Exports of models that see several sequences of a case: as predict, each scaled by itself."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import vismae
from cases_on_disk import SEQUENCES, case_volumes
from factories import write_nifti
from models_on_disk import SMALL_CONTRACT, write_network
from vismae.core.errors import SettingError
from vismae.core.types import Modality, PixelUnit

CONTRACT = SMALL_CONTRACT.model_copy(
    update={"sequences": SEQUENCES, "pixel_units": {Modality.MR: (PixelUnit.ARBITRARY,)}}
)
BESIDE = CONTRACT.model_copy(update={"neighbours": 1})


def write_model(folder: Path, contract: Any = CONTRACT) -> Path:
    return write_network(folder, "swin_unet", preprocessing=contract, modalities=(Modality.MR,))


@pytest.mark.parametrize("contract", [CONTRACT, BESIDE], ids=["slices", "neighbours"])
def test_the_runner_gives_what_predict_gives(contract: Any, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", contract)
    result = vismae.export(model=model, out=tmp_path / "onnx", format="onnx")
    assert result.difference < 1e-4
    volumes = case_volumes(0, (40, 33, 5))[:2]
    for place, volume in enumerate(volumes):
        # Slices as the file has them: a place in space along its own axes.
        write_nifti(tmp_path / "in" / f"a_{place:04d}.nii.gz", volume, np.diag([-1.0, -1, 5, 1]))
    predicted = vismae.predict(
        model=model, inputs=tmp_path / "in", out=tmp_path / "out", device="cpu", modality="mr"
    )
    [(path,)] = predicted.outputs.values()
    expected = np.asarray(nib.Nifti1Image.from_filename(path).dataobj).transpose(2, 1, 0)
    assert len(np.unique(expected)) == 3
    stored = np.stack([volume.transpose(2, 1, 0) for volume in volumes], axis=1)
    np.save(tmp_path / "pixels.npy", stored)
    command = [sys.executable, str(tmp_path / "onnx" / "run.py"), str(tmp_path / "pixels.npy")]
    subprocess.run([*command, str(tmp_path / "answer.npy")], check=True)
    whole = np.load(tmp_path / "answer.npy")
    assert (whole == expected).mean() > 0.9995  # a tie in the last bit
    run = _runner(tmp_path / "onnx")
    assert (run(stored, batch=2) == whole).mean() > 0.9995
    # Each sequence has a slope of its own, and a range that follows it.
    assert (run(stored, slope=[3.0, 0.5]) == whole).mean() > 0.9995
    assert (run(stored[:, ::-1]) == whole).mean() < 0.99
    with pytest.raises(ValueError, match=r"expected \(slices, 2, height, width\): T1, FLAIR"):
        run(stored[:, 0])


def test_a_program_of_torch_takes_cases_of_any_length_and_size(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    result = vismae.export(model=model, out=tmp_path / "out", format="torch-export")
    program = torch.export.load(result.file).module()
    for slices in (1, 3):
        given = (
            torch.rand(slices, 2, 20, 30),
            torch.full((slices, 2), 3),
            torch.tensor([[[1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 0.0, 2.0]]] * slices),
        )
        assert program(*given).shape == (slices, 3, 20, 30)


def test_other_forms_carry_the_sequences_or_refuse_them(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    with pytest.raises(SettingError, match=r"sees the sequences T1, FLAIR .* Use --format onnx"):
        vismae.export(model=model, out=tmp_path / "bundle", format="monai")
    with pytest.raises(SettingError, match=r"data gives one image at a time. Leave it out"):
        vismae.export(model=model, out=tmp_path / "a", format="onnx-int8", data=[tmp_path])
    weights = vismae.export(model=model, out=tmp_path / "timm", format="timm")
    assert "Its channels are the sequences T1, FLAIR, in this order." in weights.notes


def _runner(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("exported_case_runner", folder / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run
