"""What DICOM objects made by vismae take over from the images they speak of.

highdicom builds such objects from the headers of their source images; real headers lack fields it
asks for, or hold what it will not repeat.
"""

import importlib
from typing import Any

import pydicom
from pydicom import Dataset

from vismae.core.errors import DataError, SettingError
from vismae.files.discover import SourceFile

# Type 2 in the patient and study modules: they must be there, but may be empty.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


def require_highdicom() -> Any:
    """Return the package highdicom.

    Raises:
        SettingError: It is not installed.
    """
    try:
        return importlib.import_module("highdicom")
    except ImportError as error:
        raise SettingError(
            "DICOM segmentations and reports are written by highdicom, which is not installed. "
            "Run: pip install 'vismae[dicomseg]', or choose --format nifti or png."
        ) from error


def source_header(file: SourceFile) -> Dataset:
    """Return a header that highdicom takes, without pixels.

    Raises:
        DataError: It lacks what another object must refer to.
        UnreadableFileError: The file is gone.
    """
    with file.open() as stream:
        header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    # Writers of before 1993 put marks into dates and times, which highdicom will not repeat.
    for name, mark in (("StudyDate", "."), ("PatientBirthDate", "."), ("StudyTime", ":")):
        setattr(header, name, str(header.get(name) or "").replace(mark, ""))
    missing = [name for name in _NEEDED if not header.get(name)]
    if missing:
        raise DataError(
            f"{file.name}: the header lacks {', '.join(missing)}, which a DICOM object made of it "
            "must refer to. Use --format nifti or png."
        )
    return header


def refused(name: str, error: Exception) -> DataError:
    """Return the error of a header that highdicom refuses."""
    # Its own message may quote a header value, which may be a name.
    return DataError(
        f"{name}: its header does not carry a DICOM object made of it ({type(error).__name__}). "
        "Use --format nifti or png."
    )
