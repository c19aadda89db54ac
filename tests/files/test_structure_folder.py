from pathlib import Path

import numpy as np
import pytest

from factories import write_nifti
from vismae.core.config import IngestConfig
from vismae.core.errors import UnreadableFileError
from vismae.files.discover import source_file
from vismae.files.label_place import ImageBlock
from vismae.files.read import read_image
from vismae.files.structure_folder import read_structure_folder, structure_files
from vismae.workflows.ingest import IngestResult, ingest

VOLUME = np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16)
BODY = np.ones(VOLUME.shape, np.uint8)
TUMOUR = np.zeros(VOLUME.shape, np.uint8)
TUMOUR[2:4, 1:3, 1] = 1


def write_case(folder: Path, **structures: np.ndarray) -> Path:
    write_nifti(folder / "ct.nii.gz", VOLUME)
    for name, voxels in structures.items():
        write_nifti(folder / "segmentations" / f"{name}.nii.gz", voxels)
    return folder


def run(source: Path, store: Path) -> IngestResult:
    return ingest(IngestConfig(sources=(source,), store=store, executor="here"))


def test_each_file_is_a_class_and_a_small_one_stays_visible(tmp_path: Path) -> None:
    write_case(tmp_path / "in" / "s1", tumour=TUMOUR, body=BODY, spleen=0 * BODY)
    write_case(tmp_path / "in" / "s2", body=BODY, aorta=TUMOUR * 255)

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (8, {})
    names = result.store.classes
    assert names == {1: "aorta", 2: "body", 3: "spleen", 4: "tumour"}
    counts = [
        dict(zip(*np.unique(result.store.read(row).label_map, return_counts=True), strict=True))
        for row in range(8)
    ]
    assert [{names[int(value)]: int(n) for value, n in found.items()} for found in counts] == [
        {"body": 26, "tumour": 4} if row == 1 else {"body": 26, "aorta": 4} if row == 5
        else {"body": 30}
        for row in range(8)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (BODY[:, :, :3], "label-geometry"),
        (BODY + TUMOUR, "label-format"),
    ],
)
def test_a_structure_that_cannot_be_used_leaves_the_image(
    tmp_path: Path, spoilt: np.ndarray, reason: str
) -> None:
    write_case(tmp_path / "in" / "s1", body=BODY, tumour=spoilt)

    result = run(tmp_path / "in", tmp_path / "s")

    assert (result.stored, result.reasons) == (4, {reason: 1})
    assert not result.store.index["has_label_map"].any()


def test_a_folder_without_structures_is_none(tmp_path: Path) -> None:
    (image,) = read_image(source_file(write_nifti(tmp_path / "ct.nii.gz", VOLUME)))
    (tmp_path / "segmentations").mkdir()
    (tmp_path / "segmentations" / "notes.txt").touch()

    assert structure_files(tmp_path / "segmentations") == {}
    with pytest.raises(UnreadableFileError, match="0 structures"):
        read_structure_folder(tmp_path / "segmentations", ImageBlock(image, 0, 4), (), lambda: None)
