"""Examinations of one phantom patient, written as the files a hospital would send.

CT and PET as DICOM series, MR as NIfTI, radiographs as PNG or inverted DICOM, ultrasound as PNG.
"""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from vismae.files.phantom_anatomy import Anatomy, sample_anatomy
from vismae.files.phantom_dicom import (
    AxialGrid,
    write_ct_series,
    write_inverted_radiograph,
    write_pet_series,
)
from vismae.files.phantom_patient import Patient
from vismae.files.phantom_radiograph import DETECTOR_MM, attenuation_volume, radiograph
from vismae.files.phantom_scanners import ct_volume, draw_sequence, mr_volume, pet_volume
from vismae.files.phantom_tissue import Tissue
from vismae.files.phantom_ultrasound import find_window, sway, ultrasound_image

VIEWS_DEG = (0.0, 6.0, -8.0, 40.0, 90.0, -45.0)
"""Directions of the radiographs every unlabelled patient gets; 0 is frontal."""
_LOWEST_SLICE_MM, _HIGHEST_SLICE_MM = -105.0, 85.0
_WINDOWS = ("heart", "liver", "subcostal")


def noise_of(seed: int, patient: Patient, stream: int) -> np.random.Generator:
    """Chance for one examination; apart from the one that drew the patient."""
    return np.random.default_rng([seed, patient.number, stream])


def axial_grid(patient: Patient, size: int, z_mm: Sequence[float] | np.ndarray) -> AxialGrid:
    """Field of view that just holds the chest, as a radiographer would choose it."""
    field_mm = 2.0 * 165.0 * float(patient.stretch[0]) * 1.04 + 32.0
    pixel_mm = round(field_mm / size, 3)
    first = round(-(size - 1) / 2 * pixel_mm, 4)
    slice_mm = round(float(z_mm[1] - z_mm[0]), 3) if len(z_mm) > 1 else 5.0
    return AxialGrid(
        pixel_mm, slice_mm, (first, first, round(float(z_mm[0]), 3)), (len(z_mm), size, size)
    )


def scan(patient: Patient, size: int, slices: int) -> tuple[AxialGrid, Anatomy]:
    """Sample the anatomy on a whole axial volume."""
    z_mm = np.linspace(_LOWEST_SLICE_MM, _HIGHEST_SLICE_MM, slices)
    grid = axial_grid(patient, size, z_mm)
    return grid, sample_anatomy(patient, *grid.axes_mm())


def write_volumes(root: Path, patient: Patient, seed: int, size: int, slices: int) -> None:
    """Write CT and PET as DICOM series and MR as NIfTI."""
    grid, anatomy = scan(patient, size, slices)
    name = patient.patient_id
    rng = noise_of(seed, patient, 1)
    # Half of the patients got contrast agent.
    enhancement = float(rng.uniform(0.4, 1.0)) if rng.uniform() < 0.5 else 0.0
    hu = ct_volume(anatomy, grid.pixel_mm, rng, enhancement, float(rng.uniform(8.0, 20.0)))
    write_ct_series(root / "ct" / name, hu, grid, patient, seed)
    rng = noise_of(seed, patient, 2)
    signal = mr_volume(anatomy, grid.pixel_mm, rng, draw_sequence(rng))
    write_nifti(root / "mr" / f"{name}.nii.gz", np.round(signal).astype(np.int16), grid)
    rng = noise_of(seed, patient, 3)
    uptake = {
        Tissue.MYOCARDIUM: float(rng.uniform(1.5, 6.0)),
        Tissue.LESION: float(rng.uniform(3.5, 9.0)),
    }
    suv = pet_volume(anatomy, (grid.slice_mm, grid.pixel_mm), rng, uptake)
    write_pet_series(root / "pet" / name, suv, grid, patient, seed)


def write_nifti(path: Path, volume: np.ndarray, grid: AxialGrid) -> None:
    """Write a volume (S, H, W) with its affine; the fixed time stamp keeps bytes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Nifti1Image(volume.transpose(2, 1, 0), grid.affine())
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def write_png(path: Path, grey: np.ndarray) -> None:
    """Write 8-bit or 16-bit grey levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)


def eight_bit(grey: np.ndarray) -> np.ndarray:
    """Levels from 0 to 1 as bytes."""
    return np.round(255.0 * np.clip(grey, 0.0, 1.0)).astype(np.uint8)


def write_radiographs(folder: Path, patient: Patient, seed: int, size: int) -> None:
    """Write frontal, oblique and side views: 8 and 16-bit PNG, the first of some as DICOM."""
    rng = noise_of(seed, patient, 4)
    attenuation = attenuation_volume(patient, size)
    pixel_mm = DETECTOR_MM / size
    for index, angle in enumerate(VIEWS_DEG):
        turned = angle + float(rng.uniform(-3.0, 3.0))
        grey = radiograph(attenuation, pixel_mm, rng, turned, float(rng.uniform(8e3, 4e4)))
        name = f"{patient.patient_id}_{index:02d}"
        if index == 0 and patient.number % 2 == 1:
            write_inverted_radiograph(folder / f"{name}.dcm", grey, pixel_mm, patient, seed)
        elif index % 2:
            write_png(folder / f"{name}.png", eight_bit(grey))
        else:
            write_png(folder / f"{name}.png", np.round(65535.0 * grey).astype(np.uint16))


def write_ultrasound(folder: Path, patient: Patient, seed: int, size: int, frames: int) -> None:
    """Write frames from three windows in turn."""
    rng = noise_of(seed, patient, 5)
    probes = [find_window(patient, window, rng) for window in _WINDOWS]
    for frame in range(frames):
        probe = sway(probes[frame % len(probes)], rng)
        grey, _ = ultrasound_image(patient, probe, size, rng)
        write_png(folder / f"{patient.patient_id}_{frame:02d}.png", eight_bit(grey))
