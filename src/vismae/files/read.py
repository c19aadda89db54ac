"""One door to all readers: any image file to images, any label file to class numbers."""

from collections.abc import Callable, Sequence

import numpy as np

from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, MedicalImage, Modality, Spacing
from vismae.files.dicom import read_dicom
from vismae.files.discover import Group, SourceFile
from vismae.files.itk import read_itk, read_itk_labels
from vismae.files.label_place import ImageBlock
from vismae.files.nifti import read_nifti, read_nifti_labels
from vismae.files.raster import read_raster, read_raster_labels
from vismae.files.reasons import Reason

# What a file lacks that is a plain image of grey levels if it is none of the modalities below.
_WITHOUT_UNIT = (Reason.NO_RESCALE, Reason.NO_SUV)
# A PET whose dose is missing is no CT because somebody says so: these have units of their own.
_WITH_UNIT = (Modality.CT, Modality.PET)


def read_where_silent(
    read: Callable[[Modality | None], list[MedicalImage]], wanted: Modality | None
) -> list[MedicalImage]:
    """Read files by the modality that somebody named only where they do not tell their own.

    Args:
        read: Reads them as a modality, or by what they say themselves.
        wanted: The named modality, if any.

    Raises:
        UnreadableFileError: As ``read``. One that lacks the unit of the modality it tells is read
            as ``wanted`` all the same, if that needs none.
    """
    try:
        images = read(None)
    except UnreadableFileError as error:
        # The message of these names the option as the cure, so here it speaks for the file.
        if wanted in (None, *_WITH_UNIT) or error.reason not in _WITHOUT_UNIT:
            raise
        return read(wanted)
    silent = all(image.modality is Modality.OTHER for image in images)
    return read(wanted) if wanted is not None and silent else images


def read_image(
    files: Group | SourceFile | Sequence[SourceFile],
    modality: Modality | None = None,
    keep: frozenset[Flag] = frozenset(),
    on_file: Callable[[SourceFile], None] | None = None,
    channel: int | None = None,
) -> list[MedicalImage]:
    """Read the files of one group: a DICOM series, or one file of any kind.

    Args:
        files: A group from ``group_series``, one file, or several DICOM files of one series.
        modality: Overrides what the files say, and with it the pixel unit.
        keep: Of ``KEEPABLE``, what is to be read all the same.
        on_file: Called with each file before it is read.
        channel: Of a file of several volumes (NIfTI, MetaImage, NRRD) the only one to read.

    Raises:
        UnreadableFileError: Whatever a library raised; the reason codes are listed in
            ``reasons.REASONS``.
        MemoryError: The only other exception.
    """
    members = _members(files)
    name = members[0].name
    try:
        if channel is not None and members[0].kind not in ("nifti", "itk"):
            raise UnreadableFileError(
                Reason.NO_CHANNEL,
                f"{name}: channel {channel} is wanted, but only NIfTI, MetaImage and NRRD files "
                "hold volumes as channels. Leave the column channel of the table empty.",
            )
        if members[0].kind == "dicom":
            return read_dicom(members, modality, keep, on_file)
        if on_file is not None:
            on_file(members[0])
        if len(members) > 1:
            raise UnreadableFileError(
                Reason.UNDECODABLE,
                f"{name}: given together with {len(members) - 1} further files. Only DICOM "
                f"series have several files; read each of these by itself.",
            )
        if members[0].kind == "nifti":
            return read_nifti(members[0], modality, channel)
        if members[0].kind == "itk":
            return read_itk(members[0], modality, channel)
        return [read_raster(members[0], modality)]
    except UnreadableFileError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # one odd file must never end a long job
        raise _undecodable(name, error) from error


def read_label_map(
    file: SourceFile, block: ImageBlock | None = None, classes: Sequence[int] | None = None
) -> tuple[np.ndarray, Spacing | None]:
    """Read class numbers, int32 (S, H, W), oriented as ``read_image`` orients the image.

    Args:
        file: The label map.
        block: The slices it describes; where given, a label map that says where it lies must lie
            on them. Its shape is not checked.
        classes: Class numbers of the segments that its header names; see ``read_itk_labels``.

    Returns:
        The label map and its spacing; None where the format has none (PNG and the like).

    Raises:
        UnreadableFileError: The only exception; ``label-format`` for DICOM, ``label-geometry`` for
            a label map that lies beside its image.
    """
    try:
        if file.kind == "nifti":
            return read_nifti_labels(file, block)
        if file.kind == "itk":
            return read_itk_labels(file, block, classes)
        if file.kind == "raster":
            return read_raster_labels(file), None
    except UnreadableFileError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _undecodable(file.name, error) from error
    raise UnreadableFileError(
        Reason.LABEL_FORMAT,
        f"{file.name}: a DICOM file where a label map was expected. Label maps are read from "
        f"NIfTI, MetaImage, NRRD, PNG, TIFF and BMP. A DICOM segmentation or structure set needs "
        f"no table: put it into the folder of its images.",
    )


def _members(files: Group | SourceFile | Sequence[SourceFile]) -> Sequence[SourceFile]:
    if isinstance(files, SourceFile):
        return (files,)
    members = files.files if isinstance(files, Group) else files
    if not members:
        raise UnreadableFileError(Reason.NOT_FOUND, "no file was given to read. Give at least one.")
    return members


def _undecodable(name: str, error: Exception) -> UnreadableFileError:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return UnreadableFileError(
        Reason.UNDECODABLE,
        f"{name}: cannot be read ({text[:300]}). Fetch the file again from its source, or leave "
        f"it out.",
    )
