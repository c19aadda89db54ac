"""``vismae inspect``: what a store holds, in numbers and on a contact sheet."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vismae.core.config import InspectConfig
from vismae.core.errors import DataError
from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit
from vismae.data.intensity import to_unit_range
from vismae.data.likeness import is_blank
from vismae.data.store import Store
from vismae.data.store_counts import count_store, sampling_columns
from vismae.data.store_format import CONTACT_SHEET_NAME
from vismae.evaluation.overlay import contact_sheet, save_png

_COLUMNS = 5
_PICTURE_COLUMNS = (
    *("modality", "unit", "slope", "intercept", "scale_low", "scale_high", "height", "width"),
)

_AS_USUAL = Preprocessing()

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InspectReport:
    """What a store holds.

    Attributes:
        images: Slices.
        volumes: Volumes; a single image is one.
        groups: Group kind (patient, group, image) -> number of different ones.
        by_modality, by_split, by_label: Value -> images; ``none`` where there is no value. An
            image with several labels counts for each.
        with_label_map: Images with a label map.
        label_values: Raw values in all label maps.
        by_dtype: Stored type -> images.
        height, width: Smallest, median and largest in pixels.
        encoding: Of the shards.
        mebibytes: Size of the shards.
        contact_sheet: The picture.
        verified: Every shard and every row was checked, and is sound.
    """

    images: int
    volumes: int
    groups: dict[str, int]
    by_modality: dict[str, int]
    by_split: dict[str, int]
    by_label: dict[str, int]
    with_label_map: int
    label_values: tuple[int, ...]
    by_dtype: dict[str, int]
    height: tuple[int, int, int]
    width: tuple[int, int, int]
    encoding: str
    mebibytes: float
    contact_sheet: Path
    verified: bool

    def summary(self) -> str:
        """Return the counts as lines of text."""
        kinds = ", ".join(f"{count} by {kind}" for kind, count in self.groups.items())
        rows = {
            "images": f"{self.images} in {self.volumes} volumes",
            "groups": f"{sum(self.groups.values())} ({kinds})",
            "modality": _listed(self.by_modality),
            "split": _listed(self.by_split),
            "label": _listed(self.by_label),
            "label maps": f"{self.with_label_map}"
            + (f", values {', '.join(map(str, self.label_values))}" if self.label_values else ""),
            "height": "{} to {}, median {} pixels".format(*_ordered(self.height)),
            "width": "{} to {}, median {} pixels".format(*_ordered(self.width)),
            "stored as": f"{_listed(self.by_dtype)}; {self.encoding}, {self.mebibytes:.1f} MiB",
            "verified": "yes" if self.verified else "not asked for (--verify)",
            "picture": str(self.contact_sheet),
        }
        return "\n".join(f"{name:<11}{text}" for name, text in rows.items())


def inspect(config: InspectConfig) -> InspectReport:
    """Count what is in a store and draw a sample of it, every modality in turn.

    Raises:
        DataError: No finished store is there, or a part of it is damaged; names the part.
    """
    store = Store(config.store)
    if config.verify:
        _require_sound(store)
    picture = config.out or config.store / CONTACT_SHEET_NAME
    draw_contact_sheet(store, picture, config.images)
    logger.info("contact sheet: %s", picture)
    counts = count_store(store)
    shards = [config.store / entry["file"] for entry in store.manifest["shards"]]
    return InspectReport(
        images=len(store),
        volumes=counts.volumes,
        groups=counts.groups,
        by_modality=counts.by["modality"],
        by_split=counts.by["split"],
        by_label=counts.by_label,
        with_label_map=counts.with_label_map,
        label_values=store.label_values,
        by_dtype=counts.by["dtype"],
        height=_extent(counts.height),
        width=_extent(counts.width),
        encoding=store.manifest["encoding"],
        mebibytes=sum(path.stat().st_size for path in shards if path.is_file()) / 2**20,
        contact_sheet=picture,
        verified=config.verify,
    )


def _require_sound(store: Store) -> None:
    problems = store.verify()
    for problem in problems:
        logger.error("%s", problem)
    if problems:
        others = len(problems) - 1
        more = f" and {others} further problem{'' if others == 1 else 's'}" if others else ""
        raise DataError(
            f"{problems[0]}{more}. The store is damaged; copy it again, or ingest again with "
            "--overwrite."
        )


def draw_contact_sheet(store: Store, path: Path, count: int) -> None:
    """Write a picture of up to ``count`` images, evenly from all modalities and groups."""
    shown = sample_pictures(store, count)
    pictures, captions = [picture for picture, _ in shown], [caption for _, caption in shown]
    save_png(path, contact_sheet(pictures, captions, _COLUMNS))


def sample_pictures(
    store: Store, count: int, modality: Modality | None = None
) -> list[tuple[np.ndarray, str]]:
    """Return up to ``count`` images as grey or colour values from 0 to 1, with captions.

    They come evenly from all modalities (or from the one named) and groups.
    """
    index = sampling_columns(store)
    if modality is not None:
        index = index[index["modality"] == modality.value]
    rows = np.array(sample_rows(index, count), dtype=np.int64)
    facts_of_rows = store.columns(list(_PICTURE_COLUMNS), rows)
    shown: list[tuple[np.ndarray, str]] = []
    for place, row in enumerate(rows.tolist()):
        facts = facts_of_rows.iloc[place]
        pixels = store.read(row).pixels
        blank = " blank" if is_blank(pixels) else ""
        caption = f"{row}: {facts['modality']} {facts['width']}x{facts['height']}{blank}"
        shown.append((_grey_values(pixels, facts, _AS_USUAL), caption))
    return shown


def picture_of(store: Store, row: int, preprocessing: Preprocessing = _AS_USUAL) -> np.ndarray:
    """Return an image in its own size as grey or colour values from 0 to 1.

    Args:
        store: Where it is.
        row: Its number there.
        preprocessing: Windows and percentiles that are shown.
    """
    facts = store.columns(list(_PICTURE_COLUMNS), np.array([row])).iloc[0]
    return _grey_values(store.read(row).pixels, facts, preprocessing)


def _grey_values(pixels: np.ndarray, facts: pd.Series, preprocessing: Preprocessing) -> np.ndarray:
    return to_unit_range(
        pixels,
        modality=Modality(facts["modality"]),
        unit=PixelUnit(facts["unit"]),
        slope=facts["slope"],
        intercept=facts["intercept"],
        scale_low=facts["scale_low"],
        scale_high=facts["scale_high"],
        preprocessing=preprocessing,
    )


def sample_rows(index: pd.DataFrame, count: int) -> list[int]:
    """Return rows of all modalities in equal shares, each spread over its patients.

    Args:
        index: Rows with their number in the store as index label.
        count: How many are wanted.
    """
    available = {name: len(rows) for name, rows in index.groupby("modality", observed=True)}
    shares = dict.fromkeys(available, 0)
    while sum(shares.values()) < min(count, len(index)):
        open_shares = [name for name in shares if shares[name] < available[name]]
        shares[min(open_shares, key=lambda name: shares[name])] += 1
    chosen: list[int] = []
    for name, rows in index.groupby("modality", observed=True):
        # Sorted by patient, an even stride meets as many patients as it can.
        ordered = rows.sort_values(["patient_id", "volume_id", "slice_index"]).index.to_numpy()
        # Middles of equal parts: the first slice of a volume is often empty.
        places = (np.arange(shares[name]) + 0.5) * len(ordered) / max(1, shares[name])
        chosen.extend(int(row) for row in ordered[places.astype(int)])
    return chosen


def _listed(counts: dict[str, int], most: int = 12) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:most])
    return shown if len(counts) <= most else f"{shown} and {len(counts) - most} more"


def _ordered(extent: tuple[int, int, int]) -> tuple[int, int, int]:
    lowest, median, highest = extent
    return lowest, highest, median


def _extent(sides: Counter[int]) -> tuple[int, int, int]:
    """Return the smallest, median and largest side."""
    lengths = np.array(sorted(sides))
    so_far = np.cumsum([sides[length] for length in lengths.tolist()])
    middle = [(so_far[-1] - 1) // 2, so_far[-1] // 2]
    median = lengths[np.searchsorted(so_far, middle, side="right")].mean()
    return int(lengths[0]), int(median), int(lengths[-1])
