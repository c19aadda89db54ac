"""Organs of a phantom patient: formulas that tell which points each of them fills.

Painters write ``Tissue`` numbers into an array, later ones over earlier ones; the order is in
``phantom_anatomy.sample_anatomy``. All lengths are millimetres of the patient's own frame.
"""

from itertools import pairwise

import numpy as np

from vismae.files.phantom_body import Points, ellipsoid, ramp, squared_distance
from vismae.files.phantom_patient import Patient
from vismae.files.phantom_tissue import Tissue

_SPINE_Y_MM = 62.0
_VESSEL_BLUR_MM = 2.0


def paint_abdomen(patient: Patient, p: Points, tissue: np.ndarray) -> np.ndarray:
    """Paint liver, spleen and stomach under the diaphragm; returns where the liver is."""
    below = (p.depth > p.wall + 2.0) & (p.z < p.diaphragm - 3.0)
    radii = patient.liver_radii_mm
    liver = below & ellipsoid(p, np.array([-62.0, -8.0, -112.0]), radii)
    stomach = below & ellipsoid(p, np.array([58.0, -35.0, -112.0]), np.array([48.0, 38.0, 45.0]))
    bubble = stomach & (p.y < -42.0) & (p.z < p.diaphragm - 8.0)
    spleen = below & ellipsoid(p, np.array([98.0, 42.0, -105.0]), np.array([34.0, 45.0, 46.0]))
    tissue[spleen] = Tissue.SPLEEN
    tissue[stomach] = Tissue.STOMACH
    tissue[bubble] = Tissue.AIRWAY
    tissue[liver] = Tissue.LIVER
    for end in ((-125, -40, -100), (-110, 40, -95), (-55, -65, -110), (-90, 0, -150)):
        ends = np.array([(-14, 22, -68), end], dtype=np.float32)
        tissue[liver & (squared_distance(p.x, p.y, p.z, *ends) < 4.5**2)] = Tissue.BLOOD
    return liver


def lungs_outline(patient: Patient, p: Points) -> np.ndarray:
    """Tell which points are in a lung's outline, before heart, vessels and bones."""
    middle = np.exp(-(((p.y - 8.0) / 42.0) ** 2))
    half_width = 9.0 + patient.mediastinum_mm * middle * (1.0 - 0.35 * ramp(p.z, 55.0, 100.0))
    # The cardiac notch: in front of the heart the left lung draws back, a window for ultrasound.
    level = np.exp(-(((p.z - patient.heart_centre_mm[2] + 6.0) / 30.0) ** 2))
    half_width = half_width + 48.0 * level * ramp(-p.y, 5.0, 45.0) * (p.x > 0)
    spine = ((p.x / 24.0) ** 2 + ((p.y - _SPINE_Y_MM - 4.0) / 26.0) ** 2) < 1.0
    return (p.depth > p.wall + 1.5) & (np.abs(p.x) > half_width) & ~spine & (p.z > p.diaphragm)


