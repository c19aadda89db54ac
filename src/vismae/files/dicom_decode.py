"""DICOM pixel data to stored values: transfer syntaxes, colour spaces and palettes.

Standard: DICOM PS3.3 C.7.6.3 (image pixel module), PS3.5 section 8 and annex A.
"""

import importlib
import logging
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
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
from rle.rle import decode_frame

from vismae.core.advice import advice
from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_bits import settle_stored_bits
from vismae.files.dicom_codestream import codestream_shape
from vismae.files.dicom_codestream_words import CODESTREAMS_WITH_BITS, decode_grey_words
from vismae.files.dicom_colour import YBR, decode_colour_jpeg, decode_ybr, expected_bytes
from vismae.files.dicom_fragments import fragment_count, without_offsets
from vismae.files.dicom_photometry import photometry_of_grey
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
_LOSSY_JPEG = {JPEGBaseline8Bit, JPEGExtended12Bit}
# These hold words with whatever is in their unused bits, and ``dicom_bits`` settles that.
_WORDS = {JPEGLossless, JPEGLosslessSV1, RLELossless}
_PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
# The item that holds a compressed frame begins with its tag and length (PS3.5 section A.4).
_LEAST_FRAME_BYTES = 8
_NEEDED_FOR_INTEGERS = ("BitsStored", "PixelRepresentation")
NEEDED_NUMBERS = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames"),
    *_NEEDED_FOR_INTEGERS,
)
"""What pixels cannot be told apart without."""


def decode_pixels(dataset: Dataset, name: str) -> np.ndarray:
    """Return the stored values of all frames, (F, H, W) grey or (F, H, W, 3) colour.

    Palettes are looked up, YCbCr becomes RGB, and colours of more than 8 bits keep their upper 8,
    as other colour files do. Nothing is rescaled, windowed or inverted. BitsStored of the header
    is corrected where it is wrong (see ``dicom_bits``). The array may be read-only.

    Raises:
        UnreadableFileError: ``no-pixels``, ``truncated``, ``undecodable``, ``too-large`` or
            ``unsupported-pixels``.
    """
    element = require_pixels(dataset, name)
    shape, syntax = _require_whole(dataset, element, name)
    samples = shape[3]
    if samples == 3 and dataset.get("PlanarConfiguration") in (None, ""):
        dataset.PlanarConfiguration = 0  # as other readers have it, and as nearly all colours are
    if syntax.is_encapsulated and syntax != RLELossless:  # whose frames do not say their shape
        _require_codestream_shape(dataset, shape, name)
    shape = shape if samples == 3 else shape[:3]
    pixels = _decode(dataset, syntax, name)
    if pixels.ndim == len(shape) and pixels.shape[1:] == shape[1:]:
        # Some headers promise fewer frames than are there; what is not promised is not read.
        pixels = pixels[: shape[0]]
    pixels = native_numbers(pixels.reshape(shape), name)
    if samples == 3:
        return _colour_of_8_bits(pixels, _colour_bits(pixels, int(dataset.get("BitsStored") or 8)))
    if element == "PixelData" and syntax not in _LOSSY_JPEG:
        pixels = settle_stored_bits(pixels, dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, dataset)[..., :3]
        return _colour_of_8_bits(colours, _palette_bits(dataset))
    return pixels


def _palette_bits(dataset: Dataset) -> int:
    """Return 8 or 16: a table of 16 bits may hold values of 8 bits, whatever is said of it.

    The whole table tells, not a picture's colours: dark ones look like values of 8 bits.
    """
    count, first, _ = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
    entries = apply_color_lut(np.arange(first, first + (count or 2**16)), dataset)[..., :3]
    return 16 if entries.max() > 255 else 8


def require_pixels(dataset: Dataset, name: str) -> str:
    """Return the name of the element that holds the pixels.

    Raises:
        UnreadableFileError: ``no-pixels`` without one.
    """
    there = (word for word in _PIXEL_ELEMENTS if word in dataset)
    element = next((word for word in there if _content(dataset, word)), None)
    if element is None:
        raise UnreadableFileError(
            Reason.NO_PIXELS,
            f"{name}: a DICOM object without pixel data. Leave it out, or fetch it again with its "
            f"pixels.",
        )
    return element


