"""Which versions this program is made of."""

from importlib.metadata import PackageNotFoundError, version

PROTOCOL_VERSION = 1  # of the statements, envelopes and interfaces; the tags of protocol section 3


def program_version() -> str:
    """The version of the installed distribution; a checkout that is not installed has none."""
    try:
        return version("phala-jobs")
    except PackageNotFoundError:
        return "not installed"
