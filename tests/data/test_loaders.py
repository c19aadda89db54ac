"""Samples from a store: the same item whatever the batch, worker or rank, and readable values."""

import os
import signal
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from stores import classification_store, pretrain_store, record, segmentation_store
from vismae.core.augment_section import AugmentSettings
from vismae.core.errors import DamagedImageError, DataError
from vismae.core.preprocessing import Preprocessing
from vismae.core.processes import stop_signals_held
from vismae.core.sections import PretrainDataSettings
from vismae.core.types import IGNORED_LABEL, Modality, PixelUnit
from vismae.data.augment import augment_pretrain, sample_rng
from vismae.data.loaders import (
    MODALITY_CODES,
    LabelledImages,
    PretrainImages,
    SliceReader,
    evaluation_loader,
    training_loader,
)
from vismae.data.sampler import BatchStream, Draw, DrawStream
from vismae.data.store import Store, StoreWriter

CONTRACT = Preprocessing(image_size=(32, 48), in_channels=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return pretrain_store(tmp_path_factory.mktemp("loaders") / "store", images=9)


def items(store: Store, batch_size: int, workers: int, rank: int, world: int) -> dict:
    """Draw -> (image, key) of the first 18 samples of this rank."""
    dataset = PretrainImages(store, CONTRACT, PretrainDataSettings(), seed=4)
    rows = np.arange(len(store))
    stream = DrawStream(rows, store.index["modality"].to_numpy(), "sqrt", seed=4)
    batches = BatchStream(stream, batch_size, rank=rank, world=world)
    count = 18 // batch_size
    draws = [draw for batch in islice(iter(batches), count) for draw in batch]
    loaded = list(islice(iter(training_loader(dataset, batches, workers)), count))
    images = torch.cat([batch["image"] for batch in loaded])
    keys = torch.cat([batch["key"] for batch in loaded])
    return {
        draw[:2]: (image, int(key)) for draw, image, key in zip(draws, images, keys, strict=True)
    }


def assert_alike(one: dict, other: dict) -> None:
    shared = one.keys() & other.keys()
    assert len(shared) >= 3
    for draw in shared:
        assert torch.equal(one[draw][0], other[draw][0])
        assert one[draw][1] == other[draw][1]


def test_an_item_depends_on_seed_epoch_and_row_alone(store: Store):
    alone = items(store, 3, 0, 0, 1)
    assert_alike(alone, items(store, 6, 0, 0, 1))
    for rank in range(3):
        assert_alike(alone, items(store, 2, 0, rank, 3))


@pytest.mark.slow
def test_an_item_does_not_depend_on_worker_processes(store: Store):
    assert_alike(items(store, 3, 0, 0, 1), items(store, 3, 2, 0, 1))


def damage(store: Store, *rows: int) -> Store:
    """Change a byte of the pixels of some rows; the store as opened after it."""
    index = store.index
    for row in rows:
        path = store.folder / store.manifest["shards"][index["shard"][row]]["file"]
        content = bytearray(path.read_bytes())
        content[int(index["pixels_offset"][row]) + int(index["pixels_bytes"][row]) // 2] ^= 4
        path.write_bytes(content)
    return Store(store.folder)


def test_in_place_of_a_damaged_image_comes_the_next_whole_one_with_its_changes(tmp_path: Path):
    whole = pretrain_store(tmp_path / "store", images=5)
    settings = PretrainDataSettings()
    plain = PretrainImages(whole, CONTRACT, settings, seed=4)
    own, unharmed = plain[Draw(1, 1)], plain[Draw(0, 0, (1, 4))]
    rng = sample_rng(4, 1, 1)
    view = augment_pretrain(plain.reader.read(4)[0], CONTRACT.image_size, rng, settings)
    data = PretrainImages(damage(whole, 1, 3), CONTRACT, settings, seed=4)

    item = data[Draw(1, 1, (3, 4))]

    assert (item["row"], item["damaged"]) == (4, 1)
    assert item["modality"] == MODALITY_CODES[Modality(whole.index["modality"][4])]
    assert torch.equal(item["image"], plain.reader.normalise(view))
    assert item["key"] == own["key"]
    found = data[Draw(0, 0, (1, 4))]
    assert (found["row"], found["damaged"]) == (0, -1)
    assert torch.equal(found["image"], unharmed["image"])
    with pytest.raises(DamagedImageError, match="row 1 of the store"):
        data[Draw(1, 1, (3,))]


def test_a_damaged_labelled_image_is_an_error_that_names_it(tmp_path: Path):
    store = damage(classification_store(tmp_path / "store", patients=3), 2)
    data = LabelledImages(store, CONTRACT, labels=np.zeros(3), augment=AugmentSettings())
    with pytest.raises(DamagedImageError, match="row 2 of the store"):
        data[Draw(2, 0, (0, 1))]


def test_keys_differ_between_epochs_and_seeds(store: Store):
    settings = PretrainDataSettings()
    keys = {
        PretrainImages(store, CONTRACT, settings, seed)[Draw(2, epoch)]["key"]
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(keys) == 9


def test_a_view_has_the_canvas_channels_and_scale_of_the_contract(store: Store):
    contract = Preprocessing(image_size=(32, 48), in_channels=3)
    image = PretrainImages(store, contract, PretrainDataSettings(), 0)[Draw(0, 0)]["image"]
    assert image.shape == (3, 32, 48)
    assert torch.equal(image[0], image[2])
    assert image.min() >= (0 - 0.223) / 0.202 - 1e-5
    assert image.max() <= (1 - 0.223) / 0.202 + 1e-5


def test_the_reader_applies_the_contract_to_stored_values(tmp_path: Path):
    pixels = np.array([[24, 1024], [1524, 2024]], dtype=np.int16)
    facts = record(
        "a", pixels, modality=Modality.CT, unit=PixelUnit.HU, slope=1.0, intercept=-1024.0
    )
    with StoreWriter(tmp_path / "store") as writer:
        writer.add(facts, pixels)
    reader = SliceReader(Store(tmp_path / "store"), CONTRACT)
    image, stored = reader.read(0)
    assert image.tolist() == [[[0, 0.5], [0.75, 1]]]
    assert np.array_equal(stored.pixels, pixels)
    assert reader.normalise(image)[0, 0, 1] == pytest.approx((0.5 - 0.223) / 0.202)


def test_a_label_map_is_fitted_with_its_image_and_read_as_classes(tmp_path: Path):
    store = segmentation_store(tmp_path / "store", patients=1, slices=1, value=255)
    data = LabelledImages(store, CONTRACT, label_values={0: 0, 255: 1})
    item = data[Draw(0, 0)]
    assert item["image"].shape == (1, 32, 48)
    assert item["label_map"].shape == (32, 48)
    assert set(item["label_map"].unique().tolist()) == {IGNORED_LABEL, 0, 1}
    assert item["label_map"][:, 32:].eq(IGNORED_LABEL).all()
    assert item["row"] == 0
    # The disc is bright: where the class is, the image is above the ground.
    inside = item["label_map"] == 1
    assert item["image"][0][inside].min() > item["image"][0][item["label_map"] == 0].max()


def test_a_value_the_task_does_not_know_is_an_error_that_names_it(tmp_path: Path):
    store = segmentation_store(tmp_path / "store", patients=1, value=9)
    with pytest.raises(DataError, match="value 9"):
        LabelledImages(store, CONTRACT, label_values={0: 0, 1: 1})[Draw(0, 0)]


def test_labels_come_with_their_row_and_changes_only_with_augmentation(tmp_path: Path):
    store = classification_store(tmp_path / "store", patients=4)
    labels = np.array([0, 1, 0, 1])
    plain = LabelledImages(store, CONTRACT, labels=labels)
    assert [int(plain[Draw(row, 0)]["label"]) for row in range(4)] == [0, 1, 0, 1]
    assert torch.equal(plain[Draw(1, 0)]["image"], plain[Draw(1, 5)]["image"])
    changed = LabelledImages(store, CONTRACT, labels=labels, augment=AugmentSettings(), seed=1)
    assert not torch.equal(changed[Draw(1, 0)]["changes"], changed[Draw(1, 5)]["changes"])
    assert torch.equal(changed[Draw(1, 5)]["changes"], changed[Draw(1, 5)]["changes"])
    # Changes are made on the 0..1 scale, before an image is normalised.
    assert torch.equal(
        changed.reader.normalise(changed[Draw(1, 0)]["image"]), plain[Draw(1, 0)]["image"]
    )


def test_evaluation_gives_every_row_once_in_order(tmp_path: Path):
    store = classification_store(tmp_path / "store", patients=7)
    rows = np.array([5, 0, 3, 6, 1])
    batches = list(evaluation_loader(LabelledImages(store, CONTRACT), rows, 2))
    assert [batch["row"].tolist() for batch in batches] == [[5, 0], [3, 6], [1]]


def test_random_windows_are_for_images_in_hounsfield_units(store: Store):
    plain = PretrainImages(store, CONTRACT, PretrainDataSettings(jitter=0), seed=4)
    settings = PretrainDataSettings(jitter=0, ct_window_chance=1.0, ct_window_width=(0.1, 0.2))
    windowed = PretrainImages(store, CONTRACT, settings, seed=4)
    units = store.index["unit"]
    for row in range(len(store)):
        one, other = (dataset[Draw(row, 0)]["image"] for dataset in (plain, windowed))
        in_hu = units[row] == PixelUnit.HU
        if in_hu:
            assert not torch.allclose(one, other)
            assert torch.equal(other, windowed[Draw(row, 0)]["image"])
        else:
            assert torch.equal(one, other)


def test_signals_sent_to_all_processes_leave_a_loader_at_work(store: Store):
    # As a terminal does on Ctrl-C, and SLURM before it takes a job back.
    dataset = PretrainImages(store, CONTRACT, PretrainDataSettings(), seed=4)
    stream = DrawStream(np.arange(len(store)), np.zeros(len(store)))
    with stop_signals_held():
        batches = iter(training_loader(dataset, BatchStream(stream, 2), 1))
    (worker,) = batches._workers  # pyright: ignore[reportAttributeAccessIssue]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert len(next(batches)["row"]) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(worker.pid, number)
    for _ in range(20):
        assert len(next(batches)["row"]) == 2
    assert worker.is_alive()
    del batches
    worker.join(20)
    assert not worker.is_alive()
