"""
How a function becomes a command: its options, their variables, its settings, its errors.

`@command(app, "name", settings=(...))` gives a function the options `--config`, `--json` and
`--debug`, one option per named setting, and as its first argument a `Session` that has them all.
Every option has a variable, which its help shows: `PHALA_JOBS_SETTING` for a setting,
`PHALA_JOBS_COMMAND_OPTION` for any other.
"""

import copy
import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, cast, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from orchestrator.cli.errors import error_code, error_message, exit_code
from orchestrator.cli.output import Output
from orchestrator.cli.session import Session
from orchestrator.config import (
    Declared,
    declared_settings,
    default_file,
    load_settings,
    option_name,
    variable,
)
from orchestrator.errors import InputError

P = ParamSpec("P")

_SETTING = "setting_"
"""Before a setting's name among a command's parameters, which may have an argument of that name."""

OPTION_VARIABLES: set[str] = set()
"""The variables of options that are no settings, filled as commands are declared."""

_COMMON: Mapping[str, object] = {
    "config": Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar=variable("config"),
            metavar="FILE",
            help="Settings file; ~/.phala-jobs/config.toml when there is one.",
            rich_help_panel="Common options",
        ),
    ],
    "as_json": Annotated[
        bool,
        typer.Option(
            "--json",
            envvar=variable("json"),
            help="Print one JSON document.",
            rich_help_panel="Common options",
        ),
    ],
    "debug": Annotated[
        bool,
        typer.Option(
            "--debug",
            envvar=variable("debug"),
            help="Show where an error came from.",
            rich_help_panel="Common options",
        ),
    ],
}
OPTION_VARIABLES.update({variable("config"), variable("json"), variable("debug")})
# Read by the tests alone; it may stand in the environment of a command that a test starts.
OPTION_VARIABLES.add(variable("fixtures"))
_DEFAULTS: Mapping[str, object] = {"config": None, "as_json": False, "debug": False}


def command(
    app: typer.Typer,
    name: str,
    *,
    settings: Iterable[str] = (),
    group: str = "",
    panel: str | None = None,
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[Concatenate[Session, P], None]]:
    """
    Make the decorated function the command *name* of *app*.

    *group* is the noun that *app* stands for; it is part of the options' variables.
    *panel* is the heading under which the help lists the command.
    """
    names = tuple(settings)

    def decorate(
        function: Callable[Concatenate[Session, P], None],
    ) -> Callable[Concatenate[Session, P], None]:
        app.command(name, help=_help(function), rich_help_panel=panel)(
            _adapted(function, f"{group}_{name}", names)
        )
        return function

    return decorate


def _help(function: Callable[..., None]) -> str:
    """The docstring up to what is for readers of the code."""
    return (inspect.getdoc(function) or "").partition("\n\nRaises:")[0]


def _adapted(
    function: Callable[Concatenate[Session, P], None], path: str, settings: tuple[str, ...]
) -> Callable[..., None]:
    """A function whose signature tells typer about all the options."""
    own = list(inspect.signature(function).parameters.values())[1:]
    hints = get_type_hints(function, include_extras=True)
    parameters = [_parameter("ctx", typer.Context)]
    for parameter in own:
        hint = _with_variable(hints[parameter.name], path, parameter.name)
        parameters.append(_parameter(parameter.name, hint, parameter.default))
    parameters += [_parameter(_SETTING + name, _setting_option(name), None) for name in settings]
    parameters += [_parameter(name, hint, _DEFAULTS[name]) for name, hint in _COMMON.items()]

    def run(ctx: typer.Context, **values: object) -> None:
        common = {name: values.pop(name) for name in _COMMON}
        given = {name: values.pop(_SETTING + name) for name in settings}
        _run(
            lambda session: cast("Callable[..., None]", function)(session, **values),
            options={n: v for n, v in given.items() if _was_given(ctx, n)},
            config=cast("Path | None", common["config"]),
            output=Output(as_json=bool(common["as_json"])),
            debug=bool(common["debug"]),
        )

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__ = function.__name__
    return run


def _parameter(
    name: str, hint: object, default: object = inspect.Parameter.empty
) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=default)


def _with_variable(hint: object, path: str, name: str) -> object:
    """Give an option its variable; arguments have none."""
    options = [extra for extra in get_args(hint)[1:] if isinstance(extra, OptionInfo)]
    if not options:
        return hint
    option = copy.copy(options[0])  # commands share hints, and each has a variable of its own
    option.envvar = variable(f"{path.strip('_')}_{name}".replace("-", "_"))
    OPTION_VARIABLES.add(option.envvar)
    return Annotated[get_args(hint)[0], option]


def _setting_option(name: str) -> object:
    """The option of a setting: text, checked when the settings are loaded."""
    declared = declared_settings()[name]
    option = typer.Option(
        option_name(name),
        envvar=variable(name),
        metavar=None if isinstance(declared.default, bool) else _metavar(declared.kinds),
        help=_setting_help(declared),
        show_default=False,
        rich_help_panel="Settings",
    )
    if isinstance(declared.default, bool):
        return Annotated[bool | None, option]
    if isinstance(declared.default, tuple):
        return Annotated[list[str] | None, option]
    return Annotated[str | None, option]


def _setting_help(declared: Declared) -> str:
    """What the setting is, how to give several values, and what it is when none is given."""
    parts = [declared.described.text]
    if declared.is_list:
        parts.append("Comma-separated, may be repeated.")
    if declared.default not in (None, (), False):
        parts.append(f"Default: {declared.default}")
    return " ".join(parts)


def _metavar(kinds: tuple[object, ...]) -> str:
    if int in kinds:
        return "NUMBER"
    return "PATH" if Path in kinds else "TEXT"


def _was_given(ctx: typer.Context, name: str) -> bool:
    """Whether the option is on the command line; variables are read with the settings."""
    source = ctx.get_parameter_source(_SETTING + name)
    return source is not None and source.name == "COMMANDLINE"


def _run(
    body: Callable[[Session], None],
    *,
    options: Mapping[str, object],
    config: Path | None,
    output: Output,
    debug: bool,
) -> None:
    """Run a command's body; an error becomes words and an exit code."""
    try:
        with _open_session(options, config, output) as session:
            body(session)
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise  # typer ends quietly when the reader of our output has gone
    except Exception as error:  # noqa: BLE001  # told apart, and turned into an exit code, below
        if debug:
            traceback.print_exc()
        output.error(error_code(error), error_message(error))
        raise typer.Exit(exit_code(error)) from None


def _open_session(options: Mapping[str, object], config: Path | None, output: Output) -> Session:
    file = config
    if file is None and default_file().is_file():
        file = default_file()
    if file is not None and not file.is_file():
        raise InputError(f"--config {file}: there is no such file")
    joined = {
        name: [part for item in value for part in str(item).split(",")]
        if isinstance(value, list)
        else value
        for name, value in options.items()
    }
    loaded = load_settings(options=joined, file=file, other_variables=OPTION_VARIABLES)
    return Session(loaded=loaded, output=output)
