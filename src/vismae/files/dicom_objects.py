"""Which DICOM objects are images, how they were made, and which are left out.

The SOP class decides, and only where it is missing or private the Modality: writers get the class
right because archives check it. Standard: PS3.4 annex B (storage classes), PS3.3 C.7.6.1 (image
type), C.8.6 (secondary capture), C.9.2 (overlays), PS3.5 annex A (transfer syntaxes).
"""

import re

from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from vismae.core.advice import advice
from vismae.core.errors import UnreadableFileError
from vismae.core.types import Flag, Modality
from vismae.files.dicom_numbers import whole_number
from vismae.files.reasons import Reason

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MADE_BY = {
    **dict.fromkeys(("2", "2.1", "2.2"), Modality.CT),
    **dict.fromkeys(("4", "4.1", "4.3", "4.4"), Modality.MR),
    **dict.fromkeys(("128", "128.1", "130"), Modality.PET),
    **dict.fromkeys(("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1"), Modality.XR),
    **dict.fromkeys(("12.1", "12.1.1", "12.2", "12.2.1"), Modality.XR),
    **dict.fromkeys(("13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5"), Modality.XR),
    **dict.fromkeys(("3", "3.1", "6", "6.1", "6.2", "6.3"), Modality.US),
}
_SECONDARY_CAPTURE = "7"
# Of these every object has some, however much an anonymiser took out.
_IDENTIFYING = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "PatientID",
    "Rows",
)
_VISIBLE_LIGHT = _STORAGE + "77.1."
# A branch of the storage classes counts with everything below it.
_NOT_IMAGE_CLASSES = {
    _STORAGE + "4.2": "a spectroscopy measurement",
    _STORAGE + "8": "an overlay by itself",
    _STORAGE + "9": "a waveform",
    _STORAGE + "10": "a look-up table by itself",
    _STORAGE + "11": "a presentation state",
    _STORAGE + "66": "raw data, a registration or a segmentation",
    _STORAGE + "67": "a real-world value map",
    _STORAGE + "68": "a surface scan",
    _STORAGE + "78": "a measurement of the eye",
    _STORAGE + "79": "a measurement of the eye",
    _STORAGE + "80": "a measurement of the eye",
    _STORAGE + "88": "a structured report",
    _STORAGE + "90": "an assessment",
    _STORAGE + "91": "a set of annotations",
    _STORAGE + "104": "an encapsulated document",
    _STORAGE + "129": "a curve",
    _STORAGE + "131": "a screen layout",
    _STORAGE + "200": "a protocol",
    _STORAGE + "201": "an inventory",
    _STORAGE + "481": "a radiotherapy object",
    "1.2.840.10008.5.1.4.34": "a radiotherapy object",
    "1.2.840.10008.5.1.4.38": "a screen layout",
    "1.2.840.10008.5.1.4.39": "a colour palette",
    "1.2.840.10008.5.1.4.43": "an implant template",
    "1.2.840.10008.5.1.4.44": "an implant template",
    "1.2.840.10008.5.1.4.45": "an implant template",
    "1.2.840.10008.1.3.10": "a directory of other files",
}
_PORTAL_IMAGE = _STORAGE + "481.1"
_NOT_IMAGE_MODALITIES = {
    "SR": "a structured report",
    "PR": "a presentation state",
    "KO": "a key object selection",
    "SEG": "a segmentation",
    "RTSTRUCT": "a structure set",
    "RTDOSE": "a dose distribution",
    "RTPLAN": "a treatment plan",
    "RTRECORD": "a treatment record",
    "REG": "a registration",
    "FID": "a set of fiducials",
    "RWV": "a real-world value map",
    "SMR": "a stereometric relation",
    "M3D": "a 3D model",
    "DOC": "a document",
    "PLAN": "a plan",
    "ANN": "a set of annotations",
    "ECG": "a waveform",
    "EPS": "a waveform",
    "HD": "a waveform",
    "RESP": "a waveform",
    "AU": "a sound",
}
# MPEG-2, MPEG-4 and HEVC have the numbers 100 to 108, some with a fraction.
_VIDEO = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10[0-8](\.1)?$")
_LOSSY_SYNTAXES = {JPEGBaseline8Bit, JPEGExtended12Bit}
# Of these only LossyImageCompression tells whether something was lost: JPEG-LS near-lossless,
# JPEG 2000 (single and multi-component), HTJ2K.
_PERHAPS_LOSSY = {f"1.2.840.10008.1.2.4.{number}" for number in ("81", "91", "93", "203")}
# Words of ImageType without blanks, hyphens and underscores.
_SCREEN_WORDS = {
    *("SCREENSAVE", "SCREENSHOT", "SCREENCAPTURE", "SECONDARYCAPTURE", "DOSEREPORT", "DOSEINFO")
}
_SCREEN_ENDS = (" PROT", "CSA REPORT")
_LOCALIZER_WORDS = {"LOCALIZER", "LOCALISER", "SCOUT", "TOPOGRAM", "SCANOGRAM"}
# Magnetic resonance has no word for them in ImageType, only in what the operator sees.
_LOCALIZER_SERIES = re.compile(
    r"\b(lo[ck]ali[sz](er|ador|ateur|zatore|ator)s?|(aah)?scouts?|topograms?|scanograms?|surview)\b"
    r"|^survey\b|^plan ?scan\b|^rep[eé]rage\b"
)
# GE and Philips name them by their three planes, "3-Pl T2* FGRE", or for short.
_MR_LOCALIZER_SERIES = re.compile(r"\b(3|three|tri)[ -]?pl(anes?|anar|s)?\b|^(mp)?locs?\b")
CROSS_SECTIONS = frozenset({Modality.CT, Modality.MR, Modality.PET})
"""Images of slices; these may be stacked by their number where they have no position."""


