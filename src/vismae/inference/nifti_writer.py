"""Label maps and maps of values as NIfTI volumes that overlay their image exactly.

Made from a NIfTI image, the result has the image's own voxel axes, shape and header geometry (both
transforms with their codes); made from another format, the axes are column, row and slice.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from vismae.core.advice import advice
from vismae.core.errors import DataError
from vismae.core.types import MedicalImage
from vismae.files.discover import SourceFile
from vismae.files.nifti import voxel_space
from vismae.files.nifti_stream import open_nifti
from vismae.files.orientation import slice_orientation
from vismae.files.signatures import is_gzip
from vismae.inference.output_files import whole_or_none

_MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}
# Fields in which a writer may have put a patient's name, or what was true of the image only.
_FREE_TEXT = ("descrip", "aux_file", "db_name", "intent_name")


def write_nifti_like(
    path: Path,
    file: SourceFile,
    volumes: list[np.ndarray],
    slope: float,
    one_of_several: bool = False,
) -> None:
    """Write slices back into the space of the NIfTI file they came from.

    Args:
        path: Ends with ``.nii.gz``.
        file: The image, as ``read_nifti`` read it.
        volumes: One (S, H, W) for each volume of the file.
        slope: What one step of the stored numbers means; 1 for class numbers.
        one_of_several: A single volume of the file was read; the result has three axes.

    Raises:
        DataError: The file has changed since it was read.
    """
    space = _read_space(file)
    first, second, third = (*space.shape, 1, 1)[:3]
    scale = _MM_PER_UNIT.get(space.length_unit, 1.0)
    in_mm = np.diag([scale, scale, scale, 1.0]) @ space.affine
    orientation = slice_orientation((first, second, third), in_mm)
    back = [orientation.to_volume(slices) for slices in volumes]
    data = back[0] if len(back) == 1 else np.stack(back, axis=-1)
    shape = (first, second, third) if one_of_several else space.shape
    if data.shape[:3] != (first, second, third) or data.size != np.prod(shape, dtype=int):
        raise DataError(
            f"{file.name}: {data.shape} voxels were predicted, but the file now has {space.shape}. "
            f"It changed while it was read; {advice('run again with --resume', 'send it again')}."
        )
    made: Any = space.kind(data.reshape(shape), space.affine, space.header)
    _save(path, made, data.dtype, slope)


def write_nifti_of(path: Path, image: MedicalImage, slices: np.ndarray, slope: float) -> None:
    """Write slices (S, H, W) with the affine of the image they belong to.

    Raises:
        DataError: Where the slices lie is not known, or no affine can say it.
    """
    details = image.details
    regular = details.get("regular_spacing", True) and details.get("slices_in_space", True)
    if image.affine is None or not regular:
        what = "has no known place in space" if image.affine is None else "has irregular slices"
        raise DataError(
            f"{image.source}: {what}, so no NIfTI file can say where its voxels lie. "
            + advice("Use --format png, or dicomseg for DICOM.", "All but this file is there.")
        )
    data = np.ascontiguousarray(slices.transpose(2, 1, 0))
    made = nib.Nifti1Image(data, image.affine)
    made.header.set_xyzt_units("mm")
    _save(path, made, data.dtype, slope)


def _save(path: Path, image: Any, dtype: np.dtype, slope: float) -> None:
    header = image.header
    image.set_data_dtype(dtype)
    header["cal_min"] = header["cal_max"] = 0.0
    for field in set(_FREE_TEXT) & set(header.keys()):  # NIfTI-2 has no db_name
        header[field] = b""
    header.extensions.clear()
    header.set_slope_inter(slope, 0.0)  # stored numbers stay as they are
    with whole_or_none(path) as place:
        nib.save(image, place)


@dataclass(frozen=True)
class _Space:
    """What a NIfTI file says of its axes; ``affine`` in its own unit of length."""

    kind: type[Any]
    header: Any
    shape: tuple[int, ...]
    affine: np.ndarray
    length_unit: str


def _read_space(file: SourceFile) -> _Space:
    with open_nifti(file) as stream:
        start = stream.read(2)
        stream.seek(0)
        data: Any = gzip.GzipFile(fileobj=stream) if is_gzip(start) else stream
        version_2 = data.read(8)[4:8] == b"n+2\x00"
        data.seek(0)
        kind: Any = nib.Nifti2Image if version_2 else nib.Nifti1Image
        image = kind.from_stream(data)
    try:
        length_unit = image.header.get_xyzt_units()[0]
    except KeyError:
        length_unit = "unknown"
    affine, _ = voxel_space(image)
    return _Space(kind, image.header, tuple(image.shape), affine, length_unit)
