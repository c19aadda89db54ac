import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from vismae.files.phantom_anatomy import Anatomy, draw_patient, sample_anatomy
from vismae.files.phantom_radiograph import (
    DEPTH_STEP_MM,
    attenuation_volume,
    line_integrals,
    radiograph,
)
from vismae.files.phantom_scanners import (
    FWHM_PER_SIGMA,
    WATER_ATTENUATION_PER_MM,
    MrSequence,
    ct_volume,
    mr_signal_table,
    mr_volume,
    pet_volume,
)
from vismae.files.phantom_tissue import PROPERTIES, Tissue
from vismae.files.phantom_ultrasound import (
    beam_levels,
    find_window,
    speckle,
    ultrasound_image,
)

PIXEL_MM = 4.0


def uniform(tissue, shape=(4, 64, 64)):
    filled = np.full(shape, tissue, dtype=np.uint8)
    nothing = np.zeros(shape, dtype=np.float32)
    return Anatomy(filled, filled * 0, nothing, nothing)


@pytest.fixture(scope="module")
def chest():
    x = (np.arange(90) - 44.5) * PIXEL_MM
    z = np.arange(-100.0, 60.0, 16.0)
    return sample_anatomy(
        draw_patient(0, 1, False), x[None, None], x[None, :, None], z[:, None, None]
    )


def inside_of(anatomy, tissue):
    found = anatomy.tissue == tissue
    found &= anatomy.vessel_fraction < 0.01
    return binary_erosion(found, np.ones((1, 3, 3)), iterations=2)


@pytest.mark.parametrize(
    ("tissue", "hu"), [(Tissue.LUNG, -800), (Tissue.LIVER, 60), (Tissue.MYOCARDIUM, 50)]
)
def test_ct_shows_the_hounsfield_units_of_the_tissue(chest, tissue, hu):
    image = ct_volume(chest, PIXEL_MM, np.random.default_rng(0))
    assert image[inside_of(chest, tissue)].mean() == pytest.approx(hu, abs=12)


def test_contrast_agent_brightens_blood_and_not_the_lung(chest):
    plain, enhanced = (
        ct_volume(chest, PIXEL_MM, np.random.default_rng(0), agent) for agent in (0.0, 1.0)
    )
    gain = enhanced - plain
    assert gain[inside_of(chest, Tissue.BLOOD)].mean() == pytest.approx(190, abs=15)
    assert abs(gain[inside_of(chest, Tissue.LUNG)].mean()) < 12


def test_ct_noise_is_stronger_in_the_body_than_beside_it(chest):
    image = ct_volume(chest, PIXEL_MM, np.random.default_rng(0))
    assert image[inside_of(chest, Tissue.LIVER)].std() > 1.5 * image[:, :6, :6].std()


def test_mr_signal_follows_the_spin_echo_formula():
    sequence = MrSequence(500.0, 12.0, 0.3, 1.0, 0.0, 0.0)
    liver = 0.9 * (1 - np.exp(-500 / 576)) * np.exp(-12 / 46)
    blood = 0.3 * 1.0 * (1 - np.exp(-500 / 1441)) * np.exp(-12 / 290)
    table = mr_signal_table(sequence)
    assert table[Tissue.LIVER] == pytest.approx(liver, rel=1e-5)
    assert table[Tissue.BLOOD] == pytest.approx(blood, rel=1e-5)


def test_mr_background_is_rayleigh_noise():
    sequence = MrSequence(500.0, 12.0, 0.3, 700.0, 0.05, 0.2)
    sigma = 700.0 * 0.05 * mr_signal_table(sequence).max()
    background = mr_volume(uniform(Tissue.AIR), PIXEL_MM, np.random.default_rng(1), sequence)
    assert background.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert background.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.03)


def test_mr_bias_field_is_smooth_and_multiplies():
    sequence = MrSequence(500.0, 12.0, 0.3, 1.0, 0.0, 0.4)
    image = mr_volume(uniform(Tissue.LIVER), PIXEL_MM, np.random.default_rng(2), sequence)
    assert image.max() / image.min() > 1.2
    assert np.abs(np.diff(np.log(image), axis=2)).max() < 0.05


