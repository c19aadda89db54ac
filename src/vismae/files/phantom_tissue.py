"""Tissues of the phantom patients and what each physical measurement sees in them.

The values are typical of adults, rounded; they make pictures of the right kind and are no
reference for dosimetry. Sources: Hounsfield units after Kalender, *Computed Tomography* (2011);
relaxation times at 1.5 T after Stanisz et al. 2005 (MRM 54:507) and de Bazelaire et al. 2004
(Radiology 230:652); FDG uptake after Zincirkeser et al. 2007 (J Int Med Res 35:231); acoustic
impedance and attenuation after Szabo, *Diagnostic Ultrasound Imaging* (2014), appendix B.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

LABEL_NAMES = ("background", "lung", "heart", "liver")
"""Meaning of the values 0, 1, 2, 3 of every phantom label map."""


class Tissue(IntEnum):
    """What fills a point of space; the row of a property table."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    LUNG = 4
    AIRWAY = 5
    CORTEX = 6
    MARROW = 7
    CARTILAGE = 8
    SPINAL_CORD = 9
    BLOOD = 10
    MYOCARDIUM = 11
    LIVER = 12
    SPLEEN = 13
    STOMACH = 14
    LESION = 15


class TissueProperties(NamedTuple):
    """Physical properties of one tissue.

    Attributes:
        hu: Hounsfield units without contrast agent.
        iodine_hu: Hounsfield units added by full enhancement.
        density: Proton density, 1 for water.
        t1_ms, t2_ms: Relaxation times at 1.5 T.
        suv: Standardised uptake value of FDG by body weight.
        impedance_mrayl: Acoustic impedance in 10^6 kg m^-2 s^-1.
        attenuation_db_cm: Attenuation of 3 MHz ultrasound, one way.
        scatter: Amplitude of the diffuse echo, 1 for liver.
    """

    hu: float
    iodine_hu: float
    density: float
    t1_ms: float
    t2_ms: float
    suv: float
    impedance_mrayl: float
    attenuation_db_cm: float
    scatter: float


PROPERTIES: dict[Tissue, TissueProperties] = {
    Tissue.AIR: TissueProperties(-1000, 0, 0.0, 1000, 50, 0.0, 0.0004, 40.0, 0.0),
    Tissue.SKIN: TissueProperties(30, 10, 0.7, 900, 35, 0.5, 1.70, 2.0, 1.6),
    Tissue.FAT: TissueProperties(-100, 0, 0.9, 343, 58, 0.3, 1.38, 1.4, 0.45),
    Tissue.MUSCLE: TissueProperties(45, 15, 0.9, 1008, 44, 0.7, 1.70, 2.2, 0.22),
    Tissue.LUNG: TissueProperties(-800, 10, 0.18, 1200, 25, 0.5, 0.26, 40.0, 0.8),
    Tissue.AIRWAY: TissueProperties(-990, 0, 0.0, 1000, 50, 0.2, 0.0004, 40.0, 0.0),
    Tissue.CORTEX: TissueProperties(700, 0, 0.15, 500, 10, 0.6, 6.5, 60.0, 1.0),
    Tissue.MARROW: TissueProperties(250, 10, 0.75, 549, 49, 1.3, 2.5, 30.0, 0.8),
    Tissue.CARTILAGE: TissueProperties(100, 0, 0.8, 1024, 30, 0.6, 1.85, 5.0, 0.5),
    Tissue.SPINAL_CORD: TissueProperties(30, 0, 1.0, 1500, 120, 1.5, 1.6, 1.5, 0.3),
    Tissue.BLOOD: TissueProperties(50, 190, 1.0, 1441, 290, 1.6, 1.61, 0.6, 0.03),
    Tissue.MYOCARDIUM: TissueProperties(50, 60, 0.95, 1030, 40, 3.0, 1.68, 1.6, 0.4),
    Tissue.LIVER: TissueProperties(60, 50, 0.9, 576, 46, 2.1, 1.65, 1.5, 1.0),
    Tissue.SPLEEN: TissueProperties(50, 70, 0.95, 1057, 79, 1.8, 1.65, 1.3, 0.9),
    Tissue.STOMACH: TissueProperties(20, 0, 1.0, 1800, 150, 0.9, 1.55, 0.8, 0.2),
    Tissue.LESION: TissueProperties(35, 35, 0.9, 1150, 75, 6.0, 1.66, 1.5, 0.6),
}
"""One row per tissue."""


def property_table(name: str) -> np.ndarray:
    """Return one property of all tissues, ready for ``table[tissue]``.

    Args:
        name: A field of ``TissueProperties``.

    Returns:
        Values by tissue number, (16,) float32.
    """
    return np.array([getattr(PROPERTIES[tissue], name) for tissue in Tissue], dtype=np.float32)
