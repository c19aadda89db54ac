"""Anatomy of a phantom patient at any points of space, with exact organ labels.

A chest is painted from the outside in: skin, fat and muscle, the cavity, organs under the
diaphragm, lungs, heart, vessels, airways, bones, lesion. All shapes are formulas, so axial
slices, projections and ultrasound planes of one patient agree to the last millimetre.
"""

from dataclasses import dataclass, replace

import numpy as np

from vismae.files.phantom_body import Points, body_wall, locate, patient_frame
from vismae.files.phantom_organs import (
    lesion_shape,
    lungs_outline,
    paint_abdomen,
    paint_bones,
    paint_great_vessels,
    paint_heart,
    parenchyma_texture,
    small_vessels,
)
from vismae.files.phantom_patient import Patient, draw_body
from vismae.files.phantom_tissue import Tissue

LUNG_LABEL, HEART_LABEL, LIVER_LABEL = 1, 2, 3


@dataclass(frozen=True)
class Anatomy:
    """What lies at each point asked for; all arrays have the shape of the points.

    Attributes:
        tissue: ``Tissue`` numbers, uint8.
        label_map: Organs, uint8: 0 background, 1 lung, 2 heart, 3 liver. Vessels and lesions
            inside a lung belong to the lung.
        vessel_fraction: Share of the lung's volume that small vessels fill, 0 to 1.
        texture: Smooth random field of about unit spread that makes organs uneven.
    """

    tissue: np.ndarray
    label_map: np.ndarray
    vessel_fraction: np.ndarray
    texture: np.ndarray


def draw_patient(seed: int, number: int, has_lesion: bool) -> Patient:
    """Draw patient ``number`` of the phantom population ``seed``.

    The lesion's place is drawn inside a lung for healthy patients too (see ``Patient``).
    """
    rng = np.random.default_rng([seed, number])
    patient = draw_body(rng, number, has_lesion)
    candidates = rng.uniform([-130.0, -75.0, -45.0], [130.0, 75.0, 75.0], (600, 3))
    reach = 0.8 * patient.lesion_radius_mm
    corners = np.concatenate([np.zeros((1, 3)), reach * np.eye(3), -reach * np.eye(3)])
    x, y, z = (candidates[:, None] + corners).astype(np.float32).transpose(2, 0, 1)  # (600, 7)
    tissue, _ = _paint(replace(patient, has_lesion=False), locate(patient, x, y, z))
    inside = (tissue == Tissue.LUNG).all(axis=1)
    # A sixth of the box fits; the fallback only keeps the code total.
    chosen = candidates[inside][0] if inside.any() else np.array([-80.0, 0.0, 10.0])
    return replace(patient, lesion_centre_mm=chosen)


def lesion_position_mm(patient: Patient) -> np.ndarray:
    """Return the centre of the lesion in scanner space (x, y, z)."""
    centre = patient.lesion_centre_mm * patient.stretch
    cosine, sine = np.cos(patient.rotation_rad), np.sin(patient.rotation_rad)
    turned = np.array(
        [cosine * centre[0] - sine * centre[1], sine * centre[0] + cosine * centre[1], centre[2]]
    )
    turned[:2] += patient.tilt * centre[2]
    return turned + patient.shift_mm


def sample_anatomy(
    patient: Patient,
    x_mm: np.ndarray,
    y_mm: np.ndarray,
    z_mm: np.ndarray,
    details: bool = True,
) -> Anatomy:
    """Return tissue and labels at points of scanner space.

    Args:
        patient: Who is examined.
        x_mm, y_mm, z_mm: Coordinates to the left, back and head; any shapes that broadcast,
            such as (1, 1, W), (1, H, 1), (S, 1, 1) for a volume.
        details: Work out small vessels and texture; they take half of the time and are zero
            without.
    """
    x, y, z = (np.asarray(axis, dtype=np.float32) for axis in (x_mm, y_mm, z_mm))
    points = locate(patient, *patient_frame(patient, x, y, z))
    tissue, label_map = _paint(patient, points)
    if not details:
        nothing = np.zeros(tissue.shape, dtype=np.float32)
        return Anatomy(tissue, label_map, nothing, nothing)
    vessel_fraction = small_vessels(patient, points, tissue == Tissue.LUNG)
    return Anatomy(tissue, label_map, vessel_fraction, parenchyma_texture(patient, points))


def _paint(patient: Patient, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Paint all organs over one another; returns tissue and label map."""
    tissue = body_wall(patient, points)
    liver = paint_abdomen(patient, points, tissue)
    lungs = lungs_outline(patient, points)
    tissue[lungs] = Tissue.LUNG
    heart = paint_heart(patient, points, tissue)
    organs_before_vessels = tissue.copy()
    paint_great_vessels(points, tissue)
    paint_bones(patient, points, tissue)
    lungs &= tissue == Tissue.LUNG
    heart &= (tissue == Tissue.MYOCARDIUM) | (tissue == Tissue.BLOOD)
    liver &= tissue == organs_before_vessels
    if patient.has_lesion:
        tissue[lesion_shape(patient, points) & lungs] = Tissue.LESION
    label_map = np.zeros(tissue.shape, dtype=np.uint8)
    label_map[liver & ~lungs & ~heart] = LIVER_LABEL
    label_map[lungs] = LUNG_LABEL
    label_map[heart] = HEART_LABEL
    return tissue, label_map
