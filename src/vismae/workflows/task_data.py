"""The labelled data of a task: which rows learn, validate and test, and what the labels mean."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor, tensor

from vismae.core.config import FinetuneConfig
from vismae.core.errors import DataError
from vismae.core.launch import is_main_process
from vismae.core.model_card import TaskCard
from vismae.core.rundir import write_text
from vismae.data.labels import (
    apply_mapping,
    classes_from_labels,
    doubtful_classes,
    encode_labels,
    label_mapping,
    names_by_class,
    refuse_class_names,
    refuse_not_annotated,
    segmentation_class_names,
)
from vismae.data.manifest import SEQUENCE_COLUMN
from vismae.data.splits import (
    fold_split,
    label_fraction_patients,
    patients_of,
    read_patients_csv,
    split_patients,
    write_splits_csv,
)
from vismae.data.store import Store
from vismae.data.store_files import is_remote
from vismae.training.trainer import resume_step
from vismae.workflows.case_selection import fitting_rows, one_row_each, seen_rows
from vismae.workflows.preparation import of_modality, open_images
from vismae.workflows.same_images import store_as_begun

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("patient_id", "modality", "split", "label", "has_label_map")
# Class shares are a matter of percents; this many label maps give them.
_MOST_COUNTED_LABEL_MAPS = 500


@dataclass(frozen=True)
class TaskData:
    """What fine-tuning learns from.

    Attributes:
        store: Where the images are.
        train, val, test: Row numbers of the store.
        withheld: Those of training patients that the label fraction leaves out.
        pretraining: All images of training patients, with labels or without.
        card: Classes and the meaning of label values.
        sequences: That are seen together; a row above then stands for all of its slice.
        labels: Of every row of the store (classification; rows without one hold -1 or zeros).
    """

    store: Store
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    withheld: np.ndarray
    pretraining: np.ndarray
    card: TaskCard
    sequences: tuple[str, ...] = ()
    labels: np.ndarray | None = None

    @property
    def training_index(self) -> pd.DataFrame:
        """Modality and unit of the images that are learnt from."""
        return self.store.columns(["modality", "unit"], self.seen(self.train))

    def seen(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all images that the network is shown for some rows."""
        return seen_rows(self.store, self.sequences, rows)


def open_task_data(config: FinetuneConfig, folder: Path) -> TaskData:
    """Ingest the task's images where needed, divide them by patient, and read the classes.

    Raises:
        DataError: There are no labels, or splits or classes do not fit.
    """
    sequences = config.model.sequences
    store = _open_store(config, folder)
    index = store.columns(LABEL_COLUMNS)
    rows, splits = divide_task(store, config, fitting_rows(store, sequences, folder))
    if is_main_process():
        write_splits_csv(folder / "splits.csv", splits)
    chosen = _labelled_patients(rows, patients_of(splits, ["train"]), config)
    if is_main_process():
        write_text(
            folder / "training_patients.csv",
            pd.DataFrame({"patient_id": chosen}).to_csv(index=False),
        )

    def rows_of(patients: Iterable[str]) -> np.ndarray:
        return rows.index[rows["patient_id"].isin(set(patients))].to_numpy()

    train = rows_of(chosen)
    val, test = (rows_of(patients_of(splits, [split])) for split in ("val", "test"))
    of_training = set(patients_of(splits, ["train"]))
    withheld = rows_of(of_training - set(chosen))
    everything = of_modality(index, config.data.modality, store.address)
    held_out = set(patients_of(splits, ["val", "test"]))
    learns = everything["patient_id"].isin(of_training) | (everything["split"] == "train")
    kept = everything["patient_id"].isin(held_out) | everything["split"].isin(["val", "test"])
    pretraining = everything.index[learns & ~kept].to_numpy()
    logger.info(
        "%d training images of %d patients or groups (%.0f %% of the labels), %d for validation, "
        "%d left for testing",
        len(train),
        len(chosen),
        100 * len(chosen) / max(1, len(patients_of(splits, ["train"]))),
        len(val),
        len(test),
    )
    card = task_card(store, rows, config)
    labels = None if config.task.kind == "segment" else _encode_all(index, rows, card)
    return TaskData(store, train, val, test, withheld, pretraining, card, sequences, labels)


