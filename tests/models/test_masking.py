import shutil

import pytest
import torch

from vismae.core.errors import SettingError
from vismae.models.masking import (
    STRATEGIES,
    foreground_units,
    keys_from_generator,
    noise,
    sample_hidden,
    unit_grid,
)

CPU = torch.device("cpu")


def units_of(hidden: torch.Tensor, grid: tuple[int, int], unit: int) -> torch.Tensor:
    """One value per unit, after checking that no unit is hidden in part."""
    whole = hidden.view(-1, *grid)
    units = whole[:, ::unit, ::unit]
    again = units.repeat_interleave(unit, 1).repeat_interleave(unit, 2)
    assert torch.equal(again[:, : grid[0], : grid[1]], whole)
    return units.flatten(1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("grid", [(56, 56), (28, 20), (13, 21), (4, 11)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.95])
def test_ratio_is_exact_in_every_sample(strategy: str, grid: tuple[int, int], ratio: float):
    rows, columns = unit_grid(grid, 2)
    foreground = torch.rand(16, rows * columns) < torch.rand(16, 1)
    hidden = sample_hidden(torch.arange(16), grid, 2, ratio, strategy, foreground)
    assert hidden.shape == (16, grid[0] * grid[1])
    counts = units_of(hidden, grid, 2).sum(1)
    assert (counts == round(ratio * rows * columns)).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hidden_patches_depend_on_the_key_alone(strategy: str):
    keys = keys_from_generator(6, torch.Generator().manual_seed(1), CPU)
    foreground = (torch.arange(49) % 3 == 0).expand(6, 49)
    together = sample_hidden(keys, (28, 28), 4, 0.75, strategy, foreground)
    for i in range(6):
        alone = sample_hidden(keys[i : i + 1], (28, 28), 4, 0.75, strategy, foreground[:1])
        assert torch.equal(alone[0], together[i])
    assert len({tuple(row.tolist()) for row in together}) == 6


def test_keys_follow_the_generator():
    draws = [keys_from_generator(5, torch.Generator().manual_seed(s), CPU) for s in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_noise_is_that_of_splitmix64():
    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    assert mix(0) == 0xE220A8397B1DCDAF  # first output of the published generator, seed 0
    keys, counters = [0, 1, -5, 2**63 - 1], [0, 1, 77]
    found = noise(torch.tensor(keys), torch.tensor(counters))
    for i, key in enumerate(keys):
        for j, counter in enumerate(counters):
            expected = mix((mix(key % 2**64) + counter * 0x9E3779B97F4A7C15) % 2**64) >> 2
            assert found[i, j] == expected


def test_noise_is_uniform_and_neighbours_are_unrelated():
    x = noise(torch.arange(2000), torch.arange(100)).double() / 2**62
    assert x.mean() == pytest.approx(0.5, abs=0.005)
    assert x.var() == pytest.approx(1 / 12, abs=0.001)
    assert x.T.corrcoef().fill_diagonal_(0).abs().max() < 0.12  # 5 sigma of chance is 0.11
    assert torch.corrcoef(torch.stack((x[1:].flatten(), x[:-1].flatten())))[0, 1].abs() < 0.01


def test_every_place_is_hidden_equally_often():
    for strategy, tolerance in (("random", 0.05), ("block", 0.12)):
        hidden = sample_hidden(torch.arange(4000), (10, 14), 1, 0.5, strategy)
        assert (hidden.float().mean(0) - 0.5).abs().max() < tolerance


def test_blocks_are_larger_pieces_than_random_units():
    def borders(strategy: str) -> float:
        hidden = sample_hidden(torch.arange(64), (14, 14), 1, 0.5, strategy).view(-1, 14, 14)
        return (hidden[:, 1:] != hidden[:, :-1]).float().mean().item()

    assert borders("random") == pytest.approx(0.5, abs=0.03)
    assert borders("block") < 0.3


def test_foreground_and_background_are_hidden_at_the_same_ratio():
    foreground = torch.rand(300, 49) < torch.rand(300, 1)
    foreground[0], foreground[1] = True, False
    hidden = sample_hidden(torch.arange(300), (7, 7), 1, 0.6, "foreground", foreground)
    assert (hidden.sum(1) == round(0.6 * 49)).all()
    difference = (hidden & foreground).sum(1) - 0.6 * foreground.sum(1)
    assert difference.abs().max() <= 0.5 + 1e-5


def test_foreground_is_the_bright_part_and_blank_images_have_none():
    images = torch.full((2, 1, 40, 50), -1.1)
    images[0, :, :16, 16:32] = 1.0
    units = foreground_units(images, 16)
    assert units.shape == (2, 12)
    assert units[0].nonzero().flatten().tolist() == [1]
    assert not units[1].any()
    # The scale does not matter, only brightness relative to the image.
    assert torch.equal(foreground_units(images * 7 + 3, 16), units)


def test_wrong_settings_are_named():
    keys = torch.arange(2)
    with pytest.raises(SettingError, match=r"Did you mean block.*random, block, foreground"):
        sample_hidden(keys, (8, 8), 2, 0.5, "blok")
    with pytest.raises(SettingError, match="given no foreground"):
        sample_hidden(keys, (8, 8), 2, 0.5, "foreground")
    with pytest.raises(SettingError, match="hides none"):
        sample_hidden(keys, (2, 2), 2, 0.4)
    with pytest.raises(SettingError, match=r"4 mask units hides all.* lower ratio"):
        sample_hidden(keys, (4, 4), 2, 0.9)
    with pytest.raises(SettingError, match="between 0 and 1"):
        sample_hidden(keys, (8, 8), 2, 1.0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_draw_is_the_plain_one():
    # 196 units are no whole number of vector registers; as one C++ loop this wrote beyond its end.
    def draw(keys: torch.Tensor) -> torch.Tensor:
        return sample_hidden(keys, (56, 56), 4, 0.75)

    compiled = torch.compile(draw, fullgraph=True, dynamic=False)
    for first in range(100):
        keys = torch.arange(first, first + 8)
        assert torch.equal(compiled(keys), draw(keys))
