"""Ingest against bare decoding, one transfer syntax at a time, and two workers against one.

Bare decoding is ``pydicom.dcmread`` and ``pixel_array`` in one process, nothing else: no units, no
hashes, no duplicates, no encoding. Ingest is ``vismae ingest`` with one worker, all of that
included. Run it on an idle machine:

    python benchmarks/ingest.py            # some minutes
    python benchmarks/ingest.py --files 40 --repeats 1

Images are made up: 512x512 slices of 12 stored bits with smooth structure and noise, as a CT has.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from vismae.core.config import IngestConfig
from vismae.workflows.ingest import ingest

SYNTAXES = {
    "implicit little endian": ImplicitVRLittleEndian,
    "explicit little endian": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
FLOOR_NATIVE, FLOOR_COMPRESSED, FLOOR_TWO_WORKERS = 0.30, 0.70, 1.7


def ct_slice(rng: np.random.Generator, position: float) -> np.ndarray:
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = (x**2 / 0.8 + y**2 / 0.5) < 1
    structure = 300 * np.sin(6 * x + position) * np.cos(5 * y - position)
    image = np.where(body, 1040 + structure, 24) + rng.normal(0, 12, (512, 512))
    return np.clip(image, 0, 4095).astype(np.uint16)


def write_files(folder: Path, count: int, syntax: str, per_series: int = 40) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        series, place = divmod(number, per_series)
        data = pydicom.Dataset()
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
        data.StudyInstanceUID = f"1.2.826.0.1.3680043.9.{series}"
        data.SeriesInstanceUID = f"1.2.826.0.1.3680043.9.{series}.1"
        data.PatientID, data.Modality = f"P{series}", "CT"
        data.ImagePositionPatient = [0, 0, float(place)]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.InstanceNumber = [0.7, 0.7], place
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows = data.Columns = 512
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.PixelRepresentation = 0
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        pixels = ct_slice(rng, number / 10)
        native = syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
        data.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW"
        if not native:
            data.compress(syntax, generate_instance_uid=False)
        data.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def bare_seconds(folder: Path) -> float:
    started = time.perf_counter()
    for path in sorted(folder.iterdir()):
        pydicom.dcmread(path).pixel_array  # noqa: B018
    return time.perf_counter() - started


def ingest_seconds(folder: Path, store: Path, workers: int, encoding: str) -> float:
    shutil.rmtree(store, ignore_errors=True)
    shutil.rmtree(store.with_name(f"{store.name}.private"), ignore_errors=True)
    started = time.perf_counter()
    ingest(IngestConfig(sources=(folder,), store=store, workers=workers, encoding=encoding))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoding", choices=("zstd", "raw"), default="zstd")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        print(f"{options.files} files of 512x512, encoding {options.encoding}, median ratio")
        print("| transfer syntax | bare files/s | ingest files/s | ratio | floor | two workers |")
        print("|---|---|---|---|---|---|")
        for name, syntax in SYNTAXES.items():
            folder = root / name.replace(" ", "_")
            write_files(folder, options.files, syntax)
            bare_seconds(folder)
            bare, one, two = [], [], []
            for _ in range(options.repeats):
                bare.append(bare_seconds(folder))
                one.append(ingest_seconds(folder, root / "store", 1, options.encoding))
                two.append(ingest_seconds(folder, root / "store", 2, options.encoding))
            ratio = median(b / o for b, o in zip(bare, one, strict=True))
            double = median(o / t for o, t in zip(one, two, strict=True))
            floor = FLOOR_NATIVE if "endian" in name else FLOOR_COMPRESSED
            print(
                f"| {name} | {options.files / median(bare):.0f} | "
                f"{options.files / median(one):.0f} | {ratio:.2f} | {floor:.2f} | "
                f"{double:.2f} (floor {FLOOR_TWO_WORKERS}) |",
                flush=True,
            )
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
