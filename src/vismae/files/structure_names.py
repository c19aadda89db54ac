"""Names of segmented structures as class names: tidy, short, and without the patient in them.

Segment labels (DICOM PS3.3 C.8.20.4) and ROI names (C.8.8.5) are typed by hand, so they may hold
whatever was on the screen.
"""

import hashlib
import logging
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from vismae.files.dicom_quiet import quiet_pydicom
from vismae.files.dicom_zeros import until_zeros
from vismae.files.dicomweb_failures import DicomWebError
from vismae.files.discover import SourceFile

logger = logging.getLogger(__name__)

MAX_NAME_LENGTH = 64

_PERSON_TAGS = ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName")
_ID_TAGS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID")
_STAFF_TAGS = (
    *("ReferringPhysicianName", "ConsultingPhysicianName", "PhysiciansOfRecord"),
    *("PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName"),
    *("RequestingPhysician", "ContentCreatorName", "ReviewerName"),
)
_DATE_TAGS = (
    *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate"),
    "StructureSetDate",
)
_LAST_TAG = Tag("RequestingPhysician")
# A number without the letters and signs around it tells a patient only if it is long.
_TELLING_DIGITS = 5
# Operators enter their initials, which occur in many a word of anatomy.
_STAFF_INSIDE_WORDS = 5
_MADE_UP = re.compile(r"structure-[0-9a-f]{8}|structure \d+")
# Letters that no decomposition takes apart.
_SPELLED = str.maketrans({"æ": "ae", "œ": "oe", "ø": "oe", "ł": "l", "đ": "d", "ð": "d"})


@dataclass(frozen=True)
class TellingParts:
    """What must not occur in the name of a structure, in lower case and without accents.

    Attributes:
        anywhere: Not even inside a word.
        words: Not as a word.
    """

    anywhere: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()

    def __or__(self, other: "TellingParts") -> "TellingParts":
        """Return the parts of both."""
        return TellingParts(self.anywhere | other.anywhere, self.words | other.words)


def structure_name(text: object, number: int, header: Dataset) -> str:
    """Return the class name of a structure.

    White space becomes single blanks, control characters go, and at most ``MAX_NAME_LENGTH``
    characters stay. A name in which any part of the patient's name, numbers or birth date, of the
    names of physicians and operators, or of the dates of the study occurs becomes ``structure-``
    with the first eight digits of its SHA-256: parts of at least three letters or digits (two in
    scripts such as Chinese), whatever their case, accents, umlauts or punctuation; short names of
    staff only as a word. The hash is not salted, so that one name is one class in all files;
    whoever guesses the name can confirm it. An empty name becomes ``structure 3``, with its
    number.

    Args:
        text: As the file has it.
        number: Of the segment or ROI.
        header: Of the same file, with the patient's elements. Those of the images may say more:
            see ``without_parts``.
    """
    printable = "".join(
        " " if character.isspace() else character
        for character in str(text or "")
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    name = " ".join(printable.split())
    if not name:
        return f"structure {number}"
    return without_parts(name, telling_parts(header))[:MAX_NAME_LENGTH].rstrip()


def without_parts(name: str, parts: TellingParts) -> str:
    """Return a tidy name, or what stands for it if it tells who the patient is."""
    if _MADE_UP.fullmatch(name):
        return name
    joined = _forms(_letters(name))
    words = _words(name) | _words(re.sub(r"\d", " ", name))
    told = any(part in form for part in parts.anywhere for form in joined)
    if told or not parts.words.isdisjoint(words):
        return f"structure-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def telling_parts(header: Dataset) -> TellingParts:
    """Return what a header says of patient, staff and dates."""
    texts = [str(header.get(tag) or "") for tag in (*_PERSON_TAGS, *_ID_TAGS)]
    texts += [
        str(item.get("PatientID") or "") for item in header.get("OtherPatientIDsSequence", ())
    ]
    parts: set[str] = set()
    for text in texts:
        parts.update(_words(text), _forms(_letters(text)))
        digits = "".join(sign for sign in text if sign.isdigit())
        if len(digits) >= _TELLING_DIGITS:
            parts.add(digits)
    birth = _letters(str(header.get("PatientBirthDate") or ""))
    parts.update(_dates(birth))
    if len(birth) == 8:
        parts.add(birth[:4])
    for tag in _DATE_TAGS:
        parts.update(_dates(_letters(str(header.get(tag) or ""))))
    staff = {word for tag in _STAFF_TAGS for word in _words(str(header.get(tag) or ""))}
    parts.update(word for word in staff if len(word) >= _STAFF_INSIDE_WORDS)
    return TellingParts(_long_enough(parts), _long_enough(staff))


def read_telling_parts(file: SourceFile) -> TellingParts:
    """Return the parts that an image's header has; none where it is damaged.

    Raises:
        DicomWebError: The server that has the image cannot be used.
    """

    def is_behind(tag: BaseTag, vr: str | None, length: int) -> bool:
        return tag > _LAST_TAG

    try:
        with file.open() as stream, quiet_pydicom():
            return telling_parts(read_partial(until_zeros(stream), is_behind, force=True))
    except (MemoryError, DicomWebError):
        raise
    except Exception as error:  # pydicom raises anything on damaged elements
        logger.debug("a header was not read for names: %s", type(error).__name__)
        return TellingParts()


def _dates(written: str) -> set[str]:
    """Return the ways to write a date YYYYMMDD in digits."""
    if len(written) != 8:
        return set()
    year, month, day = written[:4], written[4:6], written[6:]
    return {
        order
        for short in (year, year[2:])
        for order in (short + month + day, day + month + short, month + day + short)
    }


def _long_enough(parts: Iterable[str]) -> frozenset[str]:
    return frozenset(part for part in parts if len(part) >= (3 if part.isascii() else 2))


def _words(text: str) -> set[str]:
    """Return words of letters and digits, in all their forms."""
    plain = "".join(sign if sign.isalnum() else " " for sign in _plain(text))
    return {form for word in plain.split() for form in _forms(word)}


def _letters(text: str) -> str:
    """Return letters and digits alone, in lower case and without accents."""
    return "".join(sign for sign in _plain(text) if sign.isalnum())


def _forms(plain: str) -> set[str]:
    """Return a text as it is and with umlauts written in one way: Müller, Mueller, Muller."""
    return {plain, re.sub(r"(?<=[aou])e|(?<=a)a", "", plain)}


def _plain(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold().translate(_SPELLED))
    return "".join(sign for sign in apart if not unicodedata.combining(sign))
