"""CT, MR and PET pictures of a phantom: tissue to measured value, volume by volume.

Pure functions of an ``Anatomy`` sampled on an axial grid (S, H, W), of the grid's spacing and of
a random generator. The models are the simplest that carry the traits a network meets in real
images: physical units and noise in CT, contrast, bias field and an arbitrary scale in MR, blur and
counting noise in PET.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from vismae.files.phantom_anatomy import Anatomy
from vismae.files.phantom_tissue import Tissue, property_table

WATER_ATTENUATION_PER_MM = 0.0193
"""Linear attenuation of water at 70 keV (NIST XCOM, rounded)."""
FWHM_PER_SIGMA = 2.3548
_PARTIAL_VOLUME_PIXELS = 0.55


@dataclass(frozen=True)
class MrSequence:
    """Spin-echo settings of one MR examination.

    Attributes:
        repetition_ms, echo_ms: TR and TE; short ones weight by T1, long ones by T2.
        blood_signal: Share of the signal that flowing blood keeps (flow void).
        scale: Signal units per unit of proton density; arbitrary in MR.
        noise: Standard deviation per channel relative to the brightest tissue.
        bias: Amplitude of the coil's logarithmic brightness field.
    """

    repetition_ms: float
    echo_ms: float
    blood_signal: float
    scale: float
    noise: float
    bias: float


def draw_sequence(rng: np.random.Generator) -> MrSequence:
    """Draw T1, T2 or proton-density weighted settings, each a third of the time."""
    repetition_range, echo_range = (
        ((400.0, 650.0), (8.0, 16.0)),
        ((1800.0, 3200.0), (40.0, 75.0)),
        ((1500.0, 2600.0), (10.0, 22.0)),
    )[int(rng.integers(3))]
    return MrSequence(
        repetition_ms=float(rng.uniform(*repetition_range)),
        echo_ms=float(rng.uniform(*echo_range)),
        blood_signal=float(rng.uniform(0.1, 0.8)),
        scale=float(10.0 ** rng.uniform(2.3, 3.5)),
        noise=float(rng.uniform(0.02, 0.06)),
        bias=float(rng.uniform(0.2, 0.45)),
    )


def tissue_values(anatomy: Anatomy, table: np.ndarray, texture_share: float = 0.0) -> np.ndarray:
    """Look up a property per point, mixing small lung vessels in by volume.

    Args:
        anatomy: Tissue on any points.
        table: Property by tissue number, see ``property_table``.
        texture_share: Spread of the parenchyma texture relative to the value.

    Returns:
        Property values, float32, in the unit of the table.
    """
    values = table[anatomy.tissue]
    values += anatomy.vessel_fraction * (table[Tissue.BLOOD] - table[Tissue.LUNG])
    if texture_share:
        values *= 1.0 + texture_share * anatomy.texture
    return values


def hounsfield_map(anatomy: Anatomy, enhancement: float) -> np.ndarray:
    """Return Hounsfield units without blur or noise.

    Args:
        anatomy: Tissue on any points.
        enhancement: 0 for no contrast agent to 1 for full enhancement.
    """
    table = property_table("hu") + enhancement * property_table("iodine_hu")
    return tissue_values(anatomy, table)


def ct_volume(
    anatomy: Anatomy,
    spacing_mm: float,
    rng: np.random.Generator,
    enhancement: float = 0.0,
    noise_hu: float = 14.0,
) -> np.ndarray:
    """Return a CT volume in Hounsfield units.

    Partial volume is a Gaussian of half a pixel. Noise grows with the attenuation a ray meets
    (quantum noise goes with exp(path / 2)): it is largest inside the body, and rows crossed by
    the shoulders get horizontal streaks.

    Args:
        anatomy: Tissue on an axial grid (S, H, W), rows to the back.
        spacing_mm: Pixel side.
        rng: Source of the noise.
        enhancement: Contrast agent, 0 to 1.
        noise_hu: Standard deviation at the body's edge.

    Returns:
        Hounsfield units, (S, H, W) float32.
    """
    hu = hounsfield_map(anatomy, enhancement)
    solid = (anatomy.tissue != Tissue.AIR) & (anatomy.tissue != Tissue.AIRWAY)
    hu += np.where(anatomy.tissue == Tissue.LUNG, 28.0, 7.0) * anatomy.texture * solid
    hu[_couch(anatomy.tissue, spacing_mm)] = -350.0
    hu = gaussian_filter(hu, (0.0, _PARTIAL_VOLUME_PIXELS, _PARTIAL_VOLUME_PIXELS))
    path = (WATER_ATTENUATION_PER_MM * spacing_mm) * np.sum(1.0 + hu / 1000.0, axis=2)
    inside = gaussian_filter((hu > -500).astype(np.float32), (0.0, 6.0, 6.0))
    white = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0.0, 0.45, 0.45))
    streaks = gaussian_filter1d(rng.standard_normal(hu.shape, dtype=np.float32), 7.0, axis=2)
    streaks /= streaks.std()
    streak_hu = 2.5 * np.exp(np.clip(path - 5.0, -5.0, 2.5) / 1.3)[:, :, None]
    hu += white / white.std() * noise_hu * (0.6 + inside) + streaks * streak_hu * inside
    return np.clip(hu, -1024.0, 3071.0).astype(np.float32)


def mr_signal_table(sequence: MrSequence) -> np.ndarray:
    """Return the spin-echo signal by tissue, ``density (1 - exp(-TR/T1)) exp(-TE/T2)``.

    Blood is multiplied by what flow leaves of it. Without unit, (16,) float32.
    """
    recovery = 1.0 - np.exp(-sequence.repetition_ms / property_table("t1_ms"))
    decay = np.exp(-sequence.echo_ms / property_table("t2_ms"))
    table = property_table("density") * recovery * decay
    table[Tissue.BLOOD] *= sequence.blood_signal
    return table


def mr_volume(
    anatomy: Anatomy, spacing_mm: float, rng: np.random.Generator, sequence: MrSequence
) -> np.ndarray:
    """Return an MR magnitude volume in the scanner's arbitrary units.

    A smooth field multiplies the signal, then complex Gaussian noise is added and the magnitude
    taken, so that the background follows a Rayleigh distribution of mean sigma sqrt(pi/2)
    (Gudbjartsson and Patz 1995, MRM 34:910).

    Args:
        anatomy: Tissue on an axial grid (S, H, W).
        spacing_mm: Pixel side.
        rng: Source of field and noise.
        sequence: Contrast, scale and noise.

    Returns:
        Signal, (S, H, W) float32, not negative.
    """
    table = mr_signal_table(sequence)
    signal = tissue_values(anatomy, table, texture_share=0.06)
    signal = gaussian_filter(signal, (0.0, _PARTIAL_VOLUME_PIXELS, _PARTIAL_VOLUME_PIXELS))
    signal *= np.exp(_bias_field(signal.shape, spacing_mm, rng, sequence.bias))
    sigma = sequence.noise * float(table.max())
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    return (sequence.scale * np.hypot(real, imaginary)).astype(np.float32)


def suv_map(anatomy: Anatomy, uptake: dict[Tissue, float]) -> np.ndarray:
    """Return the true FDG uptake (SUV by body weight) before blur and noise.

    Args:
        anatomy: Tissue on any points.
        uptake: Values of this patient that differ from the table (heart, lesion).
    """
    table = property_table("suv")
    for tissue, value in uptake.items():
        table[tissue] = value
    return tissue_values(anatomy, table)


def pet_volume(
    anatomy: Anatomy,
    spacing_mm: tuple[float, float],
    rng: np.random.Generator,
    uptake: dict[Tissue, float],
    counts_per_suv: float = 25.0,
    fwhm_mm: float = 6.0,
) -> np.ndarray:
    """Return an FDG PET volume in SUV.

    The uptake is blurred by the scanner, counted (Poisson, so the mean is kept) and smoothed
    once more as a reconstruction filter does.

    Args:
        anatomy: Tissue on an axial grid (S, H, W).
        spacing_mm: Between slices and between pixels.
        rng: Source of the counts.
        uptake: See ``suv_map``.
        counts_per_suv: Expected counts in a pixel of SUV 1; fewer are noisier.
        fwhm_mm: Full width at half maximum of the scanner's point spread.

    Returns:
        SUV, (S, H, W) float32, not negative.
    """
    slice_mm, pixel_mm = spacing_mm
    sigma_mm = fwhm_mm / FWHM_PER_SIGMA
    widths = (sigma_mm / slice_mm, sigma_mm / pixel_mm, sigma_mm / pixel_mm)
    expected = np.maximum(gaussian_filter(suv_map(anatomy, uptake), widths), 0.0)
    # A little scatter and randoms everywhere, or the air round the patient would be dead black.
    counts = rng.poisson((expected + 0.02) * counts_per_suv) / counts_per_suv
    return np.maximum(gaussian_filter(counts, (0.3, 0.8, 0.8)) - 0.02, 0.0).astype(np.float32)


def _couch(tissue: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Tell where the patient table lies: a thin bowl under the lowest point of the body."""
    slices, height, width = tissue.shape
    occupied = np.flatnonzero((tissue != Tissue.AIR).any(axis=(0, 2)))
    if occupied.size == 0:
        return np.zeros(tissue.shape, dtype=bool)
    x_mm = (np.arange(width) - (width - 1) / 2) * spacing_mm
    y_mm = np.arange(height)[:, None] * spacing_mm
    surface_mm = occupied[-1] * spacing_mm + 9.0 - x_mm**2 / 1100.0
    shell = (np.abs(y_mm - surface_mm) < 0.6 * spacing_mm) & (np.abs(x_mm) < 190.0)
    return np.broadcast_to(shell, (slices, height, width)) & (tissue == Tissue.AIR)


def _bias_field(
    shape: tuple[int, ...], spacing_mm: float, rng: np.random.Generator, amplitude: float
) -> np.ndarray:
    """Logarithm of the coil's sensitivity: three long waves across the field of view."""
    rows = np.arange(shape[1], dtype=np.float32)[:, None] * np.float32(spacing_mm)
    columns = np.arange(shape[2], dtype=np.float32)[None, :] * np.float32(spacing_mm)
    field = np.zeros(shape[1:], dtype=np.float32)
    for _ in range(3):
        angle, phase = rng.uniform(0.0, 2 * np.pi, 2)
        wave = 2 * np.pi / rng.uniform(350.0, 700.0)
        along = np.float32(np.cos(angle)) * columns + np.float32(np.sin(angle)) * rows
        field += np.sin(np.float32(wave) * along + np.float32(phase))
    return amplitude * field
