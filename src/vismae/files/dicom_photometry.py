"""PhotometricInterpretation of headers that have lost it, where nothing else is possible.

Anonymisers and converters leave it out or empty. Standard: PS3.3 C.7.6.3.1.2, C.11.6 (the shape of
the presentation table, which is IDENTITY with MONOCHROME2 and INVERSE with MONOCHROME1).
"""

from pydicom import Dataset

from vismae.files.dicom_numbers import whole_number

_PALETTE = "RedPaletteColorLookupTableDescriptor"
_OF_SHAPE = {"IDENTITY": "MONOCHROME2", "INVERSE": "MONOCHROME1"}
# Their values do not depend on how a viewer paints them, and none is ever written inverted.
_NEVER_INVERTED = ("CT", "MR", "PT", "NM", "US")


def photometry_of_grey(dataset: Dataset) -> str | None:
    """Return what PhotometricInterpretation must have been.

    Returns:
        None for colours, of which several spaces look alike in the header, and for radiographs
        without PresentationLUTShape, of which one half is inverted.
    """
    if whole_number(dataset, "SamplesPerPixel") != 1:
        return None
    if dataset.get(_PALETTE):
        return "PALETTE COLOR"
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if shape in _OF_SHAPE:
        return _OF_SHAPE[shape]
    return "MONOCHROME2" if dataset.get("Modality") in _NEVER_INVERTED else None
