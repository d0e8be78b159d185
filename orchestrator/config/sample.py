"""The sample file: every setting, explained, and switched off."""

import textwrap

from orchestrator.config.settings import PREFIX, Declared, declared_settings, key_path


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
