"""Counting what a worker's slices are like, for the account of an ingest.

Cheap beside reading a slice: of the pixels, a grid of about a thousand is looked at; label maps are
counted whole, since a small structure would fall through a grid.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from vismae.core.counting import Bins, Histogram, Tally
from vismae.core.intake_account import (
    CLASSES_KEPT,
    INTENSITY_BINS,
    SIDE_BINS_PX,
    SIZES_KEPT,
    SPACING_BINS_MM,
    IntakeAccount,
    IntensityScale,
    ModalityAccount,
)
from vismae.core.types import Modality, PixelUnit, SliceRecord

_SAMPLE_SIDE = 32
_LONGEST_CLASS_NAME = 120


class Accountant:
    """Counts slices as they pass; ``account`` is what was counted so far.

    Can be sent to another process half-way.
    """

    def __init__(self) -> None:
        self._modalities: defaultdict[Modality, _Running] = defaultdict(_Running)
        self._labels: Counter[str] = Counter()
        self._label_map_images: Counter[str] = Counter()
        self._label_map_pixels: Counter[str] = Counter()

    def add(
        self, record: SliceRecord, pixels: np.ndarray, label_map: np.ndarray | None = None
    ) -> None:
        """Count one slice.

        Args:
            record: What the store knows of it.
            pixels: As stored, (H, W) or (H, W, 3).
            label_map: (H, W) whole numbers from 0, or None.
        """
        self._modalities[record.modality].add(record, pixels)
        if record.label is not None:
            self._labels.update({name[:_LONGEST_CLASS_NAME] for name in record.label.split("|")})
        if label_map is not None:
            counts = np.bincount(label_map[label_map > 0])
            for value in np.flatnonzero(counts):
                self._label_map_images[str(value)] += 1
                self._label_map_pixels[str(value)] += int(counts[value])

    @property
    def account(self) -> IntakeAccount:
        """What was counted so far."""
        return IntakeAccount(
            modalities={
                name: self._modalities[name].account() for name in sorted(self._modalities)
            },
            labels=Tally.of(self._labels, CLASSES_KEPT),
            label_map_images=Tally.of(self._label_map_images, CLASSES_KEPT),
            label_map_pixels=Tally.of(self._label_map_pixels, CLASSES_KEPT),
        )


@dataclass
class _Values:
    """A histogram that grows."""

    counts: Counter[int] = field(default_factory=Counter[int])
    unknown: int = 0

    def histogram(self) -> Histogram:
        return Histogram(dict(sorted(self.counts.items())), self.unknown)

    def add(self, value: float, bins: Bins) -> None:
        if math.isfinite(value) and value > 0:
            self.counts[_position(bins, value)] += 1
        else:
            self.unknown += 1


@lru_cache(maxsize=4096)
def _position(bins: Bins, value: float) -> int:
    """Return the bin of a value; all slices of a volume have the same."""
    return int(bins.positions(value))


@dataclass
class _Intensities:
    """A histogram of pixels that grows."""

    counts: np.ndarray
    unknown: int = 0

    def histogram(self) -> Histogram:
        found = {int(k): int(self.counts[k]) for k in np.flatnonzero(self.counts)}
        return Histogram(found, self.unknown)


@dataclass
class _Running:
    """The account of one modality while it grows."""

    images: int = 0
    grouping: Counter[str] = field(default_factory=Counter[str])
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter[tuple[int, int]])
    in_plane_mm: _Values = field(default_factory=_Values)
    slices_mm: _Values = field(default_factory=_Values)
    dtypes: Counter[str] = field(default_factory=Counter[str])
    channels: Counter[str] = field(default_factory=Counter[str])
    units: Counter[str] = field(default_factory=Counter[str])
    flags: Counter[str] = field(default_factory=Counter[str])
    intensities: dict[IntensityScale, _Intensities] = field(
        default_factory=dict[IntensityScale, _Intensities]
    )

    def add(self, record: SliceRecord, pixels: np.ndarray) -> None:
        self.images += 1
        self.grouping[record.group_kind] += 1
        self.sizes[pixels.shape[0], pixels.shape[1]] += 1
        self.in_plane_mm.add(record.spacing_row_mm, SPACING_BINS_MM)
        self.slices_mm.add(record.spacing_slice_mm, SPACING_BINS_MM)
        self.dtypes[pixels.dtype.name] += 1
        self.channels["1" if pixels.ndim == 2 else str(pixels.shape[2])] += 1
        self.units[record.unit.value] += 1
        self.flags.update(flag.value for flag in record.flags)
        self._add_intensities(record, pixels)

    def _add_intensities(self, record: SliceRecord, pixels: np.ndarray) -> None:
        scale = _intensity_scale(record.unit, pixels.dtype)
        bins = INTENSITY_BINS[scale]
        found = self.intensities.get(scale)
        if found is None:
            found = self.intensities[scale] = _Intensities(np.zeros(bins.count + 2, np.int64))
        sample = _sample(pixels)
        values = sample[np.isfinite(sample)]
        if scale is not IntensityScale.GREY:
            values = values * record.slope + record.intercept
        if scale is IntensityScale.RANGE:
            spread = record.scale_high - record.scale_low
            # A volume of one value has no range to be placed in.
            values = (values - record.scale_low) / spread if spread > 0 else values[:0]
        found.unknown += sample.size - values.size
        found.counts += np.bincount(bins.positions(values), minlength=bins.count + 2)

    def account(self) -> ModalityAccount:
        return ModalityAccount(
            images=self.images,
            grouping=dict(sorted(self.grouping.items())),
            sides=_sides(self.sizes),
            sizes=Tally.of({f"{h}×{w}": n for (h, w), n in self.sizes.items()}, SIZES_KEPT),
            spacing_in_plane_mm=self.in_plane_mm.histogram(),
            spacing_slices_mm=self.slices_mm.histogram(),
            dtypes=dict(sorted(self.dtypes.items())),
            channels=dict(sorted(self.channels.items())),
            units=dict(sorted(self.units.items())),
            flags=dict(sorted(self.flags.items())),
            intensities={
                scale.value: self.intensities[scale].histogram()
                for scale in sorted(self.intensities)
            },
        )


def _intensity_scale(unit: PixelUnit, dtype: np.dtype) -> IntensityScale:
    if unit is PixelUnit.HU:
        return IntensityScale.HU
    if unit is PixelUnit.SUV:
        return IntensityScale.SUV
    if unit is PixelUnit.DISPLAY and dtype == np.uint8:
        return IntensityScale.GREY
    return IntensityScale.RANGE


def _sample(pixels: np.ndarray) -> np.ndarray:
    """Return pixels on an even grid of at most 64 by 64, colour as its mean, float64."""
    row_step, column_step = (max(1, side // _SAMPLE_SIDE) for side in pixels.shape[:2])
    chosen = pixels[row_step // 2 :: row_step, column_step // 2 :: column_step]
    grey = chosen.mean(axis=2) if chosen.ndim == 3 else chosen
    return grey.astype(np.float64).ravel()


def _sides(sizes: Counter[tuple[int, int]]) -> Histogram:
    counts: Counter[int] = Counter()
    for (height, width), number in sizes.items():
        row, column = (int(k) for k in SIDE_BINS_PX.positions(np.array([height, width])))
        counts[row * (SIDE_BINS_PX.count + 2) + column] += number
    return Histogram(dict(sorted(counts.items())))
