"""Finds every setting's value, and remembers where it was found."""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from orchestrator.config.settings import (
    PREFIX,
    SECTIONS,
    Settings,
    declared_settings,
    key_path,
    option_name,
    variable,
)
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_settings import BaseSettings

MAX_FILE_BYTES = 1 << 20  # a settings file is a page of text; anything larger is a mistake


class OriginKind(Enum):
    """Where a setting's value was found, strongest first."""

    OPTION = "option"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where one value came from; `place` is the option, the variable or the file's path and key."""

    kind: OriginKind
    place: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.place}".rstrip()


@dataclass(frozen=True, kw_only=True)
class LoadedSettings:
    """Settings, and for each the place where its value was found."""

    settings: Settings
    origins: Mapping[str, Origin]


def load_settings(
    *,
    options: Mapping[str, object] | None = None,
    file: Path | None = None,
    other_variables: Iterable[str] = (),
) -> LoadedSettings:
    """
    Find every setting's value.

    *options* are those given on the command line, by setting name. *other_variables*
    are the variables with our prefix that belong to options which are no settings.
    A path in the file is relative to the file's folder. A variable that is empty is as good as
    none, but for settings without which more is allowed: these must not be lost by a slip.

    Does **not** check that a path exists, an address can be reached or a contract is
    there: who uses it will say so.

    Raises:
        ConfigError: A key is unknown, a value is not of its setting's kind, a setting that
            protects is given and empty, or the file can't be read; names the setting, the
            value and its place.
    """
    given = dict(options or {})
    in_file = _read_file(file) if file is not None else {}
    in_environment = _read_environment(other_variables)
    origins = {name: Origin(kind=OriginKind.DEFAULT) for name in declared_settings()}
    for name in in_file:
        origins[name] = Origin(kind=OriginKind.FILE, place=f"{file} {key_path(name)}")
    for name, found in in_environment.items():
        origins[name] = Origin(kind=OriginKind.ENVIRONMENT, place=found)
    for name in given:
        origins[name] = Origin(kind=OriginKind.OPTION, place=option_name(name))
    said = {name: os.environ[found] for name, found in in_environment.items()}
    _require_content({**in_file, **said, **given}, origins)
    return LoadedSettings(settings=_validated(given, in_file, origins), origins=origins)


def _require_content(values: Mapping[str, object], origins: Mapping[str, Origin]) -> None:
    """Refuse a setting that is to protect and says nothing: that must not mean no protection."""
    for name, value in values.items():
        said = value.strip(" ,") if isinstance(value, str) else value
        if said in ("", [], (), Path()) and declared_settings()[name].described.is_protecting:
            raise ConfigError(
                f"{key_path(name)} ({origins[name]}): is empty; without it more is allowed:"
                " leave it out where that is meant"
            )


def _read_environment(other_variables: Iterable[str]) -> dict[str, str]:
    """The variables that are settings, by setting name; refuses unknown ones of our prefix."""
    settings = {variable(name): name for name in declared_settings()}
    others = set(other_variables)
    found = {}
    for given, value in os.environ.items():
        upper = given.upper()
        if not upper.startswith(PREFIX) or upper in others:
            continue
        if upper not in settings:
            raise ConfigError(
                f"environment variable {given} is no setting of ours"
                + _suggestion(upper, [*settings, *others])
            )
        name = settings[upper]
        if value or declared_settings()[name].described.is_protecting:
            found[name] = given
    return found


def _read_file(path: Path) -> dict[str, object]:
    """The values in the file, by setting name; refuses unknown keys."""
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"settings file {path}: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"settings file {path}: longer than {MAX_FILE_BYTES} bytes")
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path} is not TOML: {error}") from error
    keys = {key_path(name): name for name in declared_settings()}
    values = {}
    for key, value in _flattened(tables):
        if key not in keys:
            raise ConfigError(
                f"settings file {path}: {key} is no setting of ours" + _suggestion(key, keys)
            )
        values[keys[key]] = _beside(path, keys[key], value)
    return values


def _flattened(tables: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """Yield `section.key` and value; deeper tables stay values, which no setting accepts."""
    for key, value in tables.items():
        if isinstance(value, dict) and key in SECTIONS:
            yield from ((f"{key}.{inner}", held) for inner, held in value.items())
        else:
            yield key, value


def _beside(file: Path, name: str, value: object) -> object:
    """Make a relative path of the file one beside the file."""
    if not isinstance(value, str) or not value or value.startswith("~"):
        return value
    if name == "chain" and value.startswith("local:"):
        return f"local:{file.absolute().parent / value.removeprefix('local:')}"
    if Path in declared_settings()[name].kinds:
        return str(file.absolute().parent / value)
    return value


def _suggestion(given: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, if one is near."""
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _split(value: object) -> object:
    """A list in a variable or one option is written with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _expand(value: object) -> object:
    """A leading tilde is the home folder, also where no shell has replaced it."""
    return Path(value).expanduser() if isinstance(value, str | Path) else value


def _model(options: Mapping[str, object], in_file: Mapping[str, object]) -> "type[BaseSettings]":
    """Make the pydantic model of `Settings`: *options*, then environment, then *in_file*."""
    from pydantic import (  # noqa: PLC0415  # slow to import, and not needed for --help
        BeforeValidator,
        Field,
        create_model,
    )
    from pydantic_settings import (  # noqa: PLC0415  # the same
        BaseSettings,
        InitSettingsSource,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
    )

    class Sources(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=PREFIX, env_ignore_empty=True, enable_decoding=False, extra="forbid"
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # it is never called with any
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # we read no .env file
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # nor folders
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                InitSettingsSource(settings_cls, dict(options)),
                env_settings,
                InitSettingsSource(settings_cls, dict(in_file)),
            )

    declared: dict[str, object] = {}
    for name, setting in declared_settings().items():
        kind, default, bounds = setting.hint, setting.default, setting.described.bounds
        if bounds is not None:
            kind = Annotated[kind, Field(ge=bounds[0], le=bounds[1])]
        elif setting.is_list:
            kind = Annotated[kind, BeforeValidator(_split)]
        elif Path in setting.kinds:
            kind = Annotated[kind, BeforeValidator(_expand)]
        declared[name] = (kind, default.expanduser() if isinstance(default, Path) else default)
    model: type[BaseSettings] = create_model(  # type: ignore[call-overload]  # fields by name
        "SettingsModel", __base__=Sources, **declared
    )
    return model


def _validated(
    options: Mapping[str, object], in_file: Mapping[str, object], origins: Mapping[str, Origin]
) -> Settings:
    """Let pydantic read and check every value."""
    from pydantic import ValidationError  # noqa: PLC0415  # slow to import

    try:
        model = _model(options, in_file)()
    except ValidationError as error:
        raise ConfigError(_explained(error, origins)) from None  # its text repeats every source
    return Settings(**{name: getattr(model, name) for name in declared_settings()})


def _explained(error: "ValidationError", origins: Mapping[str, Origin]) -> str:
    """One line per wrong value: the setting, where it stands, the value, the rule."""
    lines = []
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0])
        lines.append(f"{key_path(name)} ({origins[name]}): {detail['input']!r}: {detail['msg']}")
    return "; ".join(lines)
