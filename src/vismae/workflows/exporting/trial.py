"""Images to try an export on, and this package's own answers to them.

Computed images in every unit that the contract knows, larger and smaller than its size and not
square: an export that resizes or windows in another way cannot hide.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from vismae.core.preprocessing import Preprocessing
from vismae.core.types import Modality, PixelUnit
from vismae.data.geometry import fit_image, fitted_size, to_channels, unfit_logits
from vismae.data.intensity import normalise, to_unit_range
from vismae.data.neighbours import in_sequence
from vismae.data.percentiles import SCALE_PERCENTILES, scale_range
from vismae.inference.deployed import Scale, UnitRangeModel
from vismae.models.features import image_features

_SLICES = 2
# Value that becomes 0 and value that becomes 1 of the computed images, as stored, and their type.
_STORED: dict[PixelUnit, tuple[float, float, type]] = {
    PixelUnit.HU: (0.0, 3000.0, np.int16),
    PixelUnit.SUV: (0.0, 30000.0, np.uint16),
    PixelUnit.DISPLAY: (0.0, 255.0, np.uint8),
    PixelUnit.ARBITRARY: (0.0, 1800.0, np.uint16),
}
_TO_PHYSICAL: dict[PixelUnit, tuple[float, float]] = {
    PixelUnit.HU: (1.0, -1024.0),
    PixelUnit.SUV: (0.0005, 0.0),
}


@dataclass(frozen=True)
class Trial:
    """Slices of one volume, as a file holds them.

    Attributes:
        pixels: Stored values, (B, h, w) or (B, h, w, 3).
        modality, unit, slope, intercept: See ``MedicalImage``.
        beside: The further sequences of the case, on the same voxels.
    """

    pixels: np.ndarray
    modality: Modality
    unit: PixelUnit
    slope: float = 1.0
    intercept: float = 0.0
    beside: tuple["Trial", ...] = ()

    @property
    def name(self) -> str:
        """Say what it is in a few words."""
        height, width = self.pixels.shape[1:3]
        if self.beside:
            units = ", ".join(f"{each.modality} in {each.unit}" for each in (self, *self.beside))
            return f"{units} together, {height}×{width}"
        colour = ", colour" if self.pixels.ndim == 4 else ""
        return f"{self.modality} in {self.unit}, {height}×{width}{colour}"


def trials(preprocessing: Preprocessing) -> list[Trial]:
    """Return trials in every unit of the contract, of display images where it names none."""
    known = dict.fromkeys(
        (modality, unit)
        for modality, units in preprocessing.pixel_units.items()
        for unit in sorted(units)
    ) or {(Modality.OTHER, PixelUnit.DISPLAY): None}
    height, width = preprocessing.image_size
    sizes = [
        (round(1.37 * height), round(0.9 * width)),
        (round(0.61 * height), round(0.83 * width)),
    ]
    made: list[Trial] = []
    if preprocessing.sequences:
        return _case_trials(list(known), sizes, len(preprocessing.sequences))
    for modality, unit in known:
        for size in sizes:
            made.append(_trial(size, modality, unit, seed=len(made)))
        if unit is PixelUnit.DISPLAY:
            colours = [*_patterns(3, sizes[0], unit, seed=len(made))]
            made.append(Trial(np.stack(colours, axis=-1)[None], modality, unit))
    return made


def _case_trials(
    known: list[tuple[Modality, PixelUnit]], sizes: list[tuple[int, int]], sequences: int
) -> list[Trial]:
    """Return trials in which each sequence has a pattern, and the next unit, of its own."""
    made: list[Trial] = []
    for number in range(len(known)):
        for size in sizes:
            first, *others = (
                _trial(size, *known[(number + place) % len(known)], seed=len(made) + 100 * place)
                for place in range(sequences)
            )
            made.append(replace(first, beside=tuple(others)))
    return made


def _trial(size: tuple[int, int], modality: Modality, unit: PixelUnit, seed: int) -> Trial:
    pixels = np.stack(list(_patterns(_SLICES, size, unit, seed)))
    slope, intercept = _TO_PHYSICAL.get(unit, (1.0, 0.0))
    return Trial(pixels, modality, unit, slope, intercept)


def scale_for(trial: Trial, preprocessing: Preprocessing) -> Scale:
    """Return how the contract scales images of this kind; see ``intensity.to_unit_range``."""
    if trial.unit is PixelUnit.HU:
        return Scale.HU
    if trial.unit is PixelUnit.SUV:
        return Scale.SUV
    own_percentiles = preprocessing.percentiles != SCALE_PERCENTILES
    grey = trial.unit is PixelUnit.DISPLAY and trial.pixels.dtype == np.uint8
    if grey and trial.modality is not Modality.MR and not own_percentiles:
        return Scale.GREY
    return Scale.RANGE


def program_inputs(trial: Trial, preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    """Return what ``StoredPixelModel`` takes: pixels, scale, scaling."""
    if preprocessing.sequences:
        alone = preprocessing.model_copy(update={"sequences": ()})
        given = [program_inputs(replace(each, beside=()), alone) for each in (trial, *trial.beside)]
        pixels = np.concatenate([each["pixels"] for each in given], axis=1)
        per_channel = {name: np.stack([e[name] for e in given], 1) for name in ("scale", "scaling")}
        return {"pixels": pixels, **per_channel}
    pixels = trial.pixels.astype(np.float32)
    pixels = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1)
    ranges = [scale_range(list(trial.pixels), trial.slope, trial.intercept)] * len(pixels)
    if preprocessing.percentiles != SCALE_PERCENTILES:
        values = trial.pixels.astype(np.float32) * trial.slope + trial.intercept
        ranges = [np.percentile(image, preprocessing.percentiles) for image in values]
    scaling = [(trial.slope, trial.intercept, low, high) for low, high in ranges]
    return {
        "pixels": np.ascontiguousarray(pixels),
        "scale": np.full(len(pixels), scale_for(trial, preprocessing), np.int64),
        "scaling": np.array(scaling, np.float32),
    }


def unit_images(trial: Trial, preprocessing: Preprocessing) -> torch.Tensor:
    """Return a trial on the 0..1 scale in the contract's channels, (B, C, h, w)."""
    if trial.beside:
        each = (replace(trial, beside=()), *trial.beside)
        return torch.cat([unit_images(alone, preprocessing) for alone in each], dim=1)
    low, high = scale_range(list(trial.pixels), trial.slope, trial.intercept)
    return torch.stack(
        [
            to_channels(
                to_unit_range(
                    pixels,
                    modality=trial.modality,
                    unit=trial.unit,
                    slope=trial.slope,
                    intercept=trial.intercept,
                    scale_low=low,
                    scale_high=high,
                    preprocessing=preprocessing,
                ),
                preprocessing.in_channels,
            )
            for pixels in trial.pixels
        ]
    )


