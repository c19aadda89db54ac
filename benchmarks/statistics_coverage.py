"""How often intervals hold the truth and tests cry wolf, on simulated studies.

    python benchmarks/statistics_coverage.py                # 2,000 draws, several minutes
    python benchmarks/statistics_coverage.py --draws 200    # a quick look

Scores of patients are normal, skewed as Dice is (beta, most near 0.9, a tail down), or skewed with
ties (rounded to 0.05). Paired differences are of two starts on the same patients. Prints one table:
coverage of 95 % intervals, wanted 93 to 97 % from 30 patients on, and the share of false alarms of
tests at 5 %. "Runs and patients" are differences in several runs on the same patients, with an
effect of the run as large as that of the patient, a fifth as large, or none. Labels needed come
from studies of six label counts with an error for each patient, run and label subset; their
coverage is reported as found (``vismae.evaluation.coverage`` holds it).
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy import stats

from vismae.evaluation.crossed_bootstrap import crossed_interval
from vismae.evaluation.delong import auroc_interval, compare_auroc
from vismae.evaluation.equivalence import equivalence
from vismae.evaluation.label_efficiency import area_difference, labels_needed, relative_labels
from vismae.evaluation.statistics import bootstrap_interval, paired_permutation

SIZES = (10, 20, 30, 60)
RESAMPLES = 1000
BETA = (6.0, 1.2)
LABELS = np.array([2, 4, 8, 20, 40, 80])
LAW = (0.88, 0.6, 0.6)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0.8, 0.1, shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.beta(*BETA, shape)


def tied(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.round(rng.beta(*BETA, shape) * 20) / 20


def pair(kind: Callable, rng: np.random.Generator, n: int) -> np.ndarray:
    """Return two starts of equal mean whose scores of a patient are alike."""
    patient, own = kind(rng, (n,)), kind(rng, (2, n))
    weighted = 0.5 * patient + 0.5 * own
    return np.round(weighted * 20) / 20 if kind is tied else weighted


def holds(interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def means_and_differences(kind: Callable, n: int, draws: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    truth = float(kind(rng, (4_000_000,)).mean())
    count: dict[str, float] = dict.fromkeys(
        (
            "mean",
            "difference",
            "permutation",
            "TOST at margin",
            "not inferior at margin",
        ),
        0.0,
    )
    margin = 0.03
    for draw in range(draws):
        scores = kind(rng, (n,))
        first, second = pair(kind, rng, n)
        for name, values, true in (("mean", scores, truth), ("difference", first - second, 0.0)):
            count[name] += holds(bootstrap_interval(values, n=RESAMPLES, seed=draw), true)
        count["permutation"] += paired_permutation(first, second, n=1000, seed=draw) <= 0.05
        at_margin = equivalence(first - margin, second, margin)
        count["TOST at margin"] += at_margin.equivalent
        count["not inferior at margin"] += at_margin.not_inferior
    return {name: found / draws for name, found in count.items()}


def areas_under_roc(n: int, draws: int, seed: int) -> dict[str, float]:
    """Half of the cases are positive; both classifiers have an AUROC of 0.85."""
    rng = np.random.default_rng(seed)
    apart = np.sqrt(2) * stats.norm.ppf(0.85)
    truth = np.arange(n) % 2 == 0
    count = {"AUROC": 0, "AUROC difference": 0, "DeLong": 0}
    for _ in range(draws):
        shared = rng.normal(size=n)
        first, second = truth * apart + np.sqrt(0.5) * (shared + rng.normal(size=(2, n)))
        count["AUROC"] += holds(auroc_interval(first, truth), 0.85)
        both = compare_auroc(first, second, truth)
        count["AUROC difference"] += holds(both.difference, 0.0)
        count["DeLong"] += bool(both.p_value <= 0.05)
    return {name: found / draws for name, found in count.items()}


def runs_and_patients(n: int, runs: int, share: float, draws: int, seed: int) -> float:
    """Return how often the interval of a difference over runs and patients holds the truth.

    Args:
        n: Patients.
        runs: Label subsets with their seeds.
        share: Spread of the runs, as a share of that of the patients.
        draws: Simulated studies.
        seed: Of the first.
    """
    rng = np.random.default_rng(seed)
    centre = BETA[0] / sum(BETA)
    held = 0
    for draw in range(draws):
        patient = rng.beta(*BETA, n) - rng.beta(*BETA, n)
        run = share * np.sqrt(2) * np.std(rng.beta(*BETA, 10_000) - centre) * rng.normal(size=runs)
        values = run[:, None] + patient + 0.05 * rng.normal(size=(runs, n))
        held += holds(crossed_interval(values, n=RESAMPLES, seed=draw), 0.0)
    return held / draws


def label_study(
    rng: np.random.Generator, patients: int, runs: int, worth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a reference and a start each of whose labels is worth several, as F × R × P."""
    a, b, c = LAW
    share = LABELS[:, None, None] ** -0.5
    # A test patient is hard or easy in every run; a label subset is good or bad at its count.
    patient = rng.normal(0, 0.08, patients)
    patient_by_start = rng.normal(0, 0.03, (2, 1, 1, patients))
    subset = rng.normal(0, 0.06, (2, len(LABELS), runs, 1)) * share
    rest = rng.normal(0, 0.03, (2, len(LABELS), runs, patients))
    means = np.stack([a - b * LABELS**-c, a - b * (worth * LABELS) ** -c])[:, :, None, None]
    reference, start = means + patient + patient_by_start + subset + rest
    return reference, start


