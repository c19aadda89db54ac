"""Small functions that write real files of every format, for any test that needs some."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

_STORAGE = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SR": "1.2.840.10008.5.1.4.1.1.88.11",
    "PR": "1.2.840.10008.5.1.4.1.1.11.1",
    "KO": "1.2.840.10008.5.1.4.1.1.88.59",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
}
_PHOTOGRAPH = "1.2.840.10008.5.1.4.1.1.77.1.4"
SECONDARY_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7")

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]

PET_TAGS: dict[str, Any] = {
    "Modality": "PT",
    "Units": "BQML",
    "DecayCorrection": "START",
    "PatientWeight": 70,
    "SeriesDate": "20240101",
    "SeriesTime": "110000",
    "AcquisitionDate": "20240101",
    "AcquisitionTime": "110000",
    "RescaleSlope": 2.0,
    "RescaleIntercept": 0.0,
}


def tracer(**tags: Any) -> Dataset:
    """One item of RadiopharmaceuticalInformationSequence: 370 MBq of F-18 given at 10:00."""
    item = Dataset()
    item.RadionuclideTotalDose = 370e6
    item.RadionuclideHalfLife = 6586.2
    item.RadiopharmaceuticalStartTime = "100000"
    _set(item, tags)
    return item


def write_dicom_slice(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """Write one DICOM image, (H, W) grey, (H, W, 3) colour or (F, H, W) with NumberOfFrames.

    Defaults: an axial CT slice at the origin with 1 mm pixels and HU = stored - 1024. Any DICOM
    keyword may be given; None takes an element away.
    """
    dataset = Dataset()
    colour = pixels.shape[-1] == 3 and pixels.ndim >= 3
    frames = pixels.ndim - (1 if colour else 0) == 3
    modality = tags.get("Modality", "CT")
    if modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1.0, -1024.0
    if modality == "PT":
        dataset.RadiopharmaceuticalInformationSequence = DicomSequence([tracer()])
    if modality in ("CT", "MR", "PT"):
        dataset.ImagePositionPatient = [0.0, 0.0, 0.0]
        dataset.ImageOrientationPatient = AXIAL
        dataset.PixelSpacing = [1.0, 1.0]
    dataset.SOPClassUID = UID(_STORAGE.get(modality or "", _PHOTOGRAPH))
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = modality
    dataset.PatientID = "P001"
    dataset.InstanceNumber = 1
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.Rows, dataset.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 1 if pixels.dtype.kind == "i" else 0
    raw = np.ascontiguousarray(pixels).tobytes()
    dataset.PixelData = raw + b"\x00" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    _set(dataset, tags)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_dicom_series(
    folder: Path,
    volume: np.ndarray,
    spacing_mm: tuple[float, float, float] = (5.0, 1.0, 1.0),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    instance_numbers: Sequence[int] | None = None,
    **tags: Any,
) -> list[Path]:
    """Write a volume, (S, H, W), as one file per slice, positions rising along the normal.

    Args:
        folder: Where ``slice_000.dcm`` and so on are written.
        volume: Stored values.
        spacing_mm: Between slices, rows and columns.
        origin: ImagePositionPatient of the first slice.
        orientation: ImageOrientationPatient.
        instance_numbers: One per slice; by default counted from 1.
        **tags: As for ``write_dicom_slice``; a list as long as the volume under a name that ends
            in ``_each`` gives each slice its own value.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    tags.setdefault("SeriesInstanceUID", generate_uid())
    tags.setdefault("StudyInstanceUID", generate_uid())
    each = {name.removesuffix("_each"): tags.pop(name) for name in list(tags) if "_each" in name}
    paths = []
    for index, pixels in enumerate(volume):
        own = {name: values[index] for name, values in each.items()}
        position = np.asarray(origin) + normal * spacing_mm[0] * index
        place = {
            "ImagePositionPatient": [float(value) for value in position],
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing_mm[1:]),
            "InstanceNumber": instance_numbers[index] if instance_numbers else index + 1,
        }
        paths.append(
            write_dicom_slice(folder / f"slice_{index:03d}.dcm", pixels, **{**place, **tags, **own})
        )
    return paths


def write_enhanced_ct(
    path: Path,
    volume: np.ndarray,
    positions: Sequence[Sequence[float]],
    rescales: Sequence[tuple[float, float]],
    **tags: Any,
) -> Path:
    """Write an enhanced multi-frame CT with position and rescale in per-frame groups."""
    per_frame = []
    for position, (slope, intercept) in zip(positions, rescales, strict=True):
        place, scale, frame = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = list(position)
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, intercept, "HU"
        frame.PlanePositionSequence = DicomSequence([place])
        frame.PixelValueTransformationSequence = DicomSequence([scale])
        per_frame.append(frame)
    turned, measures, shared = Dataset(), Dataset(), Dataset()
    turned.ImageOrientationPatient = AXIAL
    measures.PixelSpacing = [0.5, 0.5]
    measures.SliceThickness = 3.0
    shared.PlaneOrientationSequence = DicomSequence([turned])
    shared.PixelMeasuresSequence = DicomSequence([measures])
    return write_dicom_slice(
        path,
        volume,
        **{
            "SOPClassUID": UID("1.2.840.10008.5.1.4.1.1.2.1"),
            "ImagePositionPatient": None,
            "ImageOrientationPatient": None,
            "PixelSpacing": None,
            "RescaleSlope": None,
            "RescaleIntercept": None,
            "PerFrameFunctionalGroupsSequence": DicomSequence(per_frame),
            "SharedFunctionalGroupsSequence": DicomSequence([shared]),
            **tags,
        },
    )


