"""AMOS22: abdominal CT and MR with 15 organs.

``imagesTr/amos_0001.nii.gz``, ``labelsTr/``, ``imagesVa/``, ``labelsVa/``, and ``imagesTs/``
without labels. Ji et al., NeurIPS 2022 (arXiv 2206.08023): numbers up to 500 are CT, those above
are MR.
"""

from collections.abc import Iterator
from pathlib import Path

from vismae.data.public.tasks import PublicTask, TaskRow, find_folder, numbered, require_file

ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach"),
    *("aorta", "inferior vena cava", "pancreas", "right adrenal gland", "left adrenal gland"),
    *("duodenum", "bladder", "prostate or uterus"),
)
_LAST_CT = 500


def read_amos(root: Path) -> list[PublicTask]:
    """Return 15 organs; the official validation patients are the test patients.

    The labels of the official test patients are not public.
    """
    images = find_folder(root, ("imagesTr", "amos22/imagesTr"), "amos22")
    return [PublicTask("segment", tuple(_rows(images.parent)), ORGANS)]


def _rows(root: Path) -> Iterator[TaskRow]:
    tested = (root / "imagesVa").is_dir()
    for ending, split in (("Tr", "train"), ("Va", "test")) if tested else (("Tr", None),):
        images = root / f"images{ending}"
        for match, image in numbered(images, r"amos_(\d{4})\.nii(\.gz)?"):
            label_map = root / f"labels{ending}" / image.name
            yield TaskRow(
                image,
                require_file(label_map, f"the label map of {image.name}"),
                patient_id=f"amos_{match[1]}",
                split=split,
                modality="ct" if int(match[1]) <= _LAST_CT else "mr",
            )
