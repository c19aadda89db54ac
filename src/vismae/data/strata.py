"""Strata of patients, and draws from them in which rare combinations have the same chances as any.

Where patients have several labels most combinations occur once, so a stratum is often one patient.
Rounding each stratum by itself would send all of those the same way, and a part would hold common
combinations only. Here chance decides who is rounded up, and what one stratum gets too much its
neighbour gets less: strata that share their rarest labels are neighbours.

Chance is a hash of (seed, patient), the same on every machine.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

_HASH_BITS = 256
# Steps by the golden ratio spread any number of neighbours evenly over 0..1.
_GOLDEN = (5**0.5 - 1) / 2


def ranked_strata(strata: Mapping[str, tuple[str, ...]], seed: str) -> list[list[str]]:
    """Return the patients of each stratum in the order that chance gives, neighbours alike.

    Args:
        strata: Patient -> all of its names (labels, modalities).
        seed: Another seed is another order within strata; that of the strata stays.
    """
    members: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient in sorted(strata, key=lambda patient: hash_rank(seed, patient)):
        members[strata[patient]].append(patient)
    frequency = Counter(name for names in strata.values() for name in names)

    def rarest_first(names: tuple[str, ...]) -> list[tuple[int, str]]:
        return sorted((frequency[name], name) for name in names)

    return [members[names] for names in sorted(members, key=rarest_first)]


def spread_quota(groups: Sequence[Sequence[str]], quota: int, seed: str) -> list[int]:
    """Return how many of each group are drawn, ``quota`` together.

    Every patient has the same chance, and each group's number is its share rounded up or down:
    the pivotal method of Deville and Tillé (Biometrika 1998;85:89-101), groups taken in order.

    Args:
        groups: Patients of each group, none empty.
        quota: At most the number of all patients.
        seed: Another seed is another draw.
    """
    whole = sum(map(len, groups))
    counts = [len(group) * quota // whole for group in groups]
    # What is left of each share, in parts of ``whole`` so that no float is rounded.
    waiting, left = -1, 0
    for place, group in enumerate(groups):
        share = len(group) * quota % whole
        if not share or not left:
            waiting, left = (place, share) if share else (waiting, left)
            continue
        both = left + share
        chance = int(hash_rank(f"round {seed}", group[0]), 16)
        if both < whole:
            # One of the two takes over the chance of the other.
            goes_on = waiting if chance * both < left << _HASH_BITS else place
            left = both
        else:
            wins = chance * (2 * whole - both) < (whole - share) << _HASH_BITS
            up, goes_on = (waiting, place) if wins else (place, waiting)
            counts[up] += 1
            left = both - whole
        waiting = goes_on
    return counts


def interleave(groups: Sequence[Sequence[str]], seed: str) -> list[str]:
    """Return all patients in an order of which every beginning holds its share of every group.

    A group's places lie evenly between 0 and 1; where they begin is chance, so that a group of one
    may be anywhere.
    """
    if not groups:
        return []
    # Of all patients, so that other patients with the same labels begin elsewhere.
    lowest = min(hash_rank(f"begin {seed}", group[0]) for group in groups)
    begin = int(hashlib.sha256(lowest.encode()).hexdigest(), 16) / 2**_HASH_BITS
    place = {
        patient: (position + (begin + number * _GOLDEN) % 1.0) / len(group)
        for number, group in enumerate(groups)
        for position, patient in enumerate(group)
    }
    return sorted(place, key=lambda patient: (place[patient], hash_rank(seed, patient)))


def hash_rank(seed: str, patient: str) -> str:
    """Return 256 bits of chance, in hexadecimal digits, that belong to a seed and a patient."""
    return hashlib.sha256(f"{seed}\0{patient}".encode()).hexdigest()
