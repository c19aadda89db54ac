import numpy as np
import pytest

from vismae.core.errors import SettingError
from vismae.evaluation.selection import choose_patients

ORDER = np.array([3, 1, 0, 2, 4])


def test_random_is_the_order_of_chance() -> None:
    assert [choice.patient for choice in choose_patients("random", 3, ORDER)] == [3, 1, 0]
    assert len(choose_patients("random", 99, ORDER)) == 5


def test_entropy_takes_the_most_uncertain_and_chance_decides_between_equals() -> None:
    uncertainty = np.array([0.5, 0.5, 0.9, 0.5, 0.1])
    chosen = choose_patients("entropy", 4, ORDER, uncertainty)
    assert [choice.patient for choice in chosen] == [2, 3, 1, 0]


def test_core_set_goes_to_what_no_labelled_patient_looks_like() -> None:
    angles = np.array([0.0, 0.05, 1.5, 1.55, 3.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [
        [5.0],
        [1.0],
        [2.0],
        [1.0],
        [9.0],
    ]
    chosen = choose_patients("core-set", 3, ORDER, features=features, labelled=features[[0]])
    assert [choice.patient for choice in chosen[:2]] == [4, 2] or [
        choice.patient for choice in chosen[:2]
    ] == [4, 3]
    assert chosen[0].distance == pytest.approx(1 - np.cos(3.0))
    distances = [choice.distance for choice in chosen]
    assert distances == sorted(distances, reverse=True)


def test_core_set_covers_as_a_brute_force_greedy_does() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 6))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = generator.permutation(40)
    labelled = generator.normal(size=(3, 6))
    known = list(labelled / np.linalg.norm(labelled, axis=1, keepdims=True))
    expected: list[int] = []
    for _ in range(10):
        gaps = {
            patient: min(1 - float(unit[patient] @ vector) for vector in known)
            for patient in range(40)
            if patient not in expected
        }
        expected.append(max(gaps, key=lambda patient: gaps[patient]))
        known.append(unit[expected[-1]])
    chosen = choose_patients("core-set", 10, order, features=features, labelled=labelled)
    assert [choice.patient for choice in chosen] == expected


def test_the_hybrid_looks_for_variety_among_the_uncertain_only() -> None:
    generator = np.random.default_rng(1)
    uncertainty = generator.random(60)
    features = generator.normal(size=(60, 4))
    order = generator.permutation(60)
    chosen = choose_patients("hybrid", 5, order, uncertainty, features)
    most_uncertain = set(np.argsort(-uncertainty)[:15].tolist())
    assert {choice.patient for choice in chosen} <= most_uncertain
    assert len({choice.patient for choice in chosen}) == 5


@pytest.mark.parametrize("strategy", ["entropy", "hybrid"])
def test_uncertainty_is_asked_for_by_name(strategy) -> None:
    with pytest.raises(SettingError, match=f"{strategy} needs a model that predicts classes"):
        choose_patients(strategy, 2, ORDER, features=np.ones((5, 2)))
