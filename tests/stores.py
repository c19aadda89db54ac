"""Small functions that make stores from arrays, and settings of runs that take seconds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vismae.core.types import Modality, PixelUnit, SliceRecord
from vismae.data.percentiles import scale_range
from vismae.data.store import Store, StoreWriter

SMALL_RUN: dict[str, Any] = {
    "model.size": "nano",
    "data.image_size": 32,
    "data.batch_size": 4,
    "data.workers": 0,
    "trainer.device": "cpu",
    "trainer.log_every": 1,
}
"""Settings of any training: the smallest network on small images."""


def record(name: str, pixels: np.ndarray, **changes: Any) -> SliceRecord:
    """What a store knows of one image: a radiograph of a patient of its own by default."""
    made = SliceRecord(
        image_id=name,
        modality=Modality.XR,
        unit=PixelUnit.DISPLAY,
        patient_id=name,
        group_kind="patient",
        volume_id=f"{name}-1",
    )
    made = replace(made, **changes)
    low, high = scale_range([pixels], made.slope, made.intercept)
    return replace(made, scale_low=low, scale_high=high)


def numbered_record(number: int = 0, **facts: Any) -> SliceRecord:
    """A CT slice of a volume of its own, two per patient; nothing is computed from pixels."""
    made = SliceRecord(
        image_id=f"image{number}",
        modality=Modality.CT,
        unit=PixelUnit.HU,
        patient_id=f"P{number // 2}",
        group_kind="patient",
        volume_id=f"V{number}",
    )
    return replace(made, **facts)


def random_slices(count: int, seed: int = 0) -> list[np.ndarray]:
    """Small images of every type that a store keeps, grey and colour, each of another size."""
    rng = np.random.default_rng(seed)
    dtypes = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32]
    slices = []
    for number in range(count):
        dtype = np.dtype(dtypes[number % 6])
        shape = (3 + number % 5, 4 + number % 7) + ((3,) if number % 4 == 1 else ())
        values = rng.integers(0, 2**31 - 1, shape)
        slices.append(values.astype(dtype) if dtype.kind != "f" else (values / 7).astype(dtype))
    return slices


def texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Smooth noise in 0..1, different for every image."""
    coarse = rng.random((-(-size[0] // 4), -(-size[1] // 4)))
    return np.kron(coarse, np.ones((4, 4)))[: size[0], : size[1]]


def pretrain_store(
    folder: Path,
    images: int = 12,
    size: tuple[int, int] = (40, 36),
    splits: Sequence[str | None] = (None,),
    seed: int = 0,
) -> Store:
    """CT in Hounsfield units, MR of 16 bit and ultrasound of 8 bit in turn, two per patient."""
    rng = np.random.default_rng(seed)
    kinds = [
        (Modality.CT, PixelUnit.HU, 2000.0, -1024.0, np.int16),
        (Modality.MR, PixelUnit.ARBITRARY, 900.0, 0.0, np.uint16),
        (Modality.US, PixelUnit.DISPLAY, 255.0, 0.0, np.uint8),
    ]
    with StoreWriter(folder) as writer:
        for number in range(images):
            modality, unit, height, intercept, dtype = kinds[number % 3]
            pixels = (texture(rng, size) * height).astype(dtype)
            facts = record(
                f"image{seed}-{number}",
                pixels,
                modality=modality,
                unit=unit,
                intercept=intercept,
                patient_id=f"patient{seed}-{number // 2}",
                split=splits[number // 2 % len(splits)],
            )
            writer.add(facts, pixels)
    return Store(folder)


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """A filled circle, (H, W) of 0 and 1."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return inside.astype(np.uint8)


def segmentation_store(
    folder: Path,
    patients: int = 10,
    slices: int = 2,
    size: tuple[int, int] = (32, 32),
    value: int = 1,
    splits: Sequence[str | None] = (None,),
    unlabelled: int = 0,
    seed: int = 0,
) -> Store:
    """A bright disc on a dark, noisy ground; the label map marks it with ``value``."""
    rng = np.random.default_rng(seed)
    with StoreWriter(folder) as writer:
        for number in range(patients + unlabelled):
            for place in range(slices):
                centre = (rng.uniform(10, size[0] - 10), rng.uniform(10, size[1] - 10))
                inside = disc(size, centre, rng.uniform(5, 8))
                pixels = (40 + 30 * rng.random(size) + 160 * inside).astype(np.uint8)
                facts = record(
                    f"image{seed}-{number}-{place}",
                    pixels,
                    patient_id=f"patient{seed}-{number}",
                    volume_id=f"volume{seed}-{number}",
                    slice_index=place,
                    split=splits[number % len(splits)],
                )
                label_map = inside * np.uint8(value) if number < patients else None
                writer.add(facts, pixels, label_map)
    return Store(folder)


def classification_store(
    folder: Path,
    patients: int = 12,
    images: int = 1,
    size: tuple[int, int] = (32, 32),
    labels: Sequence[str | None] = ("bright", "dark"),
    splits: Sequence[str | None] = (None,),
    seed: int = 0,
) -> Store:
    """Half bright and half dark texture; a label that names ``left`` adds a bright left edge."""
    rng = np.random.default_rng(seed)
    with StoreWriter(folder) as writer:
        for number in range(patients):
            label = labels[number % len(labels)]
            for place in range(images):
                pixels = 60 * texture(rng, size)
                if label is not None and "bright" in label:
                    pixels = pixels + 120
                if label is not None and "left" in label:
                    pixels[:, :8] = 250
                facts = record(
                    f"image{seed}-{number}-{place}",
                    pixels.astype(np.uint8),
                    patient_id=f"patient{seed}-{number}",
                    volume_id=f"image{seed}-{number}-{place}",
                    label=label,
                    split=splits[number % len(splits)],
                )
                writer.add(facts, pixels.astype(np.uint8))
    return Store(folder)