@torch.inference_mode()
def own_answer(body: UnitRangeModel, images: torch.Tensor) -> np.ndarray:
    """Return what this package itself answers to a volume of 0..1, by the path of ``predict``."""
    contract = body.preprocessing
    prepared = (
        torch.from_numpy(normalise(fit_image(image, contract).numpy(), contract))
        for image in images
    )
    canvas = torch.stack(list(in_sequence(prepared, contract.neighbours)))
    native = (int(images.shape[2]), int(images.shape[3]))
    if body.output == "features":
        extent = fitted_size(native, contract.image_size, contract.fit)
        extents = torch.tensor([extent] * len(images))
        return image_features(body.network, canvas, extents).numpy()  # pyright: ignore[reportArgumentType]
    logits = body.network(canvas).float()
    if body.kind == "classifier":
        return (logits.sigmoid() if body.multi_label else logits.softmax(dim=1)).numpy()
    return torch.stack([unfit_logits(found, native, contract.fit) for found in logits]).numpy()


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, of answers above 1 as a share of the largest.

    Logits of 30 differ by 1e-4 for rounding alone. Infinite where the shapes differ.
    """
    if found.shape != expected.shape:
        return float("inf")
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(found.astype(np.float64) - expected).max()) / scale


def _patterns(
    count: int, size: tuple[int, int], unit: PixelUnit, seed: int
) -> Iterator[np.ndarray]:
    """Yield smooth waves with some noise, over the whole range of the unit."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    lowest, highest, dtype = _STORED[unit]
    for number in range(count):
        waves = np.sin(11 * rows + number) * np.cos(7 * columns - 0.5 * number) + rows - columns
        field = waves + 0.15 * rng.random(size)
        field = (field - field.min()) / (field.max() - field.min())
        yield (lowest + field * (highest - lowest)).astype(dtype)
