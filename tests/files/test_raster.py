import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vismae.files.raster as raster_module
from factories import write_jpeg, write_palette_png, write_png, write_tiff, write_zip
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Modality, PixelUnit
from vismae.files.discover import SourceFile
from vismae.files.raster import read_raster, read_raster_labels

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOURS = [0, 0, 0, 255, 0, 0, 0, 255, 0]


def raster(path: Path) -> SourceFile:
    return SourceFile(path, None, "raster")


def reason(path: Path, labels: bool = False) -> tuple[str, str]:
    with pytest.raises(UnreadableFileError) as caught:
        (read_raster_labels if labels else read_raster)(raster(path))
    assert str(path) in str(caught.value)
    return caught.value.reason, str(caught.value)


# --- images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_8_bit_grey_keeps_its_values(tmp_path: Path, suffix: str) -> None:
    image = read_raster(raster(write_png(tmp_path / f"a{suffix}", GREY)), Modality.XR)

    np.testing.assert_array_equal(image.pixels, GREY[None])
    assert (image.modality, image.unit) == (Modality.XR, PixelUnit.DISPLAY)
    assert (image.slope, image.intercept) == (1.0, 0.0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_never_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 255, 256], [1000, 40000, 65535]], np.uint16)

    image = read_raster(raster(write_png(tmp_path / f"a{suffix}", deep)))

    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels[0], deep)


def test_white_is_zero_is_turned_round_at_8_and_at_16_bits(tmp_path: Path) -> None:
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        stored = np.array([[0, 10, top]], dtype)
        path = write_tiff(tmp_path / f"{top}.tif", [stored], tiffinfo={262: 0})
        with Image.open(path) as check:
            assert check.tag_v2[262] == 0  # pyright: ignore

        [[row]] = read_raster(raster(path)).pixels

        # Pillow itself inverts 8-bit pixels when it writes this tag, but not 16-bit ones.
        expected = [0, 10, top] if dtype is np.uint8 else [top, top - 10, 0]
        np.testing.assert_array_equal(row, expected)


