"""What DICOM objects made by vismae take over from the images they speak of.

highdicom builds such objects from the headers of their source images; real headers lack fields it
asks for, or hold what it will not repeat.
"""

import importlib
import re
from collections.abc import Iterable
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.valuerep import DA, TM

from vismae.core.advice import advice
from vismae.core.errors import DataError, SettingError
from vismae.files.dicom_numbers import is_malformed
from vismae.files.dicom_zeros import until_zeros
from vismae.files.discover import SourceFile

# Type 2 in the patient and study modules: they must be there, but may be empty.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_NUMBERS = {"DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"}
_SEXES = ("M", "F", "O")
_LONGEST_WORDS = 64
_LARGEST_NUMBER = 2**31 - 1
_UNICODE = "ISO_IR 192"
# highdicom takes over these as they are. It refuses the empty first value of sets with extensions,
# as headers from Japan and Korea have them, and whatever is misspelt.
_TAKEN_OVER = (None, "ISO_IR 100", _UNICODE)
_ANOTHER_FORMAT = (
    "Take --format nifti or png for label maps; for classes leave --format out.",
    "All but this file is there.",
)


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
            + advice(
                "Run: pip install 'vismae[dicomseg]'. " + _ANOTHER_FORMAT[0],
                "All but these files is there; who runs the server can install 'vismae[dicomseg]'.",
            )
        ) from error


def source_header(file: SourceFile) -> Dataset:
    """Return a header that highdicom takes, without pixels.

    Raises:
        DataError: It lacks what another object must refer to.
        UnreadableFileError: The file is gone.
    """
    with file.open() as stream:
        header = pydicom.dcmread(until_zeros(stream), stop_before_pixels=True, force=True)
    _leave_out_malformed(header)
    if header.get("SpecificCharacterSet") not in _TAKEN_OVER:
        header.decode()
        header.SpecificCharacterSet = _UNICODE
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    _say_as_allowed(header)
    missing = [name for name in _NEEDED if not header.get(name)]
    if missing:
        raise DataError(
            f"{file.name}: the header lacks {', '.join(missing)}, which a DICOM object made of it "
            f"must refer to. {advice(*_ANOTHER_FORMAT)}"
        )
    return header


def _say_as_allowed(header: Dataset) -> None:
    """Empty what highdicom will not repeat: an object that says less is better than none."""
    # Writers of before 1993 put marks into dates and times, anonymisers zeros and words.
    marked = (("StudyDate", ".", DA), ("PatientBirthDate", ".", DA), ("StudyTime", ":", TM))
    for name, mark, kind in marked:
        text = str(header.get(name) or "").replace(mark, "")
        try:
            kind(text)
        except ValueError:
            text = ""
        setattr(header, name, text)
    sex = str(header.get("PatientSex") or "").strip().upper()
    header.PatientSex = sex if sex in _SEXES else ""
    modality = str(header.get("Modality") or "").strip().upper()
    # PS3.3 C.7.3.1.1.1: OT is what is none of the others.
    header.Modality = modality if re.fullmatch("[A-Z][A-Z0-9]{0,11}", modality) else "OT"


def _leave_out_malformed(header: Dataset) -> None:
    """Remove numbers that are none: highdicom would not make an object of such a header."""
    for tag in list(header.keys()):
        keyword = keyword_for_tag(tag)
        if keyword and dictionary_VR(tag) in _NUMBERS and is_malformed(header, keyword):
            del header[tag]


def in_dicom(words: str) -> str:
    """Return people's own words as an LO (PS3.5 6.2): no backslash, no control characters, short.

    A backslash would make two values of them.
    """
    plain = "".join(letter if letter.isprintable() else " " for letter in words)
    return plain.replace("\\", "/").strip()[:_LONGEST_WORDS].rstrip()


def say_characters(made: Dataset, words: Iterable[str]) -> None:
    """Let an object hold words that the character set of its source images lacks."""
    if not all(word.isascii() for word in words):
        made.SpecificCharacterSet = _UNICODE


def series_number(header: Dataset, above: int) -> int:
    """Return a number for a series made of another, so much above its own; at least 1."""
    return max(1, min(int(header.get("SeriesNumber") or 0) + above, _LARGEST_NUMBER))


def refused(name: str, error: Exception) -> DataError:
    """Return the error of a header that highdicom refuses."""
    # Its own message may quote a header value, which may be a name.
    return DataError(
        f"{name}: its header does not carry a DICOM object made of it ({type(error).__name__}). "
        f"{advice(*_ANOTHER_FORMAT)}"
    )
