"""The account of an ingest: what came in, what did not, and what the images are like.

Workers count their own portions and the accounts are added up, so its size depends on the number
of different things, never on the number of images. It holds counts and words from closed lists;
of what people typed, only the names of classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from vismae.core.counting import Bins, Histogram, Tally, added
from vismae.core.types import Modality


class IntensityScale(StrEnum):
    """What the bins of an intensity histogram mean.

    ``hu``, ``suv``: physical values. ``grey``: grey levels of 8-bit display images. ``range``:
    0 and 1 are the 0.5 and 99.5 percentile of the volume (everything else).
    """

    HU = "hu"
    SUV = "suv"
    GREY = "grey"
    RANGE = "range"


INTENSITY_BINS: dict[IntensityScale, Bins] = {
    IntensityScale.HU: Bins(-1100.0, 3100.0, 168),
    IntensityScale.SUV: Bins(0.0, 25.0, 100),
    IntensityScale.GREY: Bins(0.0, 256.0, 64),
    IntensityScale.RANGE: Bins(-0.2, 1.2, 70),
}
"""25 HU, 0.25 SUV, 4 grey levels, 2 % of the range."""

# Half octaves and tenths of a decade, shifted so that the usual 512 pixels and 1 mm lie in the
# middle of a bin.
SIDE_BINS_PX = Bins(2.0**3.75, 2.0**14.25, 21, log=True)
"""Height or width of an image in pixels."""
SPACING_BINS_MM = Bins(10.0**-2.05, 10.0**2.05, 41, log=True)
"""Distance of pixel or slice centres."""

SIZES_KEPT = 256
CLASSES_KEPT = 1000


def _counts() -> dict[str, int]:
    return {}


def _no_values() -> Histogram:
    return Histogram({})


def _no_sizes() -> Tally:
    return Tally(SIZES_KEPT, {})


def _no_classes() -> Tally:
    return Tally(CLASSES_KEPT, {})


@dataclass(frozen=True)
class ModalityAccount:
    """What the images of one modality are like; every count is one of images unless it says so.

    Attributes:
        images: In the store.
        volumes, patients: Numbers of groups; 0 while nobody counted them.
        grouping: ``patient``, ``group`` or ``image`` (``SliceRecord.group_kind``) -> images.
        sides: Height and width; position ``row * (SIDE_BINS_PX.count + 2) + column``.
        sizes: ``height×width`` -> images.
        spacing_in_plane_mm: Between rows, in ``SPACING_BINS_MM``.
        spacing_slices_mm: Between slices, in ``SPACING_BINS_MM``.
        dtypes: Stored type -> images.
        channels: ``1`` or ``3`` -> images.
        units: ``PixelUnit`` -> images.
        flags: ``Flag`` -> images.
        intensities: ``IntensityScale`` -> histogram of a sample of pixels, in ``INTENSITY_BINS``.
    """

    images: int = 0
    volumes: int = 0
    patients: int = 0
    grouping: Mapping[str, int] = field(default_factory=_counts)
    sides: Histogram = field(default_factory=_no_values)
    sizes: Tally = field(default_factory=_no_sizes)
    spacing_in_plane_mm: Histogram = field(default_factory=_no_values)
    spacing_slices_mm: Histogram = field(default_factory=_no_values)
    dtypes: Mapping[str, int] = field(default_factory=_counts)
    channels: Mapping[str, int] = field(default_factory=_counts)
    units: Mapping[str, int] = field(default_factory=_counts)
    flags: Mapping[str, int] = field(default_factory=_counts)
    intensities: Mapping[str, Histogram] = field(default_factory=dict[str, Histogram])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ModalityAccount":
        """Return the account that ``IntakeAccount.to_json`` wrote."""
        found = dict(value)
        for name in ("sides", "spacing_in_plane_mm", "spacing_slices_mm"):
            found[name] = Histogram.from_json(value[name])
        found["sizes"] = Tally.from_json(value["sizes"])
        found["intensities"] = {
            scale: Histogram.from_json(part) for scale, part in value["intensities"].items()
        }
        return cls(**found)

    def __add__(self, other: "ModalityAccount") -> "ModalityAccount":
        intensities = dict(self.intensities)
        for scale, values in other.intensities.items():
            intensities[scale] = intensities.get(scale, _no_values()) + values
        return ModalityAccount(
            images=self.images + other.images,
            volumes=self.volumes + other.volumes,
            patients=self.patients + other.patients,
            grouping=added(self.grouping, other.grouping),
            sides=self.sides + other.sides,
            sizes=self.sizes + other.sizes,
            spacing_in_plane_mm=self.spacing_in_plane_mm + other.spacing_in_plane_mm,
            spacing_slices_mm=self.spacing_slices_mm + other.spacing_slices_mm,
            dtypes=added(self.dtypes, other.dtypes),
            channels=added(self.channels, other.channels),
            units=added(self.units, other.units),
            flags=added(self.flags, other.flags),
            intensities=dict(sorted(intensities.items())),
        )


@dataclass(frozen=True)
class Repeats:
    """Images that repeat an earlier one.

    Attributes:
        images: That repeat another.
        pairs_across_patients: Pairs of alike images that two patients share.
        pairs_across_splits: ``train and test`` -> pairs of alike images in these two splits.
    """

    images: int = 0
    pairs_across_patients: int = 0
    pairs_across_splits: Mapping[str, int] = field(default_factory=_counts)

    def __add__(self, other: "Repeats") -> "Repeats":
        return Repeats(
            self.images + other.images,
            self.pairs_across_patients + other.pairs_across_patients,
            added(self.pairs_across_splits, other.pairs_across_splits),
        )


@dataclass(frozen=True)
class IntakeAccount:
    """The account of a portion, an ingest or a whole store.

    Accounts add up with ``+``. Patients, volumes and duplicates are right in a sum only where no
    two accounts share one; who looks at the whole store sets them at the end.

    Attributes:
        files: Looked at, those left out included.
        bytes_read: Size of these files.
        bytes_stored: Size of the store's shards.
        seconds: That the ingest took.
        patients: Different ones over all modalities; 0 while nobody counted them.
        divided_patients: Those with images in several splits.
        left_out: Reason code -> files.
        modalities: What came in.
        labels: Class name of whole images -> images.
        label_map_images: Value in label maps, without 0 -> images that hold it.
        label_map_pixels: The same -> pixels.
        exact, near: Images that are equal, and nearly equal; None while nobody looked.
    """

    files: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0
    patients: int = 0
    divided_patients: int = 0
    left_out: Mapping[str, int] = field(default_factory=_counts)
    modalities: Mapping[Modality, ModalityAccount] = field(
        default_factory=dict[Modality, ModalityAccount]
    )
    labels: Tally = field(default_factory=_no_classes)
    label_map_images: Tally = field(default_factory=_no_classes)
    label_map_pixels: Tally = field(default_factory=_no_classes)
    exact: Repeats | None = None
    near: Repeats | None = None

    @property
    def images(self) -> int:
        """Images that came in."""
        return sum(part.images for part in self.modalities.values())

    @property
    def volumes(self) -> int:
        """Volumes that came in; 0 while nobody counted them."""
        return sum(part.volumes for part in self.modalities.values())

    @property
    def files_left_out(self) -> int:
        """Files that could not or should not be used."""
        return sum(self.left_out.values())

    @property
    def files_read(self) -> int:
        """Files that images or label maps were made of."""
        return self.files - self.files_left_out

    def by_modality(self) -> dict[str, int]:
        """Return modality -> images, the commonest first."""
        return {
            modality.value: part.images
            for modality, part in sorted(
                self.modalities.items(), key=lambda pair: (-pair[1].images, pair[0])
            )
        }

    def flagged(self) -> dict[str, int]:
        """Return flag -> images of all modalities."""
        total = _counts()
        for part in self.modalities.values():
            total = added(total, part.flags)
        return total

    def with_files(
        self, files: int, bytes_read: int, left_out: Mapping[str, int]
    ) -> "IntakeAccount":
        """Return the account with files found, their size, and reason code -> files left out."""
        return replace(self, files=files, bytes_read=bytes_read, left_out=dict(left_out))

    def with_groups(
        self,
        patients: int,
        divided_patients: int,
        patients_by_modality: Mapping[Modality, int],
        volumes_by_modality: Mapping[Modality, int],
    ) -> "IntakeAccount":
        """Return the account with the numbers of different patients and volumes.

        Args:
            patients: Over all modalities.
            divided_patients: Those with images in several splits.
            patients_by_modality: Modality -> patients.
            volumes_by_modality: Modality -> volumes.
        """
        modalities = {
            modality: replace(
                part,
                patients=patients_by_modality.get(modality, 0),
                volumes=volumes_by_modality.get(modality, 0),
            )
            for modality, part in self.modalities.items()
        }
        return replace(
            self,
            patients=patients,
            divided_patients=divided_patients,
            modalities=modalities,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the account as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "IntakeAccount":
        """Return the account that ``to_json`` wrote."""
        found = dict(value)
        found["modalities"] = {
            Modality(name): ModalityAccount.from_json(part)
            for name, part in value["modalities"].items()
        }
        for name in ("labels", "label_map_images", "label_map_pixels"):
            found[name] = Tally.from_json(value[name])
        for name in ("exact", "near"):
            found[name] = None if value[name] is None else Repeats(**value[name])
        return cls(**found)

    def __add__(self, other: "IntakeAccount") -> "IntakeAccount":
        modalities = dict(self.modalities)
        for modality, part in other.modalities.items():
            modalities[modality] = modalities.get(modality, ModalityAccount()) + part
        return IntakeAccount(
            files=self.files + other.files,
            bytes_read=self.bytes_read + other.bytes_read,
            bytes_stored=self.bytes_stored + other.bytes_stored,
            seconds=self.seconds + other.seconds,
            patients=self.patients + other.patients,
            divided_patients=self.divided_patients + other.divided_patients,
            left_out=added(self.left_out, other.left_out),
            modalities=dict(sorted(modalities.items())),
            labels=self.labels + other.labels,
            label_map_images=self.label_map_images + other.label_map_images,
            label_map_pixels=self.label_map_pixels + other.label_map_pixels,
            exact=_both(self.exact, other.exact),
            near=_both(self.near, other.near),
        )


def _both(first: Repeats | None, second: Repeats | None) -> Repeats | None:
    if first is None or second is None:
        return first or second
    return first + second
