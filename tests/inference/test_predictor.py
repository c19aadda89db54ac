"""Predictions in the images' own size and order, whatever the batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stores import pretrain_store, record
from vismae.core.errors import SettingError
from vismae.core.preprocessing import Preprocessing
from vismae.data.store import Store, StoreWriter
from vismae.inference.predictor import Predictor, choose_device

CONTRACT = Preprocessing(image_size=(32, 32), in_channels=1)


class Brightness(nn.Module):
    """Calls a pixel class 1 where it is brighter than the middle; an image by its mean."""

    def __init__(self, whole_image: bool) -> None:
        super().__init__()
        self.whole_image = whole_image
        self.threshold = nn.Parameter(torch.tensor((0.5 - 0.223) / 0.202))

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        excess = images[:, 0] - self.threshold
        excess = excess.mean(dim=(1, 2)) if self.whole_image else 50 * excess
        return torch.stack([-excess, excess], dim=1)


def bright_square(folder: Path, sizes: list[tuple[int, int]]) -> Store:
    with StoreWriter(folder) as writer:
        for number, size in enumerate(sizes):
            pixels = np.zeros(size, np.uint8)
            pixels[: size[0] // 2, : size[1] // 2] = 250
            writer.add(record(f"image{number}", pixels), pixels)
    return Store(folder)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_label_maps_have_the_images_own_size_and_place(batch_size: int, tmp_path: Path):
    sizes = [(64, 64), (20, 50), (100, 30), (32, 32), (48, 96)]
    store = bright_square(tmp_path / "store", sizes)
    model = Brightness(whole_image=False).train()
    rows = np.array([4, 0, 2, 1, 3])
    found = dict(Predictor(model, CONTRACT, batch_size).label_maps(store, rows))
    assert list(found) == rows.tolist()
    assert model.training
    for row, size in enumerate(sizes):
        assert found[row].shape == size
        truth = store.read(row).pixels > 0
        assert (found[row] == truth).mean() > 0.95, size


def test_probabilities_follow_the_order_of_rows(tmp_path: Path):
    store = pretrain_store(tmp_path / "store", images=6)
    predictor = Predictor(Brightness(whole_image=True), CONTRACT, 4)
    rows = np.array([3, 1, 5, 0])
    found = predictor.probabilities(store, rows)
    one_by_one = [predictor.probabilities(store, np.array([row]))[0] for row in rows]
    assert np.allclose(found, one_by_one, atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1)
    separate = predictor.probabilities(store, rows, multi_label=True)
    # softmax of (-x, x) is the sigmoid of 2x.
    assert np.allclose(
        np.log(found / (1 - found)), 2 * np.log(separate / (1 - separate)), atol=1e-2
    )


def test_devices_are_chosen_or_refused():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(SettingError, match="cuda was asked for"):
            choose_device("cuda")
