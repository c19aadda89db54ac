"""Write phantom pictures as valid DICOM: CT and PET series, digital radiographs.

All identifiers follow from the seed and the patient, so the same phantom gives the same files.
Times, dose and weight are such that SUV by body weight can be recovered exactly
(SUV = Bq/ml x weight in g / dose left at the start of the series).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from vismae.files.phantom_patient import Patient

CT_INTERCEPT_HU = -1024.0
FDG_HALF_LIFE_SECONDS = 6586.2
DOSE_BQ = 350.0e6
_DATE = "20260105"
_INJECTION_TIME, _SERIES_TIME = "080000", "090000"
SECONDS_TO_SERIES = 3600.0
"""From injection to the start of every PET series."""


@dataclass(frozen=True)
class AxialGrid:
    """Where the pixels of an axial volume lie, DICOM axes (left, back, head), mm.

    Attributes:
        pixel_mm, slice_mm: Spacing within and between slices.
        first_mm: Centre of the first pixel of the first slice (x, y, z).
        shape: Slices, rows, columns.
    """

    pixel_mm: float
    slice_mm: float
    first_mm: tuple[float, float, float]
    shape: tuple[int, int, int]

    def axes_mm(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates x (1, 1, W), y (1, H, 1), z (S, 1, 1) for ``sample_anatomy``."""
        slices, height, width = self.shape
        x = self.first_mm[0] + self.pixel_mm * np.arange(width)
        y = self.first_mm[1] + self.pixel_mm * np.arange(height)
        z = self.first_mm[2] + self.slice_mm * np.arange(slices)
        return x[None, None, :], y[None, :, None], z[:, None, None]

    def affine(self) -> np.ndarray:
        """Voxel (column, row, slice) to mm in RAS, as NIfTI wants it, (4, 4)."""
        affine = np.diag([-self.pixel_mm, -self.pixel_mm, self.slice_mm, 1.0])
        affine[:3, 3] = (-self.first_mm[0], -self.first_mm[1], self.first_mm[2])
        return affine


def write_ct_series(
    folder: Path, hu: np.ndarray, grid: AxialGrid, patient: Patient, seed: int
) -> list[Path]:
    """Write one file per slice with signed 16-bit pixels and an intercept of -1024 HU.

    Args:
        folder: Made if missing.
        hu: Hounsfield units, (S, H, W).
        grid: Geometry of the volume.
        patient: Whose name the files carry.
        seed: Of the phantom population, part of every UID.

    Returns:
        The files, from feet to head.
    """
    stored = np.round(hu - CT_INTERCEPT_HU).astype(np.int16)
    file = _dataset(CTImageStorage, "CT", patient, seed, "volume")
    file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    file.KVP = 120
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = CT_INTERCEPT_HU, 1, "HU"
    file.WindowCenter, file.WindowWidth = 40, 400
    return _save_slices(folder, file, stored, grid)


def write_pet_series(
    folder: Path, suv: np.ndarray, grid: AxialGrid, patient: Patient, seed: int
) -> list[Path]:
    """Write one file per slice in Bq/ml, decay-corrected to the start of the series.

    Args: see ``write_ct_series``; ``suv`` is the uptake by body weight, (S, H, W).

    Returns:
        The files, from feet to head.
    """
    activity = suv.astype(np.float64) * becquerel_per_suv(patient.weight_kg)
    slope = float(f"{activity.max() / 32000.0:.8g}") or 1.0
    stored = np.round(activity / slope).astype(np.int16)
    file = _dataset(PositronEmissionTomographyImageStorage, "PT", patient, seed, "volume")
    file.ImageType = ["ORIGINAL", "PRIMARY"]
    file.PatientWeight = patient.weight_kg
    file.RescaleIntercept, file.RescaleSlope = 0, slope
    file.Units, file.SUVType = "BQML", "BW"
    file.DecayCorrection, file.CorrectedImage = "START", ["DECY", "ATTN", "SCAT"]
    file.SeriesType, file.CountsSource = ["WHOLE BODY", "IMAGE"], "EMISSION"
    file.NumberOfSlices, file.CollimatorType = len(stored), "NONE"
    file.FrameReferenceTime, file.ActualFrameDuration, file.DecayFactor = 0, 120000, 1
    file.RadiopharmaceuticalInformationSequence = [_radiopharmaceutical()]
    return _save_slices(folder, file, stored, grid)


def becquerel_per_suv(weight_kg: float) -> float:
    """Activity concentration in Bq/ml that is SUV 1 at the start of the series."""
    left_bq = DOSE_BQ * 2.0 ** (-SECONDS_TO_SERIES / FDG_HALF_LIFE_SECONDS)
    return left_bq / (weight_kg * 1000.0)