def _open_store(config: FinetuneConfig, folder: Path) -> Store:
    sources, into, sequences = config.data.sources, folder / "store", config.model.sequences
    if not config.resume or any(map(is_remote, sources)):
        return open_images(sources, into, config.task.kind, config.fold, sequences)
    return store_as_begun(
        sources,
        into,
        None,
        goes_on=resume_step(folder) > 0,
        cure="begin anew with --overwrite or another --out",
        task=config.task.kind,
        fold=config.fold,
        keep_column=(SEQUENCE_COLUMN,) if sequences else (),
    )


def _labelled_patients(
    rows: pd.DataFrame, training: list[str], config: FinetuneConfig
) -> list[str]:
    """Return the training patients whose labels are used, sorted."""
    if config.labelled is None:
        return label_fraction_patients(rows, training, config.label_fraction, config.subset_seed)
    listed = read_patients_csv(config.labelled)
    strangers = sorted(listed - set(training))
    if strangers or not listed:
        found = f"'{strangers[0]}' is no training patient" if strangers else "it lists nobody"
        raise DataError(
            f"{config.labelled}: {found} ({len(strangers)} of {len(listed)} are not). List ids of "
            "the split train, as training_patients.csv of a run has them."
        )
    return sorted(listed)


def divide_task(
    store: Store, config: FinetuneConfig, usable: np.ndarray | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the labelled rows of a task, labelled by row number, and patient -> split.

    No seed enters: runs that differ in seed or label fraction must share their test patients.

    Args:
        store: Where the images are.
        config: The settings.
        usable: Which rows can be used, (N,) bool; all when None.

    Raises:
        DataError: There are no labels, or the splits do not fit.
    """
    index = store.columns(LABEL_COLUMNS)
    if usable is not None:
        index = index[usable]
    rows = of_modality(index, config.data.modality, store.address)
    rows = _labelled(store, rows, config)
    return rows, _divide(store, rows, config)


def task_card(store: Store, rows: pd.DataFrame, config: FinetuneConfig) -> TaskCard:
    """Return the classes of a task and the meaning of its labels.

    Raises:
        DataError: The labels do not fit the settings, or there is nothing to tell apart.
    """
    if config.task.kind == "segment":
        return _segmentation_card(store, config)
    return _classification_card(rows, config)


def _labelled(store: Store, rows: pd.DataFrame, config: FinetuneConfig) -> pd.DataFrame:
    kind, sequences = config.task.kind, config.model.sequences
    has_label = rows["has_label_map"] if kind == "segment" else rows["label"].notna()
    if kind == "classify" and config.task.multi_label:
        # An empty cell means that no class is true of the image.
        has_label = pd.Series(True, index=rows.index)
    if not has_label.any():
        column = "label_map" if kind == "segment" else "label"
        raise DataError(
            f"{', '.join(map(str, config.data.sources))}: no image has a {column.replace('_', ' ')}"
            f". Give a manifest with a column {column} to {kind}."
        )
    found = one_row_each(store, sequences, rows[has_label])
    left_out = len(one_row_each(store, sequences, rows)) - len(found)
    if left_out:
        logger.info("left out %d images without a label", left_out)
    return found


def _divide(store: Store, rows: pd.DataFrame, config: FinetuneConfig) -> dict[str, str]:
    """Return patient -> split; a fold of the reference's layout is already divided."""
    if config.fold is None or store.manifest.get("fold") == config.fold:
        return split_patients(rows)
    return fold_split(rows, config.fold)


def _segmentation_card(store: Store, config: FinetuneConfig) -> TaskCard:
    mapping = config.task.label_values or label_mapping(store.label_values)
    refuse_not_annotated(store.classes, store.address, store.label_values, config.task.label_values)
    unknown = set(store.label_values) - set(mapping)
    if unknown:
        raise DataError(
            f"task.label_values does not say what {sorted(unknown)} mean; label maps in "
            f"{store.address} hold {list(store.label_values)}."
        )
    if len(mapping) < 2:
        raise DataError(
            f"The label maps hold only {sorted(mapping)}, so there is nothing to segment. Look at "
            "the label map files, or map their values with task.label_values."
        )
    if not config.task.label_values and {1, 255} == set(store.label_values) - {0}:
        logger.warning(
            "label maps hold 1 and 255, which become two classes. If some files say with 1 what "
            "others say with 255, set task.label_values to {0: 0, 1: 1, 255: 1}; if 255 marks "
            "what is to be background, to {0: 0, 1: 1, 255: 0}."
        )
    names = segmentation_class_names(
        max(mapping.values()) + 1, config.task.classes, names_by_class(store.classes, mapping)
    )
    logger.info(
        "classes: %s",
        ", ".join(f"{value} -> {names[number]}" for value, number in sorted(mapping.items())),
    )
    return TaskCard(classes=names, label_values=mapping)


def _classification_card(rows: pd.DataFrame, config: FinetuneConfig) -> TaskCard:
    multi_label = config.task.multi_label
    names = tuple(config.task.classes or classes_from_labels(rows["label"], multi_label))
    if len(names) < 2 and not multi_label:
        raise DataError(
            f"All images have the label '{', '.join(names)}', so there is nothing to tell "
            "apart. Look at column label."
        )
    refuse_class_names(
        names, "Rename the label in column label or its folder, and in task.classes if it is there"
    )
    logger.info("classes: %s", ", ".join(names))
    for sentence in doubtful_classes(names):
        logger.warning("%s", sentence)
    return TaskCard(classes=names, multi_label=multi_label)


def _encode_all(index: pd.DataFrame, rows: pd.DataFrame, card: TaskCard) -> np.ndarray:
    encoded = encode_labels(rows["label"], card.classes, card.multi_label)
    labels = np.full((len(index), *encoded.shape[1:]), -1, dtype=encoded.dtype)
    labels[rows.index.to_numpy()] = encoded
    return labels


def pixel_shares(data: TaskData) -> np.ndarray:
    """Return the share of each class among the pixels of the training label maps, (K,)."""
    step = max(1, len(data.train) // _MOST_COUNTED_LABEL_MAPS)
    counts = np.zeros(len(data.card.classes))
    for row in data.train[::step]:
        label_map = data.store.read(int(row)).label_map
        if label_map is not None and data.card.label_values is not None:
            classes = apply_mapping(label_map, data.card.label_values)
            counts += np.bincount(classes.ravel(), minlength=len(counts))
    return counts / max(1.0, counts.sum())


def class_weights(data: TaskData, scheme: str | None) -> Tensor | None:
    """Return the loss weight of each class by its rarity among the training images, (K,).

    Weights average 1 over the images; for multi-label classes, 1 is that of a class true of half
    of the images.

    Args:
        data: The task.
        scheme: ``none``, ``sqrt`` or ``inverse``.
    """
    if scheme in (None, "none") or data.labels is None:
        return None
    labels = data.labels[data.train]
    n_classes = len(data.card.classes)
    power = {"sqrt": 0.5, "inverse": 1.0}[scheme]
    if data.card.multi_label:
        positives = np.maximum(labels.sum(axis=0), 1.0)
        return tensor(((len(labels) - positives + 1.0) / positives) ** power).float()
    counts = np.bincount(labels, minlength=n_classes)
    rarity = (counts.sum() / np.maximum(counts, 1)) ** power
    return tensor(rarity * counts.sum() / (rarity * counts).sum()).float()
