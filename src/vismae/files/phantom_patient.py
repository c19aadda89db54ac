"""Random phantom patients: the numbers that make one chest differ from the next.

Lengths are millimetres in the nominal chest's frame (half width 165, half depth 115), which
``Patient`` stretches, turns and shifts into scanner space. Axes as in DICOM: x to the patient's
left, y to the back, z to the head; z = 0 lies between heart and aortic arch.
"""

from dataclasses import dataclass

import numpy as np

HEALTHY, LESION = "healthy", "lesion"
"""The two classes of patients."""

_TEXTURE_WAVES = 14


@dataclass(frozen=True)
class Patient:
    """Shape and pose of one person; drawn by ``phantom_anatomy.draw_patient``.

    Attributes:
        number: Names the patient, ``P0001`` for 1.
        has_lesion: Whether the lesion below is really there. Healthy patients carry the same
            numbers, so that slices can be chosen in the same way for both classes.
        stretch: Size relative to the nominal chest along x, y, z.
        rotation_rad: Turn about z. shift_mm: Offset in scanner space. tilt: Shift along x and y
            per millimetre of z.
        outline: Fourier amplitudes of the radius for 2 to 5 periods, (4, 2) cosine, sine.
        fat_mm, muscle_mm: Thickness of the layers of the chest wall.
        rib_pitch_mm, rib_phase, rib_slope: Distance of the ribs, offset, fall to the front.
        diaphragm_mm: Height of the right and left dome.
        mediastinum_mm: Half width of the space between the lungs.
        heart_centre_mm, heart_radii_mm, heart_axis: Ellipsoid of the heart and its long axis.
        liver_radii_mm: Ellipsoid of the liver.
        vessels: Lung vessels, (V, 7): start, end, radius.
        spots: Small round shadows both classes have, (K, 4): centre, radius.
        lesion_centre_mm, lesion_radius_mm, lesion_waves: The nodule; waves (3, 4) are direction
            and phase of its irregular surface.
        texture_waves: Parenchyma texture, (14, 4): wave vector per mm, phase.
    """

    number: int
    has_lesion: bool
    stretch: np.ndarray
    rotation_rad: float
    shift_mm: np.ndarray
    tilt: np.ndarray
    outline: np.ndarray
    fat_mm: float
    muscle_mm: float
    rib_pitch_mm: float
    rib_phase: float
    rib_slope: float
    diaphragm_mm: tuple[float, float]
    mediastinum_mm: float
    heart_centre_mm: np.ndarray
    heart_radii_mm: np.ndarray
    heart_axis: np.ndarray
    liver_radii_mm: np.ndarray
    vessels: np.ndarray
    spots: np.ndarray
    lesion_centre_mm: np.ndarray
    lesion_radius_mm: float
    lesion_waves: np.ndarray
    texture_waves: np.ndarray

    @property
    def patient_id(self) -> str:
        """Identifier in file names, manifests and DICOM."""
        return f"P{self.number:04d}"

    @property
    def label(self) -> str:
        """Class of the patient."""
        return LESION if self.has_lesion else HEALTHY

    @property
    def weight_kg(self) -> float:
        """Body weight, from the chest's cross-section."""
        return float(np.round(72.0 * self.stretch[0] * self.stretch[1] + 0.4 * self.fat_mm, 1))


def draw_body(rng: np.random.Generator, number: int, has_lesion: bool) -> Patient:
    """Draw everything about a patient but the place of the lesion (set to the origin).

    Args:
        rng: Source of chance; the same state gives the same patient.
        number: Names the patient.
        has_lesion: Class of the patient.
    """
    diaphragm = rng.normal(-58.0, 9.0)
    heart_scale = rng.uniform(0.84, 1.18)
    axis = np.array([0.75, -0.5, -0.42]) + rng.normal(0.0, 0.13, 3)
    waves = rng.normal(size=(3, 4))
    waves[:, :3] /= np.linalg.norm(waves[:, :3], axis=1, keepdims=True)
    waves[:, 3] = rng.uniform(0.0, 2 * np.pi, 3)
    return Patient(
        number=number,
        has_lesion=has_lesion,
        stretch=np.array([0.93, 0.95, 1.0]) + rng.uniform(-0.12, 0.1, 3),
        rotation_rad=float(rng.normal(0.0, 0.09)),
        shift_mm=rng.uniform(-12.0, 12.0, 3),
        tilt=rng.normal(0.0, 0.04, 2),
        outline=rng.normal(0.0, 1.0, (4, 2)) * np.array([[0.014], [0.014], [0.01], [0.007]]),
        fat_mm=float(rng.uniform(6.0, 22.0)),
        muscle_mm=float(rng.uniform(14.0, 19.0)),
        rib_pitch_mm=float(rng.uniform(25.0, 31.0)),
        rib_phase=float(rng.uniform()),
        rib_slope=float(rng.uniform(0.35, 0.6)),
        diaphragm_mm=(diaphragm, diaphragm - rng.uniform(2.0, 16.0)),
        mediastinum_mm=float(rng.uniform(25.0, 37.0)),
        heart_centre_mm=np.array([24.0, -24.0, -22.0]) + rng.normal(0.0, 6.0, 3),
        heart_radii_mm=heart_scale * np.array([66.0, 46.0, 47.0]) * rng.uniform(0.92, 1.08, 3),
        heart_axis=axis / np.linalg.norm(axis),
        liver_radii_mm=np.array([105.0, 85.0, 85.0]) * rng.uniform(0.85, 1.1, 3),
        vessels=np.concatenate([_vessel_tree(rng, side) for side in (-1.0, 1.0)]),
        spots=_spots(rng),
        lesion_centre_mm=np.zeros(3),
        lesion_radius_mm=float(rng.uniform(9.5, 16.0)),
        lesion_waves=waves,
        texture_waves=_texture_waves(rng),
    )


def _vessel_tree(rng: np.random.Generator, side: float) -> np.ndarray:
    """Branch from one hilum into the lung, thinner with every generation; (V, 7)."""
    grown: list[np.ndarray] = []
    tips = [(np.array([side * 42.0, 10.0, 25.0]), np.array([side, 0.0, 0.0]), 5.0)] * 7
    for spread, length in ((1.3, 34.0), (0.7, 26.0), (0.6, 20.0)):
        next_tips = []
        for start, direction, radius in tips:
            heading = direction + rng.normal(0.0, spread, 3) * np.array([0.5, 0.9, 1.1])
            heading = heading / np.linalg.norm(heading)
            end = start + heading * length * rng.uniform(0.7, 1.2)
            grown.append(np.concatenate([start, end, [radius]]))
            next_tips += [(end, heading, radius * 0.62)] * 2
        tips = next_tips
    return np.stack(grown)


def _spots(rng: np.random.Generator) -> np.ndarray:
    """Scatter up to two small round shadows through the chest; (K, 4)."""
    count = int(rng.integers(0, 3))
    centres = rng.uniform([-120.0, -70.0, -60.0], [120.0, 70.0, 80.0], (count, 3))
    return np.column_stack([centres, rng.uniform(3.0, 6.5, count)])


def _texture_waves(rng: np.random.Generator) -> np.ndarray:
    """Draw plane waves of 12 to 45 mm in random directions; (14, 4)."""
    directions = rng.normal(size=(_TEXTURE_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    wavelengths_mm = np.geomspace(12.0, 45.0, _TEXTURE_WAVES)[:, None]
    phases = rng.uniform(0.0, 2 * np.pi, (_TEXTURE_WAVES, 1))
    return np.column_stack([directions * 2 * np.pi / wavelengths_mm, phases])
