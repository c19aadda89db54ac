"""What a user may name as data, and what it is taken for.

* a csv file, or a ``.tsv`` or ``.txt`` with the columns of one: a manifest
* a folder with ``manifest.csv``: that manifest
* a folder with ``train_fold1.csv`` (``val_``, ``test_``): the reference's layout; the file gives
  the split
* a folder of one sub-folder per class, also within train/ val/ test/: labels (classification only)
* a folder where images and label maps lie in a known order (``data.pairing``): a manifest made of
  them
* any other folder, file or zip archive: images without annotation
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vismae.core.errors import DataError
from vismae.data.manifest import (
    MANIFEST_FILE,
    SPLIT_WORDS,
    FileReference,
    ManifestRow,
    ManifestTable,
    is_table,
)
from vismae.data.pairing import Pairing, find_pairs

Task = Literal["segment", "classify"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """A table of images.

    Attributes:
        folder: Where its paths start from.
        rows: One per image file; may be gone through any number of times.
        fold: The cross-validation fold that the rows' ``split`` stands for, if any.
        unpaired: Label maps of a folder that belong to no image.
        class_names: Value in the label maps -> name, background left out; empty if not known.
        table: The csv, where it is one; a folder may hold several.
    """

    folder: Path
    rows: Iterable[ManifestRow]
    fold: int | None = None
    unpaired: tuple[Path, ...] = ()
    class_names: Mapping[int, str] = field(default_factory=dict)
    table: Path | None = None

    @property
    def origin(self) -> Path:
        """The csv or the folder: what tells it from other sources."""
        return self.table or self.folder


@dataclass(frozen=True)
class PlainSource:
    """A folder, file or zip archive; label and split hold for everything in it.

    Attributes:
        path: What to look through.
        name: Short name that stays the same on another machine.
    """

    path: Path
    name: str
    label: str | None = None
    split: str | None = None


DataSource = Manifest | PlainSource


def resolve_data(
    sources: Sequence[Path],
    task: Task | None = None,
    fold: int | None = None,
    keep_columns: Sequence[str] = (),
) -> list[DataSource]:
    """Return what each source is, with the tables read.

    Args:
        sources: Folders, files, zip archives, csv manifests.
        task: What the images are for: ``segment`` needs label maps, ``classify`` needs labels and
            reads folders of classes; None takes any images.
        fold: Which of the reference's fold files to take; 1 or the lowest when None. A folder
            with the files of a single other fold is taken with that fold's test images kept and
            ``Manifest.fold`` None, so that train and val are divided anew.
        keep_columns: Further columns of the manifests.

    Raises:
        DataError: A source does not exist, a table cannot be understood, or the task's labels
            are nowhere.
    """
    if not sources:
        raise DataError(
            "No data was named. Give a folder, a file, a zip archive or a csv manifest."
        )
    resolved: list[DataSource] = []
    for source in sources:
        if not source.exists():
            raise DataError(f"{source}: no such file or folder. Check the path.")
        resolved.extend(_resolve(source, task, fold, keep_columns))
    # A folder and the manifest in it are the same table, however often they are named.
    once = {(type(found), _origin(found).resolve()): found for found in reversed(resolved)}
    resolved = [found for found in resolved if once[type(found), _origin(found).resolve()] is found]
    _require_annotation(resolved, task)
    return resolved


def _origin(source: DataSource) -> Path:
    return source.origin if isinstance(source, Manifest) else source.path


def _resolve(
    source: Path, task: Task | None, fold: int | None, keep_columns: Sequence[str]
) -> list[DataSource]:
    if source.is_file():
        if is_table(source):
            return [Manifest(source.parent, ManifestTable(source, keep_columns), table=source)]
        return [PlainSource(source, source.name)]
    manifest = source / MANIFEST_FILE
    if manifest.is_file():
        return [Manifest(source, ManifestTable(manifest, keep_columns), table=manifest)]
    folds = fold_tables(source)
    if folds:
        return [_reference_layout(source, folds, fold, keep_columns)]
    if task == "classify":
        return _class_folders(source)
    pairing = find_pairs(source)
    if pairing is not None:
        if task == "segment" and pairing.channels:
            logger.warning(
                "%s: each of the channels %s becomes an image of its own, with the label map of "
                "its case. To learn from all together: vismae convert nnunet FOLDER; from one of "
                "them: --channel NAME",
                source,
                ", ".join(pairing.channels),
            )
        return [_paired(source, pairing)]
    return [PlainSource(source, source.resolve().name)]


def _paired(folder: Path, pairing: Pairing) -> Manifest:
    """Return the manifest of a folder of pairs, and of all else that it holds."""
    rows = [
        ManifestRow(
            name=found.image.relative_to(folder).as_posix(),
            image=FileReference(found.image),
            label_map=None if found.label_map is None else FileReference(found.label_map),
            patient_id=found.group,
            group_kind=found.group_kind,
            modality=found.modality,
            split=found.split,
        )
        for found in [*pairing.images, *pairing.rest]
    ]
    return Manifest(
        folder, tuple(rows), unpaired=tuple(pairing.unpaired), class_names=pairing.class_names
    )


def fold_tables(folder: Path) -> dict[int, dict[str, Path]]:
    """Return the tables of the reference's layout: fold number -> split -> csv."""
    folds: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.glob("*_fold*.csv")):
        found = re.fullmatch(r"(\w+?)_fold(\d+)", path.stem)
        split = SPLIT_WORDS.get(found[1].lower()) if found else None
        if found and split:
            folds.setdefault(int(found[2]), {})[split] = path
    return folds