def tiff_bytes(pixels: np.ndarray, order: str, photometric: int, deflated: bool) -> bytes:
    """Return a TIFF of one strip as the specification has it: Pillow writes little endian only."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflated else data
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    bits, compression = 8 * pixels.dtype.itemsize, 8 if deflated else 1
    start = 8 + 2 + 12 * 10 + 4
    rows, columns = pixels.shape
    short = {258: bits, 259: compression, 262: photometric, 277: 1, 339: kind}
    long = {256: columns, 257: rows, 273: start, 278: rows, 279: len(data)}
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, short[tag], 0)
        if tag in short
        else struct.pack(f"{order}HHII", tag, 4, 1, long[tag])
        for tag in sorted({**short, **long})
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 10)
    return head + entries + bytes(4) + data


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.int16, np.uint16])
def test_tiffs_of_both_byte_orders_hold_the_same_numbers(
    dtype: type, order: str, deflated: bool, tmp_path: Path
) -> None:
    stored = np.linspace(0 if dtype is np.uint16 else -5000, 7000, 12).reshape(3, 4).astype(dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(stored, order, 1, deflated))

    [found] = read_raster(raster(path)).pixels

    np.testing.assert_array_equal(
        found, stored.astype(np.float32) if dtype is np.float64 else stored
    )


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_is_turned_round_in_both_byte_orders(
    order: str, deflated: bool, tmp_path: Path
) -> None:
    stored = np.array([[0, 10, 65535], [256, 1, 65280]], np.uint16)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(stored, order, 0, deflated))

    [found] = read_raster(raster(path)).pixels

    np.testing.assert_array_equal(found, 65535 - stored)
    assert found.dtype == np.uint16


def test_a_label_map_may_be_written_as_doubles(tmp_path: Path) -> None:
    labels = np.array([[0.0, 1.0, 2.0]])
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(labels, ">", 1, True))
    np.testing.assert_array_equal(read_raster_labels(raster(path)), labels[None])


def test_tiff_numbers_keep_the_sign_that_the_file_gives_them(tmp_path: Path) -> None:
    """Pillow reads 32-bit numbers as signed and 8-bit numbers as unsigned, whatever they are."""
    large = np.array([[0, 5, 2**31, 2**32 - 1]], dtype=np.uint32)
    path = write_tiff(tmp_path / "u.tif", [large.view(np.int32)])
    signed = struct.pack("<HHIHH", 339, 3, 1, 2, 0)
    assert signed in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(signed, struct.pack("<HHIHH", 339, 3, 1, 1, 0)))
    small = np.array([[-128, -1, 0, 127]], dtype=np.int8)
    other = write_tiff(tmp_path / "s.tif", [small.view(np.uint8)], tiffinfo={339: 2})

    np.testing.assert_array_equal(read_raster(raster(path)).pixels, large[None])
    np.testing.assert_array_equal(read_raster(raster(other)).pixels, small[None])
    np.testing.assert_array_equal(read_raster_labels(raster(other)), small[None])


def test_float_tiff_stays_float(tmp_path: Path) -> None:
    values = np.array([[-1.5, 0.25, 1e6]], np.float32)

    image = read_raster(raster(write_tiff(tmp_path / "f.tif", [values])))

    np.testing.assert_array_equal(image.pixels[0], values)
    assert image.pixels.dtype == np.float32


def test_tiff_pages_are_slices_and_previews_are_left_out(tmp_path: Path) -> None:
    pages = [GREY, GREY + 1, GREY[:2, :2]]

    image = read_raster(raster(write_tiff(tmp_path / "s.tif", pages)))

    np.testing.assert_array_equal(image.pixels, [GREY, GREY + 1])
    assert image.details["pages_left_out"] == 1


def test_pixels_of_1_bit_are_black_and_white(tmp_path: Path) -> None:
    image = read_raster(raster(write_png(tmp_path / "b.png", GREY > 100)))

    np.testing.assert_array_equal(image.pixels[0], np.where(GREY > 100, 255, 0))


def test_alpha_is_dropped_and_equal_channels_become_grey(tmp_path: Path) -> None:
    alpha = np.full_like(GREY, 7)
    rgba = np.stack([GREY, GREY, GREY, alpha], axis=-1)
    colour = np.stack([GREY, GREY, 255 - GREY, alpha], axis=-1)
    cases = {
        "la.png": (np.stack([GREY, alpha], axis=-1), GREY),
        "rgba.png": (rgba, GREY),
        "rgb.png": (rgba[..., :3], GREY),
        "colour.png": (colour, colour[..., :3]),
    }
    for name, (stored, expected) in cases.items():
        image = read_raster(raster(write_png(tmp_path / name, stored)))
        np.testing.assert_array_equal(image.pixels[0], expected, err_msg=name)


def test_palettes_are_expanded_for_images(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2]])
    colour = write_palette_png(tmp_path / "c.png", indices, COLOURS)
    grey = write_palette_png(tmp_path / "g.png", indices, [9, 9, 9, 50, 50, 50, 4, 4, 4])

    np.testing.assert_array_equal(
        read_raster(raster(colour)).pixels[0, 0], [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    )
    np.testing.assert_array_equal(read_raster(raster(grey)).pixels[0], [[9, 50, 4]])


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    wide = np.zeros((16, 32), np.uint8)
    wide[:, :16] = 200
    path = write_jpeg(tmp_path / "e.jpg", wide, exif_orientation=6)  # turn right by 90 degrees

    pixels = read_raster(raster(path)).pixels[0]

    assert pixels.shape == (32, 16)
    assert pixels[:12].min() > 150
    assert pixels[20:].max() < 50


def test_exif_orientation_of_16_bit_tiff_is_applied_once(tmp_path: Path) -> None:
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10000
    path = write_tiff(tmp_path / "e.tif", [deep], tiffinfo={274: 3})  # upside down

    np.testing.assert_array_equal(read_raster(raster(path)).pixels[0], deep[::-1, ::-1])


def write_deep_png(path: Path, pixels: np.ndarray) -> Path:
    """Write uint16 (H, W, C): grey with alpha, RGB or RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


