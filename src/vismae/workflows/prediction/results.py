"""The results of one input on the disk: label maps, maps of values, and rows for the tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vismae.core.config import PredictConfig
from vismae.core.errors import DataError
from vismae.core.model_card import TaskCard
from vismae.core.types import Flag
from vismae.files.discover import SourceFile
from vismae.inference.class_slices import SliceClasses
from vismae.inference.dicom_seg_writer import SegmentationFacts, write_dicom_seg
from vismae.inference.dicom_sr_writer import Finding, ReportFacts, write_dicom_sr
from vismae.inference.nifti_writer import write_nifti_like, write_nifti_of
from vismae.inference.picture_writer import write_pictures
from vismae.inference.postprocess import clean_labels
from vismae.inference.slices import FULL_SCALE, SliceLabels
from vismae.workflows.prediction.class_rows import class_cells, predicted_classes
from vismae.workflows.prediction.reading import ReadInput, Volume
from vismae.workflows.prediction.records import Records

Format = Literal["nifti", "png", "dicomseg", "dicomsr"]

_USUAL_FORMAT: dict[str, Format] = {
    "nifti": "nifti",
    "itk": "nifti",
    "dicom": "dicomseg",
    "raster": "png",
}
_FULL_SLOPE = 1.0 / FULL_SCALE


@dataclass
class Results:
    """What was made of an input so far.

    Attributes:
        read: The input.
        name: What its results are called.
        records: Of the folder.
        request: See ``records.request_of``.
        outputs: Files written.
        images: Rows for ``predictions.csv``.
        volumes: Rows for ``volumes.csv``.
    """

    read: ReadInput
    name: str
    records: Records
    request: str
    outputs: list[Path] = field(default_factory=list[Path])
    images: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    volumes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def kind(self) -> str:
        """Which reader took the input."""
        return self.read.item.group.kind

    def place(self, ending: str, number: int = 1, count: int = 1) -> Path:
        """Return where a result belongs, such as of ``_uncertainty.nii.gz``.

        Args:
            ending: What follows the name.
            number, count: Which of how many volumes or files that each have a result of their own.

        Raises:
            DataError: Another input's result lies there.
        """
        name = f"{self.name}_{number:02d}{ending}" if count > 1 else f"{self.name}{ending}"
        return self.records.claim(self.records.folder / name, self.read.item.identity)


def add_label_maps(results: Results, config: PredictConfig, task: TaskCard, device: str) -> None:
    """Write the label maps, and the maps of uncertainty if there are any.

    Raises:
        DataError: The format cannot hold this input.
    """
    numbers = {name: number for number, name in enumerate(task.classes)}
    label_maps: list[np.ndarray] = []
    unsure: list[np.ndarray] = []
    for place, volume in enumerate(results.read.volumes, start=1):
        answers = [answer for answer in volume.answers if isinstance(answer, SliceLabels)]
        labels = np.stack([answer.labels for answer in answers])
        found = [answer.uncertainty for answer in answers if answer.uncertainty is not None]
        volume.answers.clear()  # their memory is needed for what follows
        clean_labels(
            labels,
            [numbers[name] for name in config.largest_component],
            [numbers[name] for name in config.fill_holes],
            volume.in_space,
        )
        results.volumes.extend(_volume_rows(results, volume, place, labels, task.classes))
        label_maps.append(_in_full_frame(volume, labels))
        if found:
            unsure.append(_in_full_frame(volume, np.stack(found)))
    wanted = config.format or _USUAL_FORMAT[results.kind]
    if wanted == "dicomseg":
        _add_segmentations(results, label_maps, task, device)
    else:
        _add_slices(results, label_maps, "", wanted, of_classes=True)
    if unsure:
        add_maps(results, unsure, "_uncertainty")


def add_classes(results: Results, config: PredictConfig, task: TaskCard, device: str) -> None:
    """Add a row for each slice and one for each volume of several slices; evidence and report.

    Raises:
        DataError: A report is wanted of what is no DICOM.
    """
    means: list[np.ndarray] = []
    for place, volume in enumerate(results.read.volumes, start=1):
        answers = _class_answers(volume)
        found = np.stack([answer.probabilities for answer in answers])
        means.append(found.mean(axis=0))
        shared = {
            "input": results.read.item.source,
            "name": results.name,
            "volume": place,
            "patient_id": volume.image.patient_id or "",
        }
        for number, probabilities in enumerate(found, start=1):
            names = {"level": "image", **shared, "slice": number}
            flags = _flags(volume, number - 1)
            results.images.append({**names, **class_cells(probabilities, task), "flags": flags})
        if len(found) > 1:
            names = {"level": "volume", **shared, "slice": ""}
            flags = "|".join(volume.flags)
            results.images.append({**names, **class_cells(means[-1], task), "flags": flags})
    if config.format == "dicomsr":
        _add_report(results, means, task, device)
    maps: list[np.ndarray] = []
    for volume in results.read.volumes:
        found = [answer.evidence for answer in _class_answers(volume)]
        evidence = [values for values in found if values is not None]
        if evidence:
            maps.append(_in_full_frame(volume, np.stack(evidence)))
    if maps:
        add_maps(results, maps, "_evidence")


def _class_answers(volume: Volume) -> list[SliceClasses]:
    return [answer for answer in volume.answers if isinstance(answer, SliceClasses)]


def add_errors(results: Results) -> None:
    """Write the maps of reconstruction errors."""
    maps = [
        _in_full_frame(volume, np.stack([np.asarray(answer) for answer in volume.answers]))
        for volume in results.read.volumes
    ]
    add_maps(results, maps, "_error")


def add_maps(results: Results, maps: list[np.ndarray], ending: str) -> None:
    """Write maps of 0 to 1: NIfTI where the image has a place in space, else 16-bit PNG."""
    placed = all(
        volume.image.affine is not None
        and volume.image.details.get("regular_spacing", True)
        and volume.in_space
        for volume in results.read.volumes
    )
    as_nifti = results.kind == "nifti" or placed
    _add_slices(results, maps, ending, "nifti" if as_nifti else "png", of_classes=False)


def _flags(volume: Volume, number: int) -> str:
    details = volume.image.details
    found: set[Flag] = set(details.get("flags", ()))
    if "slice_flags" in details:
        found |= set(details["slice_flags"][number])
    return "|".join(sorted(found))


def _volume_rows(
    results: Results, volume: Volume, place: int, labels: np.ndarray, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    # bincount would make a copy of 8 bytes a voxel.
    counts = [int(np.count_nonzero(labels == number)) for number in range(len(classes))]
    voxel_ml = _voxel_ml(volume)
    spacing = volume.image.spacing
    return [
        {
            "input": results.read.item.source,
            "name": results.name,
            "volume": place,
            "class": classes[number],
            "pixels": counts[number],
            "volume_ml": "" if voxel_ml is None else round(counts[number] * voxel_ml, 6),
            "spacing_slice_mm": _cell(spacing.slice_mm),
            "spacing_row_mm": _cell(spacing.row_mm),
            "spacing_column_mm": _cell(spacing.column_mm),
            "flags": "|".join(volume.flags),
        }
        for number in range(1, len(classes))
    ]


def _voxel_ml(volume: Volume) -> float | None:
    """Return the volume of a voxel, or None where the files do not say it.

    A lone slice of a NIfTI, MetaImage or NRRD file has a distance that nobody measured, and slices
    at irregular distances have none that holds for all.
    """
    details, spacing = volume.image.details, volume.image.spacing
    sizes = (spacing.slice_mm, spacing.row_mm, spacing.column_mm)
    if any(size is None for size in sizes) or not volume.in_space:
        return None
    if not details.get("regular_spacing", True) or not details.get("orientation_known", True):
        return None
    if volume.shape[0] == 1 and "orientation_known" in details:
        return None
    if volume.shape[0] > 1 and volume.image.affine is not None:
        # Slices shifted along themselves, as of a tilted gantry, keep their true distance.
        return abs(float(np.linalg.det(volume.image.affine[:3, :3]))) / 1000.0
    return math.prod(size for size in sizes if size is not None) / 1000.0


def _cell(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)


def _in_full_frame(volume: Volume, slices: np.ndarray) -> np.ndarray:
    """Put slices back where they were cut out of their frames.

    Raises:
        DataError: Slices were cut out at different places.
    """
    details = volume.image.details
    if Flag.REGION_CROPPED not in volume.flags:
        return slices
    if details.get("crop") is None:
        raise DataError(
            f"{volume.image.source}: frames that were cut to different regions cannot be put back "
            "together. Predict the files one by one."
        )
    top, left, height, width = details["crop"]
    full = np.zeros((len(slices), *details["full_shape"]), slices.dtype)
    full[:, top : top + height, left : left + width] = slices
    return full


def _add_slices(
    results: Results, found: list[np.ndarray], ending: str, wanted: Format, of_classes: bool
) -> None:
    slope = 1.0 if of_classes else _FULL_SLOPE
    if wanted == "nifti" and results.kind == "nifti":
        path = results.place(f"{ending}.nii.gz")
        item = results.read.item
        alone = item.told is not None and item.told.channel is not None
        write_nifti_like(path, item.group.files[0], found, slope, one_of_several=alone)
        results.outputs.append(path)
        return
    volumes = results.read.volumes
    for number, (volume, slices) in enumerate(zip(volumes, found, strict=True), 1):
        if wanted == "nifti":
            path = results.place(f"{ending}.nii.gz", number, len(volumes))
            write_nifti_of(path, volume.image, slices, slope)
            results.outputs.append(path)
        else:
            path = results.place(f"{ending}.png", number, len(volumes))
            results.outputs.extend(write_pictures(path, slices, palette=of_classes))


def _add_segmentations(
    results: Results, label_maps: list[np.ndarray], task: TaskCard, device: str
) -> None:
    _require_dicom(results, "segmentation", "Use --format nifti or png.")
    facts = SegmentationFacts(task.classes, results.request, device)
    files = results.read.item.group.files
    if _is_of_frames(results):
        # A segmentation refers to the frames of one instance; a divided image gets one for each.
        of_files = _frames_in_order(results.read.volumes, label_maps)
        for number, file in enumerate(files, 1):
            if file.name in of_files:
                path = results.place(".dcm", number, len(files))
                write_dicom_seg(path, (file,), of_files[file.name], facts)
                results.outputs.append(path)
        return
    for number, (own, labels) in enumerate(
        zip(_files_of_volumes(results), label_maps, strict=True), 1
    ):
        path = results.place(".dcm", number, len(label_maps))
        write_dicom_seg(path, own, labels, facts)
        results.outputs.append(path)


def _add_report(results: Results, means: list[np.ndarray], task: TaskCard, device: str) -> None:
    _require_dicom(results, "report", "Leave --format out; the table has the probabilities.")
    volumes = results.read.volumes
    stacks = len(volumes) > 1 and _is_of_frames(results)
    findings = [
        Finding(own, mean, predicted_classes(mean, task), _frames_of(volume, own) if stacks else ())
        for own, volume, mean in zip(_files_of_volumes(results), volumes, means, strict=True)
    ]
    modality = volumes[0].image.modality
    path = results.place(".dcm")
    write_dicom_sr(path, findings, ReportFacts(task.classes, results.request, device, modality))
    results.outputs.append(path)


def _require_dicom(results: Results, what: str, cure: str) -> None:
    if results.kind != "dicom":
        raise DataError(
            f"{results.read.item.source}: a DICOM {what} must refer to DICOM images, and this is "
            f"none. {cure}"
        )


def _is_of_frames(results: Results) -> bool:
    """Tell whether slices are frames of one multi-frame image, rather than files of their own."""
    details = results.read.volumes[0].image.details
    return len(results.read.item.group.files) == 1 or details["concatenated"]


def _files_of_volumes(results: Results) -> list[tuple[SourceFile, ...]]:
    """Return the files of each volume in the order of its slices; of frames each file once."""
    by_name = {file.name: file for file in results.read.item.group.files}
    of_frames = _is_of_frames(results)
    found: list[tuple[SourceFile, ...]] = []
    for volume in results.read.volumes:
        names = volume.image.details["slice_sources"]
        found.append(
            tuple(by_name[name] for name in (dict.fromkeys(names) if of_frames else names))
        )
    return found


def _frame_numbers(volume: Volume) -> list[tuple[str, int]]:
    """Return file and number of the frame, counted from 1, that each slice is."""
    details = volume.image.details
    numbers = (int(key.rsplit(":", 1)[1]) for key in details["slice_keys"])
    return list(zip(details["slice_sources"], numbers, strict=True))


def _frames_of(volume: Volume, files: Sequence[SourceFile]) -> tuple[tuple[int, ...], ...]:
    """Return which frames of each file the slices are."""
    frames = _frame_numbers(volume)
    return tuple(tuple(frame for name, frame in frames if name == file.name) for file in files)


def _frames_in_order(
    volumes: Sequence[Volume], label_maps: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the slices of all stacks by the file they are of, in the order of its frames."""
    of_files: dict[str, dict[int, np.ndarray]] = {}
    for volume, slices in zip(volumes, label_maps, strict=True):
        for (name, frame), labels in zip(_frame_numbers(volume), slices, strict=True):
            of_files.setdefault(name, {})[frame] = labels
    return {
        name: np.stack([labels for _, labels in sorted(frames.items())])
        for name, frames in of_files.items()
    }
