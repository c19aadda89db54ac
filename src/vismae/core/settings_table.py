"""The page ``docs/settings.md``, made from the settings themselves so that it cannot be wrong."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vismae.core.config import (
    ConvertConfig,
    DemoConfig,
    EvaluateConfig,
    FinetuneConfig,
    IngestConfig,
    InspectConfig,
    PredictConfig,
    PretrainConfig,
    SelectConfig,
    StudyConfig,
    WebConfig,
)
from vismae.core.config_model import EmbedConfig, ExportConfig
from vismae.core.settings import section_of

COMMANDS: dict[str, type[BaseModel]] = {
    "ingest": IngestConfig,
    "inspect": InspectConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "embed": EmbedConfig,
    "web": WebConfig,
    "study": StudyConfig,
    "export": ExportConfig,
    "convert": ConvertConfig,
    "select": SelectConfig,
    "demo": DemoConfig,
}
"""The settings class of every command."""

_INTRODUCTION = """# Settings

Made by `make docs` from the code; do not edit. Every command takes its settings, in rising order
of weight, from the defaults below, a YAML file (`--config FILE`), `--set section.name=value`
(repeatable) and its own options (`vismae COMMAND --help`). In Python they are keywords:
`vismae.pretrain(store="store", out="runs/p", trainer={"max_steps": 5000})`. A run folder keeps
the complete settings in `config.yaml`, which `--config` reads back.
"""

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    Any: "value",
}


def settings_page() -> str:
    """Return the whole page, one table for each command."""
    tables = (f"## vismae {name}\n\n{settings_table(kind)}" for name, kind in COMMANDS.items())
    return "\n".join((_INTRODUCTION, *tables))


def settings_table(kind: type[BaseModel]) -> str:
    """Return a Markdown table of every setting of a command: name, type, default, meaning."""
    rows = [
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {_type_words(field)} | {default} | {_meaning(field)} |"
            for name, field, default in _settings(kind)
        ),
    ]
    return "\n".join(rows) + "\n"


def _settings(
    kind: type[BaseModel], prefix: str = "", section: BaseModel | None = None
) -> Iterator[tuple[str, FieldInfo, str]]:
    """Yield name, field and default; a command's own section defaults come before the class's."""
    for name, field in kind.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            default = None if field.is_required() else field.default
            yield from _settings(inner, f"{prefix}{name}.", default)
        elif section is not None:
            yield prefix + name, field, _default_words(getattr(section, name))
        elif field.is_required():
            yield prefix + name, field, "needed"
        else:
            default = field.get_default(call_default_factory=True)
            yield prefix + name, field, _default_words(default)


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _default_words(value: Any) -> str:
    if value is None or value in ((), {}):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)


def _type_words(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(rule, name, None) is not None
    ]
    return " ".join([_annotation_words(field.annotation), ", ".join(limits)]).strip()


def _annotation_words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotation_words(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(_annotation_words(part) for part in inner if part is not NoneType)
    if origin is Literal:
        return ", ".join(str(choice) for choice in inner)
    if origin is tuple:
        part = _annotation_words(inner[0])
        return f"list of: {part}" if inner[-1] is Ellipsis else f"{len(inner)} × {part}"
    if origin is dict:
        return " → ".join(_annotation_words(part) for part in inner)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(member.value) for member in annotation)
    section = section_of(cast(object, annotation))
    if section is not None:
        return f"({', '.join(section.model_fields)})"
    return _WORDS[annotation]