DEEP = np.random.default_rng(0).integers(0, 2**16, (4, 5, 4)).astype(np.uint16)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_keep_their_numbers(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("SimpleITK")
    path = write_deep_png(tmp_path / "deep.png", DEEP[..., :channels])
    write_zip(tmp_path / "a.zip", {"deep.png": path.read_bytes()})

    for file in (raster(path), SourceFile(tmp_path / "a.zip", "deep.png", "raster")):
        pixels = read_raster(file).pixels
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels[0], DEEP[..., :3])


@pytest.mark.parametrize("pages", [1, 3])
def test_so_they_do_in_tiff(tmp_path: Path, pages: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    volume = np.stack([DEEP[..., :3] + 7 * page for page in range(pages)])
    image = sitk.GetImageFromArray(volume if pages > 1 else volume[0], isVector=True)
    sitk.WriteImage(image, str(tmp_path / "deep.tif"))

    np.testing.assert_array_equal(read_raster(raster(tmp_path / "deep.tif")).pixels, volume)


def test_16_bit_colours_that_are_grey_are_grey(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    path = write_deep_png(tmp_path / "deep.png", DEEP[..., :1].repeat(3, axis=2))

    np.testing.assert_array_equal(read_raster(raster(path)).pixels[0], DEEP[..., 0])


def test_16_bit_colours_are_refused_where_they_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("SimpleITK")
    path = write_deep_png(tmp_path / "deep.png", DEEP[..., :3])
    classes = write_deep_png(tmp_path / "classes.png", np.ones((4, 5, 3), np.uint16))
    assert reason(classes, labels=True)[0] == "label-format"
    with_alpha = write_deep_png(tmp_path / "alpha.png", DEEP[..., :2])
    assert reason(with_alpha)[0] == "unsupported-pixels"
    monkeypatch.setitem(sys.modules, "SimpleITK", None)

    assert reason(path)[0] == "needs-extra"


def test_cut_garbled_and_huge_files_have_their_own_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    cut = write_png(tmp_path / "cut.png", noise)
    cut.write_bytes(cut.read_bytes()[:2000])
    cut_jpeg = write_jpeg(tmp_path / "cut.jpg", noise)
    cut_jpeg.write_bytes(cut_jpeg.read_bytes()[:2000])
    garbled = tmp_path / "g.jpg"
    garbled.write_bytes(b"\xff\xd8\xff" + b"garbage" * 20)

    assert reason(cut)[0] == "truncated"
    assert reason(cut_jpeg)[0] == "truncated"
    assert reason(garbled)[0] == "undecodable"
    monkeypatch.setattr(raster_module, "MAX_PIXELS", 1000)
    assert reason(write_png(tmp_path / "big.png", noise))[0] == "too-large"


# --- label maps -----------------------------------------------------------------------------


def test_a_palette_label_map_gives_indices_never_colours(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]])

    labels = read_raster_labels(raster(write_palette_png(tmp_path / "l.png", indices, COLOURS)))

    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, indices[None])


def test_grey_1_bit_and_16_bit_label_maps_keep_their_numbers(tmp_path: Path) -> None:
    eight = np.array([[0, 3, 255]], np.uint8)
    sixteen = np.array([[0, 300, 4096]], np.uint16)
    cases = {
        "8.png": (eight, eight),
        "16.png": (sixteen, sixteen),
        "1.png": (eight > 0, eight > 0),
        "rgb.png": (np.stack([eight] * 3, -1), eight),
        "f.tif": (eight.astype(np.float32), eight),
    }
    for name, (stored, expected) in cases.items():
        labels = read_raster_labels(raster(write_png(tmp_path / name, stored)))
        np.testing.assert_array_equal(labels[0], expected, err_msg=name)


