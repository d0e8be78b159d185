"""The setting `collateral` as a source: which words mean which adapter."""

from collections.abc import Collection
from pathlib import Path

from orchestrator.collateral import CollateralSource
from orchestrator.collateral.cache import AlarmHook, CachedCollateral, NewestCollateral
from orchestrator.errors import ConfigError

__all__ = ["newest_of", "open_collateral", "open_early_collateral"]


def open_collateral(
    text: str,
    *,
    cache_folder: Path | None = None,
    roots: Collection[bytes] = (),
    on_alarm: AlarmHook | None = None,
    is_read_only: bool = False,
) -> CollateralSource:
    """
    Return the source that *text* names.

    The URL of a PCCS, `folder:PATH`, `file:PATH`, or `simulated:FOLDER` (no TEE). What a PCCS says
    is kept in *cache_folder* where one is given; *roots* (DER) are those of the policy, and nothing
    else is kept. *is_read_only* goes by what is kept there and changes nothing. The other sources
    are on this machine, and are not cached.

    Raises:
        ConfigError: It names none.
    """
    source = _open(text, early=False)
    if cache_folder is None or not _is_url(text):
        return source
    if on_alarm is None:
        return CachedCollateral(source, cache_folder, roots=roots, is_read_only=is_read_only)
    return CachedCollateral(
        source, cache_folder, roots=roots, on_alarm=on_alarm, is_read_only=is_read_only
    )


def open_early_collateral(text: str) -> CollateralSource | None:
    """
    Return the source of what will be in effect, where there is one: a PCCS, or a simulator.

    Intel publishes a TCB evaluation long before it is handed out unasked. To warn with, never to
    refuse.

    Raises:
        ConfigError: The text names no source.
    """
    is_known = _is_url(text) or text.startswith("simulated:")
    source = _open(text, early=is_known)
    return source if is_known else None


def newest_of(source: CollateralSource) -> CollateralSource:
    """Return what asks *source* itself at each call, where a cache is before it."""
    return NewestCollateral(source) if isinstance(source, CachedCollateral) else source


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _open(text: str, *, early: bool) -> CollateralSource:
    from orchestrator.collateral.files import FileCollateral, FolderCollateral  # noqa: PLC0415

    if _is_url(text):
        from orchestrator.collateral.pccs import PccsCollateral  # noqa: PLC0415

        return PccsCollateral(text, early=early)
    kind, colon, path = text.partition(":")
    place = Path(path).expanduser()
    if colon and path:
        if kind == "folder":
            return FolderCollateral(place)
        if kind == "file":
            return FileCollateral(place)
        if kind == "simulated":
            from orchestrator.collateral.simulated import SimulatedCollateral  # noqa: PLC0415

            return SimulatedCollateral(place, early=early)
    raise ConfigError(
        f"collateral {text!r}: the URL of a PCCS, folder:PATH, file:PATH, or simulated:FOLDER"
    )
