"""
Confidential jobs on TEE workers, with every attestation verified by the contract itself.

An owner seals a task to trusted workers, submits it, and opens what comes back. On a development
chain in memory, with a registered worker that nobody has started::

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from orchestrator import EmbeddedChain, JobClient, Keystore, TaskInput
    >>> from orchestrator.crypto import AccountKey, EcdsaSigner
    >>> from orchestrator.testing import deploy_processor, register_test_worker
    >>> chain, admin = EmbeddedChain(":memory:"), AccountKey.generate()
    >>> contract = deploy_processor(chain, admin=admin, measurement=bytes(32))
    >>> worker = register_test_worker(
    ...     chain, contract, EcdsaSigner.generate(), registrar=admin, measurement=bytes(32)
    ... )
    >>> folder = TemporaryDirectory()
    >>> keys = Keystore(Path(folder.name, "keys"), allow_unencrypted=True)
    >>> identity = keys.new("me", passphrase="")
    >>> me = keys.load("me", passphrase="")
    >>> with JobClient(
    ...     chain=chain, contract=contract.contract, account=me.account, secret=me.secret,
    ...     state_dir=Path(folder.name, "jobs"), trusted_node=True,
    ... ) as client:
    ...     job_id = client.submit(TaskInput(task="echo", input=b"hello"), workers=[worker])
    ...     print(job_id, client.status(job_id).value)
    1 Submitted
    >>> chain.close()
    >>> folder.cleanup()

With a worker and an orchestrator running, `client.wait` and `client.result` give the rest. The
command `phala-jobs demo` shows all of it.

Names are imported when they are first used: a worker must not load what it does not need.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.attestation import load_attestation_file, verify_attestation_file
    from orchestrator.blobs.http import HttpBlobStore
    from orchestrator.chain.embedded import EmbeddedChain
    from orchestrator.chain.url import open_chain
    from orchestrator.client import AsyncJobClient, JobClient
    from orchestrator.encoding import from_ss58
    from orchestrator.errors import Error
    from orchestrator.keystore import Keystore
    from orchestrator.models import JobStatus, TaskInput

__all__ = [
    "AsyncJobClient",
    "EmbeddedChain",
    "Error",
    "HttpBlobStore",
    "JobClient",
    "JobStatus",
    "Keystore",
    "TaskInput",
    "from_ss58",
    "load_attestation_file",
    "open_chain",
    "verify_attestation_file",
]

_HOMES = {
    "AsyncJobClient": "client",
    "EmbeddedChain": "chain.embedded",
    "Error": "errors",
    "HttpBlobStore": "blobs.http",
    "JobClient": "client",
    "JobStatus": "models",
    "Keystore": "keystore",
    "TaskInput": "models",
    "from_ss58": "encoding",
    "load_attestation_file": "attestation",
    "open_chain": "chain.url",
    "verify_attestation_file": "attestation",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted({*globals(), *__all__})
