"""From files, assignments and options to a checked configuration, with errors a person can use."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from vismae.core.errors import SettingError

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def build_config(
    kind: type[ConfigT],
    command: str,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    *,
    base: ConfigT | None = None,
) -> ConfigT:
    """Return the configuration of a command; later sources win over earlier ones.

    Args:
        kind: The command's settings class.
        command: Its name, for messages.
        file: YAML file with any of the settings.
        assignments: ``section.name=value`` texts; the value is read as YAML.
        options: Nested or dotted names with values; None means not given.
        base: A whole configuration to start from in place of the defaults.

    Raises:
        SettingError: An unknown name (with the nearest known one), a wrong type or a
            contradiction, each with the file and line or the assignment it came from.
    """
    values: dict[str, Any] = base.model_dump() if base else {}
    origin: dict[str, str] = {}
    inside: dict[str, str] = {}
    if file is not None:
        loaded, lines = _read_yaml(file)
        inside = {name: f"{file}, line {line}" for name, line in lines.items()}
        for name, value in _flatten(kind, loaded):
            _place(values, name, value)
            origin[name] = inside.get(name, f"{file}, line 1")
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip()
        if not separator or not name:
            raise SettingError(f"--set {assignment}: expected section.name=value.")
        _place(values, name, _parse_value(assignment, text))
        origin[name] = f"--set {assignment}"
    for name, value in _flatten(kind, options or {}):
        if value is not None:
            _place(values, name, value)
            origin[name] = "given as an option"
    _refuse_unknown(kind, command, origin)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(_sentences(kind, command, error, values, {**inside, **origin})) from None


def to_yaml(config: BaseModel) -> str:
    """Return the complete configuration as YAML that ``build_config`` reads back."""
    values = config.model_dump(mode="json")
    return yaml.safe_dump(  # pyright: ignore[reportUnknownMemberType]  (stubs with open types)
        values, sort_keys=False, allow_unicode=True
    )


def setting_names(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted setting name of a configuration class."""
    for name, field in kind.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from setting_names(section, f"{prefix}{name}.")


def section_of(annotation: object) -> type[BaseModel] | None:
    """Return the class of a section, or None for the type of a single setting."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _read_yaml(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the settings in a file and the line of each dotted name."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: the configuration could not be read ({error}).") from error
    try:
        loaded = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingError(f"{file}: not valid YAML. {error}") from error
    if loaded is None:
        return {}, {}
    if not isinstance(loaded, dict):
        raise SettingError(
            f"{file}: found a {type(loaded).__name__}, expected settings as 'name: value' lines."
        )
    return cast("dict[str, Any]", loaded), dict(_lines(root))


def _lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _lines(value, f"{name}.")


def _flatten(
    kind: type[BaseModel] | None, values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Turn sections into dotted names; a mapping that is itself a value stays whole.

    ``kind`` is None inside a section that does not exist, so that its names come out whole too.
    """
    for key, value in values.items():
        name, dot, rest = str(key).partition(".")
        if dot:
            value = {rest: value}
        field = kind.model_fields.get(name) if kind else None
        section = section_of(field.annotation) if field else None
        if isinstance(value, BaseModel):
            value = value.model_dump()
        if isinstance(value, Mapping) and value and (section or not field):
            yield from _flatten(section, cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        elif section is None or (value is not None and value != {}):
            yield f"{prefix}{name}", value


def _place(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted name, making the sections on the way."""
    *sections, last = name.split(".")
    for section in sections:
        inner = values.get(section)
        if not isinstance(inner, dict):
            inner = values[section] = {}
        values = cast("dict[str, Any]", inner)
    values[last] = value


def _parse_value(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingError(f"--set {assignment}: the value is not valid YAML. {error}") from error


def _refuse_unknown(kind: type[BaseModel], command: str, origin: Mapping[str, str]) -> None:
    known = list(setting_names(kind))
    for name, source in origin.items():
        if name in known or name.partition(".")[0] in _free_sections(kind):
            continue
        inside = [candidate for candidate in known if candidate.startswith(f"{name}.")]
        if inside:
            raise SettingError(
                f"{name} is a section of {command}, not a single setting. "
                f"Set one of {', '.join(inside)}. ({source})"
            )
        close = _nearest(name, known)
        hint = f"Did you mean {close}?" if close else f"Known are: {', '.join(known)}."
        raise SettingError(f"{name} is not a setting of {command}. {hint} ({source})")


def _free_sections(kind: type[BaseModel]) -> list[str]:
    """Return the settings whose value is a mapping with names of the user's own."""
    return [
        name for name, field in kind.model_fields.items() if get_origin(field.annotation) is dict
    ]


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that was probably meant; the last part decides over the section."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if close:
        return close[0]
    last = name.rpartition(".")[2]
    ends = {candidate.rpartition(".")[2]: candidate for candidate in known}
    close = difflib.get_close_matches(last, list(ends), n=1, cutoff=0.6)
    if close:
        return ends[close[0]]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return close[0] if close else None


def _sentences(
    kind: type[BaseModel],
    command: str,
    error: ValidationError,
    values: Mapping[str, Any],
    origin: Mapping[str, str],
) -> str:
    """Say in one line for each wrong setting what was found, expected and where it came from."""
    lines: list[str] = []
    for issue in error.errors():
        parts = [str(part) for part in issue["loc"] if not isinstance(part, int)]
        given = _given(values, parts)
        name = ".".join(given or parts)
        prefixes = [".".join(given[:length]) for length in range(len(given), 0, -1)]
        where = next((f" ({origin[prefix]})" for prefix in prefixes if prefix in origin), "")
        if issue["type"] == "missing" and isinstance(issue["loc"][-1], str):
            lines.append(f"{'.'.join(parts)} is needed by {command} and was not given.{where}")
        elif issue["type"] == "missing":
            lines.append(f"{name}: found {issue['input']!r}, which has too few values.{where}")
        elif issue["type"] == "extra_forbidden":
            close = _nearest(parts[-1], _names_inside(kind, parts[0]))
            hint = f" Did you mean {close}?" if close else ""
            lines.append(f"{name} is not a setting of {command}.{hint}{where}")
        elif issue["type"] == "value_error":
            message = issue["msg"].removeprefix("Value error, ").removesuffix(".")
            lines.append(f"{name or command}: {message}.{where}")
        else:
            expected = issue["msg"].replace("a valid tuple", "a list, such as [0, 1]")
            lines.append(f"{name}: found {issue['input']!r}. {expected}.{where}")
    # Both sides of a square are one number, which is wrong once.
    return "\n".join(dict.fromkeys(lines))


def _given(values: Mapping[str, Any], parts: Sequence[str]) -> list[str]:
    """Return the first of the parts that lead to a value; others are names of pydantic's own."""
    found: list[str] = []
    inner: Any = values
    for part in parts:
        if not isinstance(inner, Mapping) or part not in inner:
            break
        inner = cast("Mapping[str, Any]", inner)[part]
        found.append(part)
    return found


def _names_inside(kind: type[BaseModel], name: str) -> list[str]:
    """Return the settings of what a setting with names of the user's own holds under each."""
    field = kind.model_fields.get(name)
    of_each = get_args(field.annotation) if field else ()
    section = section_of(of_each[-1]) if of_each else section_of(field and field.annotation)
    return list(section.model_fields) if section else []