def _heart_frame(patient: Patient, p: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates along the heart's long axis, to its left back and upward, in radii."""
    long_axis = patient.heart_axis
    second = np.cross(long_axis, np.array([0.0, 0.0, 1.0]))
    second /= np.linalg.norm(second)
    third = np.cross(second, long_axis)
    offset = [
        axis - np.float32(c)
        for axis, c in zip((p.x, p.y, p.z), patient.heart_centre_mm, strict=True)
    ]
    a, b, c = (
        sum(np.float32(direction[k] / radius) * offset[k] for k in range(3))
        for direction, radius in zip(
            (long_axis, second, third), patient.heart_radii_mm, strict=True
        )
    )
    return np.asarray(a), np.asarray(b), np.asarray(c)


def paint_heart(patient: Patient, p: Points, tissue: np.ndarray) -> np.ndarray:
    """Paint fat, muscle and the four chambers; returns where the heart is."""
    a, b, c = _heart_frame(patient, p)
    # A blunt base and a pointed tip: the short radii shrink towards the apex.
    taper = 1.0 - 0.22 * a
    radius = np.sqrt(a**2 + (b / taper) ** 2 + (c / taper) ** 2)
    allowed = (p.depth > p.wall) & (p.z > p.diaphragm - 4.0)
    tissue[allowed & (radius < 1.1)] = Tissue.FAT
    heart = allowed & (radius < 1.0)
    tissue[heart] = Tissue.MYOCARDIUM
    chambers = (
        ((0.22, -0.36, 0.0), (0.5, 0.34, 0.4)),
        ((0.12, 0.5, -0.06), (0.58, 0.3, 0.55)),
        ((-0.55, -0.38, 0.15), (0.3, 0.45, 0.5)),
        ((-0.55, 0.42, 0.0), (0.32, 0.42, 0.55)),
    )
    for (a0, b0, c0), (ra, rb, rc) in chambers:
        inside = ((a - a0) / ra) ** 2 + ((b - b0) / rb) ** 2 + ((c - c0) / rc) ** 2 < 1.0
        tissue[heart & inside & (radius < 0.93)] = Tissue.BLOOD
    return heart


def paint_great_vessels(p: Points, tissue: np.ndarray) -> None:
    """Paint aorta, pulmonary arteries, vena cava, oesophagus and the airways."""
    body = p.depth > 15.0
    tubes = (
        (Tissue.BLOOD, 15.0, ((2, -22, 5), (-8, -26, 48), (6, -4, 66), (20, 30, 58))),
        (Tissue.BLOOD, 12.0, ((20, 30, 58), (20, 40, 20), (12, 40, -190))),
        (Tissue.BLOOD, 10.0, ((-26, -14, -5), (-24, -16, 75), (-30, -18, 110))),
        (Tissue.BLOOD, 13.0, ((24, -30, 8), (14, -10, 34))),
        (Tissue.BLOOD, 9.5, ((-48, 8, 22), (14, -10, 34), (54, 10, 30))),
        (Tissue.BLOOD, 6.0, ((6, -22, 70), (16, -20, 120), (34, -10, 180))),
        (Tissue.MUSCLE, 6.0, ((4, 36, 110), (4, 36, 10), (14, 20, -90))),
        (Tissue.AIRWAY, 8.5, ((0, 2, 190), (0, 6, 110), (0, 18, 42))),
        (Tissue.AIRWAY, 6.0, ((0, 18, 42), (-40, 22, 18))),
        (Tissue.AIRWAY, 6.0, ((0, 18, 42), (44, 24, 14))),
    )
    for kind, radius, path in tubes:
        for start, end in pairwise(path):
            low, high = min(start[2], end[2]) - radius, max(start[2], end[2]) + radius
            if p.z.max() < low or p.z.min() > high:
                continue
            ends = np.array([start, end], dtype=np.float32)
            tissue[body & (squared_distance(p.x, p.y, p.z, *ends) < radius**2)] = kind


def paint_bones(patient: Patient, p: Points, tissue: np.ndarray) -> None:
    """Paint ribs, sternum, spine, shoulder blades, collar bones and arm heads."""
    shell = (p.depth > p.wall - 10.5) & (p.depth < p.wall - 2.5) & (p.z < 92.0)
    turn = (p.z - patient.rib_slope * p.y + 0.3 * np.abs(p.x)) / patient.rib_pitch_mm
    ribs = shell & (np.mod(turn + patient.rib_phase, 1.0) < 0.4)
    front = (p.y < -55.0) & (np.abs(p.x) < 75.0)
    tissue[ribs & ~front] = Tissue.CORTEX
    tissue[ribs & front & (p.z < 60.0)] = Tissue.CARTILAGE
    sternum = (np.abs(p.x) < 17.0) & (p.y < 0) & (p.z > -62.0) & (p.z < 84.0)
    tissue[sternum & (p.depth > p.wall - 13.0) & (p.depth < p.wall - 2.0)] = Tissue.MARROW
    _paint_spine(p, tissue)
    under_skin = p.depth > 8.0
    side = np.arctan2(p.y, np.abs(p.x))
    blade = under_skin & (np.abs(side - 0.75) < 0.36) & (p.z > -25.0) & (p.z < 100.0)
    tissue[blade & (np.abs(p.depth - p.wall + 17.0) < 3.0)] = Tissue.CORTEX
    if p.z.max() < 65.0:
        return
    mirrored = np.abs(p.x)
    collar = ((20, -66, 82), (80, -62, 100), (150, -14, 104))
    for start, end in pairwise(collar):
        ends = np.array([start, end], dtype=np.float32)
        near = squared_distance(mirrored, p.y, p.z, *ends)
        tissue[under_skin & (near < 49.0)] = Tissue.CORTEX
        tissue[under_skin & (near < 12.0)] = Tissue.MARROW
    arm = (mirrored - 166.0) ** 2 + (p.y - 4.0) ** 2 + (p.z - 96.0) ** 2
    tissue[under_skin & (arm < 23.0**2)] = Tissue.CORTEX
    tissue[under_skin & (arm < 18.0**2)] = Tissue.MARROW


def _paint_spine(p: Points, tissue: np.ndarray) -> None:
    """Paint vertebrae, discs, canal and processes."""
    inside = p.depth > 6.0
    body = (p.x / 19.0) ** 2 + ((p.y - _SPINE_Y_MM) / 16.0) ** 2
    disc = np.mod(p.z / 24.0, 1.0) < 0.2
    tissue[inside & (body < 1.0) & ~disc] = Tissue.CORTEX
    tissue[inside & (body < 0.8) & ~disc] = Tissue.MARROW
    tissue[inside & (body < 1.0) & disc] = Tissue.CARTILAGE
    canal = (p.x / 1.15) ** 2 + (p.y - _SPINE_Y_MM - 24.0) ** 2
    arch = inside & ~disc & (p.y > _SPINE_Y_MM + 10.0)
    wings = (np.abs(p.x) < 34.0) & (np.abs(p.y - _SPINE_Y_MM - 26.0 + 0.2 * np.abs(p.x)) < 5.0)
    thorn = (np.abs(p.x) < 4.5) & (p.y > _SPINE_Y_MM + 30.0) & (p.y < _SPINE_Y_MM + 46.0)
    tissue[arch & ((canal < 14.0**2) | wings | thorn)] = Tissue.CORTEX
    tissue[inside & (canal < 9.0**2)] = Tissue.SPINAL_CORD


def small_vessels(patient: Patient, p: Points, lungs: np.ndarray) -> np.ndarray:
    """Fill the lungs with the branching tree and small spots, finer than a pixel is wide."""
    fraction = np.zeros(p.x.shape, dtype=np.float32)
    x, y, z = p.x[lungs], p.y[lungs], p.z[lungs]
    if x.size == 0:
        return fraction
    filled = np.zeros(x.shape, dtype=np.float32)
    spots = np.column_stack([patient.spots[:, :3], patient.spots])
    tubes = np.concatenate([patient.vessels, spots]).astype(np.float32)
    reach = 3.0 * np.hypot(tubes[:, 6:], _VESSEL_BLUR_MM)
    lowest = np.minimum(tubes[:, :3], tubes[:, 3:6]) - reach
    highest = np.maximum(tubes[:, :3], tubes[:, 3:6]) + reach
    corners = np.array([[axis.min(), axis.max()] for axis in (x, y, z)])
    met = ((highest > corners[:, 0]) & (lowest < corners[:, 1])).all(axis=1)
    for tube in tubes[met]:
        # Blurred at equal cross-section: a thin vessel dims instead of breaking into dots.
        spread = tube[6] ** 2 + np.float32(_VESSEL_BLUR_MM**2)
        near = squared_distance(x, y, z, tube[:3], tube[3:6])
        filled += tube[6] ** 2 / spread * np.exp(-near / spread)
    fraction[lungs] = np.minimum(filled, 1.0)
    return fraction


def lesion_shape(patient: Patient, p: Points) -> np.ndarray:
    """Tell which points are in the nodule, a ball with a wavy surface."""
    offset = [
        a - np.float32(c) for a, c in zip((p.x, p.y, p.z), patient.lesion_centre_mm, strict=True)
    ]
    distance = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2) + 1e-3
    ripple = np.zeros_like(distance)
    for wave in patient.lesion_waves:
        along = sum(np.float32(wave[k]) * offset[k] for k in range(3)) / distance
        ripple += np.cos(3.5 * along + np.float32(wave[3]))
    return distance < patient.lesion_radius_mm * (1.0 + 0.1 * ripple)


def parenchyma_texture(patient: Patient, p: Points) -> np.ndarray:
    """Sum the patient's plane waves, scaled to unit spread."""
    field = np.zeros(p.x.shape, dtype=np.float32)
    for kx, ky, kz, phase in patient.texture_waves.astype(np.float32):
        field += np.cos(kx * p.x + ky * p.y + kz * p.z + phase)
    return field * np.float32(np.sqrt(2.0 / len(patient.texture_waves)))
