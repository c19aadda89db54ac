"""The shell blocks of the documentation, and the phantom data that they speak of.

A block whose info string names a word, as ```` ```bash {.cluster} ```` does, needs what a test has
not: a cluster, an engine for containers, an installation, or data that somebody else publishes.
"""

import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vismae
from factories import write_nifti, write_png
from models_on_disk import write_classifier, write_mae, write_segmenter
from vismae.core.preprocessing import Preprocessing
from vismae.files.phantom_archive import PhantomArchive, write_phantom_archive

ROOT = Path(__file__).resolve().parents[1]
MARKS = {"cluster", "docker", "install", "data"}

_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_INFO = re.compile(
    r"(?P<language>[a-z]*)(?: \{\.(?P<mark>[a-z]+)\})?(?: title=\"(?P<title>[^\"]+)\")?"
)
_SHELL = ("bash", "sh", "shell", "console")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes:
        language: First word of its info string; may be empty.
        mark: What it needs that a test has not, or None.
        title: Name of the file whose content it is, or None.
        text: Between the fences.
    """

    language: str
    mark: str | None
    title: str | None
    text: str

    @property
    def runs(self) -> bool:
        """Whether it is shell that a test runs."""
        return self.language in _SHELL and self.mark is None


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page.

    Raises:
        ValueError: A fence that the site would not show as a block.
    """
    found = []
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        info = _INFO.fullmatch(block["info"])
        if info is None or (info["mark"] and info["mark"] not in MARKS):
            raise ValueError(
                f"{page.name}: ```{block['info']} is no block of the site. Write ```bash, or "
                f"```bash {{.WORD}} with one of {', '.join(sorted(MARKS))}."
            )
        found.append(Block(info["language"], info["mark"], info["title"], block["text"]))
    return found


def write_world(folder: Path) -> None:
    """Write what pages take for granted: images, tasks and model folders, all of phantoms."""
    archive = write_phantom_archive(
        folder / "archive",
        patients=2,
        size=64,
        slices_per_volume=4,
        ultrasound_frames=2,
        segmentation_patients=(6, 2, 2),
        segmentation_slices=2,
        classification_patients=(6, 2, 4),
        classification_slices=2,
    )
    shutil.copytree(archive.unlabelled, folder / "scans", ignore=_tables)
    shutil.copytree(archive.segmentation_manifest.parent, folder / "task")
    shutil.copytree(archive.classification_manifest.parent, folder / "cases")
    for name, seed in (("oct", 0), ("fundus", 10)):
        for number in range(8):
            noise = np.random.default_rng(seed + number).integers(0, 255, (64, 64), np.uint8)
            write_png(folder / name / f"{number}.png", noise)
    _write_zip(folder / "more.zip", sorted((folder / "scans" / "us").iterdir()))
    _write_zip(folder / "series.zip", sorted(_series(archive).iterdir()))
    shutil.copytree(_series(archive), folder / "ct")
    shutil.copytree(ROOT / "configs", folder / "configs")
    volume = np.random.default_rng(0).normal(0, 300, (40, 32, 6)).astype(np.int16)
    write_nifti(folder / "ct.nii.gz", volume)
    write_nifti(folder / "images" / "ct.nii.gz", volume)
    write_png(folder / "film.png", np.eye(64, dtype=np.uint8) * 255)
    write_nifti(folder / "head_T1w.nii.gz", np.tile(volume - volume.min(), (1, 1, 10)))
    contract = Preprocessing(image_size=(64, 64))
    for name in ("runs/segment", "runs/task", "fold1", "fold2"):
        write_segmenter(folder / name / "model", preprocessing=contract)
    write_classifier(folder / "runs/classify/model", preprocessing=contract)
    write_mae(folder / "runs/pretrain/model", preprocessing=contract)
    vismae.ingest(folder / "scans", store=folder / "store", executor="here")
    shutil.rmtree(archive.folder)


def write_program(folder: Path) -> Path:
    """Write a folder with the commands ``vismae`` (see ``docs_vismae``) and ``python`` for PATH."""
    folder.mkdir(parents=True)
    script = Path(__file__).with_name("docs_vismae.py")
    for name, words in (("vismae", f'"{sys.executable}" "{script}"'), ("python", sys.executable)):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    return folder


def _tables(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".csv")]


def _series(archive: PhantomArchive) -> Path:
    return min(path for path in (archive.unlabelled / "ct").iterdir() if path.is_dir())


def _write_zip(path: Path, files: list[Path]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.name)
