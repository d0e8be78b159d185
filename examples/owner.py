"""Submit a job and print its result: `python owner.py CHAIN CONTRACT FOLDER RESULTS_URL`."""

from getpass import getpass
from pathlib import Path
from sys import argv

from orchestrator.blobs.http import HttpBlobStore
from orchestrator.chain.url import open_chain
from orchestrator.client import JobClient
from orchestrator.encoding import from_ss58
from orchestrator.keystore import Keystore
from orchestrator.models import TaskInput

folder = Path(argv[3])
me = Keystore(folder / "keys").load("me", passphrase=getpass())
with JobClient(
    chain=open_chain(argv[1]), contract=from_ss58(argv[2]), account=me.account, secret=me.secret,
    trusted_node=True, state_dir=folder / "jobs", blob_sources=[HttpBlobStore(argv[4])],
) as client:  # fmt: skip
    job_id = client.submit(TaskInput(task="echo", input=b"hello"))
    print(client.wait(job_id, timeout_seconds=60))
    print(client.result(job_id).output)
