"""Inputs read, checked against the contract, and handed slice by slice to the network.

A slice is prepared exactly as ingest and the loaders prepare a row of a store, so that a file and
the store made of it give the same answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vismae.core.advice import advice
from vismae.core.errors import DataError, PreprocessingError, UnreadableFileError
from vismae.core.model_card import ModelCard
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Flag, MedicalImage, Modality, PixelUnit
from vismae.data.geometry import to_channels
from vismae.data.intensity import to_unit_range
from vismae.data.neighbours import in_sequence
from vismae.data.percentiles import scale_range
from vismae.data.store_format import storable_pixels
from vismae.files.discover import Group, RejectedFile
from vismae.files.read import read_image, read_where_silent
from vismae.files.reasons import Reason
from vismae.inference.slices import Slice
from vismae.workflows.prediction.inputs import Input, Told

# These are windowed by the contract, and need no range of their own.
_WINDOWED = (PixelUnit.HU, PixelUnit.SUV)


@dataclass
class Volume:
    """One image, frame sequence or volume of an input, on its way.

    Attributes:
        image: Its facts, without pixels.
        shape: Slices, height, width.
        stored: Pixels of each slice as a store keeps them; empty once handed out.
        answers: Of each slice so far, in order.
        beside: The further sequences of its case, on the same voxels.
    """

    image: MedicalImage
    shape: tuple[int, int, int]
    stored: list[np.ndarray]
    answers: list[object] = field(default_factory=list)
    beside: list["Volume"] = field(default_factory=list["Volume"])

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the reader noticed about the whole image or any slice."""
        found = set(self.image.details.get("flags", ()))
        return tuple(sorted(found.union(*self.image.details.get("slice_flags", ()))))

    @property
    def pages_left_out(self) -> int:
        """How many pages of a TIFF are no slices, since they differ in size from the first."""
        return int(self.image.details.get("pages_left_out", 0))

    @property
    def in_space(self) -> bool:
        """Whether slices follow one another in space."""
        details = self.image.details
        if "slices_in_space" in details:
            return bool(details["slices_in_space"])
        return self.image.affine is not None


@dataclass
class ReadInput:
    """An input with its images.

    Attributes:
        item: The input.
        volumes: Its images.
        rejected: Files of a series that could not be used.
        failed: A slice has no answer, so that the input has no result.
    """

    item: Input
    volumes: list[Volume]
    rejected: tuple[RejectedFile, ...]
    failed: bool = False

    @property
    def slice_count(self) -> int:
        """Slices of all volumes."""
        return sum(volume.shape[0] for volume in self.volumes)

    @property
    def answered(self) -> int:
        """Slices that have their answer."""
        return sum(len(volume.answers) for volume in self.volumes)

    @property
    def complete(self) -> bool:
        """Whether every slice has its answer."""
        return all(len(volume.answers) == volume.shape[0] for volume in self.volumes)


def read_input(
    item: Input, cards: tuple[ModelCard, ...], modality: str | None, keep: frozenset[Flag]
) -> ReadInput:
    """Read the images of an input, and refuse what the models were not made for.

    Args:
        item: What to read.
        cards: Of all models.
        modality: Word for files that do not say.
        keep: DICOM images to read although they are left out as a rule.

    Raises:
        UnreadableFileError: The files cannot be read; ``mosaic`` where slices are tiles.
        PreprocessingError: Another modality, or values without the unit of the contract.
        DataError: Slices of a manifest's volume that do not lie on one another.
    """
    if item.told is not None and item.told.volume is not None:
        return _read_volume(item, item.told, cards, modality)
    images = _read_images(item.group, modality, keep, item.told)
    if any(image.details.get("tiled") for image in images):
        raise UnreadableFileError(
            Reason.MOSAIC,
            f"{item.source}: a mosaic, whose slices are tiles of one picture; no result "
            "could refer to them. Convert it to NIfTI and predict that.",
        )
    for image in images:
        for card in cards:
            require_known(image, card)
    count = images[0].details.get("volumes_in_file", len(images))
    if count != len(images) and (item.told is None or item.told.channel is None):
        raise UnreadableFileError(
            Reason.TOO_LARGE,
            f"{item.source}: holds {count} volumes; at most {len(images)} of one file are "
            "predicted. Divide the file.",
        )
    rejected = images[0].details.pop("rejected_files", ())
    return ReadInput(item, [_volume(image) for image in images], rejected)


def prepared_slices(
    read: ReadInput, preprocessing: Preprocessing
) -> Iterator[Slice[tuple[ReadInput, Volume, int]]]:
    """Yield the slices of all volumes on the network's 0..1 scale; a volume's pixels are let go.

    None further once the input has failed.
    """
    for volume in read.volumes:
        prepared = _prepared(volume, preprocessing)
        if volume.beside:
            others = [_prepared(other, preprocessing) for other in volume.beside]
            prepared = (torch.cat(shown) for shown in zip(prepared, *others, strict=True))
        together = in_sequence(prepared, preprocessing.neighbours)
        for number, slices in enumerate(together):
            if read.failed:
                return
            yield Slice((read, volume, number), slices)


