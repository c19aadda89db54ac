"""DICOM pixel data to stored values: transfer syntaxes, palettes, padding, inverted grey scales.

Standard: DICOM PS3.3 C.7.6.3 (image pixel module), PS3.5 section 8 and annex A.
"""

import importlib
import logging
from collections.abc import Callable
from types import ModuleType

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import get_expected_length, get_nr_frames, pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from vismae.core.errors import UnreadableFileError
from vismae.files.pixels import native_numbers, require_size
from vismae.files.reasons import Reason

logger = logging.getLogger(__name__)

# One decoder per syntax, so that pixels do not depend on what else happens to be installed.
_DECODERS: dict[str, str] = {
    JPEGBaseline8Bit: "pillow",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    RLELossless: "pylibjpeg",
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
    **dict.fromkeys(JPEG2000TransferSyntaxes, "pylibjpeg"),
}
_JPEG = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1}
_PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
_NEEDED_FOR_INTEGERS = ("BitsStored", "PixelRepresentation")


def decode_pixels(dataset: Dataset, name: str) -> np.ndarray:
    """Return the stored values of all frames, (F, H, W) grey or (F, H, W, 3) colour.

    Palettes are looked up and YCbCr becomes RGB. Nothing is rescaled, windowed or inverted.

    Raises:
        UnreadableFileError: ``no-pixels``, ``truncated``, ``undecodable``, ``too-large`` or
            ``unsupported-pixels``.
    """
    element = next((word for word in _PIXEL_ELEMENTS if dataset.get(word) is not None), None)
    if element is None or not dataset[element].value:
        raise UnreadableFileError(
            Reason.NO_PIXELS,
            f"{name}: a {dataset.get('Modality') or 'DICOM'} object without pixel data. "
            f"Leave it out, or fetch it again with its pixels.",
        )
    _require_tags(dataset, element, name)
    samples, frames = int(dataset.SamplesPerPixel), get_nr_frames(dataset, warn=False)
    shape = (frames, int(dataset.Rows), int(dataset.Columns), samples)
    if samples not in (1, 3):
        raise UnreadableFileError(
            Reason.UNSUPPORTED_PIXELS,
            f"{name}: {samples} samples per pixel. Grey (1) and colour (3) images are read.",
        )
    require_size(shape, max(1, int(dataset.BitsAllocated) // 8), name)
    syntax = _settle_transfer_syntax(dataset, element, name)
    if not syntax.is_encapsulated:
        _require_complete(dataset, element, name)
    pixels = _decode(dataset, syntax, name).reshape(shape if samples == 3 else shape[:3])
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)[..., :3]
    return native_numbers(pixels, name)


def clean_stored_values(
    pixels: np.ndarray, dataset: Dataset, show_bright_as_bright: bool
) -> np.ndarray:
    """Replace padding by the smallest valid value, and turn MONOCHROME1 round if asked.

    Both work on stored values, so a later slope and intercept stay what they are. Turning round
    is for grey levels made for the eye; Hounsfield units and uptake do not depend on how a
    viewer paints them (PS3.3 C.7.6.3.1.2).

    Args:
        pixels: Grey stored values, any shape.
        dataset: Its header.
        show_bright_as_bright: Turn MONOCHROME1 round within the range of its stored bits.
    """
    padding = _padding(pixels, dataset)
    if (
        show_bright_as_bright
        and dataset.get("PhotometricInterpretation") == "MONOCHROME1"
        and pixels.dtype.kind in "iu"
    ):
        # Unsigned values of b bits: 2^b - 1 - v; signed ones: -1 - v. Never by the image's own
        # extremes, which would give each slice of a series another scale.
        # Lossy compression may overshoot the range, which must not wrap around.
        bits = int(dataset.BitsStored)
        signed = int(dataset.get("PixelRepresentation") or 0) == 1
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        turned = low + high - pixels.astype(np.int64)
        pixels = np.clip(turned, low, high).astype(pixels.dtype)
    if padding is not None and padding.any() and not padding.all():
        pixels = np.where(padding, pixels[~padding].min(), pixels)
    return pixels


def _padding(pixels: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Where pixels hold PixelPaddingValue (or lie in its range, PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None or pixels.dtype.kind not in "iu":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    bits = 8 * pixels.dtype.itemsize
    low, high = sorted(_wrap(int(v), bits, pixels.dtype.kind) for v in (value, limit or value))
    return (pixels >= low) & (pixels <= high)


def _wrap(value: int, bits: int, kind: str) -> int:
    """Read a padding value in the pixels' signedness, which writers often get wrong."""
    value %= 2**bits
    return value - 2**bits if kind == "i" and value >= 2 ** (bits - 1) else value


def _require_tags(dataset: Dataset, element: str, name: str) -> None:
    needed = _NEEDED + (_NEEDED_FOR_INTEGERS if element == "PixelData" else ())
    missing = [tag for tag in needed if dataset.get(tag) in (None, "")]
    if missing:
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: the header lacks {', '.join(missing)}, without which pixels have no "
            f"meaning. Fetch the file again from its source, or leave it out.",
        )


def _settle_transfer_syntax(dataset: Dataset, element: str, name: str) -> UID:
    """Return the transfer syntax; files without one are native in the byte order found."""
    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax:
        return UID(syntax)
    if dataset[element].is_undefined_length:
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: compressed pixels, but no transfer syntax says how. Fetch the file again "
            f"from its source with its file meta information.",
        )
    implicit, little = dataset.original_encoding
    if not little:
        syntax = ExplicitVRBigEndian
    else:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    return syntax


def _require_complete(dataset: Dataset, element: str, name: str) -> None:
    expected = get_expected_length(dataset, unit="bytes")
    found = len(dataset[element].value)
    if found < expected:
        raise UnreadableFileError(
            Reason.TRUNCATED,
            f"{name}: the pixel data has {found} of {expected} bytes. Copy the file again.",
        )


def _decode(dataset: Dataset, syntax: UID, name: str) -> np.ndarray:
    codecs = _imagecodecs()
    attempts: dict[str, Callable[[], np.ndarray]] = {
        "any decoder": lambda: pixel_array(dataset),
    }
    if plugin := _DECODERS.get(syntax):
        first = {plugin: lambda: pixel_array(dataset, decoding_plugin=plugin)}
        attempts = {**first, **attempts}
    if codecs is not None and syntax in _JPEG and int(dataset.SamplesPerPixel) == 1:
        attempts["imagecodecs"] = lambda: _decode_jpeg(dataset, codecs)
    failures = []
    for decoder, attempt in attempts.items():
        try:
            return attempt()
        except Exception as error:  # decoders are foreign code and raise anything
            failures.append(f"{decoder}: {error}")
        except BaseException as error:
            # A panic of the decoders written in Rust is no Exception, and would end a long job.
            if type(error).__name__ != "PanicException":
                raise
            failures.append(f"{decoder}: {error}")
    text = " ".join(" ".join(failures).split())
    logger.debug("%s: %s", name, text)
    reason, found = Reason.UNDECODABLE, f"cannot decode transfer syntax '{syntax.name}'"
    if any(word in text.lower() for word in ("truncated", "premature", "less than expected")):
        reason = Reason.TRUNCATED
    cure = _cure(syntax, int(dataset.get("BitsStored") or 0), codecs)
    raise UnreadableFileError(reason, f"{name}: {found}. {cure} ({text[:300]})")


def _cure(syntax: UID, bits_stored: int, codecs: ModuleType | None) -> str:
    if syntax in _JPEG and bits_stored > 8 and codecs is None:
        return "12-bit JPEG needs imagecodecs: pip install 'vismae[codecs]'."
    return (
        "Convert it to Explicit VR Little Endian (such as with gdcmconv --raw or dcmdjpeg), or "
        "leave it out if it is damaged."
    )


def _imagecodecs() -> ModuleType | None:
    """The optional package that decodes 12-bit JPEG, if installed."""
    try:
        return importlib.import_module("imagecodecs")
    except ImportError:
        return None


def _decode_jpeg(dataset: Dataset, codecs: ModuleType) -> np.ndarray:
    count = get_nr_frames(dataset, warn=False)
    frames = generate_frames(dataset.PixelData, number_of_frames=count)
    signed = int(dataset.PixelRepresentation) == 1
    dtype = np.dtype(f"{'i' if signed else 'u'}{int(dataset.BitsAllocated) // 8}")
    return np.stack([codecs.jpeg_decode(frame) for frame in frames]).astype(dtype)
