"""Classes of label maps that name their structures, and that a table or folder pairs with images.

That is a segmentation of 3D Slicer, or a folder with one file for each structure.

Each file numbers its segments by itself; in a store one name has one number.
"""

from collections.abc import Mapping

from pydicom import Dataset

from vismae.core.errors import UnreadableFileError
from vismae.data.manifest import FileReference, ManifestRow
from vismae.files.discover import SourceFile, source_file
from vismae.files.itk import read_segments
from vismae.files.reasons import Reason
from vismae.files.structure_folder import structure_files
from vismae.files.structure_names import read_telling_parts, structure_name, without_parts

_NAMING_SUFFIX = ".nrrd"


def segment_classes(row: ManifestRow, image: SourceFile) -> tuple[str, ...]:
    """Return the class name of each segment of an image's label map; none if it names none.

    Names that repeat the patient's, as the table or a DICOM header has it, are replaced.

    Args:
        row: Of the image.
        image: The image.
    """
    try:
        written = () if row.label_map is None else _written_names(row.label_map)
    except UnreadableFileError:  # whoever draws it says why
        return ()
    if not written:
        return ()
    patient = Dataset()
    patient.PatientID = row.patient_id or ""
    names = [structure_name(name, number, patient) for name, number in written]
    if image.kind == "dicom":
        told = read_telling_parts(image)
        names = [without_parts(name, told) for name in names]
    return tuple(names)


def _written_names(label_map: FileReference) -> list[tuple[str, int]]:
    """Return name and number of each structure; none where a label map names none."""
    if label_map.is_folder:
        return [(name, n) for n, name in enumerate(structure_files(label_map.path), start=1)]
    if not (label_map.member or label_map.path.name).lower().endswith(_NAMING_SUFFIX):
        return []
    file = source_file(label_map.path, label_map.member)
    segments = read_segments(file) if file.kind == "itk" else ()
    return [(segment.name, segment.value) for segment in segments]


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
