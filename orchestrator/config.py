"""
The settings: what they are called, what they hold unless told otherwise, and where each came from.

A setting is found in this order: an option of the command line, a variable `PHALA_JOBS_NAME`, the
file (TOML), the default here. `worker_listen` is `listen` in the table `[worker]` of the file, and
`PHALA_JOBS_WORKER_LISTEN` in the environment.

Rules that this module keeps:

* A key of the file, or a variable with our prefix, that nobody knows is an error, not ignored.
* There is no setting that holds a secret: secrets come from files or descriptors, whose names are
  settings.
* Importing this module is cheap: pydantic is imported when settings are loaded, not before.
"""

import difflib
import functools
import os
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args, get_type_hints

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_settings import BaseSettings

PREFIX = "PHALA_JOBS_"
SECTIONS = ("worker", "orchestrator")
MAX_FILE_BYTES = 1 << 20  # a settings file is a page of text; anything larger is a mistake
HOME_FOLDER = Path("~/.phala-jobs")


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
class Described:
    """What is said about a setting beside its type: help, a value for the sample file, bounds."""

    text: str
    example: str | None = None
    bounds: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting there is; the sample file and the options' help are made from this."""

    chain: Annotated[
        str | None,
        Described(
            text="The chain: local:PATH is an embedded chain in that file (development and tests).",
            example="local:/var/lib/phala-jobs/chain.db",
        ),
    ] = None
    contract: Annotated[
        str | None,
        Described(
            text="Address of the contract: SS58, or 0x and 64 hex digits.",
            example="5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM",
        ),
    ] = None
    account: Annotated[
        str | None,
        Described(text="Name of the account that signs, in the folder of keys.", example="alice"),
    ] = None
    account_file: Annotated[
        Path | None,
        Described(
            text=(
                "File with the secret of the account that signs, instead of a name: a mnemonic, a"
                " derivation such as //Alice, or a seed as 0x and 64 hex digits."
            ),
            example="/run/secrets/account",
        ),
    ] = None
    keys: Annotated[Path, Described(text="Folder of keys.", example="~/.phala-jobs/keys")] = (
        HOME_FOLDER / "keys"
    )
    passphrase_file: Annotated[
        Path | None,
        Described(text="File with the passphrase of the keys.", example="/run/secrets/passphrase"),
    ] = None
    passphrase_fd: Annotated[
        int | None,
        Described(
            text="Open file descriptor to read the passphrase of the keys from.", example="3"
        ),
    ] = None
    keys_unencrypted: Annotated[
        bool,
        Described(text="Allow keys without a passphrase, for development and machines' accounts."),
    ] = False
    trusted_nodes: Annotated[
        tuple[str, ...],
        Described(
            text=(
                "Chains, by URL, whose word on which workers are trusted is believed when a job is"
                " sealed; local: ones always are."
            ),
            example="wss://node.example.org",
        ),
    ] = ()
    client: Annotated[
        Path,
        Described(
            text="Folder with the list of one's own submitted jobs.", example="~/.phala-jobs/client"
        ),
    ] = HOME_FOLDER / "client"
    results: Annotated[
        tuple[str, ...],
        Described(
            text="URLs of orchestrators that serve sealed results; else workers are asked.",
            example="http://127.0.0.1:9400",
        ),
    ] = ()
    worker_folder: Annotated[
        Path,
        Described(
            text="Folder of the worker: its keys, tokens, journal, blobs.",
            example="/var/lib/phala-jobs/worker",
        ),
    ] = HOME_FOLDER / "worker"
    worker_listen: Annotated[
        str, Described(text="Address and port to listen on; port 0 takes a free one.")
    ] = "127.0.0.1:9301"
    worker_scheme: Annotated[
        str, Described(text="Scheme of the signing key made on the first start: ecdsa or sr25519.")
    ] = "ecdsa"
    worker_tasks: Annotated[
        tuple[str, ...],
        Described(text="Names of the tasks on offer; all that are installed, when none is named."),
    ] = ()
    worker_models: Annotated[
        Path | None,
        Described(text="Folder of models for the onnx task.", example="/var/lib/phala-jobs/models"),
    ] = None
    worker_slots: Annotated[int, Described(text="Jobs executed at once.", bounds=(1, 1_024))] = 2
    worker_queue: Annotated[
        int, Described(text="Jobs accepted and waiting at most.", bounds=(1, 100_000))
    ] = 256
    orchestrator_folder: Annotated[
        Path,
        Described(
            text="Folder of the orchestrator: its journal and the sealed results.",
            example="/var/lib/phala-jobs/orchestrator",
        ),
    ] = HOME_FOLDER / "orchestrator"
    orchestrator_listen: Annotated[
        str,
        Described(
            text="Address and port to serve sealed results and metrics on; port 0 takes a free one."
        ),
    ] = "127.0.0.1:9400"
    orchestrator_workers: Annotated[
        tuple[int, ...],
        Described(
            text="Ids of the workers to believe; all that the contract trusts, when none is named.",
            example="1, 2",
        ),
    ] = ()
    orchestrator_tokens: Annotated[
        Path | None,
        Described(
            text='TOML file with the token for each worker, by its id: 1 = "...".',
            example="/run/secrets/worker-tokens.toml",
        ),
    ] = None
    orchestrator_owners: Annotated[
        tuple[str, ...],
        Described(
            text="Accounts whose jobs are admitted; the word any admits every owner.",
            example="5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        ),
    ] = ()
    orchestrator_jobs_per_day: Annotated[
        int, Described(text="Jobs admitted of one owner per day.", bounds=(1, 10_000_000))
    ] = 1_000
    orchestrator_bytes_per_day: Annotated[
        int, Described(text="Payload bytes admitted of one owner per day.", bounds=(1, 1 << 50))
    ] = 1 << 30
    orchestrator_concurrency: Annotated[
        int, Described(text="Jobs worked on at once.", bounds=(1, 4_096))
    ] = 128


@dataclass(frozen=True, kw_only=True)
class LoadedSettings:
    """Settings, and for each the place where its value was found."""

    settings: Settings
    origins: Mapping[str, Origin]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One setting as declared in `Settings`; `kinds` are the types that it can have."""

    name: str
    default: object
    hint: object
    kinds: tuple[object, ...]
    described: Described

    @property
    def is_list(self) -> bool:
        """Whether the setting holds several values."""
        return isinstance(self.default, tuple)


@functools.cache
def declared_settings() -> Mapping[str, Declared]:
    """Every setting by name, in the order of the sample file."""
    hints = get_type_hints(Settings, include_extras=True)
    found = {}
    for declared in fields(Settings):
        hint, described = get_args(hints[declared.name])
        found[declared.name] = Declared(
            name=declared.name,
            default=declared.default,
            hint=hint,
            kinds=get_args(hint) or (hint,),
            described=described,
        )
    return found


def variable(name: str) -> str:
    """The environment variable of a setting or option."""
    return PREFIX + name.upper()


def key_path(name: str) -> str:
    """The key in the file: `worker.listen` for `worker_listen`."""
    section, _, rest = name.partition("_")
    return f"{section}.{rest}" if section in SECTIONS else name


def option_name(name: str) -> str:
    """The option of a setting; a command that has a section's options leaves the section out."""
    section, _, rest = name.partition("_")
    return "--" + (rest if section in SECTIONS else name).replace("_", "-")


def default_file() -> Path:
    """Where the file is looked for when none is named; it need not exist."""
    return HOME_FOLDER.expanduser() / "config.toml"


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
    A path in the file is relative to the file's folder.

    Does **not** check that a path exists, an address can be reached or a contract is
    there: who uses it will say so.

    Raises:
        ConfigError: A key is unknown, a value is not of its setting's kind, or the
            file can't be read; names the setting, the value and its place.
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
    return LoadedSettings(settings=_validated(given, in_file, origins), origins=origins)


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
        if value:
            found[settings[upper]] = given
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
    if not isinstance(value, str) or value.startswith("~"):
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


def sample_file() -> str:
    """A settings file with every setting explained and commented out."""
    lines = [
        "# Settings of phala-jobs. A line that begins with # is off and shows the default, or an",
        f"# example where there is none. Variables {PREFIX}NAME and options win over this file.",
    ]
    section = ""
    for setting in declared_settings().values():
        table, _, key = key_path(setting.name).rpartition(".")
        if table != section:
            section = table
            lines += ["", f"[{table}]"]
        lines += ["", *(f"# {line}" for line in textwrap.wrap(setting.described.text, 96))]
        lines.append(f"# {key} = {_toml(setting)}")
    return "\n".join(lines) + "\n"


def _toml(setting: Declared) -> str:
    """The default, or the example, of a setting as a TOML value."""
    example = setting.described.example
    if isinstance(setting.default, tuple):
        items = example.split(", ") if example else setting.default
        return "[" + ", ".join(str(i) if int in setting.kinds else _quoted(i) for i in items) + "]"
    shown = str(example if setting.default is None else setting.default)
    if bool in setting.kinds:
        return shown.lower()
    return shown if int in setting.kinds else _quoted(shown)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
