"""Why a file could not be used: every reason code of ``rejected.csv`` with meaning and cure.

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
    SECONDARY_CAPTURE = "secondary-capture"
    BURNED_IN = "burned-in"
    ULTRASOUND_TRACE = "ultrasound-trace"
    VIDEO = "video"
    MOSAIC = "mosaic"
    NO_PIXELS = "no-pixels"
    NO_RESCALE = "no-rescale"
    NO_SUV = "no-suv"
    NO_CHANNEL = "no-channel"
    TILES = "tiles"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    UNSUPPORTED_PIXELS = "unsupported-pixels"
    NOT_FINITE = "not-finite"
    LABEL_FORMAT = "label-format"
    LABEL_NOT_INTEGER = "label-not-integer"
    LABEL_COLOURS = "label-colours"
    LABEL_LOSSY = "label-lossy"
    LABEL_WITHOUT_IMAGE = "label-without-image"
    LABEL_GEOMETRY = "label-geometry"
    LABEL_EMPTY = "label-empty"
    NEEDS_EXTRA = "needs-extra"
    COPY = "copy"


REASONS: dict[Reason, str] = {
    Reason.NOT_FOUND: "The path or archive member does not exist.",
    Reason.UNREADABLE: "The operating system or the archive refused to hand out the bytes.",
    Reason.EMPTY: "The file holds no bytes.",
    Reason.UNKNOWN_FORMAT: "No known image format, by content and suffix.",
    Reason.NESTED_ARCHIVE: "A zip archive inside a zip archive, which is not entered.",
    Reason.ENCRYPTED: "The archive member is protected by a password.",
    Reason.TOO_LARGE: "The decoded image would exceed the size limit.",
    Reason.NOT_AN_IMAGE: "A DICOM object that is no image: report, dose, plan, waveform.",
    Reason.LOCALIZER: "A scout view made to plan a scan.",
    Reason.SECONDARY_CAPTURE: "A picture of a screen or of film, not the image of a scanner.",
    Reason.BURNED_IN: "The header says that text is burned into the pixels.",
    Reason.ULTRASOUND_TRACE: "An ultrasound spectrum, M-mode or curve without a picture of tissue.",
    Reason.VIDEO: "A film compressed as video (MPEG or HEVC), which is not decoded.",
    Reason.TILES: "Tiles of a picture that is larger than any image, as of a microscope's slide.",
    Reason.MOSAIC: "A mosaic of slices that cannot be cut into them, or predicted as such.",
    Reason.NO_PIXELS: "The DICOM object holds no pixel data.",
    Reason.NO_RESCALE: "A CT image whose values cannot be turned into Hounsfield units.",
    Reason.NO_SUV: "A PET image whose values cannot be turned into SUV by body weight.",
    Reason.NO_CHANNEL: "The file does not have the channel that its table wants.",
    Reason.TRUNCATED: "The file ends before its pixel data does.",
    Reason.UNDECODABLE: "The pixel data or header is damaged, or no decoder is installed for it.",
    Reason.UNSUPPORTED_PIXELS: "Pixels of a type without a grey or colour meaning, as complex.",
    Reason.NOT_FINITE: "No pixel holds a finite number.",
    Reason.LABEL_FORMAT: "The file's format or shape cannot be used as a label map.",
    Reason.LABEL_NOT_INTEGER: "A label map holds values that are not whole numbers.",
    Reason.LABEL_COLOURS: "A label map holds colours instead of class indices.",
    Reason.LABEL_LOSSY: "A label map was damaged by lossy compression.",
    Reason.LABEL_WITHOUT_IMAGE: "A label map or segmentation whose image was not found.",
    Reason.LABEL_GEOMETRY: "A label map, segmentation or structure set beside its image.",
    Reason.LABEL_EMPTY: "A segmentation or structure set that describes no structure.",
    Reason.NEEDS_EXTRA: "Reading the file needs a package that is not installed.",
    Reason.COPY: "The same DICOM image as another file, which is used instead.",
}


CURES: dict[Reason, str] = {
    Reason.NOT_FOUND: "Mend the path in the table, or put the file where it says.",
    Reason.UNREADABLE: "Give yourself the right to read it, or copy the archive again.",
    Reason.EMPTY: "Copy the file again from its source.",
    Reason.UNKNOWN_FORMAT: "Unpack it (tar, 7z), convert it to DICOM, NIfTI or PNG, or leave it.",
    Reason.NESTED_ARCHIVE: "Unpack the inner archive.",
    Reason.ENCRYPTED: "Unpack it with its password first.",
    Reason.TOO_LARGE: "Divide the file, or store it at a smaller size.",
    Reason.NOT_AN_IMAGE: "Nothing to do: it holds no picture.",
    Reason.LOCALIZER: "Nothing to do, unless scout views are what you study.",
    Reason.SECONDARY_CAPTURE: "Fetch the scanner's own images in its place.",
    Reason.BURNED_IN: "Look at it: names may stand in the picture.",
    Reason.ULTRASOUND_TRACE: "Nothing to do: it holds no picture of tissue.",
    Reason.VIDEO: "Export the clip as multi-frame DICOM or as single frames.",
    Reason.TILES: "Put the tiles of one level together, or cut out regions, with a slide library.",
    Reason.MOSAIC: "Fetch it with its private elements, or convert it to NIfTI.",
    Reason.NO_PIXELS: "Fetch it again with its pixels.",
    Reason.NO_RESCALE: "`--modality xr` takes it as plain grey levels; better fetch the original.",
    Reason.NO_SUV: "Fetch the original with weight, dose and times; anonymisers take them out.",
    Reason.NO_CHANNEL: "Mend the column `channel` of the table; channels count from 0.",
    Reason.TRUNCATED: "Copy or fetch the file again.",
    Reason.UNDECODABLE: "Fetch it again, install what the message names, or convert it.",
    Reason.UNSUPPORTED_PIXELS: "Convert it to whole or real numbers, such as the magnitude.",
    Reason.NOT_FINITE: "Find out what wrote only NaN into it.",
    Reason.LABEL_FORMAT: "Save label maps as PNG, NIfTI or DICOM SEG of the image's shape.",
    Reason.LABEL_NOT_INTEGER: "Save class numbers, not probabilities.",
    Reason.LABEL_COLOURS: "Save class numbers as grey levels or palette indices.",
    Reason.LABEL_LOSSY: "Save label maps as PNG, never as JPEG.",
    Reason.LABEL_WITHOUT_IMAGE: "Name the folder with its images among the sources too.",
    Reason.LABEL_GEOMETRY: "Give the image that it was drawn on, or mend the label map's header.",
    Reason.LABEL_EMPTY: "Nothing to do, or export it again with its structures.",
    Reason.NEEDS_EXTRA: "Install the extra that the message names.",
    Reason.COPY: "Nothing to do: the other one is used.",
}
"""What to do about a file with each code."""
