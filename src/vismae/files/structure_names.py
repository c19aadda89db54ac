"""Names of segmented structures as class names: tidy, short, and without the patient in them.

Segment labels (DICOM PS3.3 C.8.20.4) and ROI names (C.8.8.5) are typed by hand, so they may hold
whatever was on the screen.
"""

import hashlib
import unicodedata

from pydicom import Dataset

MAX_NAME_LENGTH = 64

_PERSON_TAGS = ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName")
_ID_TAGS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID")
# A number without the letters and signs around it tells a patient only if it is long.
_TELLING_DIGITS = 5


def structure_name(text: object, number: int, header: Dataset) -> str:
    """Return the class name of a structure.

    White space becomes single blanks, control characters go, and at most ``MAX_NAME_LENGTH``
    characters stay. A name in which any part of the patient's name, numbers or birth date occurs
    becomes ``structure-`` with the first eight digits of its SHA-256: parts of at least three
    letters or digits (two in scripts such as Chinese), whatever their case, accents or
    punctuation. The hash is not salted, so that one name is one class in all files; whoever
    guesses the name can confirm it. An empty name becomes ``structure 3``, with its number.

    Args:
        text: As the file has it.
        number: Of the segment or ROI.
        header: Of the same file, with the patient's elements.
    """
    printable = "".join(
        " " if character.isspace() else character
        for character in str(text or "")
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    name = " ".join(printable.split())
    if not name:
        return f"structure {number}"
    joined = _letters(name)
    if any(part in joined for part in _patient_parts(header)):
        return f"structure-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name[:MAX_NAME_LENGTH].rstrip()


def _patient_parts(header: Dataset) -> set[str]:
    """Return what must not occur in a name, as ``_letters`` writes it."""
    texts = [str(header.get(tag) or "") for tag in (*_PERSON_TAGS, *_ID_TAGS)]
    texts += [
        str(item.get("PatientID") or "") for item in header.get("OtherPatientIDsSequence", ())
    ]
    parts: set[str] = set()
    for text in texts:
        words = "".join(sign if sign.isalnum() else " " for sign in _plain(text)).split()
        parts.update((*words, _letters(text)))
        digits = "".join(sign for sign in text if sign.isdigit())
        if len(digits) >= _TELLING_DIGITS:
            parts.add(digits)
    date = _letters(str(header.get("PatientBirthDate") or ""))
    if len(date) == 8:
        year, month, day = date[:4], date[4:6], date[6:]
        for short in (year, year[2:]):
            parts.update((short + month + day, day + month + short, month + day + short))
        parts.add(year)
    return {part for part in parts if len(part) >= (3 if part.isascii() else 2)}


def _letters(text: str) -> str:
    """Return letters and digits alone, in lower case and without accents."""
    return "".join(sign for sign in _plain(text) if sign.isalnum())


def _plain(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in apart if not unicodedata.combining(sign))