def _content(dataset: Dataset, element: str) -> bytes:
    """Return the bytes of an element of pixels as they are read; nothing in them is converted."""
    return cast(RawDataElement | DataElement, dataset.get_item(element)).value or b""


def require_frames(dataset: Dataset, name: str) -> None:
    """Refuse a file that cannot hold the frames that its header promises.

    Raises:
        UnreadableFileError: As for ``decode_pixels``.
    """
    if get_nr_frames(dataset, warn=False) > 1:
        _require_whole(dataset, require_pixels(dataset, name), name)


def _require_whole(
    dataset: Dataset, element: str, name: str
) -> tuple[tuple[int, int, int, int], UID]:
    """Return the shape that the header promises, (F, H, W, samples), and the transfer syntax."""
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
    content = _content(dataset, element)
    found = len(content)
    if not syntax.is_encapsulated:
        expected = expected_bytes(dataset)
    else:
        expected = frames * _LEAST_FRAME_BYTES
    if found < expected:
        least = "at least " if syntax.is_encapsulated else ""
        raise UnreadableFileError(
            Reason.TRUNCATED,
            f"{name}: the pixel data has {found} of {least}{expected} bytes. Copy the file again.",
        )
    if syntax.is_encapsulated and frames > 1:
        fragments = fragment_count(content)
        if fragments is not None and fragments < frames:
            raise UnreadableFileError(
                Reason.TRUNCATED,
                f"{name}: holds {fragments} of {frames} compressed frames (NumberOfFrames). Copy "
                f"the file again.",
            )
    return shape, syntax


def _require_codestream_shape(
    dataset: Dataset, shape: tuple[int, int, int, int], name: str
) -> None:
    frames = generate_frames(dataset.PixelData, number_of_frames=shape[0])
    for number in range(1, shape[0] + 1):
        try:
            found = codestream_shape(next(frames))
        except (StopIteration, ValueError, EOFError, struct.error):
            return  # a decoder will say what is wrong with it
        if found is not None and found != shape[1:]:
            raise UnreadableFileError(
                Reason.UNDECODABLE,
                f"{name}: frame {number} holds {_shape(found)}, the header says "
                f"{_shape(shape[1:])}. Fetch the file again from its source, or leave it out.",
            )


def _shape(found: tuple[int, int, int]) -> str:
    return f"{found[0]}×{found[1]} pixels of {found[2]} sample{'s' if found[2] > 1 else ''}"


def _colour_bits(pixels: np.ndarray, stored: int) -> int:
    """Return how many bits colours have: BitsStored may be that of the words alone."""
    is_8_bit = pixels.dtype.kind in "iu" and pixels.size and int(pixels.max()) < 2**8
    return 8 if is_8_bit else stored


def _colour_of_8_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    if pixels.dtype.kind not in "iu" or pixels.dtype == np.uint8:
        return pixels
    return np.right_shift(pixels, max(0, bits - 8)).astype(np.uint8)


def _require_tags(dataset: Dataset, element: str, name: str) -> None:
    if not dataset.get("PhotometricInterpretation") and (known := photometry_of_grey(dataset)):
        dataset.PhotometricInterpretation = known
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
    known = _known_syntax(UID(syntax), name) if syntax else None
    in_pieces = dataset[element].is_undefined_length
    if in_pieces and (known is None or not known.is_encapsulated):
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: compressed pixels, but no transfer syntax says how. Fetch the file again "
            f"from its source with its file meta information.",
        )
    if known is not None:
        return known
    implicit, little = dataset.original_encoding
    if not little:
        syntax = ExplicitVRBigEndian
    else:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    return syntax


def _known_syntax(syntax: UID, name: str) -> UID:
    """Refuse a transfer syntax of a maker's own, or newer than the library of decoders."""
    if not syntax.is_transfer_syntax:
        which = f" {syntax}" if syntax.is_valid else ""  # else anything may stand there
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: the transfer syntax{which} is none that is known here. Fetch the file again "
            f"in another one, such as Explicit VR Little Endian, or leave it out.",
        )
    return syntax


