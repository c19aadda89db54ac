"""Ingest against bare decoding, one transfer syntax at a time, and two workers against one.

Bare decoding is ``pydicom.dcmread`` and ``pixel_array`` in one process, nothing else: no units, no
hashes, no duplicates, no encoding. Ingest is ``vismae ingest`` with one worker, all of that
included. Run it on an idle machine:

    python benchmarks/ingest.py            # some minutes
    python benchmarks/ingest.py --files 40 --repeats 1

Each ingest is timed over all files and over a quarter of them. The difference is the rate at which
a large archive goes on; all files by themselves also pay for the start of the workers and for the
report, some seconds that do not grow with the archive. Both are printed.

Images are made up: 512x512 slices of 12 stored bits with smooth structure and noise, as a CT has.
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
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
HEADINGS = (
    *("transfer syntax", "bare files/s", "ingest files/s", "ratio", "floor", "ratio with start"),
    *("two workers", "floor", "two with start"),
)
FLOOR_NATIVE, FLOOR_COMPRESSED, FLOOR_TWO_WORKERS = 0.30, 0.70, 1.7


def ct_slice(rng: np.random.Generator, noise: np.ndarray, position: float) -> np.ndarray:
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = (x**2 / 0.8 + y**2 / 0.5) < 1
    structure = 300 * np.sin(6 * x + position) * np.cos(5 * y - position)
    start = int(rng.integers(noise.size - 512 * 512))
    image = np.where(body, 1040 + structure, 24)
    image += noise[start : start + 512 * 512].reshape(512, 512)
    return np.clip(image, 0, 4095).astype(np.uint16)


def write_files(folder: Path, count: int, syntax: str, per_series: int = 40) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 12, 2**22)
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
        pixels = ct_slice(rng, noise, number / 10)
        native = syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
        data.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW"
        if not native:
            data.compress(syntax, generate_instance_uid=False)
        data.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def a_quarter(folder: Path) -> Path:
    """Return a folder with links to the first quarter of the files."""
    quarter = folder.with_name(f"{folder.name}_quarter")
    shutil.rmtree(quarter, ignore_errors=True)  # of a run that was interrupted
    quarter.mkdir()
    paths = sorted(folder.iterdir())
    for path in paths[: len(paths) // 4]:
        os.link(path, quarter / path.name)
    return quarter


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


@dataclass
class Round:
    """Seconds for all files, and for a quarter of them."""

    bare: float
    whole: dict[int, float]
    quarter: dict[int, float]

    def steady(self, workers: int) -> float:
        """Seconds that all files take of a large archive."""
        return (self.whole[workers] - self.quarter[workers]) * 4 / 3


def measure(folder: Path, options: argparse.Namespace) -> list[Round]:
    quarter, store = a_quarter(folder), folder.with_name("store")
    rounds: list[Round] = []
    bare_seconds(folder)
    for _ in range(options.repeats):
        bare = bare_seconds(folder)
        whole = {n: ingest_seconds(folder, store, n, options.encoding) for n in (1, 2)}
        part = {n: ingest_seconds(quarter, store, n, options.encoding) for n in (1, 2)}
        rounds.append(Round(bare, whole, part))
    shutil.rmtree(quarter)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--encoding", choices=("zstd", "raw"), default="zstd")
    parser.add_argument("--syntax", choices=tuple(SYNTAXES), nargs="+", default=list(SYNTAXES))
    parser.add_argument("--folder", type=Path, help="keeps the files made there for another run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        print(f"{options.files} files of 512x512, encoding {options.encoding}, medians")
        print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
        for name in options.syntax:
            folder = root / f"{name.replace(' ', '_')}_{options.files}"
            if not folder.exists():
                write_files(folder, options.files, SYNTAXES[name])
            rounds = measure(folder, options)
            print_row(name, options.files, rounds)
            if options.folder is None:
                shutil.rmtree(folder)


def print_row(name: str, files: int, rounds: list[Round]) -> None:
    floor = FLOOR_NATIVE if "endian" in name else FLOOR_COMPRESSED
    numbers = [
        f"{files / median(r.bare for r in rounds):.0f}",
        f"{files / median(r.steady(1) for r in rounds):.0f}",
        f"{median(r.bare / r.steady(1) for r in rounds):.2f}",
        f"{floor:.2f}",
        f"{median(r.bare / r.whole[1] for r in rounds):.2f}",
        f"{median(r.steady(1) / r.steady(2) for r in rounds):.2f}",
        f"{FLOOR_TWO_WORKERS}",
        f"{median(r.whole[1] / r.whole[2] for r in rounds):.2f}",
    ]
    print(f"| {name} | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    main()
