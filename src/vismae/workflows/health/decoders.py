"""Whether DICOM pixels of each transfer syntax are really decoded here.

Small files that pydicom brings along are read by this package's own reader.
"""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pydicom.data

from vismae.core.errors import UnreadableFileError
from vismae.files.dicom_decode import decode_pixels
from vismae.workflows.health.check import Check

_SAMPLES = {
    "implicit little endian": "MR_small_implicit.dcm",
    "explicit little endian": "MR_small.dcm",
    "explicit big endian": "MR_small_bigendian.dcm",
    "deflated": "image_dfl.dcm",
    "RLE lossless": "MR_small_RLE.dcm",
    "JPEG baseline, 8 bit": "SC_rgb_small_odd_jpeg.dcm",
    "JPEG lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG-LS lossless": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG-LS near-lossless": "JPEGLSNearLossless_16.dcm",
    "JPEG 2000 lossless": "MR_small_jp2klossless.dcm",
    "JPEG 2000": "JPEG2000.dcm",
    "JPEG extended, 12 bit": "JPGExtended.dcm",
}
# Decoded by an extra package only.
_OPTIONAL = {"JPEG extended, 12 bit": "pip install 'vismae[codecs]'"}
_REPAIR = (
    "pip install --force-reinstall pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle pyjpegls python-gdcm"
)


def decoder_checks() -> Iterator[Check]:
    """Decode one sample of each transfer syntax."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    for name, file in _SAMPLES.items():
        yield _check(f"DICOM, {name}", folder / file, _OPTIONAL.get(name))


def _check(name: str, path: Path, optional: str | None) -> Check:
    if not path.is_file():
        return Check(name, "warning", "not tried: this pydicom brings no sample", "")
    try:
        pixels = decode_pixels(pydicom.dcmread(path), path.name)
    except UnreadableFileError as error:
        if optional is not None:
            return Check(name, "missing", "not decoded; such files are left out by name", optional)
        return Check(name, "failed", str(error), _REPAIR)
    return Check(name, "ok", f"{pixels.shape[1]}×{pixels.shape[2]} decoded")