def _reference_layout(
    folder: Path,
    folds: dict[int, dict[str, Path]],
    wanted: int | None,
    keep_columns: Sequence[str],
) -> Manifest:
    taken = wanted if wanted is not None else min(folds)
    fold: int | None = taken
    if taken not in folds:
        if len(folds) > 1:
            raise DataError(
                f"{folder}: fold {taken} is not there, found the folds "
                f"{', '.join(map(str, sorted(folds)))}. Choose one of them with --fold."
            )
        taken, fold = min(folds), None
        logger.info(
            "%s has the files of fold %d only: its test images stay, train and val are divided",
            folder,
            taken,
        )
    rows = [
        row
        for split, path in sorted(folds[taken].items())
        for row in ManifestTable(path, keep_columns, split=split)
    ]
    return Manifest(folder, tuple(rows), fold)


def _class_folders(folder: Path) -> list[DataSource]:
    children = _subfolders(folder)
    if children and all(child.name.lower() in SPLIT_WORDS for child in children):
        labelled = [
            (SPLIT_WORDS[child.name.lower()], class_folder)
            for child in children
            for class_folder in _subfolders(child)
        ]
    else:
        labelled = [(None, child) for child in children]
    root = folder.resolve()
    return [
        PlainSource(path, f"{root.name}/{path.relative_to(folder).as_posix()}", path.name, split)
        for split, path in labelled
    ]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))
    )


def _require_annotation(sources: Sequence[DataSource], task: Task | None) -> None:
    if task is None:
        return
    rows = [row for source in sources if isinstance(source, Manifest) for row in source.rows]
    if task == "segment" and not any(row.label_map for row in rows):
        raise DataError(
            "No image has a label map. Segmentation needs a csv manifest with the columns path "
            "and label_map or mask in it, or a folder with manifest.csv, train_fold1.csv, or "
            "images and label maps in a known order, such as imagesTr beside labelsTr."
        )
    labels = [row.label for row in rows] + [
        source.label for source in sources if isinstance(source, PlainSource)
    ]
    if task == "classify" and not any(labels):
        raise DataError(
            "No image has a label. Classification needs a csv manifest with the columns path and "
            "label, a folder with one sub-folder per class, or one that holds train_fold1.csv."
        )