def test_pet_keeps_the_mean_uptake():
    image = pet_volume(uniform(Tissue.LIVER), (8.0, PIXEL_MM), np.random.default_rng(0), {})
    assert image.mean() == pytest.approx(PROPERTIES[Tissue.LIVER].suv, rel=0.01)
    assert image.std() > 0.02


def test_pet_spreads_a_hot_point_over_its_resolution():
    tissue = np.zeros((1, 81, 81), dtype=np.uint8)
    tissue[0, 40, 40] = Tissue.LESION
    nothing = np.zeros(tissue.shape, dtype=np.float32)
    image = pet_volume(
        Anatomy(tissue, tissue, nothing, nothing),
        (1000.0, 1.0),
        np.random.default_rng(0),
        {Tissue.LESION: 1000.0},
        counts_per_suv=1e6,
    )[0]
    offsets = np.arange(81) - 40.0
    variance = (image.sum(axis=0) * offsets**2).sum() / image.sum()
    # Scanner blur of 6 mm, then a reconstruction filter of 0.8 pixels.
    assert variance == pytest.approx((6.0 / FWHM_PER_SIGMA) ** 2 + 0.64, rel=0.05)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0])
def test_a_central_ray_crosses_a_cylinder_of_water_over_its_diameter(angle_deg):
    pixel_mm = 3.5
    x = (np.arange(96) - 47.5) * pixel_mm
    y = (np.arange(57) - 28.0) * DEPTH_STEP_MM
    cylinder = np.hypot(x[None, :], y[:, None]) < 90.0
    volume = np.repeat((WATER_ATTENUATION_PER_MM * cylinder)[None], 2, axis=0)
    path = line_integrals(volume.astype(np.float32), pixel_mm, angle_deg)
    assert path[0, 46:50].mean() == pytest.approx(WATER_ATTENUATION_PER_MM * 180.0, rel=0.03)
    assert path[0, 3] == pytest.approx(0.0, abs=1e-6)


def test_a_radiograph_shows_lung_darker_than_the_abdomen():
    attenuation = attenuation_volume(draw_patient(0, 1, False), 48)
    grey = radiograph(attenuation, 350.0 / 48, np.random.default_rng(0))
    assert grey.min() >= 0
    assert grey.max() <= 1
    right_lung, abdomen, air = grey[18:24, 12:18], grey[40:46, 16:22], grey[30:40, :2]
    assert air.mean() < right_lung.mean() < abdomen.mean() - 0.2


def test_speckle_is_fully_developed():
    amplitude = speckle((400, 400), np.random.default_rng(0))
    # Rayleigh: mean over standard deviation is sqrt(pi / (4 - pi)) = 1.91.
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.91, abs=0.05)
    assert (amplitude**2).mean() == pytest.approx(1.0, rel=1e-4)


def test_a_rib_throws_a_shadow():
    tissue = np.full((200, 60), Tissue.LIVER, dtype=np.uint8)
    tissue[30:40, 20:40] = Tissue.CORTEX
    levels = beam_levels(tissue, np.linspace(1.0, 150.0, 200), np.random.default_rng(0))
    behind, beside = levels[60:, 26:34], levels[60:, :10]
    assert behind.mean() < 0.2 * beside.mean()


def test_blood_is_darker_than_liver_and_gain_makes_up_for_depth():
    tissue = np.full((200, 60), Tissue.LIVER, dtype=np.uint8)
    tissue[80:120, 20:40] = Tissue.BLOOD
    levels = beam_levels(tissue, np.linspace(1.0, 150.0, 200), np.random.default_rng(0))
    assert levels[90:110, 26:34].mean() < 0.5 * levels[90:110, :12].mean()
    assert levels[160:, :12].mean() == pytest.approx(levels[50:90, :12].mean(), rel=0.2)


def test_an_ultrasound_image_is_a_fan_with_labels_inside():
    patient, rng = draw_patient(0, 3, False), np.random.default_rng(0)
    grey, labels = ultrasound_image(patient, find_window(patient, "heart", rng), 96, rng)
    assert grey.shape == labels.shape == (96, 96)
    assert labels.dtype == np.uint8
    assert (labels == 2).mean() > 0.05
    for corner in (grey[:10, :10], labels[:10, :10], grey[:10, -10:], grey[-4:, :4]):
        assert not corner.any()