def write_concatenation(
    folder: Path,
    volume: np.ndarray,
    positions: Sequence[Sequence[float]],
    lengths: Sequence[int],
    **tags: Any,
) -> list[Path]:
    """Write an enhanced CT divided into parts of so many frames, HU = stored.

    Their files are named against their order.
    """
    shared = {
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "ConcatenationUID": generate_uid(),
        "SOPInstanceUIDOfConcatenationSource": generate_uid(),
        "InConcatenationTotalNumber": len(lengths),
        **tags,
    }
    paths = []
    for number, count in enumerate(lengths, 1):
        start = sum(lengths[: number - 1])
        end = start + count
        path = write_enhanced_ct(
            folder / f"part_{len(lengths) - number}.dcm",
            volume[start:end],
            positions[start:end],
            [(1.0, 0.0)] * count,
            **{
                "InConcatenationNumber": number,
                "ConcatenationFrameOffsetNumber": start,
                **shared,
            },
        )
        paths.append(path)
    return paths


def write_enhanced_pet(
    path: Path, volume: np.ndarray, units: str, slope: float = 2.0, **tags: Any
) -> Path:
    """Write an enhanced multi-frame PET whose real-world values have UCUM ``units``.

    370 MBq of F-18 at 10:00 to 70 kg, corrected for decay to 11:00; slices 3 mm apart.
    """
    per_frame = []
    for index in range(len(volume)):
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = [0.0, 0.0, 3.0 * index]
        frame.PlanePositionSequence = DicomSequence([place])
        per_frame.append(frame)
    turned, measures, shared = Dataset(), Dataset(), Dataset()
    turned.ImageOrientationPatient = AXIAL
    measures.PixelSpacing = [2.0, 2.0]
    code, mapping = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator = units, "UCUM"
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, 0.0
    mapping.MeasurementUnitsCodeSequence = DicomSequence([code])
    shared.PlaneOrientationSequence = DicomSequence([turned])
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.RealWorldValueMappingSequence = DicomSequence([mapping])
    start = tracer(
        RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20240101100000"
    )
    return write_dicom_slice(
        path,
        volume,
        **{
            "Modality": "PT",
            "SOPClassUID": UID("1.2.840.10008.5.1.4.1.1.130"),
            "ImagePositionPatient": None,
            "ImageOrientationPatient": None,
            "PixelSpacing": None,
            "PatientWeight": 70,
            "DecayCorrected": "YES",
            "AttenuationCorrected": "YES",
            "DecayCorrectionDateTime": "20240101110000",
            "RadiopharmaceuticalInformationSequence": DicomSequence([start]),
            "PerFrameFunctionalGroupsSequence": DicomSequence(per_frame),
            "SharedFunctionalGroupsSequence": DicomSequence([shared]),
            **tags,
        },
    )


def ultrasound_region(
    box: tuple[int, int, int, int], spatial_format: int = 1, data_type: int = 1, **tags: Any
) -> Dataset:
    """One item of SequenceOfUltrasoundRegions: first row, last row, first column, last column."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = (
        spatial_format,
        data_type,
        0,
    )
    region.RegionLocationMinY0, region.RegionLocationMaxY1 = box[:2]
    region.RegionLocationMinX0, region.RegionLocationMaxX1 = box[2:]
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.02
    _set(region, tags)
    return region


def write_encapsulated(path: Path, codestreams: Sequence[bytes], syntax: str, **tags: Any) -> Path:
    """Write compressed frames; ``tags`` must say their Rows, Columns and bits."""
    write_dicom_slice(path, np.zeros((1, 1), np.uint16), **tags)
    dataset = dcmread(path)
    dataset.PixelData = encapsulate(list(codestreams))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_nifti(
    path: Path,
    data: np.ndarray,
    affine: np.ndarray | None = None,
    slope: float | None = None,
    intercept: float = 0.0,
) -> Path:
    """Write a NIfTI-1 volume; with ``slope``, ``data`` holds the stored integers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine, dtype=data.dtype)
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)  # written as given, the data untouched
    nib.save(image, path)
    return path


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """Write 8- or 16-bit grey, grey+alpha, RGB or RGBA pixels; any suffix Pillow knows works."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_palette_png(path: Path, indices: np.ndarray, colours: Sequence[int]) -> Path:
    """Write indices, (H, W), with a palette of flat ``r, g, b, r, g, b`` values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8), mode="L")
    image.putpalette(list(colours))
    image.save(path)
    return path


def write_tiff(path: Path, pages: Sequence[np.ndarray], **options: Any) -> Path:
    """Write one page per array, of any type Pillow knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(page) for page in pages]
    images[0].save(path, save_all=len(images) > 1, append_images=images[1:], **options)
    return path


def write_jpeg(
    path: Path, pixels: np.ndarray, quality: int = 95, exif_orientation: int | None = None
) -> Path:
    """Write 8-bit grey or RGB pixels, with an EXIF orientation if given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if exif_orientation is not None:
        exif[0x0112] = exif_orientation
    Image.fromarray(pixels).save(path, quality=quality, exif=exif)
    return path


def write_zip(path: Path, members: Mapping[str, Path | bytes]) -> Path:
    """Write an archive whose members are files or bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path


def _set(dataset: Dataset, tags: Mapping[str, Any]) -> None:
    for name, value in tags.items():
        if value is None:
            if name in dataset:
                delattr(dataset, name)
        else:
            setattr(dataset, name, value)


SMALL_ARCHIVE: dict[str, Any] = {
    "patients": 2,
    "size": 40,
    "slices_per_volume": 3,
    "ultrasound_frames": 2,
    "segmentation_patients": (4, 2, 4),
    "segmentation_slices": 2,
    "classification_patients": (8, 4, 8),
    "classification_slices": 1,
}
"""Arguments of ``write_phantom_archive`` for an archive that is made in about a second."""
