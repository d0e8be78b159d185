"""Chains by URL."""

import re
from pathlib import Path

import pytest

from orchestrator.chain.url import open_chain
from orchestrator.errors import ChainUnavailableError, ConfigError, InputError


def test_a_local_chain_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "dev.chain"

    made = open_chain(f"local:{path}", create=True)
    opened = open_chain(f"local:{path}")

    assert opened.genesis_hash == made.genesis_hash
    made.close()
    opened.close()


def test_a_chain_is_not_made_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "typo.chain"

    with pytest.raises(InputError, match=r"typo\.chain: no such chain file"):
        open_chain(f"local:{path}")

    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ws://", "is not of the form ws://HOST:PORT or wss://HOST"),
        ("wss://:9944", "is not of the form ws://HOST:PORT or wss://HOST"),
        ("ws://127.0.0.1:99999", "is not of the form ws://HOST:PORT or wss://HOST"),
        ("http://127.0.0.1:9944", "is not of the form local:PATH"),
        ("dev.chain", "is not of the form local:PATH"),
        ("", "is not of the form local:PATH"),
        ("local:", "names no file"),
        ("local::memory:", "names no file"),
    ],
)
def test_other_urls_are_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        open_chain(url)


@pytest.mark.parametrize(
    "url", ["https://node.example/KEY", "wss:/node.example/KEY", "ws://node:port/KEY", "KEY"]
)
def test_a_url_that_is_refused_is_not_shown(url: str) -> None:
    """A part of it may be somebody's key."""
    with pytest.raises(ConfigError) as caught:
        open_chain(url)

    assert "KEY" not in str(caught.value)


def test_a_node_that_nobody_runs_is_named_at_once() -> None:
    with pytest.raises(ChainUnavailableError) as caught:
        open_chain("ws://127.0.0.1:1/a-key-that-nobody-is-shown")

    assert str(caught.value).startswith("the node at ws://127.0.0.1:1 can't be reached")
    assert "shown" not in str(caught.value)
