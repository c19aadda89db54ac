"""Facts of patient and scanner that may leave the header: words from closed lists only.

Headers hold what people typed. Nothing here hands on a header's own text: each fact is looked up
in a list of this file, or a number is put into a band, and what is not listed becomes None
(``other`` for an unknown maker). Body parts: terms of PS3.16 annex L, table L-1, and the short
forms that scanners write.
"""

import re
from datetime import date
from typing import Any

from pydicom import Dataset

_TERMS = """
    abdomen abdomenpelvis adrenal ampulla angulus ankle anus aorta appendix arm artery ascaorta
    atrium axilla back bileduct biliary bladder body bone brain breast bronchus buttock
    calcaneus calf carotid cbd cerebellum cerebralart cervix chest chestabdomen chestabdpelvis
    choledochus clavicle coccyx colon cornea coronaryart cspine cstspine ctspine diaphragm
    duodenum ear elbow endoartery esophagus extremity eye eyelid face femoralart femur finger
    foot forearm fullspine gallbladder glute groin hand head headneck heart hepaticart hip
    humerus iac ileum iliacart inguinal innominate jaw jejunum kidney knee kneecap larynx leg
    lex limb lip liver llex lmb lowerarm lowerleg lspine lsspine ltspine luex lung mandible
    maxilla mediastinum mouth muscle naris nasopharynx neck neckchest neckchestabdomen
    neckchestabdpelv nose optic orbit oropharynx ovary pancreas parathyroid parotid patella
    pelvis penis phalanx pharynx pituitary placenta popartery prostate pubis radius rectum
    renalart rib rlex ruex sacrum scalp scapula scrotum seminal septum shoulder sijoint sinus
    skin skull spine spleen sspine sternum stomach subclavian svc testis thalamus thigh throat
    thumb thymus thyroid tibfib tibia tmj toe toes tongue trachea tspine ulna umbilical upperarm
    upperleg ureter urethra uterus uvula vagina vein ventricle vulva wholebody wrist zygoma
"""
BODY_PARTS = frozenset(_TERMS.split())
"""Body parts as they are handed on: terms in lower case, without blanks."""

MANUFACTURERS: dict[str, tuple[str, ...]] = {
    "siemens": ("siemens", "acuson", "cti", "cps"),
    "ge": ("ge", "gems", "gehc", "general electric"),
    "philips": ("philips", "atl", "adac", "picker", "marconi", "invivo", "volcano"),
    "canon": ("canon",),
    "toshiba": ("toshiba",),
    "fujifilm": ("fuji", "fujifilm", "sonosite"),
    "hitachi": ("hitachi", "aloka"),
    "agfa": ("agfa",),
    "kodak": ("kodak", "carestream"),
    "hologic": ("hologic", "lorad"),
    "samsung": ("samsung", "medison", "neurologica"),
    "mindray": ("mindray", "zonare"),
    "konica": ("konica", "konicaminolta"),
    "shimadzu": ("shimadzu",),
    "united imaging": ("uih", "united imaging"),
    "neusoft": ("neusoft",),
    "esaote": ("esaote",),
    "bruker": ("bruker",),
    "hyperfine": ("hyperfine",),
    "mediso": ("mediso",),
    "butterfly": ("butterfly",),
    "supersonic": ("supersonic",),
    "varian": ("varian",),
    "elekta": ("elekta",),
    "accuray": ("accuray", "tomotherapy"),
    "ziehm": ("ziehm",),
    "medtronic": ("medtronic",),
    "planmeca": ("planmeca",),
    "sirona": ("sirona", "dentsply"),
    "vatech": ("vatech",),
    "zeiss": ("zeiss",),
    "heidelberg": ("heidelberg",),
    "topcon": ("topcon",),
    "leica": ("leica", "aperio"),
    "hamamatsu": ("hamamatsu",),
    "olympus": ("olympus",),
}
"""Makers of scanners as they are handed on, with the words that name them in headers."""

_SEXES = {"M": "m", "F": "f", "O": "o"}
_OLDEST_BAND = 90


def header_facts(dataset: Dataset) -> dict[str, str | None]:
    """Return ``body_part``, ``sex``, ``age_band`` and ``manufacturer``; None where unknown."""
    return {
        "body_part": _body_part(_text(dataset, "BodyPartExamined")),
        "sex": _SEXES.get(_text(dataset, "PatientSex").upper()),
        "age_band": _age_band(dataset),
        "manufacturer": _manufacturer(_text(dataset, "Manufacturer")),
    }


def _body_part(text: str) -> str | None:
    term = re.sub(r"[\s_-]", "", text).lower()
    return term if term in BODY_PARTS else None


def _manufacturer(text: str) -> str | None:
    # "G.E. Medical Systems" has the word "ge".
    words = re.sub(r"[^a-z0-9]+", " ", text.lower().replace(".", "")).split()
    if not words:
        return None
    line = f" {' '.join(words)} "
    for maker, names in MANUFACTURERS.items():
        if any(f" {name} " in line for name in names):
            return maker
    return "other"


def _age_band(dataset: Dataset) -> str | None:
    years = _stated_age(_text(dataset, "PatientAge"))
    if years is None:
        years = _age_by_dates(dataset)
    if years is None or not 0 <= years <= 130:
        return None
    if years >= _OLDEST_BAND:
        return f"{_OLDEST_BAND}+"
    decade = years // 10 * 10
    return f"{decade}-{decade + 9}"


def _stated_age(text: str) -> int | None:
    """Return whole years of an age string: days, weeks, months or years (PS3.5 section 6.2)."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text.upper())
    if match is None:
        return None
    per_year = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
    return int(int(match[1]) / per_year)


def _age_by_dates(dataset: Dataset) -> int | None:
    born = _date(_text(dataset, "PatientBirthDate"))
    seen = _date(_text(dataset, "StudyDate")) or _date(_text(dataset, "AcquisitionDate"))
    if born is None or seen is None:
        return None
    return seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text.replace(".", "")[:8])
    except ValueError:
        return None


def _text(dataset: Dataset, tag: str) -> str:
    value: Any = dataset.get(tag)
    return "" if value is None else str(value).strip()
