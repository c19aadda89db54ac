"""Cases of two sequences as real NIfTI files, with a structure that shows only in both together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from factories import write_nifti

SEQUENCES = ("T1", "FLAIR")
VOXELS = np.array([[-1.0, 0, 0, 7.0], [0, 1.5, 0, -4.0], [0, 0, 3.0, 2.0], [0, 0, 0, 1.0]])
"""A place in space with voxels of three lengths and a turned axis."""


def case_volumes(seed: int, size: tuple[int, int, int] = (32, 28, 3)) -> list[np.ndarray]:
    """Return both sequences and the label map: squares in one, in the other, or (1) in both.

    The sequences are on scales of their own, as those of a scanner are.
    """
    rng = np.random.default_rng(seed)
    shown = np.zeros((2, *size), dtype=bool)
    for number in range(size[2]):
        places = rng.permutation([(1, 2), (1, 15), (17, 2), (17, 15)])
        for place, seen in zip(places, ((0,), (1,), (0, 1)), strict=False):
            top, left = place + rng.integers(0, 3, 2)
            for sequence in seen:
                shown[sequence, top : top + 10, left : left + 9, number] = True
    volumes = [
        ((100 + 60 * rng.random(size) + 400 * found) * scale).astype(np.int16)
        for found, scale in zip(shown, (1.0, 7.0), strict=True)
    ]
    return [*volumes, shown.all(axis=0).astype(np.uint8)]


def write_cases(folder: Path, splits: Sequence[str], label_on: Sequence[int] = (0, 1)) -> Path:
    """Write ``CASE_0000.nii.gz`` and so on of cases P0, P1, ... and their manifest.

    Args:
        folder: Where to.
        splits: Of each case.
        label_on: Sequences whose rows name the label map.
    """
    lines = ["path,label_map,label,group_id,sequence,split,modality"]
    for number, split in enumerate(splits):
        *volumes, label_map = case_volumes(number)
        write_nifti(folder / f"L{number}.nii.gz", label_map, VOXELS)
        for sequence, volume in enumerate(volumes):
            name = f"P{number}_{sequence:04d}.nii.gz"
            write_nifti(folder / name, volume, VOXELS)
            label = f"L{number}.nii.gz" if sequence in label_on else ""
            word = ("odd" if number % 2 else "even") if sequence in label_on else ""
            lines.append(f"{name},{label},{word},P{number},{SEQUENCES[sequence]},{split},mr")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest
