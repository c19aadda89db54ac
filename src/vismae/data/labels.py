"""From what annotators wrote to class indices: values in label maps, and words in tables.

Label maps in the wild hold 0/1/2, 0/255, or values with gaps. They are stored raw; here they
become 0 (background) and 1..K in the order of their values. A value or word that the task does not
know is an error that names it, never class 0 in silence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vismae.core.errors import DataError

LABEL_SEPARATOR = "|"
MOST_LABEL_VALUES = 255
BACKGROUND = "background"
RESERVED_NAMES = ("mean", "all")
"""What scores call the mean over classes and all classes at once."""
NOT_ANNOTATED = "ignore"
"""Name that nnU-Net gives to the value of pixels that nobody annotated."""
_MISSING_WORDS = ("nan", "na", "n/a", "<na>", "null", "none", "?")


def label_mapping(values: Iterable[int]) -> dict[int, int]:
    """Return raw value -> class index for the values found in a data set's label maps.

    0 is background and maps to 0, whether it occurs or not; the others become 1..K in order, so
    {0, 255} gives {0: 0, 255: 1} and {1, 2, 5} gives {0: 0, 1: 1, 2: 2, 5: 3}.

    Raises:
        DataError: More than 255 different values (a photograph or soft edges, no label map), or
            negative ones.
    """
    found = sorted({int(value) for value in values} | {0})
    if found[0] < 0:
        raise DataError(
            f"Label maps hold the negative value {found[0]}. Class values must be 0 (background) "
            "or larger; map them with task.label_values."
        )
    if len(found) > MOST_LABEL_VALUES:
        raise DataError(
            f"Label maps hold {len(found)} different values ({_some(found)}); at most "
            f"{MOST_LABEL_VALUES} are understood as classes. Are these label maps, and were they "
            "saved without JPEG compression or smoothing? Otherwise map them with "
            "task.label_values."
        )
    return {value: index for index, value in enumerate(found)}


def apply_mapping(
    label_map: np.ndarray, mapping: Mapping[int, int], where: str = "a label map"
) -> np.ndarray:
    """Return the label map with class indices in place of raw values.

    Args:
        label_map: Raw integer values, any shape.
        mapping: Raw value -> class index.
        where: Named in the message.

    Returns:
        int64, same shape.

    Raises:
        DataError: A value is not in the mapping; names the values and what to do.
    """
    table = np.full(max([*mapping, 0]) + 1, -1, dtype=np.int64)
    for value, index in mapping.items():
        table[value] = index
    values = label_map.astype(np.int64)
    known = (values >= 0) & (values < len(table))
    result = np.where(known, table[np.where(known, values, 0)], -1)
    if (result < 0).any():
        unknown = sorted(int(value) for value in np.unique(values[result < 0]))
        count = len(set(mapping.values()))
        raise DataError(
            f"{where} holds the value{'s' if len(unknown) > 1 else ''} {_some(unknown)}, but the "
            f"task has {count} classes with the values {_some(sorted(mapping))}. Add a class to "
            "task.classes, or map the value with task.label_values."
        )
    return result


def join_class_names(tables: Iterable[Mapping[int, str]]) -> dict[int, str]:
    """Return value -> name of several tables; later ones win, but ``NOT_ANNOTATED`` stays."""
    joined: dict[int, str] = {}
    for names in tables:
        unknown = {value for value, name in joined.items() if name == NOT_ANNOTATED}
        joined |= {value: name for value, name in names.items() if value not in unknown}
    return joined


def refuse_not_annotated(
    names: Mapping[int, str],
    where: str,
    values: Iterable[int] | None = None,
    mapping: Mapping[int, int] | None = None,
) -> None:
    """Raise if a value of the label maps marks pixels that nobody annotated.

    Losses could leave these out, but surface distances and volumes are not defined beside pixels
    of which nobody knows what they are.

    Args:
        names: Value -> name.
        where: What names them so, for the message.
        values: That occur; all of ``names`` when unset.
        mapping: Value -> class index as the user gave it; 0 says that they may be background.

    Raises:
        DataError: A value is called ``NOT_ANNOTATED``; says what to do.
    """
    occurring = names.keys() if values is None else values
    found = [
        value
        for value in sorted(occurring)
        if names.get(value) == NOT_ANNOTATED and (mapping or {}).get(value) != 0
    ]
    if found:
        cure = (
            "set them to 0 in the label maps and take the name out of dataset.json"
            if values is None
            else f"say so with task.label_values ({found[0]}: 0)"
        )
        raise DataError(
            f"{where}: the value {_some(found)} of the label maps is called '{NOT_ANNOTATED}', "
            "pixels that nobody annotated. It is no class, and label maps that are annotated in "
            "part are not understood. Annotate these pixels; or, if they may be background, "
            f"{cure}."
        )


def names_by_class(names: Mapping[int, str], mapping: Mapping[int, int]) -> dict[int, str]:
    """Return class index -> name, for classes of which the data say one name.

    Args:
        names: Value in the label maps -> name.
        mapping: Value -> class index.
    """
    found: dict[int, set[str]] = {}
    for value, index in mapping.items():
        if index > 0:
            found.setdefault(index, set()).add(names.get(value, ""))
    single = {index: next(iter(words)) for index, words in found.items() if len(words) == 1}
    counts = Counter(single.values())
    return {
        index: name
        for index, name in single.items()
        if name not in ("", BACKGROUND, *RESERVED_NAMES) and counts[name] == 1
    }


def segmentation_class_names(
    count: int, given: Sequence[str] = (), found: Mapping[int, str] | None = None
) -> tuple[str, ...]:
    """Return the names of ``count`` classes, background included and first.

    Args:
        count: Number of classes with background.
        given: Names without background in the order of their values.
        found: Class index -> name, as the data say; used where none are given. A class without
            one is 'class 1', 'class 2' ...

    Raises:
        DataError: The number of names differs from the number of classes, or a name is given
            twice, is that of the background or reserved for scores.
    """
    if not given:
        known = found or {}
        names = tuple(known.get(index, f"class {index}") for index in range(1, count))
        refuse_class_names(names, "Name the classes with task.classes", (BACKGROUND,))
        return (BACKGROUND, *names)
    if len(given) != count - 1:
        raise DataError(
            f"task.classes names {len(given)} classes ({', '.join(given)}), but the label maps "
            f"hold {count - 1} beside background. Name each of them, background left out."
        )
    cure = "Change it in task.classes, which has one name for each class but the background"
    refuse_class_names(given, cure, (BACKGROUND,))
    return (BACKGROUND, *given)


def refuse_class_names(names: Sequence[str], cure: str, taken: Sequence[str] = ()) -> None:
    """Raise if scores could not be told apart by these names of classes.

    Evaluation refuses such a model, so it is not to be trained.

    Args:
        names: Of the classes.
        cure: What to do, for the message.
        taken: Names that another class has already.

    Raises:
        DataError: A name occurs twice, is taken, or means a mean or all classes in scores.
    """
    for name in names:
        problem = None
        if name in RESERVED_NAMES:
            problem = f"'{name}' is what scores over several classes are called"
        elif name in taken:
            problem = f"'{name}' is class 0, which is not to be named"
        elif names.count(name) > 1:
            problem = f"'{name}' is there twice, but each class needs a name of its own"
        if problem is not None:
            raise DataError(f"Classes {', '.join(names)}: {problem}. {cure}.")


def classes_from_labels(labels: Iterable[object], multi_label: bool = False) -> tuple[str, ...]:
    """Return the class names found in a label column: numbers by size, words by alphabet.

    Args:
        labels: One text per image; None or NaN where there is none.
        multi_label: Texts are several names joined by ``|``.

    Raises:
        DataError: No label at all, or ``|`` in a label without ``multi_label``.
    """
    names = {name for label in labels for name in label_names(label, multi_label)}
    if not names:
        raise DataError(
            "No image has a label. Give a manifest with a column label, or a folder with one "
            "sub-folder per class."
        )
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def doubtful_classes(names: Iterable[str]) -> list[str]:
    """Return a sentence on each class that may be none: a second spelling, or a missing label.

    Args:
        names: Of the classes, as the data write them.
    """
    spellings: dict[str, list[str]] = {}
    said: list[str] = []
    for name in names:
        spellings.setdefault(_spelled_alike(name), []).append(name)
        if name.lower() in _MISSING_WORDS:
            said.append(
                f"'{name}' is taken for a class. If it says that the label is missing, leave these "
                "cells of column label empty."
            )
    for several in spellings.values():
        if len(several) > 1:
            named = ", ".join(f"'{name}'" for name in several)
            said.append(
                f"{named} are different classes, but differ only in capitals, blanks or how a "
                "number is written. If they are one, write them alike in column label."
            )
    return said


def _spelled_alike(name: str) -> str:
    """Return what different spellings of a name share: ``Grade  1`` and ``grade 1``, 1 and 1.0."""
    try:
        return str(float(name))
    except ValueError:
        return " ".join(name.lower().split())


def encode_labels(
    labels: Iterable[object], classes: Sequence[str], multi_label: bool = False
) -> np.ndarray:
    """Return class indices (N,) int64, or with ``multi_label`` 0/1 per class (N, K) float32.

    An empty label means "none of the classes" with ``multi_label``, and is an error without.

    Raises:
        DataError: A label is not among the classes, or missing; names it.
    """
    index_of = {name: index for index, name in enumerate(classes)}
    rows = [label_names(label, multi_label) for label in labels]
    unknown = sorted({name for row in rows for name in row if name not in index_of})
    if unknown:
        raise DataError(
            f"Not among the classes ({', '.join(classes)}): label {_some(unknown)}. Add it to "
            "task.classes, or correct the column label."
        )
    if multi_label:
        encoded = np.zeros((len(rows), len(classes)), dtype=np.float32)
        for position, row in enumerate(rows):
            encoded[position, [index_of[name] for name in row]] = 1.0
        return encoded
    missing = sum(not row for row in rows)
    if missing:
        raise DataError(
            f"{missing} of {len(rows)} images have no label. Fill the column label, or leave "
            "these rows out."
        )
    return np.array([index_of[row[0]] for row in rows], dtype=np.int64)


def label_names(label: object, multi_label: bool = False) -> tuple[str, ...]:
    """Return the class names in one label cell; none for an empty cell (None, NaN, '').

    Raises:
        DataError: ``|`` in a label without ``multi_label``.
    """
    if not isinstance(label, str):
        return ()
    if not multi_label and LABEL_SEPARATOR in label:
        raise DataError(
            f"The label '{label}' names several classes, but the task takes one per image. Set "
            "task.multi_label to true, or correct the column label."
        )
    parts = label.split(LABEL_SEPARATOR) if multi_label else [label]
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _some(values: Sequence[object], most: int = 8) -> str:
    """Write up to ``most`` values, and how many more there are."""
    text = ", ".join(str(value) for value in values[:most])
    return text if len(values) <= most else f"{text} and {len(values) - most} more"
