"""Surface distances against MONAI and closed forms."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from vismae.evaluation.surface import hd95, score_surfaces, surface_dice, surface_distances


def blob(shape: tuple[int, ...], seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return noise > np.quantile(noise, 0.8)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((40, 33), (0.7, 1.9)), ((12, 25, 31), (5.0, 0.8, 1.3))]
)
def test_hd95_and_surface_dice_agree_with_monai(
    shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    for seed in range(3):
        prediction, truth = blob(shape, seed), blob(shape, seed + 100)
        p = torch.from_numpy(prediction)[None, None].float()
        t = torch.from_numpy(truth)[None, None].float()
        expected = compute_hausdorff_distance(
            p, t, include_background=True, percentile=95, spacing=list(spacing)
        )
        assert hd95(prediction, truth, spacing) == pytest.approx(expected.item(), rel=1e-5)
        # Half way between possible distances, where MONAI's float32 cannot decide otherwise.
        expected = compute_surface_dice(
            p, t, [2.03], include_background=True, spacing=list(spacing)
        )
        assert surface_dice(prediction, truth, 2.03, spacing) == pytest.approx(
            expected.item(), rel=1e-5
        )


def test_two_lines_three_rows_apart_are_three_spacings_apart() -> None:
    truth, prediction = np.zeros((10, 8), bool), np.zeros((10, 8), bool)
    truth[2], prediction[5] = True, True
    assert hd95(prediction, truth) == 3.0
    assert hd95(prediction, truth, (2.5, 1.0)) == 7.5
    assert surface_dice(prediction, truth, 2.9) == 0.0
    assert surface_dice(prediction, truth, 3.0) == 1.0


def test_hd95_is_the_larger_direction() -> None:
    truth, prediction = np.zeros((1, 50), bool), np.zeros((1, 50), bool)
    truth[0, :10] = True
    prediction[0, :40] = True
    to_truth, to_prediction = surface_distances(prediction, truth)
    assert to_prediction.max() == 0.0
    assert hd95(prediction, truth) == pytest.approx(np.quantile(to_truth, 0.95))


def test_an_empty_region_has_no_hausdorff_distance_and_no_surface_in_common() -> None:
    full, empty = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert np.isnan(hd95(full, empty))
    assert np.isnan(hd95(empty, full))
    assert surface_dice(full, empty, 99.0) == 0.0
    assert np.isnan(surface_dice(empty, empty, 1.0))


def volume(seed: int) -> np.ndarray:
    return blob((6, 30, 24), seed).astype(np.uint8) + 2 * blob((6, 30, 24), seed + 7)


def test_a_volume_with_full_spacing_is_measured_in_3d() -> None:
    truth, prediction = np.minimum(volume(0), 2), np.minimum(volume(1), 2)
    spacing = (4.0, 1.1, 0.9)
    scores = score_surfaces(list(truth), list(prediction), 3, 2.0, spacing)
    assert (scores.unit, scores.dimensions) == ("mm", 3)
    for k in (1, 2):
        assert scores.hd95[k - 1] == hd95(prediction == k, truth == k, spacing)
        assert scores.nsd[k - 1] == surface_dice(prediction == k, truth == k, 2.0, spacing)


@pytest.mark.parametrize(
    ("spacing", "contiguous", "unit"),
    [
        ((None, 1.1, 0.9), True, "mm"),
        ((float("nan"), 1.1, 0.9), True, "mm"),
        ((4.0, 1.1, 0.9), False, "mm"),
        ((4.0, None, 0.9), True, "px"),
        (None, True, "px"),
    ],
)
def test_without_slice_spacing_or_with_gaps_slices_are_measured_one_by_one(
    spacing: tuple[float | None, float | None, float | None] | None, contiguous: bool, unit: str
) -> None:
    truth, prediction = volume(0) > 0, volume(1) > 0
    scores = score_surfaces(
        list(truth.astype(int)), list(prediction.astype(int)), 2, 2.0, spacing, contiguous
    )
    in_plane = (1.1, 0.9) if unit == "mm" else None
    each = [hd95(p, t, in_plane) for p, t in zip(prediction, truth, strict=True)]
    assert (scores.unit, scores.dimensions) == (unit, 2)
    assert scores.hd95[0] == pytest.approx(np.nanmean(each))


def test_slices_of_different_sizes_are_measured_one_by_one() -> None:
    truth = [np.ones((5, 5), int), np.ones((7, 3), int)]
    scores = score_surfaces(truth, truth, 2, 1.0, (3.0, 1.0, 1.0))
    assert scores.dimensions == 2
    assert scores.hd95.tolist() == [0.0]
    assert scores.nsd.tolist() == [1.0]


def test_a_missed_and_an_invented_slice_lower_surface_dice_and_are_counted() -> None:
    region = np.ones((4, 4), int)
    empty = np.zeros((4, 4), int)
    scores = score_surfaces([region, region, empty], [region, empty, region], 2, 1.0)
    # 12 surface pixels in each region: 24 of 48 lie on their counterpart.
    assert scores.nsd.tolist() == [0.5]
    assert scores.hd95.tolist() == [0.0]
    assert scores.unmatched.tolist() == [2]


def test_a_class_the_truth_does_not_hold_has_no_surface_score() -> None:
    empty, region = np.zeros((4, 4), int), np.ones((4, 4), int)
    invented = score_surfaces([empty], [region], 2, 1.0)
    missed = score_surfaces([region], [empty], 2, 1.0)
    absent = score_surfaces([empty], [empty], 2, 1.0)
    assert np.isnan([invented.nsd[0], invented.hd95[0], missed.hd95[0], absent.nsd[0]]).all()
    assert missed.nsd.tolist() == [0.0]
    assert [s.unmatched[0] for s in (invented, missed, absent)] == [1, 1, 0]
