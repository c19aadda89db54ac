"""Label maps and maps of values as PNG."""

from pathlib import Path

import numpy as np
from PIL import Image

from vismae.evaluation.overlay import COLOURS
from vismae.files.discover import source_file
from vismae.files.read import read_label_map
from vismae.inference.picture_writer import write_pictures


def test_classes_stay_numbers_and_have_the_projects_colours(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert write_pictures(tmp_path / "a.png", labels, palette=True) == [tmp_path / "a.png"]
    read, _ = read_label_map(source_file(tmp_path / "a.png"))
    assert np.array_equal(read, labels)
    picture = Image.open(tmp_path / "a.png")
    assert picture.mode == "P"
    assert picture.convert("RGB").getpixel((1, 0)) == COLOURS[1]
    assert picture.convert("RGB").getpixel((0, 1)) == COLOURS[4]


def test_many_classes_and_maps_keep_16_bits(tmp_path: Path) -> None:
    values = np.array([[[0, 300], [65535, 7]]], dtype=np.uint16)
    for palette in (True, False):
        write_pictures(tmp_path / "a.png", values, palette)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), values[0])


def test_several_slices_become_a_folder(tmp_path: Path) -> None:
    slices = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8)
    paths = write_pictures(tmp_path / "scan.png", slices, palette=True)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "scan.slices/0001.png",
        "scan.slices/0002.png",
        "scan.slices/0003.png",
    ]
    assert all(
        np.array_equal(np.asarray(Image.open(path)), pixels)
        for path, pixels in zip(paths, slices, strict=True)
    )
