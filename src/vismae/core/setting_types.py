"""Types of single settings: what a value may be, and what a short way of writing it stands for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from vismae.core.preprocessing import sequence_names
from vismae.core.types import Modality

Device = Literal["auto", "cpu", "cuda", "mps"]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
SizeName = Literal["nano", "micro", "vismae", "tiny", "small", "base"]
Keepable = Literal["burned-in", "secondary-capture", "localizer"]
Pixels = Annotated[int, Field(ge=1)]
MomentDecay = Annotated[float, Field(ge=0.0, lt=1.0)]


def _as_pair(value: object) -> object:
    """Let one number stand for a square."""
    return (value, value) if isinstance(value, int) else value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError(f"found {value[0]:g} to {value[1]:g}; the second must be the larger one")
    return value


def _positive_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < value[0] <= value[1]:
        raise ValueError(f"found {value[0]:g} to {value[1]:g}; both above 0, the smaller one first")
    return value


def _seed_for_all(value: int) -> int:
    """Refuse what scikit-learn takes for no seed; numpy and torch take more."""
    if value >= 2**32:
        raise ValueError(f"found {value}; use a number below {2**32}")
    return value


def _off_as_word(value: object) -> object:
    """Take off, which YAML reads as a truth value, for the word that it is."""
    return "off" if value is False else value


AutoOrOff = Annotated[Literal["auto", "off"], BeforeValidator(_off_as_word)]
Seed = Annotated[int, AfterValidator(_seed_for_all)]
Size2D = Annotated[tuple[Pixels, Pixels], BeforeValidator(_as_pair)]
Window = Annotated[tuple[float, float], AfterValidator(_rising)]
PositiveRange = Annotated[tuple[float, float], AfterValidator(_positive_range)]


def _as_tuple(value: object) -> object:
    """Let one path or word, or a comma-separated text, stand for a list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if isinstance(value, Path) else value


def _as_modalities(value: object) -> object:
    """Understand the synonyms of modalities; an unknown word stays, to be refused by name."""
    parts = _as_tuple(value)
    if not isinstance(parts, (tuple, list)):
        return parts
    return tuple(_as_modality(part) for part in cast("Sequence[object]", parts))


def _as_modality(value: object) -> object:
    known = Modality.parse(value) if isinstance(value, str) else Modality.OTHER
    return value if known is Modality.OTHER else known


def _none_is_scratch(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "none" else value


InitPath = Annotated[Path | None, BeforeValidator(_none_is_scratch)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]
Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Sequences = Annotated[tuple[str, ...], AfterValidator(sequence_names), BeforeValidator(_as_tuple)]
Modalities = Annotated[tuple[Modality, ...], BeforeValidator(_as_modalities)]
