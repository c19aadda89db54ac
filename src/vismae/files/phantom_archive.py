"""A small archive of made-up patients: what ``vismae demo`` and the whole-path tests run on.

Five modalities in DICOM, NIfTI and PNG for pre-training, a segmentation task (MR: lung, heart,
liver) and a classification task (CT: healthy or lesion) from other patients, and one new patient
to predict. Made by formulas (``phantom_anatomy``), so labels are exact and nobody's data is used.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vismae.core.errors import SettingError
from vismae.core.types import Modality
from vismae.files.phantom_anatomy import draw_patient, lesion_position_mm, sample_anatomy
from vismae.files.phantom_dicom import AxialGrid, write_ct_series
from vismae.files.phantom_examinations import (
    VIEWS_DEG,
    axial_grid,
    eight_bit,
    noise_of,
    scan,
    write_nifti,
    write_png,
    write_radiographs,
    write_ultrasound,
    write_volumes,
)
from vismae.files.phantom_patient import Patient
from vismae.files.phantom_scanners import ct_volume, draw_sequence, mr_volume
from vismae.files.phantom_ultrasound import find_window, ultrasound_image

SPLITS = ("train", "val", "test")
UNLABELLED_COLUMNS = ("path", "patient_id", "modality")
SEGMENTATION_COLUMNS = (
    "path",
    "label_map",
    "patient_id",
    "volume_id",
    "slice_index",
    "spacing_mm",
    "modality",
    "split",
)
CLASSIFICATION_COLUMNS = ("path", "label", "patient_id", "modality", "split")
_FIRST_SEGMENTED, _FIRST_CLASSIFIED, _NEW_PATIENT = 1001, 2001, 3001
_README = """\
These images show nobody. Every picture in this folder was computed by the program vismae from
formulas of a chest (`vismae demo`); the patients P0001, P1001, ... are random numbers, not people,
and nothing here may be used for medical conclusions or counted as evidence about real images.
unlabelled/ holds CT and PET (DICOM series), MR (NIfTI), radiographs (PNG, and DICOM with inverted
grey levels) and ultrasound (PNG) for pre-training; segmentation/ MR slices with label maps (0
background, 1 lung, 2 heart, 3 liver); classification/ CT slices of patients with and without a
lung nodule; new_patient/ an MR volume and an ultrasound image to predict, with the true label maps.
"""


@dataclass(frozen=True)
class PhantomArchive:
    """Where the parts of a phantom archive lie.

    Attributes:
        folder: The whole archive.
        unlabelled: Images of five modalities in one folder each, for pre-training, with a
            ``manifest.csv``: NIfTI and PNG do not say modality and patient themselves.
        segmentation_manifest, classification_manifest: CSV tables; paths in them are relative to
            the table's own folder.
        new_patient: MR volume and ultrasound image with true label maps, in no other part.
        slice_count: Two-dimensional images under ``unlabelled``.
    """

    folder: Path
    unlabelled: Path
    segmentation_manifest: Path
    classification_manifest: Path
    new_patient: Path
    slice_count: int


def write_phantom_archive(
    folder: Path,
    patients: int = 16,
    seed: int = 0,
    size: int = 96,
    slices_per_volume: int = 24,
    ultrasound_frames: int = 18,
    segmentation_patients: tuple[int, int, int] = (16, 4, 12),
    segmentation_slices: int = 6,
    classification_patients: tuple[int, int, int] = (80, 20, 60),
    classification_slices: int = 2,
) -> PhantomArchive:
    """Write the archive; the same arguments give the same bytes.

    Args:
        folder: Must be empty or missing.
        patients: Unlabelled patients, each examined by all five modalities.
        seed: Of the population.
        size: Pixels per side of every image.
        slices_per_volume: Slices of each CT, MR and PET volume.
        ultrasound_frames: Ultrasound images per patient.
        segmentation_patients, classification_patients: Number in train, val and test.
        segmentation_slices, classification_slices: Images per patient of the tasks.

    Raises:
        SettingError: The folder holds something, or a number is too small.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SettingError(
            f"{folder}: is not empty, the phantom archive wants a new or empty folder. "
            "Name another folder or clear this one."
        )
    smallest = min(patients, slices_per_volume, segmentation_slices, classification_slices)
    if smallest < 1 or size < 32:
        raise SettingError(
            f"A phantom archive of {patients} patients, {slices_per_volume} slices and "
            f"{size}×{size} pixels cannot be made: expected at least 1 patient, 1 slice and "
            "32 pixels. Raise the number."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text(_README, encoding="utf-8")
    unlabelled = folder / "unlabelled"
    rows: list[tuple[str, str, str]] = []
    for number in range(1, patients + 1):
        # Every second patient has a lesion, as pre-training meets both.
        patient = draw_patient(seed, number, has_lesion=number % 2 == 0)
        write_volumes(unlabelled, patient, seed, size, slices_per_volume)
        write_radiographs(unlabelled / "xr", patient, seed, size)
        write_ultrasound(unlabelled / "us", patient, seed, size, ultrasound_frames)
        rows += _unlabelled_rows(unlabelled, patient)
    _write_manifest(unlabelled / "manifest.csv", UNLABELLED_COLUMNS, rows)
    images = 3 * slices_per_volume + len(VIEWS_DEG) + ultrasound_frames
    return PhantomArchive(
        folder=folder,
        unlabelled=unlabelled,
        segmentation_manifest=_write_segmentation_task(
            folder / "segmentation", seed, size, segmentation_patients, segmentation_slices
        ),
        classification_manifest=_write_classification_task(
            folder / "classification", seed, size, classification_patients, classification_slices
        ),
        new_patient=_write_new_patient(folder / "new_patient", seed, size, slices_per_volume),
        slice_count=patients * images,
    )


def _unlabelled_rows(root: Path, patient: Patient) -> list[tuple[str, str, str]]:
    """List what was written of a patient; a DICOM series is named by its folder."""
    name = patient.patient_id
    return [
        (path.relative_to(root).as_posix(), name, modality.value)
        for modality in (Modality.CT, Modality.MR, Modality.PET, Modality.XR, Modality.US)
        for path in sorted((root / modality).glob(f"{name}*"))
    ]


def _mr_slices(
    patient: Patient, seed: int, size: int, slices: int
) -> tuple[AxialGrid, np.ndarray, np.ndarray]:
    """One patient's MR volume and label map, from the liver's dome to over the heart."""
    rng = noise_of(seed, patient, 2)
    sequence = draw_sequence(rng)
    middle = float(patient.shift_mm[2]) - 40.0 * float(patient.stretch[2])
    z_mm = np.linspace(middle - 50.0, middle + 50.0, slices)
    grid = axial_grid(patient, size, z_mm)
    anatomy = sample_anatomy(patient, *grid.axes_mm())
    return grid, mr_volume(anatomy, grid.pixel_mm, rng, sequence), anatomy.label_map


def _write_segmentation_task(
    folder: Path, seed: int, size: int, patients: tuple[int, int, int], slices: int
) -> Path:
    """Write MR slices with label maps as PNG and their manifest; returns the manifest."""
    rows: list[tuple[str | int, ...]] = []
    for number, split in _divided(_FIRST_SEGMENTED, patients):
        patient = draw_patient(seed, number, has_lesion=number % 2 == 0)
        grid, signal, label_map = _mr_slices(patient, seed, size, slices)
        grey = eight_bit(signal / np.percentile(signal, 99.8))
        volume = f"{patient.patient_id}_mr"
        for index in range(slices):
            image = f"images/{volume}_{index:02d}.png"
            labels = f"label_maps/{volume}_{index:02d}.png"
            write_png(folder / image, grey[index])
            write_png(folder / labels, label_map[index])
            spacing = f"{grid.pixel_mm};{grid.pixel_mm}"
            rows.append(
                (image, labels, patient.patient_id, volume, index, spacing, Modality.MR, split)
            )
    return _write_manifest(folder / "manifest.csv", SEGMENTATION_COLUMNS, rows)


def _write_classification_task(
    folder: Path, seed: int, size: int, patients: tuple[int, int, int], slices: int
) -> Path:
    """Write CT slices of healthy and ill patients as DICOM; returns the manifest.

    Healthy patients are cut where their lesion would have been, so height, pose, contrast agent
    and noise say nothing about the class; hounsfield units fit a model pre-trained on CT series.
    """
    rows: list[tuple[str | int, ...]] = []
    for number, split in _divided(_FIRST_CLASSIFIED, patients):
        patient = draw_patient(seed, number, has_lesion=number % 2 == 0)
        reach = 0.45 * patient.lesion_radius_mm
        centre = float(lesion_position_mm(patient)[2])
        grid = axial_grid(patient, size, centre + np.linspace(-reach, reach, slices))
        rng = noise_of(seed, patient, 1)
        enhancement = float(rng.uniform(0.0, 1.0))
        anatomy = sample_anatomy(patient, *grid.axes_mm())
        hu = ct_volume(anatomy, grid.pixel_mm, rng, enhancement, float(rng.uniform(10.0, 24.0)))
        written = write_ct_series(folder / "images" / patient.patient_id, hu, grid, patient, seed)
        rows += [
            (
                path.relative_to(folder).as_posix(),
                patient.label,
                patient.patient_id,
                Modality.CT,
                split,
            )
            for path in written
        ]
    return _write_manifest(folder / "manifest.csv", CLASSIFICATION_COLUMNS, rows)


def _write_new_patient(folder: Path, seed: int, size: int, slices: int) -> Path:
    """Write an MR volume and an ultrasound image with true label maps; returns the folder."""
    patient = draw_patient(seed, _NEW_PATIENT, has_lesion=True)
    grid, anatomy = scan(patient, size, slices)
    rng = noise_of(seed, patient, 2)
    signal = mr_volume(anatomy, grid.pixel_mm, rng, draw_sequence(rng))
    write_nifti(folder / "mr.nii.gz", np.round(signal).astype(np.int16), grid)
    write_nifti(folder / "mr_label_map.nii.gz", anatomy.label_map, grid)
    rng = noise_of(seed, patient, 5)
    grey, labels = ultrasound_image(patient, find_window(patient, "heart", rng), size, rng)
    write_png(folder / "us.png", eight_bit(grey))
    write_png(folder / "us_label_map.png", labels)
    return folder


def _divided(first: int, counts: tuple[int, int, int]) -> Iterable[tuple[int, str]]:
    """Number the patients of a task and say to which split each belongs."""
    number = first
    for split, count in zip(SPLITS, counts, strict=True):
        for _ in range(count):
            yield number, split
            number += 1


def _write_manifest(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int]]
) -> Path:
    """Write a CSV table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return path
