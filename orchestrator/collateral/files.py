"""Collateral in files: one, or a folder of them, in the JSON that PCCS clients write."""

from pathlib import Path

from orchestrator.collateral.facts import CollateralFacts, platform_of, read_facts, serve
from orchestrator.errors import CollateralUnavailableError, EncodingError
from orchestrator.evidence import Collateral, load_collateral_json
from orchestrator.evidence.bundle import MAX_COLLATERAL_BYTES

__all__ = ["FileCollateral", "FolderCollateral"]

MAX_FILES = 1_000


class FileCollateral:
    """Serves what is in one file, which is read at each call: somebody may replace it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        kind = platform_of(quote)
        collateral, facts = _read(self._path)
        return serve(collateral, facts, kind, now=now, where=str(self._path))

    def close(self) -> None:
        """Nothing is open."""


class FolderCollateral:
    """
    Serves the newest valid one of the `*.json` files of a folder, which is read at each call.

    Files that can't be read are left out, and named where nothing is found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        kind = platform_of(quote)
        found: list[tuple[tuple[int, int], Collateral]] = []
        reasons: list[str] = []
        for path in self._files():
            try:
                collateral, facts = _read(path)
                served = serve(collateral, facts, kind, now=now, where=path.name)
            except CollateralUnavailableError as error:
                reasons.append(str(error))
            else:
                found.append(((facts.issued_at, facts.evaluation_number), served))
        if not found:
            why = "; ".join(reasons[:3]) or "it has no .json file"
            raise CollateralUnavailableError(f"{self._path}: nothing for a {kind}: {why}")
        return max(found, key=lambda one: one[0])[1]

    def _files(self) -> list[Path]:
        try:
            paths = sorted(self._path.iterdir())
        except OSError as error:
            raise _unreadable(self._path, error) from error
        paths = [path for path in paths if path.suffix == ".json"]
        if len(paths) > MAX_FILES:
            raise CollateralUnavailableError(
                f"{self._path}: {len(paths)} files, at most {MAX_FILES} are looked through"
            )
        return paths

    def close(self) -> None:
        """Nothing is open."""


def _read(path: Path) -> tuple[Collateral, CollateralFacts]:
    try:
        with path.open("rb") as file:
            data = file.read(2 * MAX_COLLATERAL_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        collateral = load_collateral_json(data)
        return collateral, read_facts(collateral)
    except EncodingError as error:
        raise CollateralUnavailableError(f"{path}: {error}") from error


def _unreadable(path: Path, error: OSError) -> CollateralUnavailableError:
    return CollateralUnavailableError(f"{path}: {error.strerror or error}")
