"""What a model has learnt from is recognised again, and what only looks so is kept apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from stores import classification_store, record
from vismae.core.model_card import FingerprintCard
from vismae.data.fingerprint import add_stages, fingerprint, overlap
from vismae.data.store import Store, StoreWriter


def store_of(folder: Path, *images: tuple[str, np.ndarray], kind: str = "patient") -> Store:
    with StoreWriter(folder) as writer:
        for number, (patient, pixels) in enumerate(images):
            facts = record(f"{folder.name}-{number}", pixels, patient_id=patient, group_kind=kind)
            writer.add(facts, pixels)
    return Store(folder)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)


def test_a_fingerprint_counts_images_patients_and_modalities(tmp_path: Path):
    card = fingerprint(classification_store(tmp_path / "store", patients=3, images=2).index)
    assert (card.images, card.patients, card.by_modality) == (6, 3, {"xr": 6})
    assert FingerprintCard.model_validate_json(card.model_dump_json()) == card


def test_identical_pixels_are_found_under_another_name(tmp_path: Path):
    known = fingerprint(store_of(tmp_path / "a", ("p1", noise(1)), ("p2", noise(2))).index)
    found = overlap(known, store_of(tmp_path / "b", ("x", noise(2)), ("y", noise(3))).index)
    assert found.same_pixels == ("x",)
    assert found.certain
    assert found.same_id == ()
    assert found.alike == ()


def test_the_same_patient_is_found_with_other_images(tmp_path: Path):
    known = fingerprint(store_of(tmp_path / "a", ("p1", noise(1))).index)
    found = overlap(known, store_of(tmp_path / "b", ("p1", noise(9))).index)
    assert found.same_id == ("p1",)
    assert not found.certain


def test_an_image_that_is_its_own_group_is_not_known_by_its_name(tmp_path: Path):
    known = fingerprint(store_of(tmp_path / "a", ("0", noise(1)), kind="image").index)
    found = overlap(known, store_of(tmp_path / "b", ("0", noise(9)), kind="image").index)
    assert found.same_id == ()


def test_a_patient_and_a_group_of_the_same_name_are_two(tmp_path: Path):
    known = fingerprint(store_of(tmp_path / "a", ("7", noise(1)), kind="patient").index)
    assert (
        overlap(known, store_of(tmp_path / "b", ("7", noise(9)), kind="group").index).same_id == ()
    )


def test_the_same_picture_at_another_contrast_is_only_alike(tmp_path: Path):
    known = fingerprint(store_of(tmp_path / "a", ("p1", noise(1))).index)
    darker = (noise(1) // 2).astype(np.uint8)
    smooth = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8), np.ones((4, 4), np.uint8))
    known_smooth = fingerprint(store_of(tmp_path / "c", ("p1", smooth * 2)).index)
    assert overlap(known, store_of(tmp_path / "b", ("x", darker)).index).same_pixels == ()
    found = overlap(known_smooth, store_of(tmp_path / "d", ("y", smooth)).index)
    assert (found.same_pixels, found.alike) == ((), ("y",))


def test_empty_slices_prove_nothing(tmp_path: Path):
    blank = np.zeros((32, 32), np.uint8)
    known = fingerprint(store_of(tmp_path / "a", ("p1", blank), ("p1", noise(1))).index)
    found = overlap(known, store_of(tmp_path / "b", ("x", blank), ("x", noise(2))).index)
    assert found == replace(found, same_pixels=(), same_id=(), alike=())


def test_what_the_start_model_learnt_from_stays_known(tmp_path: Path):
    cards = {name: FingerprintCard(images=n) for n, name in enumerate("abc")}
    first = add_stages({}, {"pretrain": cards["a"]})
    second = add_stages(first, {"pretrain": cards["b"]})
    third = add_stages(second, {"pretrain": cards["c"], "finetune": cards["a"]})
    assert third == {
        "pretrain": cards["c"],
        "earlier pretrain": cards["b"],
        "earlier earlier pretrain": cards["a"],
        "finetune": cards["a"],
    }
