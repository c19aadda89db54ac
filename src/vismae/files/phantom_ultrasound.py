"""Ultrasound sector images of a phantom: echoes, speckle, attenuation, shadows, fan geometry.

Echoes are computed beam by beam (depth r, angle theta), where shadowing is a running sum, and
drawn as the fan a screen shows. Model after Szabo, *Diagnostic Ultrasound Imaging* (2014): diffuse
scatter with fully developed speckle (Rayleigh amplitude), specular echoes from steps in
impedance, attenuation in dB along the beam, time-gain compensation, logarithmic compression.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from vismae.files.phantom_anatomy import sample_anatomy
from vismae.files.phantom_patient import Patient
from vismae.files.phantom_tissue import Tissue, property_table

DYNAMIC_RANGE_DB = 50.0
"""Echo levels from black to white."""
TGC_DB_PER_CM = 2.6
"""Two-way attenuation that the time-gain compensation gives back."""
_BEAMS, _SAMPLES = 96, 224
_TRIES = 10


@dataclass(frozen=True)
class Probe:
    """Where a sector probe sits and what it looks at, in scanner space.

    Attributes:
        position_mm: Middle of the probe's face on the skin (x, y, z).
        direction: Unit vector into the body, the middle beam.
        lateral: Unit vector to the right of the image, at right angles to ``direction``.
        depth_mm: Greatest depth shown.
        half_angle_rad: Half of the sector's opening.
    """

    position_mm: np.ndarray
    direction: np.ndarray
    lateral: np.ndarray
    depth_mm: float
    half_angle_rad: float


def find_window(patient: Patient, window: str, rng: np.random.Generator) -> Probe:
    """Search the skin for a place where bone and lung hide little, as an examiner does.

    Args:
        patient: Who is examined.
        window: ``heart`` (left of the breastbone), ``liver`` (between ribs on the right) or
            ``subcostal`` (under the breastbone, through the liver to the heart).
        rng: Source of the tries.

    Returns:
        The best of 10 tries.
    """
    nominal_from, nominal_to, plane_up = {
        "heart": ((44.0, -140.0, -24.0), (22.0, 0.0, -20.0), (0.55, 0.0, 0.83)),
        "liver": ((-170.0, -90.0, -100.0), (-30.0, 10.0, -96.0), (0.35, -0.6, 0.5)),
        "subcostal": ((-12.0, -140.0, -118.0), (4.0, -10.0, -60.0), (1.0, 0.0, 0.1)),
    }[window]
    depth_mm, half_angle_rad = rng.uniform(130.0, 170.0), rng.uniform(0.58, 0.72)
    tries: list[tuple[float, Probe]] = []
    for _ in range(_TRIES):
        start = np.array(nominal_from) + rng.normal(0.0, 11.0, 3)
        target = np.array(nominal_to) + rng.normal(0.0, 9.0, 3)
        start, target = (point * patient.stretch + patient.shift_mm for point in (start, target))
        direction = (target - start) / np.linalg.norm(target - start)
        position = _skin_point(patient, start, direction)
        lateral = _upright(np.array(plane_up), direction)
        probe = Probe(position, direction, lateral, float(depth_mm), float(half_angle_rad))
        tries.append((_visible_share(patient, probe), probe))
    return max(tries, key=lambda entry: entry[0])[1]


def sway(probe: Probe, rng: np.random.Generator) -> Probe:
    """Tilt the probe by a few degrees on the spot, as between frames of an examination."""
    direction = probe.direction + rng.normal(0.0, 0.07, 3)
    direction /= np.linalg.norm(direction)
    lateral = _upright(probe.lateral + rng.normal(0.0, 0.12, 3), direction)
    return replace(probe, direction=direction, lateral=lateral)


def ultrasound_image(
    patient: Patient, probe: Probe, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a sector image and the organs in it.

    Args:
        patient: Who is examined.
        probe: Plane of the image.
        size: Pixels per side.
        rng: Source of the speckle.

    Returns:
        Grey levels from 0 to 1, (size, size) float32, black outside the fan; and the label map,
        (size, size) uint8, 0 outside the fan.
    """
    depth_mm, angle, inside = _fan(probe, size)
    beams = np.linspace(-probe.half_angle_rad, probe.half_angle_rad, _BEAMS)
    samples_mm = np.linspace(1.0, probe.depth_mm, _SAMPLES)
    points = _plane_points(probe, samples_mm[:, None], beams[None, :])
    tissue = sample_anatomy(patient, *points, details=False).tissue
    levels = beam_levels(tissue, samples_mm, rng)
    rows = (depth_mm - 1.0) / (probe.depth_mm - 1.0) * (_SAMPLES - 1)
    columns = (angle / probe.half_angle_rad + 1.0) / 2.0 * (_BEAMS - 1)
    drawn = map_coordinates(levels, [rows, columns], order=1, mode="nearest")
    labels = sample_anatomy(
        patient, *_plane_points(probe, depth_mm, angle), details=False
    ).label_map
    return np.where(inside, drawn, 0.0).astype(np.float32), np.where(inside, labels, 0)


