"""Why a file could not be used: every reason code of ``rejected.csv`` with its meaning.

Codes are stable, so that scripts may count them; the sentence for a person is the message of
the ``UnreadableFileError`` that carries the code.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Reason code of an ``UnreadableFileError`` or a ``RejectedFile``."""

    NOT_FOUND = "not-found"
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    UNKNOWN_FORMAT = "unknown-format"
    NESTED_ARCHIVE = "nested-archive"
    ENCRYPTED = "encrypted"
    TOO_LARGE = "too-large"
    NOT_AN_IMAGE = "not-an-image"
    LOCALIZER = "localizer"
    NO_PIXELS = "no-pixels"
    NO_RESCALE = "no-rescale"
    NO_SUV = "no-suv"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    UNSUPPORTED_PIXELS = "unsupported-pixels"
    NOT_FINITE = "not-finite"
    LABEL_FORMAT = "label-format"
    LABEL_NOT_INTEGER = "label-not-integer"
    LABEL_COLOURS = "label-colours"
    LABEL_LOSSY = "label-lossy"


REASONS: dict[Reason, str] = {
    Reason.NOT_FOUND: "The path or archive member does not exist.",
    Reason.UNREADABLE: "The operating system or the archive refused to hand out the bytes.",
    Reason.EMPTY: "The file holds no bytes.",
    Reason.UNKNOWN_FORMAT: "Neither DICOM, NIfTI, PNG, JPEG, TIFF nor BMP, by content and suffix.",
    Reason.NESTED_ARCHIVE: "A zip archive inside a zip archive, which is not entered.",
    Reason.ENCRYPTED: "The archive member is protected by a password.",
    Reason.TOO_LARGE: "The decoded image would exceed the size limit.",
    Reason.NOT_AN_IMAGE: "A DICOM object that is no image: report, segmentation, dose, plan.",
    Reason.LOCALIZER: "A scout view made to plan a scan.",
    Reason.NO_PIXELS: "The DICOM object holds no pixel data.",
    Reason.NO_RESCALE: "A CT image whose values cannot be turned into Hounsfield units.",
    Reason.NO_SUV: "A PET image whose values cannot be turned into SUV by body weight.",
    Reason.TRUNCATED: "The file ends before its pixel data does.",
    Reason.UNDECODABLE: "The pixel data or header is damaged, or no decoder is installed for it.",
    Reason.UNSUPPORTED_PIXELS: "Pixels of a type without a grey or colour meaning, as complex.",
    Reason.NOT_FINITE: "No pixel holds a finite number.",
    Reason.LABEL_FORMAT: "The file's format or shape cannot be used as a label map.",
    Reason.LABEL_NOT_INTEGER: "A label map holds values that are not whole numbers.",
    Reason.LABEL_COLOURS: "A label map holds colours instead of class indices.",
    Reason.LABEL_LOSSY: "A label map was damaged by lossy compression.",
}