def _decode(dataset: Dataset, syntax: UID, name: str) -> np.ndarray:
    codecs = _imagecodecs() if syntax in _JPEG else None
    attempts: dict[str, Callable[[], np.ndarray]] = {}
    # pydicom would clear unused bits by the header alone.
    options: dict[str, Any] = {"correct_unused_bits": False} if syntax in _WORDS else {}
    if not syntax.is_encapsulated and _is_plain(dataset):
        attempts["numpy"] = lambda: _plain_words(dataset, syntax)
    in_colour = int(dataset.SamplesPerPixel) == 3 and int(dataset.BitsAllocated) == 8
    if in_colour:
        if syntax in _LOSSY_JPEG:
            attempts["colours"] = lambda: decode_colour_jpeg(dataset)
        elif str(dataset.PhotometricInterpretation) in YBR:
            attempts["ybr"] = lambda: decode_ybr(dataset, _DECODERS.get(syntax, ""))
    if syntax == RLELossless and _is_plain(dataset):
        attempts["rle"] = lambda: _decode_rle(dataset)
    in_words = syntax in CODESTREAMS_WITH_BITS and int(dataset.SamplesPerPixel) == 1
    if in_words:
        attempts["words"] = lambda: decode_grey_words(dataset, syntax)
    if plugin := _DECODERS.get(syntax):
        attempts[plugin] = lambda: pixel_array(dataset, decoding_plugin=plugin, **options)
    attempts["any decoder"] = lambda: pixel_array(dataset, **options)
    frames = get_nr_frames(dataset, warn=False)
    if syntax.is_encapsulated and frames > 1:
        if in_colour and syntax in _LOSSY_JPEG:
            attempts["colours without offsets"] = lambda: decode_colour_jpeg(
                without_offsets(dataset, frames)
            )
        if in_words:
            attempts["words without offsets"] = lambda: decode_grey_words(
                without_offsets(dataset, frames), syntax
            )
        attempts["without offsets"] = lambda: pixel_array(
            without_offsets(dataset, frames), **options
        )
    if codecs is not None and int(dataset.SamplesPerPixel) == 1:
        attempts["imagecodecs"] = lambda: _decode_jpeg(dataset, codecs)
    failures = []
    for decoder, attempt in attempts.items():
        try:
            return attempt()
        except MemoryError:
            raise
        except Exception as error:  # decoders are foreign code and raise anything
            failures.append(f"{decoder}: {error or type(error).__name__}")
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


def _is_plain(dataset: Dataset) -> bool:
    """Whether pixels are grey words of whole bytes, which need no decoder."""
    grey = int(dataset.SamplesPerPixel) == 1 and "PixelData" in dataset
    return grey and int(dataset.BitsAllocated) in (8, 16, 32)


def _plain_words(dataset: Dataset, syntax: UID) -> np.ndarray:
    allocated = int(dataset.BitsAllocated)
    swapped = not syntax.is_little_endian
    if swapped and allocated == 8 and dataset["PixelData"].VR == "OW":
        return pixel_array(dataset)  # bytes in swapped pairs
    sign = "i" if int(dataset.PixelRepresentation) == 1 else "u"
    count = get_expected_length(dataset, unit="pixels")
    dtype = np.dtype(f"{'>' if swapped else '<'}{sign}{allocated // 8}")
    return np.frombuffer(_content(dataset, "PixelData"), dtype, count)


def _decode_rle(dataset: Dataset) -> np.ndarray:
    """Decode grey words; pydicom's way around the same decoder takes as long as the decoder."""
    allocated = int(dataset.BitsAllocated)
    count = int(dataset.Rows) * int(dataset.Columns)
    number = get_nr_frames(dataset, warn=False)
    frames = [
        decode_frame(frame, count, allocated, "<")
        for frame in generate_frames(dataset.PixelData, number_of_frames=number)
    ]
    if len(frames) != number:
        raise ValueError(f"less than expected: {len(frames)} of {number} frames")
    sign = "i" if int(dataset.PixelRepresentation) == 1 else "u"
    return np.frombuffer(frames[0] if number == 1 else b"".join(frames), f"<{sign}{allocated // 8}")


def _cure(syntax: UID, bits_stored: int, codecs: ModuleType | None) -> str:
    if syntax in _JPEG and bits_stored > 8 and codecs is None:
        return advice(
            "12-bit JPEG needs imagecodecs: pip install 'vismae[codecs]'.",
            "12-bit JPEG needs the extra 'codecs' on the server; ask who runs it, or convert it.",
        )
    if not syntax.is_encapsulated:
        return "Fetch it again from its source, or leave it out."
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
