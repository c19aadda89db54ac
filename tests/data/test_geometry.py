"""Fitting to the canvas and back: sizes by hand, nothing made up, nothing lost."""

import numpy as np
import pytest
import torch

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import IGNORED_LABEL
from vismae.data.geometry import (
    fit_image,
    fit_label_map,
    fitted_size,
    resize_image,
    resize_label_map,
    to_channels,
    unfit_logits,
)


@pytest.mark.parametrize(
    ("native", "canvas", "expected"),
    [
        ((100, 200), (50, 50), (25, 50)),
        ((200, 100), (50, 50), (50, 25)),
        ((10, 10), (32, 48), (32, 32)),
        ((1000, 1), (32, 32), (32, 1)),
        ((3, 1000), (32, 32), (1, 32)),
        ((37, 53), (37, 53), (37, 53)),
    ],
)
def test_the_aspect_ratio_is_kept(
    native: tuple[int, int], canvas: tuple[int, int], expected: tuple[int, int]
):
    assert fitted_size(native, canvas, "pad") == expected
    assert fitted_size(native, canvas, "stretch") == canvas


def test_grey_is_repeated_and_colour_averaged():
    grey = np.array([[1.0, 2.0]], dtype=np.float32)
    assert to_channels(grey, 1).tolist() == [[[1, 2]]]
    assert to_channels(grey, 3).tolist() == [[[1, 2]]] * 3
    colour = np.array([[[0.0, 3.0, 6.0]]], dtype=np.float32)
    assert to_channels(colour, 1).tolist() == [[[3]]]
    assert to_channels(colour, 3).tolist() == [[[0]], [[3]], [[6]]]


def test_padding_lies_at_the_bottom_right_and_is_marked_in_the_label_map():
    contract = Preprocessing(image_size=(8, 12), in_channels=1)
    image = fit_image(torch.ones(1, 4, 4), contract)
    label_map = fit_label_map(torch.ones(4, 4, dtype=torch.int64), contract)
    assert image.shape == (1, 8, 12)
    assert image[0, :, :8].eq(1).all()
    assert image[0, :, 8:].eq(0).all()
    assert label_map[:, :8].eq(1).all()
    assert label_map[:, 8:].eq(IGNORED_LABEL).all()


def test_resizing_a_label_map_makes_up_no_class():
    label_map = torch.randint(0, 2, (31, 17), generator=torch.Generator().manual_seed(0)) * 7
    resized = resize_label_map(label_map, (64, 50))
    assert set(resized.unique().tolist()) == {0, 7}
    assert resized.dtype == torch.int64


def test_shrinking_averages_instead_of_skipping():
    stripes = torch.zeros(1, 64, 64)
    stripes[:, :, ::2] = 1
    shrunk = resize_image(stripes, (16, 16))
    assert shrunk[:, 2:-2, 2:-2].sub(0.5).abs().max() < 0.1


def test_repeated_grey_is_resized_as_three_channels_are():
    grey = to_channels(np.random.default_rng(0).random((50, 37), dtype=np.float32), 3)
    found = resize_image(grey, (21, 64))
    torch.testing.assert_close(found, resize_image(grey.contiguous(), (21, 64)))


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("native", [(20, 50), (64, 24), (32, 32)])
def test_a_label_map_comes_back_in_its_own_size(fit: str, native: tuple[int, int]):
    contract = Preprocessing(image_size=(48, 48), fit="pad" if fit == "pad" else "stretch")
    label_map = torch.zeros(native, dtype=torch.int64)
    label_map[native[0] // 4 : 3 * native[0] // 4, native[1] // 4 : 3 * native[1] // 4] = 1
    fitted = fit_label_map(label_map, contract).clamp(min=0)
    logits = 10.0 * torch.nn.functional.one_hot(fitted, 2).permute(2, 0, 1)
    back = unfit_logits(logits, native, contract.fit).argmax(0)
    assert back.shape == native
    overlap = (back & label_map).sum() / (back | label_map).sum()
    assert overlap > 0.8
