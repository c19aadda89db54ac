"""NIfTI-1 and NIfTI-2 volumes and label maps, in one orientation whatever the file's own.

An image and its label map share ``slice_orientation``, and ``label_place`` sees to it that they
lie on one another.
"""

import gzip
import math
import zlib
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from vismae.core.errors import UnreadableFileError
from vismae.core.types import MedicalImage, Modality, Spacing
from vismae.files.discover import SourceFile
from vismae.files.label_place import ImageBlock, lay_on_image
from vismae.files.nifti_stream import open_nifti
from vismae.files.orientation import has_three_directions, slice_orientation
from vismae.files.pixels import as_class_numbers, grey_if_equal, native_numbers, require_size
from vismae.files.reasons import Reason
from vismae.files.signatures import is_gzip
from vismae.files.volume_customs import (
    customary_unit,
    modality_from_name,
    wanted_volumes,
    with_believable_unit,
)

_MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_COLOUR_FIELDS = ("R", "G", "B")
# NIFTI_INTENT_LABEL of nifti1.h.
_LABEL_INTENT = 1002


def read_nifti(
    file: SourceFile, modality: Modality | None = None, channel: int | None = None
) -> list[MedicalImage]:
    """Read a volume, or each volume of a 4-D file (``MAX_VOLUMES`` of them, evenly spread).

    With ``channel`` only that volume is read, counted from 0.

    NIfTI does not say how an image was made: without ``modality`` a name as in BIDS (``_T1w``,
    ``_bold``, ``_ct``, ``_pet``) decides, else it counts as ``other``. A CT is taken to hold
    Hounsfield units and a PET to hold SUV, as is the custom; unscaled 8-bit numbers and values that
    cannot be either (see ``with_believable_unit``) count as arbitrary, as does everything else.
    Stored integers are kept, with the file's slope and intercept; floats become float32.

    ``details`` holds ``orientation_known`` (whether the file has an affine), ``file_orientation``
    (how its voxels were turned), ``volume_index``, ``volumes_in_file`` and ``label_intent``
    (whether its header calls it a label map).

    Raises:
        UnreadableFileError: ``truncated``, ``undecodable``, ``too-large``,
            ``unsupported-pixels``, ``not-finite``, ``no-channel``, or ``not-found`` for the voxels
            of a pair.
    """
    with open_nifti(file) as stream:
        volumes = _Volumes(stream, file.name)
        made = modality or modality_from_name(file.name)
        wanted = wanted_volumes(volumes.count, channel, file.name)
        images = [_image(volumes, index, file.name, made) for index in wanted]
        return with_believable_unit(images)


def read_nifti_labels(
    file: SourceFile, block: ImageBlock | None = None
) -> tuple[np.ndarray, Spacing]:
    """Read a label map, oriented exactly as ``read_nifti`` orients the image.

    Args:
        file: The label map.
        block: The slices it describes; where given, the label map must lie on them.

    Returns:
        Class numbers, int32 (S, H, W), and the spacing.

    Raises:
        UnreadableFileError: As for ``read_nifti``; ``label-not-integer`` names the first values
            that are not whole numbers, ``label-format`` refuses colours and several volumes;
            ``label-geometry`` as ``lay_on_image``.
    """
    with open_nifti(file) as stream:
        volumes = _Volumes(stream, file.name)
        if volumes.count > 1 or volumes.colour:
            found = "colours" if volumes.colour else f"{volumes.count} volumes"
            raise UnreadableFileError(
                Reason.LABEL_FORMAT,
                f"{file.name}: holds {found} where one volume of class numbers was expected. "
                f"Merge it into one label map.",
            )
        stored, orientation = volumes.read(0), volumes.orientation
        values = stored
        if (volumes.slope, volumes.intercept) != (1.0, 0.0):
            values = stored.astype(np.float64) * volumes.slope + volumes.intercept
    numbers = as_class_numbers(values, file.name)
    known = volumes.orientation_known
    return lay_on_image(numbers, orientation, known, file.name, block), orientation.spacing


def voxel_space(image: Any) -> tuple[np.ndarray, bool]:
    """Return where the voxels of a NIfTI image lie, and whether its header knows it.

    The sform counts first and then the qform, each where its code says that it is set and where
    it spans a space: some programs write a code with a matrix of zeros. Without either, voxel
    sizes are all that is known, 1 where they are no numbers.

    Args:
        image: Of nibabel.

    Returns:
        Voxel to RAS, (4, 4), in the file's own unit of length; and whether orientation is known.
    """
    header: Any = image.header
    for transform in (header.get_sform, header.get_qform):
        try:
            affine, code = transform(coded=True)
        except (HeaderDataError, ValueError, np.linalg.LinAlgError):
            continue
        if code and has_three_directions(affine):
            return np.asarray(affine, dtype=np.float64), True
    if not np.isfinite(header["pixdim"][1:4]).all():
        header = header.copy()
        sizes = header["pixdim"][1:4]
        header["pixdim"][1:4] = np.where(np.isfinite(sizes), sizes, 1.0)
    return np.asarray(header.get_base_affine(), dtype=np.float64), False


