"""The list of images that training found damaged: each once, whoever met it, and a limit."""

import csv
import logging
from pathlib import Path

import pytest

from stores import pretrain_store
from vismae.core.errors import TrainingError
from vismae.data.store import Store
from vismae.training.damaged_images import DamagedImages


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return pretrain_store(tmp_path_factory.mktemp("damaged") / "store", images=8)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [[line["row"], line["position"]] for line in csv.DictReader(file)]


def test_each_image_is_listed_once_also_by_a_run_that_goes_on(store: Store, tmp_path: Path) -> None:
    first = DamagedImages(tmp_path, store, 1000, 0.01)
    for rows in ([], [3], [3, 5]):
        first(rows)
    again = DamagedImages(tmp_path, store, 1000, 0.01)
    again([5, 6])
    assert rows_of(again.path) == [["3", "3"], ["5", "5"], ["6", "6"]]
    assert not (tmp_path / "damaged_rank_2.csv").exists()
    DamagedImages(tmp_path, store, 1000, 0.01, rank=2)([7])
    assert rows_of(tmp_path / "damaged_rank_2.csv") == [["7", "7"]]


@pytest.mark.parametrize(("images", "share", "allowed"), [(8, 0.0, 0), (8, 0.01, 1), (20, 0.1, 2)])
def test_more_than_the_share_are_an_error_and_one_may_be(
    store: Store, tmp_path: Path, images: int, share: float, allowed: int
) -> None:
    damaged = DamagedImages(tmp_path, store, images, share)
    for row in range(allowed):
        damaged([row])
    with pytest.raises(TrainingError, match=rf"{allowed + 1} of {images} images.*allows.*damaged"):
        damaged([allowed])
    assert len(rows_of(damaged.path)) == allowed + 1


def test_a_list_that_cannot_be_written_is_no_end(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = DamagedImages(tmp_path / "gone", store, 1000, 0.01)
    with caplog.at_level(logging.WARNING):
        damaged([1])
        damaged.tell_sum()
    assert "cannot be written (No such file or directory)" in caplog.text
    assert "1 of 1000 images were damaged" in caplog.text
