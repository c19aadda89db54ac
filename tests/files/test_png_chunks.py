"""PNG files with long texts, read for their pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vismae.core.errors import UnreadableFileError
from vismae.files.discover import source_file
from vismae.files.png_chunks import without_texts
from vismae.files.raster import read_raster

PIXELS = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
LONG = "x" * (3 * 2**20)


def texts(kind: str) -> dict[str, Any]:
    told = PngImagePlugin.PngInfo()
    if kind == "one":
        told.add_text("header", LONG, zip=True)
    elif kind == "international":
        told.add_itxt("header", LONG, zip=True)
    elif kind == "many":
        for number in range(70):
            told.add_text(f"header {number}", LONG[: 2**20 - 1], zip=True)
    else:
        return {"icc_profile": LONG.encode()}
    return {"pnginfo": told}


@pytest.mark.parametrize("kind", ["one", "international", "many", "profile"])
def test_texts_of_any_length_do_not_cost_the_image(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, **texts(kind))

    image = read_raster(source_file(path))

    np.testing.assert_array_equal(image.pixels[0], PIXELS)


def test_a_file_without_texts_is_handed_on() -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    stream.seek(0)

    assert without_texts(stream) is stream
    assert stream.tell() == 0


def test_one_that_is_cut_is_still_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, **texts("one"))
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(UnreadableFileError, match="cannot be decoded"):
        read_raster(source_file(path))