def beam_levels(tissue: np.ndarray, depth_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return compressed echo levels along each beam.

    Args:
        tissue: ``Tissue`` numbers, (R, B): depth by beam.
        depth_mm: Depth of each row, evenly spaced, (R,).
        rng: Source of the speckle.

    Returns:
        Levels from 0 to 1, (R, B) float32.
    """
    step_mm = float(depth_mm[1] - depth_mm[0])
    scatter = property_table("scatter")[tissue]
    amplitude = scatter * speckle(tissue.shape, rng) + 1.6 * _specular(tissue, rng)
    amplitude += _reverberation(tissue, rng)
    loss_db = property_table("attenuation_db_cm")[tissue] * (2.0 * step_mm / 10.0)
    # An echo has crossed what lies before it, not its own pixel.
    travelled_db = np.cumsum(loss_db, axis=0) - loss_db
    compensated_db = TGC_DB_PER_CM * depth_mm[:, None] / 10.0
    gain_db = np.clip(compensated_db - travelled_db, -200.0, 12.0)
    # Every beam is a few pixels wide, so the edges of shadows are soft.
    amplitude *= 10.0 ** (gaussian_filter(gain_db, (0.0, 0.8)) / 20.0)
    noise = 0.004 * 10.0 ** (0.03 * depth_mm[:, None] / 10.0) * speckle(tissue.shape, rng)
    level_db = 20.0 * np.log10(np.hypot(amplitude, noise) + 1e-6)
    return np.clip((level_db + 33.0) / DYNAMIC_RANGE_DB, 0.0, 1.0).astype(np.float32)


def speckle(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return fully developed speckle: Rayleigh amplitude of mean square 1.

    The magnitude of complex Gaussian noise blurred by the beam, which is narrower along than
    across (Wagner et al. 1983, IEEE Trans. Sonics Ultrason. 30:156).
    """
    real, imaginary = (gaussian_filter(rng.standard_normal(shape), (0.9, 1.3)) for _ in range(2))
    power = real**2 + imaginary**2
    return np.sqrt(power / power.mean()).astype(np.float32)


def _specular(tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Echo of steps in impedance met along the beam, blurred to the pulse's length."""
    impedance = property_table("impedance_mrayl")[tissue]
    ahead, here = impedance[1:], impedance[:-1]
    echo = np.zeros(tissue.shape, dtype=np.float32)
    echo[1:] = np.abs(ahead - here) / (ahead + here)
    echo *= rng.uniform(0.5, 1.2, tissue.shape)
    return 4.0 * gaussian_filter(echo, (0.9, 1.0))


def _reverberation(tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Repeat the chest wall's echoes near the probe: the haze in every first centimetre."""
    rows = np.arange(tissue.shape[0], dtype=np.float32)[:, None]
    haze = 0.8 * np.exp(-rows / 7.0) * (1.0 + 0.5 * np.cos(rows * 1.1))
    return haze * speckle(tissue.shape, rng)


def _fan(probe: Probe, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth in mm, angle and whether inside the sector, for each pixel of the screen."""
    pixel_mm = probe.depth_mm * 1.04 / size
    across = (np.arange(size) - (size - 1) / 2) * pixel_mm
    down = (np.arange(size)[:, None] + 0.5) * pixel_mm
    depth_mm = np.hypot(across, down)
    angle = np.arctan2(across, down)
    inside = (depth_mm <= probe.depth_mm) & (np.abs(angle) <= probe.half_angle_rad)
    return depth_mm, angle, inside & (depth_mm > 1.0)


def _plane_points(
    probe: Probe, depth_mm: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scanner coordinates of points given by depth and angle."""
    ahead, across = depth_mm * np.cos(angle), depth_mm * np.sin(angle)
    x, y, z = (
        probe.position_mm[k] + ahead * probe.direction[k] + across * probe.lateral[k]
        for k in range(3)
    )
    return x, y, z


def _skin_point(patient: Patient, start: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Walk from outside along the middle beam to the skin."""
    steps_mm = np.arange(0.0, 140.0, 1.0)
    line = start[:, None] + direction[:, None] * steps_mm
    touched = np.flatnonzero(sample_anatomy(patient, *line, details=False).tissue != Tissue.AIR)
    # Two millimetres in: the gel presses the probe into the skin.
    return line[:, min(touched[0] + 2, len(steps_mm) - 1)] if touched.size else line[:, -1]


def _upright(wanted: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Unit vector nearest to ``wanted`` at right angles to ``direction``."""
    lateral = wanted - (wanted @ direction) * direction
    return lateral / np.linalg.norm(lateral)


def _visible_share(patient: Patient, probe: Probe) -> float:
    """Share of the sector that is neither air nor behind bone or lung."""
    beams = np.linspace(-probe.half_angle_rad, probe.half_angle_rad, 24)
    samples_mm = np.linspace(1.0, probe.depth_mm, 40)
    points = _plane_points(probe, samples_mm[:, None], beams[None, :])
    tissue = sample_anatomy(patient, *points, details=False).tissue
    step_cm = (samples_mm[1] - samples_mm[0]) / 10.0
    lost_db = np.cumsum(2.0 * step_cm * property_table("attenuation_db_cm")[tissue], axis=0)
    extra_db = lost_db - TGC_DB_PER_CM * samples_mm[:, None] / 10.0
    return float(((extra_db < 15.0) & (tissue != Tissue.AIR)).mean())
