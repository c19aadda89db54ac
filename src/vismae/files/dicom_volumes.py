"""Which frames of a series form one volume: one echo, phase, b-value or acquisition of each place.

Scanners put several measurements of the same places into one series. What tells them apart differs
from maker to maker (PS3.3 C.7.6.16.2.2 and C.7.6.17 for enhanced objects, C.8.3.1 for MR), so each
element is tried, and counts where it divides the series into stacks that lie on one another.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vismae.files.dicom_geometry import SAME_POSITION_MM, FramePlane

# Two stacks whose slices are off by this share of their distance were meant to lie on one another;
# slices of interleaved packages are half of it apart.
_NEAR_FRACTION = 0.3
# A gantry tilted by 30 degrees shifts slices along themselves by 0.6 of their distance. Those of
# one stack never lie further off than this, and another few millimetres for movement.
_STACK_TANGENT = 2.0
_STACK_SHIFT_MM = 10.0


def order_volumes(
    planes: Sequence[FramePlane], orders: Sequence[Any], kinds: Sequence[Sequence[Any]]
) -> list[list[int]]:
    """Divide parallel frames into volumes, each sorted along the normal.

    A position that occurs again belongs to another volume: another time, echo or diffusion
    weight. An element of ``kinds`` divides frames where its values stand for stacks at the same or
    nearly the same positions: somewhere each of them has a frame. What no element tells apart is
    divided by order: the first frame at each position, the second, and so on, or, where frames of
    stacks that follow one another are missing, at each repetition. Frames that all share one
    position are a sequence in time, and stay together; so do frames without a known
    position. Stacks beside one another, as the stations of a spine, are divided before that.

    Args:
        planes: All ``parallel_to`` one another.
        orders: Anything sortable, one per frame: the order of acquisition.
        kinds: For each frame the elements that may tell volumes apart, in the order in which they
            are tried.

    Returns:
        Indices into ``planes``, one list for each volume.
    """
    by_order = sorted(range(len(planes)), key=lambda index: orders[index])
    if not planes[0].located:
        return [by_order]
    heights = [plane.height_mm for plane in planes]
    stacks = _beside_one_another(by_order, heights, planes)
    return [volume for stack in stacks for volume in _volumes(stack, heights, kinds)]


def _beside_one_another(
    frames: list[int], heights: Sequence[float], planes: Sequence[FramePlane]
) -> list[list[int]]:
    """Divide frames into stacks whose slices lie behind one another; each keeps their order."""
    tops: list[int] = []  # of each stack the frame that was found last
    stack_of: dict[int, int] = {}

    def follows(frame: int, top: int) -> bool:
        shift_mm = float(np.linalg.norm(planes[frame].beside - planes[top].beside))
        return shift_mm <= _STACK_TANGENT * (heights[frame] - heights[top]) + _STACK_SHIFT_MM

    for frame in sorted(frames, key=heights.__getitem__):
        number = next((n for n, top in enumerate(tops) if follows(frame, top)), len(tops))
        tops[number:] = [frame, *tops[number + 1 :]]
        stack_of[frame] = number
    stacks: dict[int, list[int]] = {}
    for frame in frames:
        stacks.setdefault(stack_of[frame], []).append(frame)
    return list(stacks.values())


def _volumes(
    by_order: list[int], heights: Sequence[float], kinds: Sequence[Sequence[Any]]
) -> list[list[int]]:
    """Divide the frames of one stack, given in their order, into volumes."""
    if len(_places(by_order, heights, SAME_POSITION_MM)) == 1:
        return [by_order]
    rank = {index: place for place, index in enumerate(by_order)}
    volumes: list[list[int]] = []
    for group in sorted(_divide(by_order, heights, kinds), key=lambda group: rank[group[0]]):
        found = _places(group, heights, SAME_POSITION_MM)
        if len(found) == 1:
            volumes.append(group)
            continue
        places = [sorted(place, key=rank.__getitem__) for place in found]
        volumes.extend(_one_after_another(group, places) or _by_turns(places))
    return volumes


def _by_turns(places: list[list[int]]) -> list[list[int]]:
    """Return the first frame of each place, the second, and so on."""
    deepest = max(map(len, places))
    return [[place[k] for place in places if len(place) > k] for k in range(deepest)]


def _one_after_another(group: list[int], places: list[list[int]]) -> list[list[int]] | None:
    """Return stacks that follow one another and of which frames are missing.

    There the first frame at a place may belong to the second measurement. A stack ends where the
    order turns back, or, of a table that goes to and fro, where it turns round.

    Returns:
        None where the frames are not that: no frame is missing, few places occur again (a slice was
        taken twice), or there are not as many such stacks as frames at a place.
    """
    deepest = max(map(len, places))
    full = sum(len(place) == deepest for place in places)
    if full == len(places) or 2 * full < len(places):
        return None
    place_of = {frame: number for number, place in enumerate(places) for frame in place}
    steps = [place_of[after] - place_of[before] for before, after in pairwise(group)]
    way = 1 if 2 * sum(step > 0 for step in steps) >= len(steps) else -1
    for one_way in (way, None):
        stacks, going = [[group[0]]], one_way
        for step, frame in zip(steps, group[1:], strict=True):
            if step * (going or step) <= 0:
                stacks.append([])
                going = one_way
            else:
                going = going or step
            stacks[-1].append(frame)
        if len(stacks) == deepest:
            return [sorted(stack, key=place_of.__getitem__) for stack in stacks]
    return None


def _divide(
    frames: list[int], heights: Sequence[float], kinds: Sequence[Sequence[Any]]
) -> list[list[int]]:
    """Divide frames by one element after the other; each part keeps their order."""
    groups = [frames]
    for element in range(max(map(len, kinds))):
        divided: list[list[int]] = []
        for group in groups:
            parts: dict[Any, list[int]] = {}
            for frame in group:
                value = kinds[frame][element] if element < len(kinds[frame]) else None
                parts.setdefault(value, []).append(frame)
            lie_so = _lie_on_one_another(list(parts.values()), heights)
            divided.extend(parts.values() if lie_so else [group])
        groups = divided
    return groups


def _lie_on_one_another(parts: list[list[int]], heights: Sequence[float]) -> bool:
    """Whether some place holds as many frames as all parts together have at one position.

    A number that counts slices, table stops or packages does not do so: its values lie beside one
    another.
    """
    if len(parts) < 2:
        return False
    own = [_places(part, heights, SAME_POSITION_MM) for part in parts]
    gaps = [gap for places in own for gap in np.diff([heights[place[0]] for place in places])]
    near = max(SAME_POSITION_MM, _NEAR_FRACTION * min(gaps, default=0.0))
    frames = [frame for part in parts for frame in part]
    together = _places(frames, heights, near)
    if max(map(len, together)) < sum(max(map(len, places)) for places in own):
        return False
    repeats = len(_places(frames, heights, SAME_POSITION_MM)) < len(frames)
    accompanied = sum(len(place) for place in together if len(place) > 1)
    # Two acquisitions that meet at one slice, a little off, are one stack all the same.
    return repeats or 2 * accompanied >= len(frames)


def _places(frames: list[int], heights: Sequence[float], within_mm: float) -> list[list[int]]:
    """Return frames by position along the normal, rising."""
    places: list[list[int]] = []
    start = -np.inf
    for frame in sorted(frames, key=heights.__getitem__):
        if heights[frame] - start > within_mm:
            places.append([])
            start = heights[frame]
        places[-1].append(frame)
    return places
