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

from orchestrator.config.loading import (
    MAX_FILE_BYTES,
    LoadedSettings,
    Origin,
    OriginKind,
    load_settings,
)
from orchestrator.config.sample import sample_file
from orchestrator.config.settings import (
    PREFIX,
    Declared,
    Settings,
    declared_settings,
    default_file,
    key_path,
    option_name,
    variable,
)

__all__ = [
    "MAX_FILE_BYTES",
    "PREFIX",
    "Declared",
    "LoadedSettings",
    "Origin",
    "OriginKind",
    "Settings",
    "declared_settings",
    "default_file",
    "key_path",
    "load_settings",
    "option_name",
    "sample_file",
    "variable",
]
