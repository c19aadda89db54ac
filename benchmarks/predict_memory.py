"""Peak memory and time of ``vismae predict`` on a long CT, in a process of its own.

    python benchmarks/predict_memory.py
    python benchmarks/predict_memory.py --slices 200 --format dicomseg

A made-up CT of 512×512 pixels a slice (smooth shapes with noise, int16 HU) is written as NIfTI or
as a DICOM series, and an untrained ``nano`` segmenter of 9 classes predicts it with a map of its
uncertainty. The child's peak resident memory must stay under 8 GB for 1000 slices; seconds are for
comparison in one run only.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from vismae.core.model_card import ModelCard, TaskCard
from vismae.core.preprocessing import Preprocessing
from vismae.models import SwinUNet, architecture_of, save_model

LIMIT_GB = 8.0
SIDE = 512


def write_model(folder: Path) -> Path:
    """Write an untrained segmenter whose classes follow the image."""
    torch.manual_seed(0)
    classes = ("background", *(f"organ {number}" for number in range(1, 9)))
    network = SwinUNet.from_size("nano", in_channels=1, num_classes=len(classes))
    with torch.no_grad():
        network.head.weight.normal_(std=1.0)
    card = ModelCard(
        kind="segmenter",
        architecture=architecture_of(network),
        preprocessing=Preprocessing(image_size=(224, 224), in_channels=1),
        task=TaskCard(classes=classes),
    )
    save_model(network, card, folder)
    return folder


def made_slice(number: int) -> np.ndarray:
    """Return one slice in HU, int16."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    shape = np.sin(7 * rows + number / 40) * np.cos(5 * columns - number / 60)
    noise = np.random.default_rng(number).normal(0, 20, (SIDE, SIDE))
    return (400 * shape + noise - 100).astype(np.int16)


def write_nifti(path: Path, slices: int) -> Path:
    """Write the CT as one compressed volume."""
    volume = np.empty((SIDE, SIDE, slices), np.int16)
    for number in range(slices):
        volume[:, :, number] = made_slice(number).T
    nib.save(nib.Nifti1Image(volume, np.diag([-0.7, -0.7, 1.0, 1.0])), path)
    return path


def write_series(folder: Path, slices: int) -> Path:
    """Write the CT as one DICOM file a slice."""
    folder.mkdir()
    study, series, space = generate_uid(), generate_uid(), generate_uid()
    for number in range(slices):
        file = Dataset()
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, generate_uid()
        file.StudyInstanceUID, file.SeriesInstanceUID = study, series
        file.FrameOfReferenceUID, file.Modality, file.PatientID = space, "CT", "made up"
        file.InstanceNumber, file.SliceThickness = number + 1, 1.0
        file.ImagePositionPatient = [-180.0, -180.0, float(number)]
        file.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        file.PixelSpacing = [0.7, 0.7]
        file.RescaleSlope, file.RescaleIntercept = 1.0, -1024.0
        file.Rows = file.Columns = SIDE
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 0
        file.PixelData = (made_slice(number) + 1024).astype(np.uint16).tobytes()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return folder


def main() -> None:
    """Write the CT, predict it in a child process, and say what that took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--format", choices=["nifti", "dicomseg"], default="nifti")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(folder / "model")
        if options.format == "nifti":
            source = write_nifti(folder / "long_ct.nii.gz", options.slices)
        else:
            source = write_series(folder / "long", options.slices)
        words = ["predict", "--model", model, "--out", folder / "out", "--device", "cpu"]
        words += ["--uncertainty", "--format", options.format, source]
        start = time.perf_counter()
        code = "from vismae.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True)
        seconds = time.perf_counter() - start
        sizes = [path.stat().st_size for path in (folder / "out").rglob("long*") if path.is_file()]
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(
        f"{options.slices} slices of {SIDE}×{SIDE}, {options.format}: peak {peak_gb:.2f} GB, "
        f"{seconds:.0f} s, results {sum(sizes) / 1e6:.1f} MB"
    )
    if peak_gb >= LIMIT_GB:
        sys.exit(f"above the limit of {LIMIT_GB} GB")


if __name__ == "__main__":
    main()
