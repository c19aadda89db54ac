"""The frame of a phantom patient: where a point lies in the chest, and the body wall.

``locate`` tells of any point how deep it is under the skin, where the chest wall ends and how high
the diaphragm stands; ``phantom_organs`` paints the rest with these numbers. Patient frame as in
``phantom_patient``: millimetres of the nominal chest, x left, y back, z head.
"""

from dataclasses import dataclass

import numpy as np

from vismae.files.phantom_patient import Patient
from vismae.files.phantom_tissue import Tissue

_NOMINAL_MM = (165.0, 115.0)


@dataclass(frozen=True)
class Points:
    """Points in the patient's own frame and what many shapes need to know about them.

    depth: radial distance under the skin; wall: depth at which the chest cavity begins;
    diaphragm: height of the diaphragm above each point; all in mm.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    depth: np.ndarray
    wall: np.ndarray
    diaphragm: np.ndarray


def patient_frame(
    patient: Patient, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Undo shift, tilt, rotation and stretch; the inverse of ``lesion_position_mm``."""
    cosine, sine = np.cos(patient.rotation_rad), np.sin(patient.rotation_rad)
    z = z - patient.shift_mm[2]
    x = x - patient.shift_mm[0] - patient.tilt[0] * z
    y = y - patient.shift_mm[1] - patient.tilt[1] * z
    turned_x, turned_y = cosine * x + sine * y, cosine * y - sine * x
    x, y, z = np.broadcast_arrays(
        turned_x / patient.stretch[0], turned_y / patient.stretch[1], z / patient.stretch[2]
    )
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


def locate(patient: Patient, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Points:
    """Measure depth under the skin, chest wall and diaphragm at points of the patient frame."""
    neck = ramp(z, 106.0, 138.0)
    half_width = _NOMINAL_MM[0] * (1.0 + 0.13 * ramp(z, 45.0, 100.0)) * (1.0 - 0.64 * neck)
    half_depth = _NOMINAL_MM[1] * (1.0 - 0.12 * ramp(z, 30.0, 100.0)) * (1.0 - 0.35 * neck)
    across, along = np.abs(x) / half_width, np.abs(y) / half_depth
    angle = np.arctan2(y / half_depth, x / half_width)
    outline = np.ones_like(angle)
    for periods, (cosine, sine) in enumerate(patient.outline, start=2):
        outline += np.float32(cosine) * np.cos(periods * angle)
        outline += np.float32(sine) * np.sin(periods * angle)
    radius = (across**2.5 + along**2.5) ** 0.4 / outline + 1e-6
    distance = np.hypot(x, y) + 1e-6
    depth = distance * (1.0 / radius - 1.0)
    # The cavity closes like a dome above the arch: more from the sides than from front and back.
    closing = np.maximum(z - 12.0, 0.0) ** 2
    wall = patient.fat_mm * (1.0 + 0.3 * np.cos(2 * angle)) + patient.muscle_mm
    wall = wall + 12.0 * np.exp(-((x / 40.0) ** 2)) * (y > 0)
    wall = wall + closing * (0.0035 + 0.0075 * across**2)
    dome = 0.0055 * (np.abs(x) - 78.0) ** 2 + 0.0048 * (y + 12.0) ** 2
    right, left = patient.diaphragm_mm
    diaphragm = left + (right - left) * ramp(-x, -30.0, 30.0) - dome
    return Points(x, y, z, depth, wall, diaphragm)


def ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def body_wall(patient: Patient, p: Points) -> np.ndarray:
    """Paint skin, fat and muscle, and fill the cavity with fat; the first layer of all."""
    tissue = np.zeros(p.depth.shape, dtype=np.uint8)
    muscle_from = p.wall - patient.muscle_mm - np.maximum(p.z - 12.0, 0.0) ** 2 * 0.0035
    tissue[p.depth > 0] = Tissue.SKIN
    tissue[p.depth > 2.5] = Tissue.FAT
    tissue[p.depth > np.minimum(muscle_from, patient.fat_mm * 1.3)] = Tissue.MUSCLE
    tissue[p.depth > p.wall] = Tissue.FAT
    # Between shoulder and neck muscle is streaked with fat, or the top slices look like clay.
    streaks = np.sin(p.x * 0.11 + 2.0 * np.sin(p.y * 0.07)) * np.sin(p.y * 0.16 + p.z * 0.05)
    inner = (p.depth > patient.fat_mm * 1.3 + 4.0) & (p.depth < p.wall - 12.0)
    tissue[inner & (streaks > 0.45)] = Tissue.FAT
    return tissue


def ellipsoid(p: Points, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Tell which points lie in an upright ellipsoid."""
    scaled = ((a - c) / r for a, c, r in zip((p.x, p.y, p.z), centre, radii, strict=True))
    return np.asarray(sum(s**2 for s in scaled)) < 1.0


def squared_distance(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, start: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """Squared distance of points to the line segment from ``start`` to ``end``."""
    direction = end - start
    length_squared = max(float(direction @ direction), 1e-6)
    dx, dy, dz = x - start[0], y - start[1], z - start[2]
    along = (dx * direction[0] + dy * direction[1] + dz * direction[2]) / length_squared
    along = np.clip(along, 0.0, 1.0)
    dx, dy, dz = dx - along * direction[0], dy - along * direction[1], dz - along * direction[2]
    return dx**2 + dy**2 + dz**2
