"""Exports run where vismae is not: clean environments, made with pip, one after the other.

    python tests/workflows/exports_elsewhere.py [--torch "torch==2.13.0 --index-url ..."]

A phantom CT is segmented by ``vismae predict``; then an ONNX file by its runner, a torch.export
program, and a MONAI bundle do the same in environments that have none of this package. Prints what
share of the voxels has the same class, and which packages the environment has. Needs the network
for pip, so it is no test of the suite; its result is in docs/export.md.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import vismae
from factories import write_nifti
from models_on_disk import write_network
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit

PROGRAM = """
import sys, numpy, torch
pixels = torch.from_numpy(numpy.load(sys.argv[2]).astype("float32"))[:, None]
scaling = torch.tensor([[1.0, -1024.0, 0.0, 1.0]] * len(pixels))
program = torch.export.load(sys.argv[1]).module()
answer = program(pixels, torch.zeros(len(pixels), dtype=torch.int64), scaling).argmax(1)
numpy.save(sys.argv[3], answer.numpy())
"""
ABSENT = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vismae') is not None)"


def run(*words: str | Path, cwd: Path | None = None) -> str:
    # The path of the source tree must not reach the new environments.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    if done.returncode:
        raise SystemExit(f"{shlex.join(map(str, words))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def environment(folder: Path, *requirements: str) -> Path:
    """Return the Python of a new environment with some packages, certainly without vismae."""
    if not folder.exists():
        run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *requirements)
    run(python, "-c", ABSENT)
    return python


def report(name: str, python: Path, found: np.ndarray, expected: np.ndarray) -> None:
    installed = run(python, "-m", "pip", "list", "--format=freeze").split()
    packages = [line for line in installed if not line.startswith(("pip", "setuptools"))]
    same = float((found == expected).mean())
    print(f"{name}: {same:.4%} of {expected.size} voxels as vismae predict ({' '.join(packages)})")
    if same < 0.999:
        raise SystemExit(f"{name} differs")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--torch", default="torch==2.13.0", help="requirement, as pip takes it")
    torch_words = shlex.split(options.parse_args().torch)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        units = {Modality.CT: (PixelUnit.HU,)}
        contract = Preprocessing(image_size=(64, 64), in_channels=1, pixel_units=units)
        model = write_network(folder / "model", "swin_unet", preprocessing=contract)
        rng = np.random.default_rng(0)
        waves = np.sin(np.mgrid[:6, :90, :70].sum(axis=0) / 6) + 0.2 * rng.random((6, 90, 70))
        stored = ((waves - waves.min()) * 900).astype(np.int16)
        volume = (stored.astype(np.int32) - 1024).astype(np.int16).transpose(2, 1, 0)
        nifti = write_nifti(folder / "in" / "a_ct.nii.gz", volume, np.diag([-0.8, -0.8, 5.0, 1.0]))
        np.save(folder / "pixels.npy", stored)
        result = vismae.predict(model=model, inputs=nifti, out=folder / "out", device="cpu")
        [(path,)] = result.outputs.values()
        expected = np.asarray(nib.load(path).dataobj)
        slices = expected.transpose(2, 1, 0)
        for form in ("onnx", "torch-export", "monai"):
            vismae.export(model=model, format=form, out=folder / form)

        answer = folder / "answer.npy"
        python = environment(folder / "with-onnx", "onnxruntime", "numpy")
        words = (folder / "onnx" / "run.py", folder / "pixels.npy", answer, "1", "-1024")
        run(python, *words)
        report("ONNX", python, np.load(answer), slices)

        python = environment(folder / "with-torch", *torch_words)
        python = environment(folder / "with-torch", "numpy")
        words = (folder / "torch-export" / "model.pt2", folder / "pixels.npy", answer)
        run(python, "-c", PROGRAM, *words)
        report("torch.export", python, np.load(answer), slices)

        python = environment(folder / "with-torch", "monai", "nibabel", "jsonschema", "fire")
        bundle, configs = folder / "monai", Path("configs")
        meta = ("--meta_file", configs / "metadata.json")
        config = ("--config_file", configs / "inference.json", "--bundle_root", ".")
        monai = (python, "-m", "monai.bundle")
        schema = ("--filepath", configs / "metadata.schema.json")
        run(*monai, "verify_metadata", *meta, *schema, cwd=bundle)
        run(*monai, "verify_net_in_out", "network_def", *meta, *config, cwd=bundle)
        done = ("--dataset_dir", nifti.parent, "--output_dir", folder / "done")
        run(*monai, "run", *config, *done, cwd=bundle)
        [written] = (folder / "done").rglob("*.nii.gz")
        report("MONAI bundle", python, np.asarray(nib.load(written).dataobj), expected)


if __name__ == "__main__":
    main()
