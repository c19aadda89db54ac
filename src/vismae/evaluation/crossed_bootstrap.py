"""Resampling runs and patients at once, as two crossed factors.

A run is a label subset with its seed. Every run is scored on the same test patients, so one
patient's bad luck in five runs is one piece of evidence, not five (Owen 2007, arXiv 0712.1111).
One run and one patient fewer are drawn than there are: with as many, the variance of a mean over
n comes out too small by (n - 1)/n, which matters with three runs (Rao and Wu 1988, JASA 83:231).
"""

import numpy as np
from jaxtyping import Float, Integer

from vismae.core.errors import DataError
from vismae.evaluation.statistics import Interval


def crossed_interval(
    values: Float[np.ndarray, "runs patients"], n: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the mean over runs and patients with its percentile interval.

    Args:
        values: One for each run and patient, such as paired differences; NaN is left out.
        n: Resamples.
        level: Of the interval.
        seed: Of the resampling.

    Returns:
        Its n are the patients with a value. With one run the limits say nothing of other label
        subsets; with one patient they are NaN.

    Raises:
        DataError: There is no run or no patient.
    """
    draws = crossed_draws(values, n, seed)
    patients = int(np.isfinite(values).any(axis=0).sum())
    low = high = float("nan")
    if patients > 1:
        tail = (1 - level) / 2
        low, high = np.nanquantile(draws[1:], (tail, 1 - tail))
    return Interval(float(draws[0]), float(low), float(high), patients)


def crossed_draws(
    values: Float[np.ndarray, "*points runs patients"], n: int = 2000, seed: int = 0
) -> Float[np.ndarray, "draws *points"]:
    """Return the mean over runs and patients, on the data and on resamples.

    All points of a draw are of the same runs and patients, and the same seed gives the same draws
    for the same numbers of them: what is compared stays paired.

    Args:
        values: One for each point, run and patient; NaN is left out.
        n: Resamples.
        seed: Of the resampling.

    Returns:
        1 + n means of each point; row 0 is of the data themselves. NaN where a draw has no value.

    Raises:
        DataError: There is no run or no patient.
    """
    *points, runs, patients = values.shape
    if runs == 0 or patients == 0:
        raise DataError(
            f"Scores of {runs} runs and {patients} patients; at least one of each is needed."
        )
    generator = np.random.default_rng(seed)
    run_weight = _weights(runs, n, generator)
    patient_weight = _weights(patients, n, generator)
    flat = values.reshape(-1, runs, patients)
    draws = np.empty((n + 1, len(flat)))
    for place, point in enumerate(flat):
        defined = np.isfinite(point)
        total = ((run_weight @ np.where(defined, point, 0.0)) * patient_weight).sum(axis=1)
        count = ((run_weight @ defined.astype(float)) * patient_weight).sum(axis=1)
        draws[:, place] = np.divide(total, count, out=np.full(n + 1, np.nan), where=count > 0)
    return draws.reshape(n + 1, *points)


def _weights(
    size: int, n: int, generator: np.random.Generator
) -> Integer[np.ndarray, "draws size"]:
    """Return how often each is drawn; row 0 takes each once."""
    drawn = generator.multinomial(max(size - 1, 1), np.full(size, 1 / size), size=n)
    return np.vstack([np.ones((1, size), dtype=drawn.dtype), drawn])