def modality_of(dataset: Dataset) -> Modality:
    """Return how an image was made: by its SOP class where that says so, else by Modality."""
    made_by = _MADE_BY.get(_sop_class(dataset).removeprefix(_STORAGE))
    return made_by or Modality.parse(str(dataset.get("Modality") or ""))


def require_image(dataset: Dataset, name: str, keep: frozenset[Flag]) -> frozenset[Flag]:
    """Refuse what is no image of a patient, and return flags of what is.

    A secondary capture is a picture of a screen or of film: an object of the Secondary Capture
    classes; one whose ImageType says screen save; a colour picture in a class for CT, MR or PET,
    which have no colours; ConversionType counts only where there is no SOP class, since
    converters leave it in true CT and MR images. Words of ImageType such as DERIVED and SECONDARY
    do not count either: reformatted slices and MR maps carry them.

    Text may be read in a picture by BurnedInAnnotation, and where a microscope's slide was taken
    with its label.

    A localizer says so in ImageType; of MR, and of CT that does not say AXIAL there,
    SeriesDescription is looked through for the same words too, and not handed on.

    Args:
        dataset: The header.
        name: For messages.
        keep: Of ``KEEPABLE``, what is to be flagged instead of refused.

    Raises:
        UnreadableFileError: ``truncated``, ``undecodable``, ``video``, ``tiles``, ``not-an-image``,
            ``secondary-capture``, ``localizer`` or ``burned-in``.
    """
    if len(dataset) == 0:
        raise UnreadableFileError(
            Reason.TRUNCATED,
            f"{name}: ends before its first DICOM element, or within compressed pixel data. Copy "
            f"the file again.",
        )
    if getattr(dataset, "preamble", None) is None and not any(map(dataset.get, _IDENTIFYING)):
        raise UnreadableFileError(
            Reason.UNDECODABLE,
            f"{name}: begins neither as a DICOM file (DICM at byte 128) nor with DICOM elements; "
            f"something was written before them, or it is no DICOM. Copy the file again.",
        )
    found = _what_else(dataset)
    if found is not None:
        raise UnreadableFileError(
            Reason.NOT_AN_IMAGE, f"{name}: {found}, not an image. Leave it out."
        )
    syntax = _transfer_syntax(dataset)
    if _VIDEO.match(syntax):
        raise UnreadableFileError(
            Reason.VIDEO,
            f"{name}: a film compressed as video (MPEG or HEVC). Convert its frames to images, "
            f"or leave it out.",
        )
    if _holds_tiles(dataset):
        raise UnreadableFileError(
            Reason.TILES,
            f"{name}: its frames are tiles of one large picture (TotalPixelMatrixColumns, Rows), "
            f"neither slices of a volume nor images of their own. Put the tiles together, or cut "
            f"out regions, with a library for slides.",
        )
    kinds: list[tuple[Flag, Reason, str]] = []
    if _is_secondary_capture(dataset):
        text = "a secondary capture, a picture of a screen or of film"
        kinds.append((Flag.SECONDARY_CAPTURE, Reason.SECONDARY_CAPTURE, text))
    if _is_localizer(dataset):
        kinds.append((Flag.LOCALIZER, Reason.LOCALIZER, "a localizer, made to plan the scan"))
    if text := _readable_text(dataset):
        kinds.append((Flag.BURNED_IN, Reason.BURNED_IN, text))
    for flag, reason, text in kinds:
        if flag not in keep:
            cure = advice(
                f"Leave it out, or ask for such images with keep: {flag}.",
                "Choose images of the examination itself; such ones are not taken here.",
            )
            raise UnreadableFileError(reason, f"{name}: {text}. {cure}")
    return frozenset(flag for flag, _, _ in kinds) | _noted(dataset, syntax)


