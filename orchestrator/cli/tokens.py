"""Files with the tokens of several workers: TOML, a line each, for their owner's eyes alone."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import InputError

MAX_TOKENS_BYTES = 1 << 20


def read_tokens(field: str, path: Path, *, example: str) -> Mapping[str, str]:
    """
    The tokens by what the file names workers by.

    Raises:
        InputError: The file can't be read, others may read it, or it is not of lines such as
            *example*; shows nothing of what it holds.
    """
    from orchestrator.keystore.private_files import read_private_file

    data = read_private_file(path, max_bytes=MAX_TOKENS_BYTES)
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except ValueError:
        found = None  # the cause would quote a token
    if found is None or not all(isinstance(value, str) for value in found.values()):
        raise InputError(f"{field} {path}: must be TOML with lines such as {example}")
    return found
