"""Slices beside a slice: the right rows, edges and gaps, and from a stream what rows give."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stores import record, segmentation_store
from vismae.core.preprocessing import Preprocessing
from vismae.data.loaders import SliceReader
from vismae.data.neighbours import Neighbours, in_sequence
from vismae.data.store import Store, StoreWriter


def write(folder: Path, places: list[tuple[str, int]]) -> Store:
    """A store of one-grey images, one for each (volume, slice index), as bright as its row."""
    with StoreWriter(folder) as writer:
        for row, (volume, place) in enumerate(places):
            pixels = np.full((4, 4), 10 * row + 1, np.uint8)
            pixels[0, 0] = 0
            facts = record(f"i{row}", pixels, patient_id="p", volume_id=volume, slice_index=place)
            writer.add(facts, pixels)
    return Store(folder)


def test_rows_are_found_by_volume_and_slice_whatever_their_order(tmp_path: Path):
    store = write(tmp_path / "s", [("a", 2), ("b", 0), ("a", 0), ("a", 1), ("b", 1)])
    beside = Neighbours(store, 1)
    assert beside.of(3) == [2, 3, 0]
    assert beside.of(1) == [1, 1, 4]
    assert beside.of(0) == [3, 0, 0]
    assert Neighbours(store, 2).of(3) == [2, 2, 3, 0, 0]


def test_the_nearest_slice_towards_the_middle_stands_in_for_a_missing_one(tmp_path: Path):
    store = write(tmp_path / "s", [("a", 0), ("a", 3), ("a", 4)])
    assert Neighbours(store, 1).of(1) == [1, 1, 2]
    assert Neighbours(store, 3).of(1) == [0, 1, 1, 1, 2, 2, 2]


def test_the_reader_puts_them_together_as_channels(tmp_path: Path):
    store = write(tmp_path / "s", [("a", 0), ("a", 1), ("a", 2)])
    contract = Preprocessing(image_size=(4, 4), in_channels=1, neighbours=1)
    image, stored = SliceReader(store, contract).read_input(1)
    assert contract.input_channels == 3
    assert torch.allclose(image[:, 1, 1] * 255, torch.tensor([1.0, 11.0, 21.0]))
    assert stored.pixels.shape == (4, 4)
    assert SliceReader(store, contract).read(1)[0].shape == (1, 4, 4)


@pytest.mark.parametrize("reach", [0, 1, 2, 5])
@pytest.mark.parametrize("slices", [1, 2, 4])
def test_a_stream_gives_what_rows_give(tmp_path: Path, reach: int, slices: int):
    store = segmentation_store(tmp_path / "s", patients=1, slices=slices)
    contract = Preprocessing(image_size=(32, 32), in_channels=1, neighbours=reach)
    reader = SliceReader(store, contract)
    stream = list(in_sequence((reader.read(row)[0] for row in range(slices)), reach))
    assert len(stream) == slices
    for row, image in enumerate(stream):
        assert torch.equal(image, reader.read_input(row)[0])


def test_nothing_comes_of_no_slices():
    assert list(in_sequence(iter(()), 2)) == []
