import numpy as np
import pytest

from vismae.files.phantom_anatomy import (
    HEART_LABEL,
    LIVER_LABEL,
    LUNG_LABEL,
    draw_patient,
    lesion_position_mm,
    sample_anatomy,
)
from vismae.files.phantom_tissue import LABEL_NAMES, Tissue

GRID_MM = np.arange(-180.0, 181.0, 6.0)
HEIGHTS_MM = np.arange(-100.0, 90.0, 12.0)


def volume_of(patient):
    return sample_anatomy(
        patient, GRID_MM[None, None], GRID_MM[None, :, None], HEIGHTS_MM[:, None, None]
    )


def test_the_same_seed_and_number_give_the_same_patient():
    first, again = (volume_of(draw_patient(3, 5, True)) for _ in range(2))
    other = volume_of(draw_patient(4, 5, True))
    np.testing.assert_array_equal(first.tissue, again.tissue)
    np.testing.assert_array_equal(first.texture, again.texture)
    assert (first.tissue != other.tissue).mean() > 0.05


def test_labels_cover_exactly_the_tissues_of_their_organ():
    anatomy = volume_of(draw_patient(0, 2, True))
    allowed = {
        LUNG_LABEL: {Tissue.LUNG, Tissue.LESION},
        HEART_LABEL: {Tissue.MYOCARDIUM, Tissue.BLOOD},
        LIVER_LABEL: {Tissue.LIVER, Tissue.BLOOD},
    }
    for label, tissues in allowed.items():
        found = set(np.unique(anatomy.tissue[anatomy.label_map == label]))
        assert found <= {int(tissue) for tissue in tissues}
        assert (anatomy.label_map == label).sum() > 200
    for tissue, label in (
        (Tissue.LUNG, LUNG_LABEL),
        (Tissue.LESION, LUNG_LABEL),
        (Tissue.LIVER, LIVER_LABEL),
        (Tissue.MYOCARDIUM, HEART_LABEL),
    ):
        assert (anatomy.label_map[anatomy.tissue == tissue] == label).all()
    assert len(LABEL_NAMES) == anatomy.label_map.max() + 1


@pytest.mark.parametrize("number", range(1, 25))
def test_the_lesion_lies_in_a_lung_where_its_position_says(number):
    ill = draw_patient(0, number, has_lesion=True)
    healthy = draw_patient(0, number, has_lesion=False)
    place = [np.array([axis]) for axis in lesion_position_mm(ill)]
    assert sample_anatomy(ill, *place).tissue[0] == Tissue.LESION
    assert sample_anatomy(healthy, *place).tissue[0] == Tissue.LUNG
    assert sample_anatomy(ill, *place).label_map[0] == LUNG_LABEL


def test_a_lesion_is_all_that_tells_an_ill_patient_from_the_healthy_twin():
    ill = volume_of(draw_patient(0, 4, has_lesion=True))
    healthy = volume_of(draw_patient(0, 4, has_lesion=False))
    differs = ill.tissue != healthy.tissue
    assert (ill.tissue[differs] == Tissue.LESION).all()
    np.testing.assert_array_equal(ill.label_map, healthy.label_map)


def test_points_and_volumes_agree():
    patient = draw_patient(1, 7, False)
    volume = volume_of(patient)
    picks = np.random.default_rng(0).integers(0, volume.tissue.shape, (200, 3))
    points = sample_anatomy(
        patient, GRID_MM[picks[:, 2]], GRID_MM[picks[:, 1]], HEIGHTS_MM[picks[:, 0]]
    )
    chosen = tuple(picks.T)
    np.testing.assert_array_equal(points.tissue, volume.tissue[chosen])
    np.testing.assert_allclose(points.texture, volume.texture[chosen], atol=1e-4)


def test_without_details_the_organs_stay_the_same():
    patient = draw_patient(1, 8, True)
    plane = GRID_MM[None, :], GRID_MM[:, None], np.full((1, 1), 20.0)
    full = sample_anatomy(patient, *plane)
    plain = sample_anatomy(patient, *plane, details=False)
    np.testing.assert_array_equal(full.tissue, plain.tissue)
    assert full.vessel_fraction.max() > 0.1
    assert plain.vessel_fraction.max() == 0


def test_patients_differ_in_place_and_size_of_the_heart():
    centres, areas = [], []
    for number in range(12):
        label_map = volume_of(draw_patient(0, number, False)).label_map
        points = np.argwhere(label_map == HEART_LABEL)
        centres.append(points.mean(axis=0) * [12.0, 6.0, 6.0])
        areas.append(len(points))
    assert (np.std(centres, axis=0) > 4.0).all()
    assert np.std(areas) / np.mean(areas) > 0.1


def test_the_heart_lies_left_and_the_liver_right():
    for number in range(6):
        label_map = volume_of(draw_patient(0, number, False)).label_map
        heart_x = np.argwhere(label_map == HEART_LABEL)[:, 2].mean()
        liver_x = np.argwhere(label_map == LIVER_LABEL)[:, 2].mean()
        assert heart_x > len(GRID_MM) / 2 > liver_x
