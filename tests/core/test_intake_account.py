"""Accounts add up, survive JSON and stay small."""

import json
from dataclasses import fields, replace

import numpy as np

from vismae.core.counting import Histogram, Tally
from vismae.core.intake_account import (
    INTENSITY_BINS,
    SIDE_BINS_PX,
    SPACING_BINS_MM,
    IntakeAccount,
    ModalityAccount,
    Repeats,
)
from vismae.core.types import Modality


def modality_account(images: int, seed: int = 0) -> ModalityAccount:
    """An account in which no field is empty."""
    sizes = {f"{seed}×{number}": number for number in range(1, 5)}
    return ModalityAccount(
        images=images,
        volumes=images // 2,
        patients=images // 3,
        grouping={"patient": images},
        sides=Histogram({30 + seed: images}),
        sizes=Tally.of(sizes, 256),
        spacing_in_plane_mm=Histogram({20: images - 1}, unknown=1),
        spacing_slices_mm=Histogram({}, unknown=images),
        dtypes={"int16": images},
        channels={"1": images},
        units={"hu": images},
        flags={"lossy": 1, f"flag{seed}": 2},
        intensities={"hu": Histogram({3: 1000, 0: 24})},
    )


def account(seed: int) -> IntakeAccount:
    own = (Modality.CT, Modality.MR, Modality.PET)[seed % 3]
    return IntakeAccount(
        files=10 + seed,
        bytes_read=1000,
        bytes_stored=500,
        seconds=1.5,
        patients=3,
        divided_patients=1,
        left_out={"truncated": 1, f"code{seed}": 2},
        modalities={own: modality_account(6, seed), Modality.US: modality_account(9, seed)},
        labels=Tally.of({"liver": 2, f"class{seed}": 1}, 1000),
        label_map_images=Tally.of({"1": 4}, 1000),
        label_map_pixels=Tally.of({"1": 400}, 1000),
        exact=Repeats(3, 1, {"train and test": 2}),
        near=None if seed == 1 else Repeats(1),
    )


def test_an_account_survives_json_field_by_field() -> None:
    before = account(0)
    assert IntakeAccount.from_json(json.loads(json.dumps(before.to_json()))) == before
    assert IntakeAccount.from_json(json.loads(json.dumps(account(1).to_json()))).near is None
    empty = IntakeAccount()
    assert all(getattr(before, each.name) != getattr(empty, each.name) for each in fields(before))


def test_accounts_add_up_in_any_order_with_nothing_as_zero() -> None:
    first, second, third = (account(seed) for seed in range(3))
    assert IntakeAccount() + first == first
    assert first + second == second + first
    assert (first + second) + third == first + (second + third)
    total = first + second + third
    assert total.images == 3 * (6 + 9)
    assert total.modalities[Modality.US].sizes.total == 30
    assert total.modalities[Modality.US].flags == {"flag0": 2, "flag1": 2, "flag2": 2, "lossy": 3}
    assert total.left_out["truncated"] == 3
    assert total.exact == Repeats(9, 3, {"train and test": 6})
    assert total.near == Repeats(2)


def test_files_are_either_read_or_left_out() -> None:
    found = IntakeAccount().with_files(12, 5000, {"video": 2, "copy": 1})
    assert (found.files, found.files_read, found.files_left_out) == (12, 9, 3)
    assert found.bytes_read == 5000


def test_groups_are_set_once_for_the_whole() -> None:
    found = account(0).with_groups(4, 0, {Modality.CT: 3, Modality.US: 2}, {Modality.CT: 5})
    assert (found.patients, found.volumes) == (4, 5)
    assert found.modalities[Modality.US].patients == 2
    assert found.modalities[Modality.CT].flags == account(0).modalities[Modality.CT].flags


def test_modalities_and_flags_are_summed_up() -> None:
    assert list(account(0).by_modality().items()) == [("us", 9), ("ct", 6)]
    assert account(0).flagged() == {"flag0": 4, "lossy": 2}


def test_an_account_stays_small_whatever_is_in_the_archive() -> None:
    full = {
        scale.value: Histogram({k: 10**9 + k for k in range(bins.count + 2)})
        for scale, bins in INTENSITY_BINS.items()
    }
    side = SIDE_BINS_PX.count + 2
    spacing = Histogram({k: 10**9 for k in range(SPACING_BINS_MM.count + 2)})
    worst = replace(
        modality_account(10**9),
        sides=Histogram({k: 10**9 for k in range(side**2)}),
        sizes=Tally.of({f"{k}×{k}": 10**9 for k in range(10_000)}, 256),
        spacing_in_plane_mm=spacing,
        spacing_slices_mm=spacing,
        intensities=full,
    )
    classes = Tally.of({f"class {k}".ljust(120): 10**9 for k in range(10_000)}, 1000)
    whole = IntakeAccount(
        modalities=dict.fromkeys(Modality, worst), labels=classes, label_map_images=classes
    )
    once = len(json.dumps(whole.to_json()))
    assert once < 700_000
    assert len(json.dumps((whole + whole).to_json())) < 1.02 * once


def test_common_sizes_and_spacings_lie_in_the_middle_of_their_bins() -> None:
    for bins, values in ((SIDE_BINS_PX, [64, 256, 512, 1024]), (SPACING_BINS_MM, [0.1, 1, 10])):
        place = bins.positions(np.array(values, dtype=float))
        centres = np.sqrt(bins.edges[place - 1] * bins.edges[place])
        assert np.allclose(centres, values)
