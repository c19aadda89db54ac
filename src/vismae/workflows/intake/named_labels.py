"""Classes of segmentations that name their segments, and that a table or folder pairs with images.

Each file numbers its segments by itself; in a store one name has one number.
"""

from collections.abc import Mapping

from pydicom import Dataset

from vismae.core.errors import UnreadableFileError
from vismae.data.manifest import FileReference, ManifestRow
from vismae.files.discover import SourceFile, source_file
from vismae.files.itk import read_segments
from vismae.files.reasons import Reason
from vismae.files.structure_names import read_telling_parts, structure_name, without_parts

_NAMING_SUFFIX = ".nrrd"


def may_name_segments(label_map: FileReference) -> bool:
    """Tell by its name whether a label map may name its segments."""
    return (label_map.member or label_map.path.name).lower().endswith(_NAMING_SUFFIX)


def segment_classes(row: ManifestRow, image: SourceFile) -> tuple[str, ...]:
    """Return the class name of each segment of an image's label map; none if it names none.

    Names that repeat the patient's, as the table or a DICOM header has it, are replaced.

    Args:
        row: Of the image.
        image: The image.
    """
    if row.label_map is None or not may_name_segments(row.label_map):
        return ()
    try:
        file = source_file(row.label_map.path, row.label_map.member)
        segments = read_segments(file) if file.kind == "itk" else ()
    except UnreadableFileError:  # whoever draws it says why
        return ()
    if not segments:
        return ()
    patient = Dataset()
    patient.PatientID = row.patient_id or ""
    names = [structure_name(part.name, part.value, patient) for part in segments]
    if image.kind == "dicom":
        told = read_telling_parts(image)
        names = [without_parts(name, told) for name in names]
    return tuple(names)


def segment_numbers(
    row: ManifestRow, image: SourceFile, structures: Mapping[str, int]
) -> tuple[int, ...] | None:
    """Return the class number of each segment, or None if the label map names none.

    Raises:
        UnreadableFileError: ``label-format`` for a name that the file had not when it was found.
    """
    names = segment_classes(row, image)
    if not names or row.label_map is None:
        return None
    unknown = [name for name in names if name not in structures]
    if unknown:
        raise UnreadableFileError(
            Reason.LABEL_FORMAT,
            f"{row.label_map.text}: a segment was named while images were read. Ingest again when "
            "it is finished.",
        )
    return tuple(structures[name] for name in names)