def image_type_words(dataset: Dataset) -> list[str]:
    """Return the values of ImageType in upper case."""
    value = dataset.get("ImageType") or ()
    words = re.split(r"[\\/]", value) if isinstance(value, str) else value
    return [str(word).strip().upper() for word in words]


def _noted(dataset: Dataset, syntax: str) -> frozenset[Flag]:
    flags: set[Flag] = set()
    lossy = _word(dataset, "LossyImageCompression")
    if lossy == "01" or syntax in _LOSSY_SYNTAXES or (syntax in _PERHAPS_LOSSY and lossy != "00"):
        flags.add(Flag.LOSSY)
    if any(0x6000 <= tag >> 16 <= 0x60FF for tag in dataset.keys()):  # noqa: SIM118 (no values)
        flags.add(Flag.OVERLAY)
    return frozenset(flags)


def _what_else(dataset: Dataset) -> str | None:
    """Return what an object is that is no image, or None."""
    uid = _sop_class(dataset)
    if uid != _PORTAL_IMAGE:
        for length in range(len(uid), 0, -1):
            if (length == len(uid) or uid[length] == ".") and uid[:length] in _NOT_IMAGE_CLASSES:
                return _NOT_IMAGE_CLASSES[uid[:length]]
    if uid.startswith(_STORAGE):
        return None
    return _NOT_IMAGE_MODALITIES.get(_word(dataset, "Modality"))


def _is_secondary_capture(dataset: Dataset) -> bool:
    uid = _sop_class(dataset)
    if uid.removeprefix(_STORAGE).split(".")[0] == _SECONDARY_CAPTURE:
        return True
    if not uid and dataset.get("ConversionType"):
        return True
    words = image_type_words(dataset)
    if any(re.sub(r"[ _-]", "", word) in _SCREEN_WORDS for word in words):
        return True
    if any(word.endswith(_SCREEN_ENDS) for word in words):
        return True
    made_by = _MADE_BY.get(uid.removeprefix(_STORAGE))
    coloured = whole_number(dataset, "SamplesPerPixel") > 1
    coloured = coloured or _word(dataset, "PhotometricInterpretation") == "PALETTE COLOR"
    return made_by in CROSS_SECTIONS and coloured


def _readable_text(dataset: Dataset) -> str | None:
    """Return how a header says that its picture shows text, or None."""
    if _word(dataset, "BurnedInAnnotation") == "YES":
        return "its header says that text is burned into the pixels (BurnedInAnnotation YES)"
    # Slide scanners photograph the slide's label too, and call its writing no annotation.
    of_light = _sop_class(dataset).startswith(_VISIBLE_LIGHT)
    shown = _word(dataset, "SpecimenLabelInImage") == "YES"
    if shown or (of_light and "LABEL" in image_type_words(dataset)):
        return "a photograph of a slide with its label, on which names may stand"
    return None


def _holds_tiles(dataset: Dataset) -> bool:
    """Tell whether frames are parts of one matrix of pixels (PS3.3 C.8.12.4.1.1)."""
    sides = (("TotalPixelMatrixColumns", "Columns"), ("TotalPixelMatrixRows", "Rows"))
    return any(whole_number(dataset, whole) > whole_number(dataset, side) for whole, side in sides)


def _is_localizer(dataset: Dataset) -> bool:
    if _LOCALIZER_WORDS.intersection(image_type_words(dataset)):
        return True
    modality = modality_of(dataset)
    if modality not in (Modality.CT, Modality.MR):
        return False
    if modality is Modality.CT and "AXIAL" in image_type_words(dataset):
        # Whatever people call the series, as of the frame for radiosurgery: no scout view is axial.
        return False
    text = str(dataset.get("SeriesDescription") or "").strip().lower().replace("_", " ")
    if modality is Modality.MR and _MR_LOCALIZER_SERIES.search(text):
        return True
    return _LOCALIZER_SERIES.search(text) is not None


def _sop_class(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None) or {}
    return str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "").strip()


def _transfer_syntax(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None) or {}
    return str(meta.get("TransferSyntaxUID") or "").strip()


def _word(dataset: Dataset, tag: str) -> str:
    return str(dataset.get(tag) or "").strip().upper()