def write_inverted_radiograph(
    path: Path, grey: np.ndarray, pixel_mm: float, patient: Patient, seed: int
) -> Path:
    """Write a digital radiograph as MONOCHROME1, where large stored values are black.

    Args:
        path: File to write.
        grey: Levels from 0 (black) to 1, (H, W).
        pixel_mm: Side of a detector pixel.
        patient: Whose name the file carries.
        seed: Of the phantom population.
    """
    stored = np.round((1.0 - grey) * 4095.0).astype(np.uint16)
    sop_class = DigitalXRayImageStorageForPresentation
    file = _dataset(sop_class, "DX", patient, seed, path.stem)
    _set_pixels(file, stored)
    file.PhotometricInterpretation, file.PresentationLUTShape = "MONOCHROME1", "INVERSE"
    file.ImageType = ["ORIGINAL", "PRIMARY"]
    file.BitsStored, file.HighBit = 12, 11
    file.ImagerPixelSpacing = [_decimal(pixel_mm)] * 2
    file.PixelIntensityRelationship, file.PixelIntensityRelationshipSign = "LOG", -1
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = 0, 1, "US"
    file.BodyPartExamined, file.PresentationIntentType = "CHEST", "FOR PRESENTATION"
    file.BurnedInAnnotation, file.LossyImageCompression = "NO", "00"
    file.ImageLaterality, file.PatientOrientation = "U", ["L", "F"]
    file.DetectorType, file.PositionerType = "DIRECT", "NONE"
    file.AcquisitionContextSequence = []
    return _save(file, path)


def _radiopharmaceutical() -> Dataset:
    """Describe the injection."""
    item = Dataset()
    item.Radiopharmaceutical = "Fluorodeoxyglucose F^18^"
    item.RadiopharmaceuticalStartTime = _INJECTION_TIME
    item.RadiopharmaceuticalStartDateTime = _DATE + _INJECTION_TIME
    item.RadionuclideTotalDose = DOSE_BQ
    item.RadionuclideHalfLife = FDG_HALF_LIFE_SECONDS
    item.RadionuclidePositronFraction = 0.967
    return item


def _save_slices(
    folder: Path, file: FileDataset, stored: np.ndarray, grid: AxialGrid
) -> list[Path]:
    """Write one file per axial slice, each with its place in the patient."""
    x, y, lowest = grid.first_mm
    file.FrameOfReferenceUID = generate_uid(entropy_srcs=[file.StudyInstanceUID, "frame"])
    file.PositionReferenceIndicator, file.PatientPosition = "", "HFS"
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.PixelSpacing = [_decimal(grid.pixel_mm)] * 2
    file.SliceThickness = file.SpacingBetweenSlices = _decimal(grid.slice_mm)
    file.BodyPartExamined = "CHEST"
    paths = []
    for index, pixels in enumerate(stored):
        height = _decimal(lowest + grid.slice_mm * index)
        file.SOPInstanceUID = generate_uid(entropy_srcs=[file.SeriesInstanceUID, str(index)])
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
        file.InstanceNumber = index + 1
        if file.Modality == "PT":
            file.ImageIndex = index + 1
        file.ImagePositionPatient = [_decimal(x), _decimal(y), height]
        file.SliceLocation = height
        _set_pixels(file, pixels)
        paths.append(_save(file, folder / f"{index:03d}.dcm"))
    return paths


def _set_pixels(file: FileDataset, pixels: np.ndarray) -> None:
    """Put 16-bit grey pixels into a dataset."""
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()


def _dataset(
    sop_class: UID, modality: str, patient: Patient, seed: int, series: str
) -> FileDataset:
    """Dataset with what every DICOM image needs, but for geometry and pixels."""
    person = ["vismae phantom", str(seed), patient.patient_id]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = sop_class
    file.StudyInstanceUID = generate_uid(entropy_srcs=[*person, "study"])
    file.SeriesInstanceUID = generate_uid(entropy_srcs=[*person, modality, series])
    file.SOPInstanceUID = generate_uid(entropy_srcs=[file.SeriesInstanceUID, "0"])
    meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.PatientID, file.PatientName = patient.patient_id, f"PHANTOM^{patient.number:04d}"
    file.PatientBirthDate, file.PatientSex = "", "O"
    file.StudyDate = file.SeriesDate = file.AcquisitionDate = file.ContentDate = _DATE
    file.StudyTime = file.SeriesTime = file.AcquisitionTime = file.ContentTime = _SERIES_TIME
    file.StudyID, file.AccessionNumber, file.ReferringPhysicianName = "1", "", ""
    file.Modality, file.Manufacturer = modality, "vismae phantom"
    file.SeriesDescription = f"Computer-made phantom, {modality}, no real person"
    file.SeriesNumber, file.AcquisitionNumber, file.InstanceNumber = 1, 1, 1
    return file


def _decimal(value: float) -> str:
    """Write a length with at most 16 characters, as a decimal string must be."""
    return f"{value:.6g}"


def _save(file: FileDataset, path: Path) -> Path:
    """Write a dataset in full file format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, file, enforce_file_format=True)
    return path
