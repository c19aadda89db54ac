"""``vismae convert``: a public data set becomes tables and settings for finetune and study.

``OUT/segment/manifest.csv`` and ``OUT/segment/task.yaml`` (or ``classify``) refer to the files
where they lie. Only what no file holds as it is needed is written: united label maps, images out
of ``.npz`` archives.
"""

import csv
import io
import logging
import os
import shlex
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import yaml
from PIL import Image

from vismae.core.config import ConvertConfig
from vismae.core.errors import DataError, SettingError
from vismae.core.rundir import open_run, write_text
from vismae.data.manifest import IMAGE_ARCHIVE, MANIFEST_FILE, SEQUENCE_COLUMN
from vismae.data.public.layouts import READERS
from vismae.data.public.nnunet import read_nnunet
from vismae.data.public.tasks import PublicTask, TaskRow

TASK_FILE = "task.yaml"
_COLUMNS = (
    *("path", "label_map", "label", "patient_id", "group_id", "volume_id", "slice_index"),
    *("channel", "split", "modality"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertedTask:
    """One task that was written.

    Attributes:
        kind: ``segment`` or ``classify``.
        config: Settings file for ``vismae finetune``.
        images: Number of images (a volume counts as one, and so do all sequences of a case).
        patients: Number of patients, or of groups of images where those are not known.
        splits: Number of images of each split; ``to be decided`` where there is none.
    """

    kind: str
    config: Path
    images: int
    patients: int
    splits: dict[str, int]


@dataclass(frozen=True)
class ConvertResult:
    """What was made of a data set."""

    tasks: tuple[ConvertedTask, ...]

    def summary(self) -> str:
        """Say what was found and how to go on."""
        lines = []
        for task in self.tasks:
            splits = ", ".join(f"{split} {count}" for split, count in task.splits.items())
            lines.append(
                f"{task.kind}: {task.images} images of {task.patients} patients or groups "
                f"({splits}). Next: vismae finetune {task.kind} "
                f"--config {shlex.quote(str(task.config))} --out RUN"
            )
        return "\n".join(lines)


def convert(config: ConvertConfig) -> ConvertResult:
    """Read a public layout and write a manifest and settings for each of its tasks.

    Raises:
        DataError: The folder does not have the layout; says what is missing.
        SettingError: A setting belongs to another layout.
        RunFolderError: The output folder cannot be used.
    """
    if not config.source.exists():
        raise DataError(f"{config.source}: no such file or folder. Check the path.")
    tasks = _read(config)
    with open_run(config.out, "convert", config, overwrite=config.overwrite) as folder:
        return ConvertResult(tuple(_Writer(task, folder / task.kind).write() for task in tasks))


def _read(config: ConvertConfig) -> list[PublicTask]:
    if config.layout == "nnunet":
        return read_nnunet(config.source, config.fold, config.channel)
    if config.fold is not None or config.channel is not None:
        raise SettingError(
            f"fold and channel belong to the layout nnunet; {config.layout} has neither. Choose "
            "the fold of vismae finetune (--fold) instead."
        )
    return READERS[config.layout](config.source)


class _Writer:
    """Writes one task, row by row."""

    def __init__(self, task: PublicTask, folder: Path) -> None:
        self._task = task
        self._folder = folder
        self._splits: Counter[str] = Counter()
        self._groups: set[str] = set()
        self._archive: zipfile.ZipFile | None = None

    def write(self) -> ConvertedTask:
        self._folder.mkdir(parents=True)
        path = self._folder / MANIFEST_FILE
        try:
            with path.open("w", newline="", encoding="utf-8") as file:
                self._write_rows(file, self._task.rows)
        finally:
            if self._archive is not None:
                self._archive.close()
        config = self._folder / TASK_FILE
        write_text(config, yaml.safe_dump(self._settings(), sort_keys=False, allow_unicode=True))
        return ConvertedTask(
            self._task.kind,
            config,
            self._splits.total(),
            len(self._groups),
            dict(sorted(self._splits.items())),
        )

    def _write_rows(self, file: TextIO, rows: Iterable[TaskRow]) -> None:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            cells = self._cells(row)
            if writer is None:
                writer = csv.DictWriter(file, [*_COLUMNS, *row.more], extrasaction="raise")
                writer.writeheader()
            writer.writerow(cells)
            # The sequences of a case are one image, which its first row counts for.
            if row.more.get(SEQUENCE_COLUMN) in (None, *self._task.sequences[:1]):
                self._splits[row.split or "to be decided"] += 1
            self._groups.add(row.patient_id or row.group_id or row.volume_id or str(cells["path"]))
        if writer is None:
            raise DataError(f"{self._folder.name}: the data set holds no image.")

    def _cells(self, row: TaskRow) -> dict[str, object]:
        if isinstance(row.image, Path):
            name = self._relative(row.image)
        else:
            name, pixels = row.image
            self._store_image(name, pixels)
        return {
            "path": name,
            "label_map": self._label_map(row),
            "label": row.label or "",
            "patient_id": row.patient_id or "",
            "group_id": row.group_id or "",
            "volume_id": row.volume_id or "",
            "slice_index": "" if row.slice_index is None else row.slice_index,
            "channel": "" if row.channel is None else row.channel,
            "split": row.split or "",
            "modality": row.modality or "",
            **row.more,
        }

    def _label_map(self, row: TaskRow) -> str:
        if self._task.kind != "segment" or row.label_map is None:
            return ""
        if isinstance(row.label_map, Path):
            return self._relative(row.label_map)
        return self._store_label_map(row.image, row.label_map)

    def _store_label_map(
        self, image: Path | tuple[str, np.ndarray], draw: Callable[[], np.ndarray]
    ) -> str:
        name = Path(image.name if isinstance(image, Path) else image[0]).with_suffix(".png").name
        path = self._folder / "label_maps" / name
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            raise DataError(f"Two images are called {name}. Rename one of them.")
        Image.fromarray(draw()).save(path)
        return path.relative_to(self._folder).as_posix()

    def _store_image(self, name: str, pixels: np.ndarray) -> None:
        if self._archive is None:
            # PNG is compressed already.
            self._archive = zipfile.ZipFile(
                self._folder / IMAGE_ARCHIVE, "w", compression=zipfile.ZIP_STORED
            )
        if pixels.dtype != np.uint8:
            raise DataError(f"{name}: pixels are {pixels.dtype}; expected 8-bit ones (uint8).")
        data = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(data, "png")
        self._archive.writestr(name, data.getvalue())

    def _relative(self, path: Path) -> str:
        """Return the path from the manifest, so that all may move together.

        A file that is a link keeps its own name; what it leads to may be called anything.
        """
        place = path.parent.resolve() / path.name
        return Path(os.path.relpath(place, self._folder.resolve())).as_posix()

    def _settings(self) -> dict[str, object]:
        """Return settings of ``vismae finetune`` for the task."""
        task: dict[str, object] = {"kind": self._task.kind, "classes": list(self._task.classes)}
        if self._task.kind == "segment" and self._task.classes:
            # Written out even where they count 0, 1, 2 ...: a copy of some patients may lack a
            # class, and the values found would then be counted anew.
            counted = {value: value for value in range(len(self._task.classes) + 1)}
            task["label_values"] = dict(self._task.label_values or counted)
        if self._task.multi_label:
            task["multi_label"] = True
        settings: dict[str, object] = {
            "task": task,
            "data": {"sources": [str((self._folder / MANIFEST_FILE).resolve())]},
            **self._task.settings,
        }
        if self._task.in_channels == 3:
            settings["model"] = {"in_channels": 3}
        if self._task.sequences:
            settings["model"] = {"sequences": list(self._task.sequences)}
        return settings
