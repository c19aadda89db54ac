"""A case read: its sequences one by one, which must lie on the same voxels."""

from dataclasses import replace

import numpy as np

from vismae.core.errors import DataError
from vismae.core.model_card import ModelCard
from vismae.core.types import Flag
from vismae.data.cases import Grid
from vismae.workflows.prediction.inputs import Input
from vismae.workflows.prediction.reading import ReadInput, Volume, read_input


def read_case(
    item: Input, cards: tuple[ModelCard, ...], modality: str | None, keep: frozenset[Flag]
) -> ReadInput:
    """Read an input as ``read_input`` does, with the further sequences of its case beside it.

    Raises:
        UnreadableFileError, PreprocessingError: As for ``read_input``, of any of the sequences.
        DataError: The same; or a sequence is no single volume, or not on the voxels of the first.
    """
    alone = replace(item, beside=())
    first = read_input(alone, cards, modality, keep)
    if not item.beside:
        return first
    volume = _only_volume(first)
    rejected = [*first.rejected]
    for other in item.beside:
        read = read_input(other, cards, modality, keep)
        found = _only_volume(read)
        difference = _grid(volume).difference(_grid(found))
        if difference is not None:
            raise DataError(
                f"{other.source}: has, beside {item.source}, {difference}. The sequences of a "
                "case must lie on the same voxels: resample them to those of the first."
            )
        volume.beside.append(found)
        rejected += read.rejected
    return ReadInput(item, [volume], tuple(rejected))


def _only_volume(read: ReadInput) -> Volume:
    if len(read.volumes) != 1:
        raise DataError(
            f"{read.item.source}: holds {len(read.volumes)} volumes, and a sequence of a case is "
            "one. List them in a manifest with the columns channel and sequence."
        )
    return read.volumes[0]


def _grid(volume: Volume) -> Grid:
    spacing = volume.image.spacing
    sides = (spacing.slice_mm, spacing.row_mm, spacing.column_mm)
    slices, row, column = (np.nan if side is None else side for side in sides)
    return Grid(volume.shape, (slices, row, column), volume.image.affine)
