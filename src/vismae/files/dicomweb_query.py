"""What to ask a DICOMweb server for, and what its answers say (DICOM PS3.18, sec. 8.3.4 and F.2).

Results are data sets of the DICOM JSON model: ``{"00100020": {"vr": "LO", "Value": ["P1"]}}``.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from vismae.core.errors import SettingError

Level = Literal["studies", "series", "instances"]

# Of the patient and study modules; everything else describes series.
_STUDY_KEYS = {
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"),
    *("OtherPatientIDs", "PatientAge", "PatientSize", "PatientWeight", "EthnicGroup"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription"),
    *("AccessionNumber", "ModalitiesInStudy", "SOPClassesInStudy", "ReferringPhysicianName"),
    *("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
}
# Their matching has rules of its own: ranges, and names by sound.
_LEFT_TO_SERVER = {"DA", "TM", "DT", "PN"}


def divide_by_level(query: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the keys of patient and study, and those of series.

    Raises:
        SettingError: A key is not a DICOM keyword; names the nearest one, quotes no value.
    """
    for key in query:
        if tag_for_keyword(key) is None:
            near = difflib.get_close_matches(key, keyword_dict, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Write it as in Modality=CT."
            raise SettingError(f"query.{key} is not a DICOM keyword. {hint}")
    of_study = {key: value for key, value in query.items() if key in _STUDY_KEYS}
    return of_study, {key: value for key, value in query.items() if key not in _STUDY_KEYS}


def fits(item: Mapping[str, Any], keys: Mapping[str, str]) -> bool:
    """Tell whether a result may match; servers are free to overlook keys they do not know.

    What the result does not hold is taken to match, as are ranges and lists.
    """
    return all(_fits(item, keyword, wanted) for keyword, wanted in keys.items())


def _fits(item: Mapping[str, Any], keyword: str, wanted: str) -> bool:
    values = _values(item, keyword)
    as_list = "," in wanted or "\\" in wanted
    if not values or not wanted or as_list or dictionary_VR(keyword) in _LEFT_TO_SERVER:
        return True
    pattern = re.escape(wanted.strip()).replace(r"\*", ".*").replace(r"\?", ".")
    return any(re.fullmatch(pattern, str(value).strip(), re.IGNORECASE) for value in values)


def first_text(item: Mapping[str, Any], keyword: str) -> str:
    """Return the first value of an attribute; empty where it has none."""
    values = _values(item, keyword)
    return str(values[0]).strip() if values else ""


def first_number(item: Mapping[str, Any], keyword: str) -> int | None:
    """Return the first value as a whole number; None where it is none."""
    text = first_text(item, keyword)
    return int(text) if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else None


def sequence(item: Mapping[str, Any], keyword: str) -> list[dict[str, Any]]:
    """Return the items of a sequence that are not empty."""
    return [part for part in _values(item, keyword) if part and isinstance(part, dict)]


def _values(item: Mapping[str, Any], keyword: str) -> list[Any]:
    element = item.get(f"{tag_for_keyword(keyword):08X}")
    values = element.get("Value") if isinstance(element, dict) else None
    return [value for value in values if value is not None] if isinstance(values, list) else []