def test_tiff_pages_of_a_label_map_are_slices(tmp_path: Path) -> None:
    pages = [np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8)]

    labels = read_raster_labels(raster(write_tiff(tmp_path / "l.tif", pages)))

    assert labels.shape == (2, 2, 3)
    odd = write_tiff(tmp_path / "odd.tif", [pages[0], pages[1][:1]])
    assert reason(odd, labels=True)[0] == "label-format"


def test_true_colours_are_refused_and_named(tmp_path: Path) -> None:
    colours = np.array([[[0, 0, 0], [255, 0, 0], [0, 128, 255]]], np.uint8)

    code, message = reason(write_png(tmp_path / "c.png", colours), labels=True)

    assert code == "label-colours"
    assert "3 colours (#000000, #0080ff, #ff0000)" in message


def test_fractions_are_refused_and_named(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "f.tif", [np.array([[0.5, 1.0]], np.float32)])

    code, message = reason(path, labels=True)

    assert code == "label-not-integer"
    assert "0.5" in message


def test_a_smeared_jpeg_label_map_is_refused_with_its_count(tmp_path: Path) -> None:
    smooth = np.arange(256, dtype=np.uint8).reshape(16, 16)
    flat = np.full((16, 16), 128, np.uint8)

    code, message = reason(write_jpeg(tmp_path / "s.jpg", smooth), labels=True)

    assert code == "label-lossy"
    assert "different values" in message
    assert np.unique(read_raster_labels(raster(write_jpeg(tmp_path / "f.jpg", flat)))) == 128


def test_a_black_and_white_jpeg_label_map_gets_its_two_values_back(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:96, :80]
    disc = ((rows - 40) ** 2 + (columns - 44) ** 2 < 700).astype(np.uint8) * 255
    file = raster(write_jpeg(tmp_path / "disc.jpg", disc, quality=90))
    assert len(np.unique(read_raster(file).pixels)) > 2
    np.testing.assert_array_equal(read_raster_labels(file)[0], disc)


def test_a_jpeg_label_map_of_three_classes_is_refused_with_values_named(tmp_path: Path) -> None:
    classes = np.zeros((64, 64), np.uint8)
    classes[10:30, 10:30] = 120
    classes[34:60, 34:60] = 250
    code, message = reason(write_jpeg(tmp_path / "three.jpg", classes), labels=True)
    assert code == "label-lossy"
    assert "PNG" in message


def test_label_maps_of_few_bits_keep_their_numbers(tmp_path: Path) -> None:
    for bits in (2, 4):
        header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
        parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes([0, 0b01_11_00_10])))]
        path = tmp_path / f"{bits}.png"
        chunks = b""
        for kind, body in [*parts, (b"IEND", b"")]:
            check = zlib.crc32(kind + body)
            chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)

        labels = read_raster_labels(raster(path))

        np.testing.assert_array_equal(labels[0, 0], [1, 3, 0, 2] if bits == 2 else [7, 2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_keep_their_numbers_where_white_is_zero(tmp_path: Path, dtype: type) -> None:
    labels = np.array([[0, 1, 3]], dtype)
    # Pillow inverts 8-bit pixels when it writes this tag, but not 16-bit ones.
    written = 255 - labels if dtype is np.uint8 else labels
    path = write_tiff(tmp_path / "l.tif", [written], tiffinfo={262: 0})
    assert labels.tobytes() in path.read_bytes()

    np.testing.assert_array_equal(read_raster_labels(raster(path)), labels[None])


def test_a_tiff_of_unknown_numbers_is_told_alike_each_time(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "half.tif", [GREY])
    data = bytearray(path.read_bytes())
    # BitsPerSample (258), one SHORT: 8 becomes 24.
    place = data.index(struct.pack("<HHI", 258, 3, 1)) + 8
    data[place] = 24
    path.write_bytes(data)

    code, message = reason(path)

    assert code == "undecodable"
    assert "0x" not in message
    assert "TIFF of 8 or 16 bits" in message
