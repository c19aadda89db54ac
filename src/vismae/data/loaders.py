"""Datasets over a store and the loaders that feed training.

A sample is decided by (seed, epoch, row) alone, whatever the number of workers or ranks.
"""

from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vismae.core.augment_section import AugmentSettings
from vismae.core.errors import DamagedImageError
from vismae.core.preprocessing import Preprocessing
from vismae.core.processes import outlive_stop_signals
from vismae.core.sections import PretrainDataSettings
from vismae.core.types import Modality, PixelUnit
from vismae.data.augment import augment_pretrain, sample_rng
from vismae.data.augment_labelled import draw_changes
from vismae.data.case_rows import CaseRows
from vismae.data.geometry import fit_image, fit_label_map, resize_image, to_channels
from vismae.data.intensity import normalise, to_unit_range
from vismae.data.labels import apply_mapping
from vismae.data.neighbours import Neighbours
from vismae.data.sampler import BatchStream, Draw
from vismae.data.store import Store, StoredSlice

MODALITY_CODES = {modality: code for code, modality in enumerate(Modality)}
"""Modalities as numbers, which travel to a device."""


class PretrainItem(TypedDict):
    """One view: image (C, H, W), the key that decides its hidden patches, and where it is from.

    ``modality`` is the place of its modality in ``Modality``, ``row`` its row of the store.
    ``damaged`` is the row in whose place it came, -1 as a rule. ``second`` is another view of the
    same image, where two are wanted.
    """

    image: Tensor
    key: int
    modality: int
    row: int
    damaged: int
    second: NotRequired[Tensor]


class LabelledItem(TypedDict):
    """One labelled image: image (C, H, W), row, and label_map (H, W) or label.

    ``changes``, where there are any, are yet to be made, and the image to be normalised after them.
    """

    image: Tensor
    row: int
    label_map: NotRequired[Tensor]
    label: NotRequired[Tensor]
    changes: NotRequired[Tensor]


class SliceReader:
    """Reads rows of a store as 0..1 images in the contract's channels; picklable."""

    def __init__(self, store: Store, preprocessing: Preprocessing) -> None:
        self.store = store
        self.preprocessing = preprocessing
        reach = preprocessing.neighbours
        self._neighbours = Neighbours(store, reach) if reach else None
        names = preprocessing.sequences
        self._cases = CaseRows(store, names) if names else None

    def read_input(self, row: int) -> tuple[Tensor, StoredSlice]:
        """Return what the network sees on the 0..1 scale, and the slice as stored.

        The slice, or with ``sequences`` or ``neighbours`` in the contract, (C·(2n + 1), h, w), all
        sequences of its case and the slices beside it too, slice by slice.
        """
        image, stored = self.read(row)
        rows = self._seen_with(row)
        if rows == [row]:
            return image, stored
        size = (image.shape[1], image.shape[2])
        return torch.cat(
            [image if other == row else resize_image(self.read(other)[0], size) for other in rows]
        ), stored

    def _seen_with(self, row: int) -> list[int]:
        """Return the rows whose images are the channels."""
        beside = [row] if self._neighbours is None else self._neighbours.of(row)
        if self._cases is None:
            return beside
        return [other for shown in beside for other in self._cases.of(shown)]

    def read(self, row: int) -> tuple[Tensor, StoredSlice]:
        """Return the image on the 0..1 scale, (C, h, w), and the slice as stored."""
        stored = self.store.read(row)
        # Columns belong to the store, which travels to loader processes without them.
        column = self.store.compact
        values = to_unit_range(
            stored.pixels,
            modality=Modality(column("modality")[row]),
            unit=PixelUnit(column("unit")[row]),
            slope=float(column("slope")[row]),
            intercept=float(column("intercept")[row]),
            scale_low=float(column("scale_low")[row]),
            scale_high=float(column("scale_high")[row]),
            preprocessing=self.preprocessing,
        )
        return to_channels(values, self.preprocessing.in_channels), stored

    def normalise(self, image: Tensor) -> Tensor:
        """Apply the contract's mean and spread to a 0..1 image."""
        return torch.from_numpy(normalise(image.numpy(), self.preprocessing))


