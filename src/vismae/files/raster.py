"""PNG, JPEG, TIFF and BMP images, and label maps drawn as such files.

Images keep their full depth: 16-bit greys stay 16-bit. Label maps keep their numbers: a palette
gives its indices, never its colours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, ImageSequence, TiffImagePlugin, UnidentifiedImageError

from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage, Modality, PixelUnit
from vismae.files.discover import SourceFile
from vismae.files.pixels import as_class_numbers, grey_if_equal, native_numbers, require_size
from vismae.files.png_chunks import is_png, without_texts
from vismae.files.raster_deep import read_deep_pages
from vismae.files.reasons import Reason
from vismae.files.signatures import HEAD_BYTES

MAX_PIXELS = 178_956_970
"""Pixels of one page, or of all pages of a TIFF together times 16; Pillow's own bomb limit."""

LEAST_LOSSY_LABEL = 64
"""A JPEG label map whose brightest value is below this is not black and white."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_MAX_PAGES_TOGETHER = 16
_PHOTOMETRIC_TAG = 262
_WHITE_IS_ZERO = 0
_BITS_TAG, _SAMPLE_FORMAT_TAG = 258, 339
# What Pillow makes of a 1 in greys of few bits, by its names for them (I: white is zero, R: bits
# from the right).
_STEPS = {f"L;{bits}{how}": 255 // (2**bits - 1) for bits in (2, 4) for how in ("", "I", "R", "IR")}
_UNSIGNED, _SIGNED = 1, 2
# Pillow unpacks these, but does not know the tags of TIFFs that hold them: byte order, photometric
# interpretation, sample format (3 is float), fill order and bits. Values become float32.
_MORE_TIFFS = {
    (b"II", 0, (3,), 1, (64,), ()): ("F", "F;64F"),
    (b"II", 1, (3,), 1, (64,), ()): ("F", "F;64F"),
    (b"MM", 0, (3,), 1, (64,), ()): ("F", "F;64BF"),
    (b"MM", 1, (3,), 1, (64,), ()): ("F", "F;64BF"),
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
}
for _tags, _modes in _MORE_TIFFS.items():
    TiffImagePlugin.OPEN_INFO.setdefault(_tags, _modes)
# libtiff hands out compressed numbers in the machine's byte order; Pillow allows for that with
# unsigned greys of 16 bits only.
_NATIVE_MODES = {
    "F;64BF": "F;64NF",
    "F;32BF": "F;32NF",
    "I;32BS": "I;32NS",
    "I;16BS": "I;16NS",
}


def read_raster(file: SourceFile, modality: Modality | None = None) -> MedicalImage:
    """Read an image as display grey levels or colour, upright after its EXIF orientation.

    Greys and colours of 8 and 16 bits, float TIFF and 1-bit images keep their numbers; an alpha
    channel is dropped; palettes and other colour spaces become RGB, and RGB with three equal
    channels becomes grey. The pages of a TIFF are slices; pages of another size than the first
    (previews) are left out.

    ``details`` holds ``pages_left_out``.

    Raises:
        UnreadableFileError: ``too-large``, ``truncated``, ``undecodable`` or ``not-finite``; of
            16-bit colours as ``read_deep_pages``.
    """
    pages, facts = _read_pages(file, _image_page)
    if facts.reduced:
        pages = read_deep_pages(file, facts.format_name, pages)
    kept = [page for page in pages if page.shape == pages[0].shape]
    pixels = np.stack(kept)
    if pixels.ndim == 4:
        pixels = grey_if_equal(pixels)
    return MedicalImage(
        pixels=native_numbers(pixels, file.name),
        modality=modality or Modality.OTHER,
        unit=PixelUnit.DISPLAY,
        source=file.name,
        details={"pages_left_out": len(pages) - len(kept)},
    )


def read_raster_labels(file: SourceFile) -> np.ndarray:
    """Read a label map: class numbers, int32 (S, H, W), with S = 1 unless a TIFF has more pages.

    Numbers are kept as they are: palette indices, 0 and 1 of 1-bit images, greys of 2 to 16 bits,
    whether white is the largest or, in a TIFF, 0.

    Raises:
        UnreadableFileError: As for ``read_raster``; ``label-colours`` names the colours found,
            ``label-lossy`` the values of a smeared JPEG, ``label-not-integer`` and
            ``label-format`` pages of different sizes and colours of 16 bits.
    """
    pages, facts = _read_pages(file, lambda page, how: _label_page(page, how, file.name))
    if facts.reduced:  # class 1 would be 0 in the upper 8 bits
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{file.name}: colours of 16 bits where a label map was expected. Save it as PNG with "
            "a single channel in which each pixel is its class number.",
        )
    if facts.lossy:
        pages = _undo_compression(pages, file.name)
    if any(page.shape != pages[0].shape for page in pages):
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{file.name}: pages of different sizes. Give one page per slice, all of one size.",
        )
    return as_class_numbers(np.stack(pages), file.name)


@dataclass(frozen=True)
class _FileFacts:
    """What was lost before the pixels reached us, and how the file is written."""

    reduced: bool
    lossy: bool
    format_name: str


@dataclass(frozen=True)
class _Written:
    """How the numbers of a page are written.

    Attributes:
        white_is_zero: Large numbers are dark (TIFF).
        step: Greys of 2 and 4 bits are spread over 0 to 255 by Pillow: what 1 becomes.
    """

    white_is_zero: bool
    step: int

    @classmethod
    def of(cls, page: Image.Image) -> "_Written":
        """Look before the page is decoded, which forgets it."""
        tags = getattr(page, "tag_v2", {})
        steps = [_STEPS.get(_raw_mode(tile), 1) for tile in getattr(page, "tile", [])]
        return cls(tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO, max(steps, default=1))


def _raw_mode(tile: Any) -> str:
    arguments = tile[3] if len(tile) > 3 else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _read_pages(
    file: SourceFile, read_page: Callable[[Image.Image, _Written], np.ndarray]
) -> tuple[list[np.ndarray], _FileFacts]:
    try:
        with _opened(file) as stream, Image.open(stream, formats=_FORMATS) as image:
            count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            _require_moderate(image, count, file.name)
            compression = image.info.get("compression") if image.format == "TIFF" else None
            lossy = image.format in ("JPEG", "MPO") or compression == "jpeg"
            facts = _FileFacts(_loses_depth(image), lossy, str(image.format))
            pages = []
            for page in ImageSequence.Iterator(image) if count > 1 else [image]:
                _require_moderate(page, 1, file.name)
                _settle_byte_order(page)
                tags = getattr(page, "tag_v2", {})  # turning the page upright loses them
                how = _Written.of(page)
                pixels = read_page(ImageOps.exif_transpose(page), how)
                pages.append(_with_written_sign(pixels, tags))
        return pages, facts
    except UnreadableFileError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(file.name, str(error)) from error
    except UnidentifiedImageError as error:
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{file.name}: its header is damaged, or of a kind that is not read (such as a TIFF of "
            "float16, of 64-bit whole numbers or of colours that are no whole numbers). Copy the "
            "file again, or save it anew as PNG or a TIFF of 8 or 16 bits.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        early = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise UnreadableFileError(
            Reason.TRUNCATED if early else Reason.UNDECODABLE,
            f"{file.name}: cannot be decoded ({type(error).__name__}: {error}). Copy the file "
            f"again, or save it anew as PNG.",
        ) from error


def _opened(file: SourceFile) -> BinaryIO:
    """Open a file; of PNG without its texts, which Pillow refuses to hold where they are long."""
    stream = file.open()
    start = stream.read(HEAD_BYTES)
    stream.seek(0)
    return without_texts(stream) if is_png(start) else stream


def _settle_byte_order(page: Image.Image) -> None:
    """Say in which byte order the numbers of a compressed page arrive."""
    plan: Any = getattr(page, "tile", [])
    page.tile = [_in_native_order(tile) for tile in plan]  # pyright: ignore


def _in_native_order(tile: Any) -> Any:
    codec, box, offset, args = tile
    if codec != "libtiff" or args[0] not in _NATIVE_MODES:
        return tile
    changed = (codec, box, offset, (_NATIVE_MODES[args[0]], *args[1:]))
    return changed if type(tile) is tuple else tile._make(changed)  # older Pillow has plain ones


def _with_written_sign(pixels: np.ndarray, tags: Mapping[int, Any]) -> np.ndarray:
    """Return grey values of a TIFF as it means them: Pillow knows no uint32 and no int8."""
    bits, sample_format = tags.get(_BITS_TAG), tags.get(_SAMPLE_FORMAT_TAG, (_UNSIGNED,))
    if pixels.dtype == np.int32 and bits == (32,) and sample_format == (_UNSIGNED,):
        return pixels.view(np.uint32)
    if pixels.dtype == np.uint8 and bits == (8,) and sample_format == (_SIGNED,):
        return pixels.view(np.int8)
    return pixels


def _require_moderate(image: Image.Image, pages: int, name: str) -> None:
    height, width = image.height, image.width
    if width * height > MAX_PIXELS or width * height * pages > MAX_PIXELS * _MAX_PAGES_TOGETHER:
        raise _too_large(name, f"{width}×{height} pixels on {pages} page(s)")
    require_size((pages, height, width, len(image.getbands())), 4, name)


def _too_large(name: str, found: str) -> UnreadableFileError:
    return UnreadableFileError(
        Reason.TOO_LARGE,
        f"{name}: {found}; at most {MAX_PIXELS} pixels are read. Reduce the image or cut it "
        f"into tiles.",
    )


def _loses_depth(image: Image.Image) -> bool:
    """Whether Pillow will keep only 8 of 16 bits, as it does with all but plain grey."""
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", []) if len(tile) > 3]
    deep = any(";16" in mode for mode in raw_modes)
    return deep and image.mode in ("LA", "RGB", "RGBA", "RGBX", "CMYK")


def _image_page(page: Image.Image, how: _Written) -> np.ndarray:
    mode = page.mode
    if mode == "1":
        # Black and white, not the two darkest of 256 grey levels.
        return np.asarray(page.convert("L"))
    if mode == "F" or mode == "L" or mode.startswith("I"):
        pixels = np.asarray(page)
        if mode.startswith("I;16") and how.white_is_zero:
            # Pillow turns 8-bit white-is-zero TIFFs round by itself, but not 16-bit ones.
            pixels = np.iinfo(np.uint16).max - pixels
        return pixels
    if mode == "LA":
        return np.asarray(page.getchannel("L"))
    return np.asarray(page.convert("RGBA").convert("RGB") if mode == "PA" else page.convert("RGB"))


def _label_page(page: Image.Image, how: _Written, name: str) -> np.ndarray:
    mode = page.mode
    if mode in ("P", "PA", "L", "LA"):
        values = np.asarray(page.getchannel(0))
        if mode == "L":
            # Pillow turns these round by itself, but not those of 16 bits.
            values = (255 - values if how.white_is_zero else values) // how.step
    elif mode in ("1", "F") or mode.startswith("I"):
        values = np.asarray(page)
        values = values.astype(np.uint8) if mode == "1" else values
    else:
        values = grey_if_equal(np.asarray(page.convert("RGB")))
        if values.ndim == 3:
            raise _colours(values, name)
    return values


def _colours(pixels: np.ndarray, name: str) -> UnreadableFileError:
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    some = ", ".join("#" + bytes(colour).hex() for colour in colours[:10].astype(np.uint8))
    return UnreadableFileError(
        Reason.LABEL_COLOURS,
        f"{name}: a label map must hold class numbers, found {len(colours)} colours ({some}). "
        f"Which colour is which class cannot be known: save it as a palette or single-channel "
        f"PNG in which each pixel is its class number.",
    )


def _undo_compression(pages: list[np.ndarray], name: str) -> list[np.ndarray]:
    """Return JPEG label maps with the values they had before compression, if that is certain.

    Compression rings round every edge. A map of 0 and one bright value can be told from that;
    anything else with several values cannot.
    """
    values = np.unique(np.concatenate([page.ravel() for page in pages]))
    if len(values) == 1:
        return pages
    top = int(values[-1])
    # Rings stay within a quarter of the step at an edge; the middle half is then empty.
    if top >= LEAST_LOSSY_LABEL and ((values <= top // 4) | (values >= top - top // 4)).all():
        foreground = 255 if top > 224 else top
        return [np.where(page > top // 2, foreground, 0).astype(page.dtype) for page in pages]
    shown = ", ".join(str(int(value)) for value in values[:10])
    more = ", …" if len(values) > 10 else ""
    raise UnreadableFileError(
        Reason.LABEL_LOSSY,
        f"{name}: {len(values)} different values ({shown}{more}), smeared by JPEG compression; a "
        "label map has one per class. Export it again as PNG, or round it to its class numbers "
        "yourself.",
    )
