"""
What the documents say exists, exists: links, make targets, commands with their options, imports.

A block marked `console` that starts with `$ phala-jobs … --help` is compared with the real output.
"""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from orchestrator.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "tests/vectors/*.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks in one of *languages*."""
    for language, body in FENCE.findall(text):
        if language in languages:
            yield body


def commands(text: str) -> Iterator[str]:
    """Yield every `phala-jobs` command: lines of shell blocks, and code inside sentences."""
    for body in blocks(text, "", "sh", "bash", "console", "shell"):
        for line in body.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if command.startswith("phala-jobs "):
                yield command
    for code in CODE.findall(FENCE.sub("", text)):
        if code.startswith("phala-jobs "):
            yield code


def problem_with(command: str) -> str | None:
    """Return what of *command* the command line does not know, or None."""
    words = shlex.split(re.split(r" [|>] ", command, maxsplit=1)[0], comments=True)[1:]
    found: Any = typer.main.get_command(app)
    while words and hasattr(found, "commands") and not words[0].startswith("-"):
        word = words.pop(0)
        # `roles grant|revoke`, `config …` and `keys NAME` speak of several commands at once.
        names = word.split("|")
        if not all(re.fullmatch(r"[a-z][a-z-]*", name) for name in names):
            return None
        missing = [name for name in names if name not in found.commands]
        if missing:
            return f"no command {missing[0]!r}"
        found = found.commands[names[0]]
    known = {option for parameter in found.params for option in parameter.opts}
    known |= {option for parameter in found.params for option in parameter.secondary_opts}
    known |= {"--help", "-h"}
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    unknown = [option for option in options if option not in known]
    return f"no option {unknown[0]}" if unknown else None


def missing_names(source: str) -> list[str]:
    """Return what a Python example imports from this package and the package does not have."""
    missing = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator"):
            module: Any = importlib.import_module(node.module or "")
            missing += [n.name for n in node.names if not hasattr(module, n.name)]
    return missing


documents = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


@documents
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        place = target.split("#")[0]
        if place and "://" not in target and not target.startswith("mailto:"):
            broken += [] if (path.parent / place).exists() else [target]

    assert broken == []


@documents
def test_every_make_target_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^\$? ?)make ([a-z][a-z-]+)", text, re.MULTILINE))

    assert {name for name in named if f"\n{name}:" not in makefile} == set()


@documents
def test_every_command_and_option_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    problems = {command: problem_with(command) for command in commands(text)}

    assert {command: problem for command, problem in problems.items() if problem} == {}


@documents
def test_every_python_example_parses_and_imports_what_is_there(path: Path) -> None:
    for source in blocks(path.read_text(encoding="utf-8"), "python", "py"):
        assert missing_names(source) == []


@documents
def test_every_help_text_is_the_real_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for body in blocks(path.read_text(encoding="utf-8"), "console"):
        first, _, shown = body.partition("\n")
        if not (first.startswith("$ phala-jobs") and first.endswith("--help")):
            continue
        outcome = CliRunner().invoke(app, shlex.split(first)[2:])
        assert [line.rstrip() for line in shown.strip().splitlines()] == [
            line.rstrip() for line in outcome.output.strip().splitlines()
        ]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("phala-jobs demo", None),
        ("phala-jobs roles grant|revoke", None),
        ("phala-jobs nothing", "no command 'nothing'"),
        ("phala-jobs roles grant|steal", "no command 'steal'"),
        ("phala-jobs demo --quickly", "no option --quickly"),
    ],
)
def test_the_check_of_commands_tells_right_from_wrong(command: str, problem: str | None) -> None:
    assert problem_with(command) == problem


def test_the_check_of_imports_tells_right_from_wrong() -> None:
    assert missing_names("from orchestrator.errors import Error, NothingError") == ["NothingError"]
