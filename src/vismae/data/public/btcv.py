"""BTCV ("Synapse multi-organ"): abdominal CT of 30 patients with 13 organs.

``Training/img/img0001.nii.gz``, ``Training/label/label0001.nii.gz``, perhaps below ``RawData/``; or
as tutorials arrange the same files, ``imagesTr/img0001.nii.gz`` and ``labelsTr/label0001.nii.gz``.
Landman et al., MICCAI 2015 workshop "Multi-Atlas Labeling Beyond the Cranial Vault".

``synapse`` is the protocol that Swin-Unet and others publish on the same files: eight organs, 18
training and 12 test patients (TransUNet, arXiv 2102.04306), HU from -125 to 275.
"""

from pathlib import Path

from vismae.data.public.tasks import PublicTask, TaskRow, find_folder, numbered, require_file

ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach"),
    *("aorta", "inferior vena cava", "portal and splenic vein", "pancreas"),
    *("right adrenal gland", "left adrenal gland"),
)
SYNAPSE_ORGANS = (
    *("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen"),
    "stomach",
)
SYNAPSE_TEST = frozenset((1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38))


def read_btcv(root: Path) -> list[PublicTask]:
    """Return 13 organs; test patients are to be chosen, for the official ones have no labels."""
    return [PublicTask("segment", _rows(root, "btcv"), ORGANS)]


def read_synapse(root: Path) -> list[PublicTask]:
    """Return eight organs with the 12 test patients of TransUNet."""
    values = {value: 0 for value in range(len(ORGANS) + 1)}
    for number, organ in enumerate(SYNAPSE_ORGANS, start=1):
        values[ORGANS.index(organ) + 1] = number
    return [
        PublicTask(
            "segment",
            _rows(root, "synapse"),
            SYNAPSE_ORGANS,
            values,
            settings={"preprocessing": {"ct_window_hu": [-125.0, 275.0]}},
        )
    ]


def _rows(root: Path, layout: str) -> tuple[TaskRow, ...]:
    found = find_folder(root, ("Training", "RawData/Training", "imagesTr"), layout)
    if found.name == "imagesTr":
        images, labels = found, found.with_name("labelsTr")
    else:
        images, labels = find_folder(found, ("img",), layout), found / "label"
    rows = []
    for match, image in numbered(images, r"img(\d{4})\.nii(\.gz)?"):
        label_map = labels / f"label{match[1]}.nii{match[2] or ''}"
        split = None
        if layout == "synapse":
            split = "test" if int(match[1]) in SYNAPSE_TEST else "train"
        rows.append(
            TaskRow(
                image,
                require_file(label_map, f"the label map of {image.name}"),
                patient_id=f"case{match[1]}",
                split=split,
                modality="ct",
            )
        )
    return tuple(rows)
