"""Grey JPEG 2000 and JPEG-LS frames to words, whatever bits and sign the header gives them.

A JPEG 2000 codestream tells its own precision and sign, and JPEG-LS its precision; many archives
hold files whose header tells others. pydicom puts the sign where the codestream's bits end, which
turns large values of a short codestream into negative ones. Standard: ISO 15444-1 annex A.5.1
(Ssiz), PS3.5 sections 8.2.3 and 8.2.4.
"""

import numpy as np
from jpeg_ls import decode_pixel_data as decode_jpeg_ls
from openjpeg.utils import decode_pixel_data as decode_jpeg_2000
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_j2k_parameters, get_nr_frames
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

from vismae.files.dicom_bits import roughness

CODESTREAMS_WITH_BITS = frozenset({*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes})
"""Transfer syntaxes whose codestreams tell their own precision."""

# What the header says of the sign is disbelieved where the image is this many times rougher with
# it. Not where it is hardly rougher: phases of MR wrap around, and noise is as rough in any sense.
_ROUGHER = 1.25


def decode_grey_words(dataset: Dataset, syntax: UID) -> np.ndarray:
    """Decode frames of one sample per pixel.

    Args:
        dataset: The header; PixelRepresentation is corrected where it is wrong.
        syntax: One of ``CODESTREAMS_WITH_BITS``.

    Returns:
        Integers, (F, H, W), at least as wide as BitsAllocated; nothing beyond BitsStored is
        cleared.

    Raises:
        ValueError: There are fewer frames, or another number of pixels, than the header says.
        RuntimeError: A codestream is damaged.
    """
    count, rows, columns = get_nr_frames(dataset, warn=False), dataset.Rows, dataset.Columns
    decode = _jpeg_2000 if syntax in JPEG2000TransferSyntaxes else _jpeg_ls
    frames = generate_frames(dataset.PixelData, number_of_frames=count)
    decoded = map(decode, frames)
    first = next(decoded, None)
    if first is None:
        raise ValueError(f"less than expected: 0 of {count} frames")
    words, bits, signed = first
    # Frame by frame into one array: an object of many may fill half of the memory.
    all_words = np.empty((count, rows, columns), words.dtype)
    all_words[0] = words.reshape(rows, columns)
    done = 1
    for place, (words, *told) in zip(range(1, count), decoded, strict=False):
        if told != [bits, signed]:
            raise ValueError("frames of different precision or sign")
        all_words[place] = words.reshape(rows, columns)
        done += 1
    if done < count:
        raise ValueError(f"less than expected: {done} of {count} frames")
    return _settle_sign(all_words, bits, signed, dataset)


def _jpeg_2000(frame: bytes) -> tuple[np.ndarray, int, bool]:
    """Return words, (H·W,), their precision and whether they are signed."""
    told = get_j2k_parameters(frame)
    bits, signed = int(told["precision"]), bool(told["is_signed"])
    content = decode_jpeg_2000(frame, version=2)
    return np.frombuffer(content, _word_type(bits, signed)), bits, signed


def _jpeg_ls(frame: bytes) -> tuple[np.ndarray, int, bool]:
    content, told = decode_jpeg_ls(frame)
    bits = int(told["bits_per_sample"])
    return np.frombuffer(content, _word_type(bits, signed=False)), bits, False


def _word_type(bits: int, signed: bool) -> np.dtype:
    width = next(width for width in (1, 2, 4) if bits <= 8 * width)
    return np.dtype(f"<{'i' if signed else 'u'}{width}")


def _settle_sign(words: np.ndarray, bits: int, signed: bool, dataset: Dataset) -> np.ndarray:
    """Return words in the sense of the header, or of the codestream where that is smoother.

    A codestream shorter than BitsStored does not reach the bit of the header's sign: it is taken
    as it is, unless it is smoother with its own topmost bit as the sign.
    """
    by_header = int(dataset.PixelRepresentation) == 1
    width = max(words.dtype.itemsize, int(dataset.BitsAllocated) // 8)
    out_of_reach = bits < min(int(dataset.BitsStored), 8 * width)
    if signed != by_header:
        turned = _with_other_sign(words, bits)
        expected, other = (words, turned) if by_header and out_of_reach else (turned, words)
        if _ROUGHER * roughness(other) < roughness(expected):
            expected = other
        # What the sign does not reach may be either, and is what the other slices are.
        signed = expected.dtype.kind == "i" or (by_header and out_of_reach)
        dataset.PixelRepresentation = int(signed)
        words = expected
    return words.astype(f"{'i' if signed else 'u'}{width}", copy=False)


def _with_other_sign(words: np.ndarray, bits: int) -> np.ndarray:
    """Return the same bits read as signed numbers of so many bits, or as unsigned ones."""
    size = words.dtype.itemsize
    unused = 8 * size - bits
    other = "i" if words.dtype.kind == "u" else "u"
    return np.right_shift(np.left_shift(words, unused).view(f"{other}{size}"), unused)