class PretrainImages(Dataset[PretrainItem]):
    """Random views of unlabelled images.

    Args:
        store: Where the pixels are.
        preprocessing: The contract.
        settings: How a view is made.
        seed: Decides the views.
        pairs: Give two views of each image.
    """

    def __init__(
        self,
        store: Store,
        preprocessing: Preprocessing,
        settings: PretrainDataSettings,
        seed: int,
        pairs: bool = False,
    ) -> None:
        self.reader = SliceReader(store, preprocessing)
        self.settings = settings
        self.seed = seed
        self.pairs = pairs

    def __getitem__(self, draw: Draw) -> PretrainItem:
        """Return the view of one draw and its key.

        In place of a damaged image comes the first spare that is whole, changed in the way drawn
        for the damaged one: a view then still follows from its place alone.

        Raises:
            DamagedImageError: All spares are damaged too; names the first image.
        """
        rng = sample_rng(self.seed, draw.epoch, draw.row)
        row, image = self._whole(draw)
        column = self.reader.store.compact
        in_hu = column("unit")[row] == PixelUnit.HU
        size = self.reader.preprocessing.image_size
        view = augment_pretrain(image, size, rng, self.settings, in_hu)
        key = int(rng.integers(0, 2**62))
        item: PretrainItem = {
            "image": self.reader.normalise(view),
            "key": key,
            "modality": MODALITY_CODES[Modality(column("modality")[row])],
            "row": row,
            "damaged": -1 if row == draw.row else draw.row,
        }
        if self.pairs:
            second = augment_pretrain(image, size, rng, self.settings, in_hu)
            item["second"] = self.reader.normalise(second)
        return item

    def _whole(self, draw: Draw) -> tuple[int, Tensor]:
        """Return the first of a draw's rows whose image is whole, and the image, (C, h, w)."""
        first: DamagedImageError | None = None
        for row in (draw.row, *draw.spares):
            try:
                return row, self.reader.read(row)[0]
            except DamagedImageError as error:
                first = first or error
        raise first or ValueError("a draw names a row")


class LabelledImages(Dataset[LabelledItem]):
    """Images with their label map or class.

    With ``augment`` an image comes on the 0..1 scale with the changes drawn for it, which are made
    on whole batches (``augment_labelled.apply_changes``); otherwise normalised.

    Args:
        store: Where the pixels are.
        preprocessing: The contract.
        label_values: Raw value -> class index for label maps (segmentation), or None.
        labels: Class index (N,) or multi-label targets (N, K) for every row of the store
            (classification), or None.
        augment: Random changes (training), or None.
        seed: Decides the changes.
    """

    def __init__(
        self,
        store: Store,
        preprocessing: Preprocessing,
        *,
        label_values: dict[int, int] | None = None,
        labels: np.ndarray | None = None,
        augment: AugmentSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.reader = SliceReader(store, preprocessing)
        self.label_values = label_values
        self.labels = labels
        self.augment = augment
        self.seed = seed

    def __getitem__(self, draw: Draw) -> LabelledItem:
        """Return one image with what is known of it."""
        image, stored = self.reader.read_input(draw.row)
        image = fit_image(image, self.reader.preprocessing)
        label_map = None
        if self.label_values is not None and stored.label_map is not None:
            classes = torch.from_numpy(apply_mapping(stored.label_map, self.label_values))
            label_map = fit_label_map(classes, self.reader.preprocessing)
        item: LabelledItem = {"image": image, "row": draw.row}
        if self.augment is not None:
            rng = sample_rng(self.seed, draw.epoch, draw.row)
            item["changes"] = draw_changes(rng, self.reader.preprocessing.image_size, self.augment)
        else:
            item["image"] = self.reader.normalise(image)
        if label_map is not None:
            item["label_map"] = label_map
        if self.labels is not None:
            item["label"] = torch.as_tensor(self.labels[draw.row])
        return item


def training_loader(
    dataset: Dataset[PretrainItem] | Dataset[LabelledItem],
    batches: BatchStream,
    workers: int,
    pin_memory: bool = False,
) -> DataLoader:
    """Return an endless loader over a stream of batches."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers > 0 else None,
        worker_init_fn=_begin_worker,
        # Forking a process that already runs torch threads can deadlock.
        multiprocessing_context="spawn" if workers > 0 else None,
    )


def _begin_worker(number: int) -> None:
    outlive_stop_signals()


def evaluation_loader(
    dataset: Dataset[LabelledItem], rows: np.ndarray, batch_size: int, workers: int = 0
) -> DataLoader:
    """Return a loader that gives every row once, in order."""
    draws = [Draw(int(row), 0) for row in rows]
    batches = [draws[i : i + batch_size] for i in range(0, len(draws), batch_size)]
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        multiprocessing_context="spawn" if workers > 0 else None,
    )
