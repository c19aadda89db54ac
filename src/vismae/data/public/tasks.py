"""What the reader of a public layout finds: tasks, each a table of images with labels.

Readers look at names and small tables; images are opened only where a layout cannot be referred to
(several label maps of one image, arrays in an ``.npz``), and then one at a time.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from vismae.core.errors import DataError


@dataclass(frozen=True)
class TaskRow:
    """One image of a task, or one volume.

    Attributes:
        image: A file, or the name it is to have and its pixels.
        label_map: A file, what computes the class numbers (H, W), or None.
        label: Class name, several joined by ``|``.
        patient_id: The data set's own number of the patient, never divided between splits.
        group_id: What must not be divided either and is not known to be a patient: a lesion, a
            case, or the image itself. It is written even then, so that every ingest divides the
            images alike, whatever its salt.
        volume_id, slice_index: Images that form a volume, and their order in it.
        channel: Which volume of a file of several is the image, counted from 0.
        split: ``train``, ``val``, ``test``, or None where it is to be decided.
        modality: ``ct``, ``mr``, ``pet``, ``xr``, ``us``, or a word of its own.
        more: Further columns, such as a pathology, for subgroups.
    """

    image: Path | tuple[str, np.ndarray]
    label_map: Path | Callable[[], np.ndarray] | None = None
    label: str | None = None
    patient_id: str | None = None
    group_id: str | None = None
    volume_id: str | None = None
    slice_index: int | None = None
    channel: int | None = None
    split: str | None = None
    modality: str | None = None
    more: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PublicTask:
    """A task of a public data set.

    Attributes:
        kind: ``segment`` or ``classify``.
        rows: May be gone through once.
        classes: Names in order, background left out.
        label_values: Value in the label maps -> class number; None where they count 0, 1, 2 ...
        in_channels: 3 where colour carries the answer.
        multi_label: Several classes may be true of one image.
        sequences: Names of what each case has an image of, which are seen together; a row's
            further column ``sequence`` says which it is.
        settings: Further settings of ``vismae finetune`` that the published protocol asks for.
    """

    kind: Literal["segment", "classify"]
    rows: Iterable[TaskRow]
    classes: tuple[str, ...]
    label_values: dict[int, int] | None = None
    in_channels: Literal[1, 3] = 1
    multi_label: bool = False
    sequences: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict[str, object])


def find_folder(root: Path, names: Iterable[str], layout: str) -> Path:
    """Return the first of several folders that exists below ``root``, or ``root`` by that name.

    Raises:
        DataError: None of them is there.
    """
    wanted = tuple(names)
    for name in wanted:
        if (root / name).is_dir():
            return root / name
        if root.is_dir() and root.name.lower() == Path(name).name.lower():
            return root
    raise DataError(
        f"{root}: no folder {' or '.join(wanted)}, which the layout {layout} has. Give the folder "
        "that holds it (docs: public data sets)."
    )


def numbered(folder: Path, pattern: str) -> list[tuple[re.Match[str], Path]]:
    """Return the files of a folder whose whole name fits a pattern, by name.

    Raises:
        DataError: There is none.
    """
    found = [
        (match, path)
        for path in sorted(folder.iterdir())
        if (match := re.fullmatch(pattern, path.name))
    ]
    if not found:
        raise DataError(
            f"{folder}: no file has a name like {pattern}. Check that the archive was unpacked "
            "whole, and that this is the right layout."
        )
    return found


def require_file(path: Path, role: str) -> Path:
    """Return the path if it is a file.

    Raises:
        DataError: It is not there.
    """
    if not path.is_file():
        raise DataError(f"{path}: {role} is missing. Check that the archive was unpacked whole.")
    return path