def label_curves(patients: int, runs: int, draws: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    a, b, c = LAW
    worth = 2.5
    count: dict[str, float] = dict.fromkeys(
        ("area difference", "labels needed", "relative labels", "forecast", "not reached"), 0.0
    )
    place = np.log(LABELS)
    gain = b * LABELS**-c * (1 - worth**-c)
    true_area = np.trapezoid(gain, place) / (place[-1] - place[0])
    for draw in range(draws):
        reference, start = label_study(rng, patients, runs, worth)
        area = area_difference(LABELS, start, reference, n=500, seed=draw)
        # Reached with 20 labels, and with 160: twice as many as there are.
        inside = labels_needed(LABELS, reference, a - b * 20.0**-c, n=500, seed=draw)
        beyond = labels_needed(LABELS, reference, a - b * 160.0**-c, n=500, seed=draw)
        relative = relative_labels(LABELS, start, reference, n=500, seed=draw)
        count["area difference"] += holds(area, float(true_area))
        count["labels needed"] += holds(inside, 20.0)
        count["relative labels"] += holds(relative, LABELS[-1] / worth)
        count["forecast"] += holds(beyond, 160.0)
        count["not reached"] += np.isinf(beyond.high)
    return {name: found / draws for name, found in count.items()}


def show(title: str, n: str, shares: dict[str, float]) -> None:
    for name, share in shares.items():
        print(f"| {title} | {n} | {name} | {100 * share:.1f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of intervals, false alarms of tests.")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.process_time()
    print("| scores | patients | interval or test | holds, or false alarms |\n|---|---|---|---|")
    for kind in (normal, skewed, tied):
        for n in SIZES:
            found = means_and_differences(kind, n, options.draws, options.seed)
            show(kind.__name__, str(n), found)
    for n in SIZES:
        show("two classes", str(n), areas_under_roc(n, options.draws, options.seed))
    for share in (0.0, 0.2, 1.0):
        for runs in (1, 2, 3, 5, 10):
            if runs == 1 and share > 0:
                continue  # one run says nothing of others
            for n in SIZES:
                found = runs_and_patients(n, runs, share, options.draws, options.seed)
                what = {f"difference over {runs} runs that differ by {share:g} of patients": found}
                show("runs and patients", str(n), what)
    curves = max(options.draws // 4, 1)
    for runs in (1, 3, 5):
        for n in (10, 30):
            found = label_curves(n, runs, curves, options.seed)
            show(f"label curve, {runs} runs, {curves} draws", str(n), found)
    seconds = time.process_time() - start
    print(f"\n{options.draws} draws, {RESAMPLES} resamples, {seconds:.0f} s of CPU")


if __name__ == "__main__":
    main()