def _prepared(volume: Volume, preprocessing: Preprocessing) -> Iterator[Tensor]:
    image, stored = volume.image, volume.stored
    volume.stored = []
    low, high = 0.0, 1.0
    if image.unit not in _WINDOWED:
        low, high = scale_range(stored, image.slope, image.intercept)
    return (prepared_slice(pixels, image, (low, high), preprocessing) for pixels in stored)


def prepared_slice(
    pixels: np.ndarray, image: MedicalImage, scale: tuple[float, float], contract: Preprocessing
) -> Tensor:
    """Return a stored slice on the network's 0..1 scale, (C, H, W).

    Args:
        pixels: As a store keeps them.
        image: Facts of its volume.
        scale: ``scale_range`` of the volume; HU and SUV are windowed by the contract instead.
        contract: Of the network.
    """
    values = to_unit_range(
        pixels,
        modality=image.modality,
        unit=image.unit,
        slope=image.slope,
        intercept=image.intercept,
        scale_low=scale[0],
        scale_high=scale[1],
        preprocessing=contract,
    )
    return to_channels(values, contract.in_channels)


def _read_volume(
    item: Input, told: Told, cards: tuple[ModelCard, ...], modality: str | None
) -> ReadInput:
    """Read pictures that a manifest makes one volume; those that cannot be read are left out."""
    images: list[MedicalImage] = []
    rejected: list[RejectedFile] = []
    for file in item.group.files:
        if file.kind != "raster":
            raise DataError(
                f"{file.name}: one of {len(item.group.files)} files of the volume {told.volume}. "
                "Only pictures, or DICOM files alone, can be slices of a volume; write it as one "
                "file."
            )
        try:
            images += _read_images(Group(file.kind, (file,)), modality, frozenset(), told)
        except UnreadableFileError as error:
            rejected.append(RejectedFile(file.name, Reason(error.reason), str(error)))
    if not images:
        raise UnreadableFileError(rejected[0].reason, rejected[0].message)
    sizes = {image.pixels.shape[1:3]: image.source for image in images}
    if len(sizes) > 1:
        found = ", ".join(f"{name} has {h}×{w} pixels" for (h, w), name in sizes.items())
        raise DataError(
            f"The slices of the volume {told.volume} differ in size: {found}. Give those of each "
            "size a volume_id of their own."
        )
    for image in images:
        for card in cards:
            require_known(image, card)
    # A list keeps the type of each: grey levels of 8 bit are not scaled as those of 16 bit are.
    stored = [pixels for image in images for pixels in _stored(image)]
    (height, width), shared = next(iter(sizes)), {**images[0].details, "slices_in_space": True}
    shared["pages_left_out"] = sum(image.details.get("pages_left_out", 0) for image in images)
    facts = replace(images[0], pixels=np.empty((0, height, width)), details=shared)
    volume = Volume(facts, (len(stored), height, width), stored)
    return ReadInput(item, [volume], tuple(rejected))


def _volume(image: MedicalImage) -> Volume:
    slices, height, width = image.pixels.shape[:3]
    stored = _stored(image)
    without_pixels = replace(image, pixels=np.empty((0, height, width)))
    return Volume(without_pixels, (slices, height, width), stored)


def _stored(image: MedicalImage) -> list[np.ndarray]:
    """Return the slices as a store keeps them.

    Raises:
        UnreadableFileError: ``unsupported-pixels``: no store could.
    """
    try:
        return [storable_pixels(pixels) for pixels in image.pixels]
    except DataError as error:
        raise UnreadableFileError(
            Reason.UNSUPPORTED_PIXELS, f"{image.source}: {error} Save it as one of these."
        ) from error


def _read_images(
    group: Group, word: str | None, keep: frozenset[Flag], told: Told | None
) -> list[MedicalImage]:
    """Read with a table's modality; the wanted one counts only where the files are silent."""
    wanted = None if word is None else Modality.parse(word)
    channel = None if told is None else told.channel

    def read(modality: Modality | None) -> list[MedicalImage]:
        return read_image(group, modality, keep, channel=channel)

    if told is not None and told.modality is not None:
        images = read(Modality.parse(told.modality))
    elif group.kind == "raster":
        images = read(wanted)
    else:
        images = read_where_silent(read, wanted)
    if told is not None and group.kind == "raster":
        images = [replace(image, spacing=told.spacing) for image in images]
    return images


def require_known(image: MedicalImage, card: ModelCard) -> None:
    """Refuse an image that a model was not made for.

    Raises:
        PreprocessingError: Another modality, or values without the unit of the contract.
    """
    if card.modalities and image.modality not in card.modalities:
        known = ", ".join(card.modalities)
        how = advice(f"--modality {card.modalities[0]}", "Read as; field modality")
        cure = (
            f"If it is one of these, say which ({how})"
            if image.modality is Modality.OTHER
            else "Use a model that knows this modality"
        )
        found = "an image that does not say its modality"
        if image.modality is not Modality.OTHER:
            found = f"a {image.modality.upper()} image"
        raise PreprocessingError(
            f"{image.source}: {found}; the model was trained on {known} (model.json, modalities). "
            f"{cure}."
        )
    card.preprocessing.require_units([(image.modality, image.unit)], image.source)
