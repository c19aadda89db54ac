"""Cases of several sequences to predict: rows of a manifest, or files named in nnU-Net's way.

Each case is the input of its first sequence, whose geometry its results have, with the inputs of
the others beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vismae.core.errors import DataError
from vismae.data.manifest import (
    CASE_COLUMN,
    SEQUENCE_COLUMN,
    ManifestRow,
    ManifestTable,
)
from vismae.data.pairing_names import channel_of
from vismae.workflows.prediction.inputs import Failure, Input, find_inputs, result_name
from vismae.workflows.prediction.listed import add_listed, tables_among, unlisted


def find_cases(
    sources: Sequence[Path], sequences: Sequence[str], out: Path | None = None
) -> tuple[list[Input], list[Failure]]:
    """Return an input for each case that has all sequences, and why the others are none.

    Args:
        sources: Manifests with a column ``sequence``, and files or folders in which
            ``case_0000.nii.gz`` is the first sequence of a case, ``case_0001.nii.gz`` the second.
        sequences: Names, in the order of the channels.
        out: Folder of the results, in which nothing is looked for.

    Raises:
        UnreadableFileError: A source does not exist.
    """
    inputs: list[Input] = []
    failures: list[Failure] = []
    tables, plain = tables_among(sources)
    for path in tables:
        try:
            rows = list(ManifestTable(path, (SEQUENCE_COLUMN,)))
        except DataError as error:
            failures.append(Failure(str(path), error.code, str(error)))
            continue
        _add_listed_cases(rows, sequences, out, inputs, failures)
    found, more = find_inputs(plain, out)
    failures += more
    _add_numbered_cases(unlisted(found, inputs), sequences, inputs, failures)
    return list({item.identity: item for item in inputs}.values()), failures


def _add_listed_cases(
    rows: Iterable[ManifestRow],
    sequences: Sequence[str],
    out: Path | None,
    inputs: list[Input],
    failures: list[Failure],
) -> None:
    wanted = {name.casefold(): name for name in sequences}
    cases: dict[tuple[str, str], list[ManifestRow]] = {}
    for row in rows:
        # Without any id a row is a case by itself, and found to lack the other sequences.
        case = (row.patient_id or row.name, row.extra[CASE_COLUMN])
        cases.setdefault(case, []).append(row)
    for (group, case), members in cases.items():
        # A case may be called by its group.
        name = PurePosixPath(group, case if case != group else "")
        of_each: dict[str, list[ManifestRow]] = {}
        for row in members:
            word = wanted.get(row.extra[SEQUENCE_COLUMN].casefold())
            if word is not None:
                of_each.setdefault(word, []).append(row)
        parts: dict[str, list[Input]] = {}
        broken: list[Failure] = []
        for word, own in of_each.items():
            add_listed(own, out, parts.setdefault(word, []), broken)
        if broken:
            failures += broken
            continue
        told = "Rows of one case share patient_id or group_id, and case_id where there are several."
        source = members[0].image.text
        _add_case(source, name, parts, sequences, told, inputs, failures)


def _add_numbered_cases(
    found: Iterable[Input],
    sequences: Sequence[str],
    inputs: list[Input],
    failures: list[Failure],
) -> None:
    names = ", ".join(f"case_{n:04d}.nii.gz is {word}" for n, word in enumerate(sequences))
    told = f"Of a case {names}."
    cases: dict[tuple[Path, str], dict[str, list[Input]]] = {}
    for item in found:
        file = item.group.files[0]
        numbered = channel_of(item.wanted_name) if len(item.group.files) == 1 else None
        if numbered is None:
            message = (
                f"{item.source}: which sequence it is its name does not say, and the model sees "
                f"{', '.join(sequences)} together. {told} Or list it in a manifest with the column "
                f"{SEQUENCE_COLUMN}."
            )
            failures.append(Failure(item.source, DataError.code, message))
            continue
        case, number = numbered
        home = file.path if file.member is not None else file.path.parent
        word = sequences[number] if number < len(sequences) else f"number {number:04d}"
        parts = cases.setdefault((home.resolve(), case), {})
        parts.setdefault(word, []).append(item)
    for (_, case), parts in cases.items():
        source = next(iter(parts.values()))[0].source
        further = [word for word in parts if word not in sequences]
        if further:
            message = (
                f"{source}: case {case} also has {', '.join(further)}, but the model sees "
                f"{', '.join(sequences)}. {told} Leave the others out of the folder, or list the "
                f"files in a manifest with the column {SEQUENCE_COLUMN}."
            )
            failures.append(Failure(source, DataError.code, message))
            continue
        _add_case(source, PurePosixPath(case), parts, sequences, told, inputs, failures)


def _add_case(
    source: str,
    name: PurePosixPath,
    parts: dict[str, list[Input]],
    sequences: Sequence[str],
    told: str,
    inputs: list[Input],
    failures: list[Failure],
) -> None:
    """Add a case, or say which sequence it lacks or has several times."""
    lacking = [word for word in sequences if not parts.get(word)]
    several = [word for word in sequences if len(parts.get(word, ())) > 1]
    if lacking or several:
        what = f"lacks {', '.join(lacking)}" if lacking else f"has several of {several[0]}"
        message = f"{source}: its case {name} {what}. {told}"
        failures.append(Failure(source, DataError.code, message))
        return
    first, *others = (parts[word][0] for word in sequences)
    inputs.append(
        replace(first, wanted_name=result_name(name, "case"), beside=tuple(others), named=True)
    )