class _Volumes:
    """The open file: header facts, and one volume at a time in the file's own axes."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._name = name
        head = stream.read(2)
        stream.seek(0)
        # nibabel reads through any file object; gzip is recognised by content, not by suffix.
        data: Any = gzip.GzipFile(fileobj=stream) if is_gzip(head) else stream
        try:
            start = data.read(348)
            data.seek(0)
            version_2 = start[4:8] == b"n+2\x00"
            image = (nib.Nifti2Image if version_2 else nib.Nifti1Image).from_stream(data)
            shape, dtype = image.shape, np.dtype(image.get_data_dtype())
        except (HeaderDataError, ImageFileError, ValueError, TypeError, *_GZIP_ERRORS) as error:
            raise _undecodable(name, error) from error
        self.colour = dtype.names is not None and dtype.names[:3] == _COLOUR_FIELDS
        self._require_usable(shape, dtype)
        self.shape = _three(shape)
        self.count = int(np.prod(shape[3:], dtype=int)) if len(shape) > 3 else 1
        self.label_intent = int(cast(Any, image.header)["intent_code"]) == _LABEL_INTENT
        proxy: Any = image.dataobj
        self.slope, self.intercept = float(proxy.slope), float(proxy.inter)
        full = (*self.shape, self.count)
        # A header that leaves vox_offset at 0 would have its own bytes taken for voxels.
        offset = max(int(proxy.offset), _LEAST_OFFSET[version_2])
        self._stored = ArrayProxy(data, (full, dtype, offset, 1.0, 0.0), mmap=False)
        self._data, self._end = data, offset + math.prod(full) * dtype.itemsize
        header: Any = image.header
        affine, self.orientation_known = voxel_space(image)
        try:
            scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
        except KeyError:
            scale = 1.0  # a unit code outside the standard: millimetres, as nearly always
        affine = np.diag([scale, scale, scale, 1.0]) @ affine
        self.orientation = slice_orientation(self.shape, affine)

    def read(self, index: int) -> np.ndarray:
        """Return the stored values of one volume, (I, J, K) or (I, J, K, 3).

        With the last one a compressed file is checked against its checksum (RFC 1952).

        Raises:
            UnreadableFileError: ``truncated``.
        """
        try:
            volume = np.asarray(self._stored[..., index])
            if index == self.count - 1:
                self._read_to_the_end()
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UnreadableFileError(
                Reason.TRUNCATED,
                f"{self._name}: the voxels cannot be read to the end ({error}). Copy the file "
                f"again.",
            ) from error
        if self.colour:
            volume = np.stack([volume[field] for field in _COLOUR_FIELDS], axis=-1)
        return native_numbers(volume, self._name)

    def _read_to_the_end(self) -> None:
        """Read what follows the voxels: a compressed file is checked where it ends, not before.

        Raises:
            OSError, EOFError, zlib.error: The bytes are not those that were compressed.
        """
        self._data.seek(self._end)
        left = _LONGEST_TAIL
        while left > 0:
            try:
                found = len(self._data.read(min(left, _TAIL_PIECE)))
            except gzip.BadGzipFile as error:
                # What was compressed is sound; somebody has written something else behind it.
                if str(error).startswith("Not a gzipped file"):
                    return
                raise
            if not found:
                return
            left -= found

    def _require_usable(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if dtype.kind not in "iuf" and not self.colour:
            raise UnreadableFileError(
                Reason.UNSUPPORTED_PIXELS,
                f"{self._name}: voxels of type {dtype}. Integers, real numbers and RGB are read; "
                f"of complex data save the magnitude first.",
            )
        if len(shape) > 4 and any(length > 1 for length in shape[4:]):
            raise UnreadableFileError(
                Reason.UNSUPPORTED_PIXELS,
                f"{self._name}: shape {shape}. Volumes with at most a fourth axis (time) are "
                f"read; save each component as a file of its own.",
            )
        require_size(shape[:3], dtype.itemsize, self._name)


# Header and extension flag, behind which the voxels of one file begin (NIfTI-1 and NIfTI-2).
_LEAST_OFFSET = {False: 352, True: 544}
# No file has so much behind its voxels; what has more is not followed.
_LONGEST_TAIL, _TAIL_PIECE = 64 << 20, 1 << 20
_GZIP_ERRORS = (OSError, EOFError, zlib.error, KeyError, IndexError, OverflowError)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    rows, columns, slices = (*shape, 1, 1)[:3]
    return rows, columns, slices


def _undecodable(name: str, error: Exception) -> UnreadableFileError:
    early = isinstance(error, EOFError)
    return UnreadableFileError(
        Reason.TRUNCATED if early else Reason.UNDECODABLE,
        f"{name}: the NIfTI header cannot be read ({error}). Copy the file again.",
    )


def _image(volumes: _Volumes, index: int, name: str, modality: Modality) -> MedicalImage:
    stored = volumes.read(index)
    scaled = (volumes.slope, volumes.intercept) != (1.0, 0.0)
    pixels = volumes.orientation.to_slices(stored)
    if volumes.colour:
        pixels = grey_if_equal(pixels)
    small = stored.dtype.itemsize == 1 and not scaled
    return MedicalImage(
        pixels=pixels,
        modality=modality,
        unit=customary_unit(modality, small),
        source=name,
        slope=volumes.slope,
        intercept=volumes.intercept,
        spacing=volumes.orientation.spacing,
        affine=volumes.orientation.affine,
        details={
            "orientation_known": volumes.orientation_known,
            "file_orientation": volumes.orientation,
            "volume_index": index,
            "volumes_in_file": volumes.count,
            "label_intent": volumes.label_intent,
        },
    )
