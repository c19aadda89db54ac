"""ISIC 2018: dermoscopy; lesion outlines (task 1) and seven diagnoses (task 3).

``ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg`` with
``ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png``, and
``ISIC2018_Task3_Training_Input/`` with
``ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv``; also Validation
and Test. Codella et al., arXiv 1902.03368. Photographs of one lesion share an id in
``ISIC2018_Task3_Training_LesionGroupings.csv`` and are never divided; patients are not known.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from vismae.core.errors import DataError
from vismae.data.public.tasks import PublicTask, TaskRow, numbered, require_file

_STAGES = (("Training", "train"), ("Validation", "val"), ("Test", "test"))
DIAGNOSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
MODALITY = "dermoscopy"


def read_isic(root: Path) -> list[PublicTask]:
    """Return the tasks whose folders are there.

    Raises:
        DataError: Neither task is there, or a table does not fit.
    """
    tasks = []
    outlines = tuple(_outlines(root))
    if outlines:
        tasks.append(PublicTask("segment", outlines, ("lesion",), {0: 0, 255: 1}, in_channels=3))
    diagnoses = tuple(_diagnoses(root))
    if diagnoses:
        tasks.append(PublicTask("classify", diagnoses, DIAGNOSES, in_channels=3))
    if not tasks:
        raise DataError(
            f"{root}: neither ISIC2018_Task1-2_Training_Input with its GroundTruth nor "
            "ISIC2018_Task3_Training_Input is there. Unpack the archives of the challenge here."
        )
    return tasks


def _outlines(root: Path) -> Iterator[TaskRow]:
    for stage, split in _STAGES:
        images = root / f"ISIC2018_Task1-2_{stage}_Input"
        drawn = root / f"ISIC2018_Task1_{stage}_GroundTruth"
        if not (images.is_dir() and drawn.is_dir()):
            continue
        for match, image in numbered(images, r"(ISIC_\d+)\.jpe?g"):
            label_map = drawn / f"{match[1]}_segmentation.png"
            yield TaskRow(
                image,
                require_file(label_map, f"the label map of {image.name}"),
                group_id=match[1],
                split=split,
                modality=MODALITY,
            )


def _diagnoses(root: Path) -> Iterator[TaskRow]:
    for stage, split in _STAGES:
        images = root / f"ISIC2018_Task3_{stage}_Input"
        table = _beside(root, f"ISIC2018_Task3_{stage}_GroundTruth")
        if not images.is_dir() or table is None:
            continue
        lesions = _lesions(_beside(root, f"ISIC2018_Task3_{stage}_LesionGroupings"))
        for line, cells in enumerate(_read_csv(table), start=2):
            missing = [name for name in ("image", *DIAGNOSES) if name not in cells]
            if missing:
                raise DataError(
                    f"{table}: no column {missing[0]}. Expected image, {', '.join(DIAGNOSES)}."
                )
            try:
                true = [name for name in DIAGNOSES if float(cells[name] or 0) == 1.0]
            except ValueError as error:
                raise DataError(
                    f"{table}, line {line}: {error}. Diagnoses are 0 or 1; correct the table."
                ) from error
            if len(true) != 1:
                raise DataError(
                    f"{table}, line {line}: {len(true)} diagnoses are 1, expected one. Correct "
                    "the table."
                )
            name = cells["image"]
            yield TaskRow(
                images / f"{name}.jpg",
                label=true[0],
                group_id=lesions.get(name) or name,
                split=split,
                modality=MODALITY,
            )


def _beside(root: Path, name: str) -> Path | None:
    """Return a table that lies in a folder of its own name, or loose."""
    places = (root / name / f"{name}.csv", root / f"{name}.csv")
    return next((path for path in places if path.is_file()), None)


def _lesions(table: Path | None) -> dict[str, str]:
    """Return image -> lesion."""
    if table is None:
        return {}
    return {cells.get("image", ""): cells.get("lesion_id", "") for cells in _read_csv(table)}


def _read_csv(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no csv table in UTF-8 ({error}). Fetch it again.") from error
