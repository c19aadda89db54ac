"""How often a study's intervals held the truth in simulations, to be said beside the numbers.

A 95 % interval should hold the truth in 95 % of studies. That of a mean Dice or of a paired
difference does (93 to 98 % from 10 patients on, with two runs as with ten). That of a balanced
accuracy does not where cases of a class are few and nearly all right (64 % with 10 a class and one
run). Those that come from a label curve fall short with a single run, which says nothing of other
draws of labelled patients. Measured by ``benchmarks/statistics_coverage.py``, 2,000 simulated
studies each, of label curves 500; it prints the shares anew.
"""

from collections.abc import Mapping


def _share(area: float, inside: float, relative: float, beyond: float) -> dict[str, float]:
    return {
        "area": area,
        "labels for a score within those there are": inside,
        "labels for the baseline's result": relative,
        "forecast beyond": beyond,
    }


_SHARES: Mapping[tuple[int, int], Mapping[str, float]] = {
    (1, 10): _share(0.868, 0.894, 0.878, 0.886),
    (1, 30): _share(0.734, 0.854, 0.812, 0.846),
    (3, 10): _share(0.962, 0.920, 0.942, 0.934),
    (3, 30): _share(0.958, 0.928, 0.952, 0.948),
    (5, 10): _share(0.966, 0.930, 0.964, 0.924),
    (5, 30): _share(0.972, 0.956, 0.960, 0.960),
}
"""(Runs, test patients) -> share of intervals that held the truth."""


def coverage_note(runs: int, patients: int) -> str:
    """Say how often such intervals held the truth in the simulations nearest to a study's size.

    Args:
        runs: Runs of each cell.
        patients: Test patients.
    """
    size = min(_SHARES, key=lambda known: (abs(known[0] - runs), abs(known[1] - patients)))
    repeated = "1 run" if size[0] == 1 else f"{size[0]} runs"
    shares = "; ".join(f"{what} {100 * share:.0f} %" for what, share in _SHARES[size].items())
    return (
        f"In simulated studies of {repeated} and {size[1]} test patients, the nearest measured to "
        f"this one, such 95 % intervals held the truth as often as this: {shares}."
    )
