"""Chest radiographs of a phantom: parallel X-ray projection, scatter, photon noise, film response.

Rays are parallel (a source far away), so nothing is magnified. Attenuation is that of water
scaled by Hounsfield units at one effective energy of 70 keV; bone gets its photoelectric extra.
"""

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

from vismae.files.phantom_anatomy import sample_anatomy
from vismae.files.phantom_patient import Patient
from vismae.files.phantom_scanners import WATER_ATTENUATION_PER_MM, hounsfield_map

DETECTOR_MM = 350.0
"""Side of the square detector."""
_DETECTOR_CENTRE_Z_MM = -12.0
DEPTH_STEP_MM = 5.0
"""Between the layers of the volume from front to back."""
_LAYERS = 57


def attenuation_volume(patient: Patient, size: int) -> np.ndarray:
    """Return attenuation per millimetre round the patient, ready for ``radiograph``.

    Args:
        patient: Who is examined.
        size: Detector pixels per side.

    Returns:
        (size, D, size) float32: rows from head to feet, layers ``DEPTH_STEP_MM`` apart from
        front to back, columns to the patient's left.
    """
    pixel_mm = DETECTOR_MM / size
    x_mm = (np.arange(size) - (size - 1) / 2) * pixel_mm
    y_mm = (np.arange(_LAYERS) - (_LAYERS - 1) / 2) * DEPTH_STEP_MM
    z_mm = _DETECTOR_CENTRE_Z_MM - x_mm
    anatomy = sample_anatomy(patient, x_mm[None, None], y_mm[None, :, None], z_mm[:, None, None])
    hu = hounsfield_map(anatomy, enhancement=0.0)
    relative = 1.0 + hu / 1000.0 + 0.3 * np.maximum(hu - 100.0, 0.0) / 1000.0
    return (WATER_ATTENUATION_PER_MM * relative).astype(np.float32)


def line_integrals(attenuation: np.ndarray, pixel_mm: float, angle_deg: float) -> np.ndarray:
    """Sum attenuation along parallel rays.

    Every ray is sampled each ``pixel_mm`` with linear interpolation. The rays of one detector
    column are the same at every height, so all sums are one sparse matrix times the volume.

    Args:
        attenuation: (H, D, W) per mm, see ``attenuation_volume``.
        pixel_mm: Side of a detector pixel.
        angle_deg: 0 looks from front to back, 90 from the side.

    Returns:
        Optical path without unit, (H, W) float32.
    """
    height, depth, width = attenuation.shape
    turn = np.deg2rad(angle_deg)
    across = ((np.arange(width) - (width - 1) / 2) * pixel_mm)[:, None]
    steps = round(np.hypot(width * pixel_mm, depth * DEPTH_STEP_MM) / pixel_mm)
    along = ((np.arange(steps) - (steps - 1) / 2) * pixel_mm)[None, :]
    y = (np.cos(turn) * along + np.sin(turn) * across) / DEPTH_STEP_MM + (depth - 1) / 2
    x = (np.cos(turn) * across - np.sin(turn) * along) / pixel_mm + (width - 1) / 2
    rows = np.broadcast_to(np.arange(width)[:, None], x.shape)
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for near_y, near_x in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
        inside = (near_y >= 0) & (near_y < depth) & (near_x >= 0) & (near_x < width)
        weight = (1.0 - np.abs(y - near_y)) * (1.0 - np.abs(x - near_x))
        voxel = near_y * width + near_x
        entries.append((weight[inside], rows[inside], voxel[inside]))
    weights, ray, voxel = (np.concatenate(column) for column in zip(*entries, strict=True))
    rays = csr_array((weights.astype(np.float32), (ray, voxel)), shape=(width, depth * width))
    summed = rays @ attenuation.reshape(height, depth * width).T  # (W, H)
    return np.ascontiguousarray(summed.T) * np.float32(pixel_mm)


def radiograph(
    attenuation: np.ndarray,
    pixel_mm: float,
    rng: np.random.Generator,
    angle_deg: float = 0.0,
    photons: float = 30000.0,
    scatter_share: float = 0.2,
) -> np.ndarray:
    """Return what a digital chest radiograph shows, bright where much is absorbed.

    Transmission follows Beer and Lambert, scatter is a wide blur of it, photons are Poisson; the
    logarithm passes an S-shaped film curve centred on the image's own median exposure.

    Args:
        attenuation: See ``attenuation_volume``.
        pixel_mm: Side of a detector pixel.
        rng: Source of the photon noise.
        angle_deg: Direction of view, see ``line_integrals``.
        photons: Per pixel without patient.
        scatter_share: Share of the signal that is scatter.

    Returns:
        Grey levels from 0 to 1, (H, W) float32.
    """
    primary = np.exp(-line_integrals(attenuation, pixel_mm, angle_deg))
    scatter = gaussian_filter(primary, 22.0 / pixel_mm)
    intensity = (1.0 - scatter_share) * primary + scatter_share * scatter
    # 300: electronic floor that keeps the logarithm finite behind thick bone.
    counts = rng.poisson(intensity * photons + 300.0 * np.exp(-4.0))
    absorbed = np.log(photons) - np.log(np.maximum(counts, 1.0))
    body = absorbed[absorbed > 0.5]
    middle = float(np.median(body)) if body.size else 2.0
    spread = 0.43 * float(np.std(body)) + 0.1 if body.size else 1.0
    grey = 1.0 / (1.0 + np.exp(-(absorbed - middle) / (1.6 * spread)))
    return grey.astype(np.float32)
