"""A receipt convinces a stranger: made on a node, verified far from it, refused once changed."""

import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain import Chain
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.cells import ContractCells
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.url import open_chain
from orchestrator.encoding import to_ss58
from orchestrator.evidence import load_policy
from orchestrator.receipts import examine_receipt
from orchestrator.simulator import Simulator
from tests.unit.receipts.byte_changes import events_range, refusals
from tests.unit.receipts.world import (
    ADMIN,
    RESULT,
    ReceiptWorld,
    evidence_from,
    make_receipt_world,
    policy_text,
)

# Of these, several changes are made; of each other byte one that keeps the file's form if any can.
SAMPLE, CHANGES = 500, 8
NOT_HERE = "unshare -rn is not permitted here: nothing can be run without a network"


class InstalledWheel(Protocol):
    @property
    def bin(self) -> Path: ...


@dataclass(frozen=True, kw_only=True)
class Written:
    """A receipt file, and what its reader has from elsewhere."""

    path: Path
    policy: Path
    result: Path
    evidence: Path
    url: str
    block: str = ""
    world: ReceiptWorld


def run(*words: object, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def environment(folder: Path) -> dict[str, str]:
    """The least that a command needs; a home of its own, so that no setting of ours helps."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "TMPDIR": str(folder)}


def receipt_command(
    written: Written, folder: Path, *words: object
) -> subprocess.CompletedProcess[str]:
    """Run `receipt` in *folder*, as a process of its own."""
    return run(
        *(sys.executable, "-m", "orchestrator", "receipt", 1, "-o", "receipt.json", *words),
        *("--chain", written.url, "--contract", to_ss58(written.world.processor.contract)),
        *("--evidence", written.evidence, "--json"),
        cwd=folder,
        env=environment(folder) | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def write_receipt(chain: Chain, url: str, folder: Path) -> Written:
    """Have a job done by a worker on simulated evidence, and its receipt written by the command."""
    simulator = Simulator.create()
    policy = policy_text(simulator).encode()
    world = make_receipt_world(
        chain,
        measurement=simulator.guest.measurements().measurement,
        evidence_of=evidence_from(simulator, chain, policy),
        salt=secrets.token_bytes(8),
    )
    kept = DirectoryBlobStore(folder / "evidence")
    kept.put(world.evidence)
    kept.put(policy)
    (folder / "result").write_bytes(RESULT)
    (folder / "policy.toml").write_bytes(policy)
    written = Written(
        path=folder / "receipt.json",
        policy=folder / "policy.toml",
        result=folder / "result",
        evidence=folder / "evidence",
        url=url,
        world=world,
    )
    done = receipt_command(written, folder)
    assert done.returncode == 0, done.stderr
    number = json.loads(done.stdout)["block"]
    # Not the command's word: what the node says is in its finalized chain.
    block = b"" if number is None else chain.block_hash(number)
    assert block is not None
    return replace(written, block=block.hex())


@pytest.fixture(scope="module")
def on_node(node: DevNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    chain = open_chain(node.url)
    yield write_receipt(chain, node.url, tmp_path_factory.mktemp("node"))
    chain.close()


@pytest.fixture
def alone(installed_wheel: InstalledWheel, tmp_path: Path) -> "Alone":
    """Runs in the environment of the wheel, without a network."""
    if run("unshare", "-rn", "true", cwd=tmp_path, env=environment(tmp_path)).returncode:
        pytest.skip(NOT_HERE)
    return Alone(installed_wheel.bin, tmp_path)


class Alone:
    """Programs of an environment, each in a network of its own that has nothing in it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self.folder = folder

    def __call__(self, program: str, *words: object) -> subprocess.CompletedProcess[str]:
        return run(
            *("unshare", "-rn", self._programs / program, *words),
            cwd=self.folder,
            env=environment(self.folder),
        )


def test_a_receipt_of_the_node_verifies_from_the_wheel_without_a_network(
    alone: Alone, on_node: Written
) -> None:
    port = on_node.url.rpartition(":")[2]
    reach = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
    subprocess.run([sys.executable, "-c", reach], check=True, timeout=30)
    assert "Network is unreachable" in alone("python", "-c", reach).stderr
    trusted = ("verify", on_node.path, "--trusted-block", on_node.block)

    mine = (*trusted, "--policy", on_node.policy)

    verified = alone("phala-jobs", *mine, "--result", on_node.result, "--json")
    shown = alone("phala-jobs", *mine)
    theirs = alone("phala-jobs", *trusted, "--receipts-policy")
    nobodys = alone("phala-jobs", *trusted)
    unknown = alone("phala-jobs", "verify", on_node.path, "--policy", on_node.policy)
    other = alone("phala-jobs", "verify", on_node.path, "--trusted-block", "11" * 32)

    assert verified.returncode == 0, verified.stderr
    document = json.loads(verified.stdout)
    outcomes = {row["step"]: row["outcome"] for row in document["steps"]}
    left = {name for name, outcome in outcomes.items() if outcome != "passed"}
    assert left == {"E13 challenge fresh", "events", "finality"}
    assert document["evidence"]["simulated"] is True
    assert shown.returncode == 0, shown.stderr
    assert "simulated: proves no TEE; job 1: worker 1 signed this result" in shown.stderr
    assert "bound to what your policy allows" in shown.stderr
    assert theirs.returncode == 0, theirs.stderr
    assert nobodys.returncode == 3
    assert "not everything could be checked: policy" in nobodys.stderr
    assert unknown.returncode == 3
    assert "could be checked: block" in unknown.stderr
    assert other.returncode == 1
    assert "block: the header is of" in other.stderr


def test_a_receipt_of_an_embedded_chain_says_what_nobody_can_check(
    alone: Alone, tmp_path: Path
) -> None:
    file = tmp_path / "chain.db"
    chain = EmbeddedChain(file)
    written = write_receipt(chain, f"local:{file}", tmp_path)
    chain.close()

    verified = alone("phala-jobs", "verify", written.path, "--json")

    assert verified.returncode == 3, verified.stderr
    outcomes = {row["step"]: row["outcome"] for row in json.loads(verified.stdout)["steps"]}
    assert outcomes["signature"] == outcomes["evidence"] == outcomes["measurement"] == "passed"
    assert outcomes["block"] == outcomes["job's row"] == "not checked"


def test_a_receipt_of_an_older_block_is_still_made_once_the_worker_is_revoked(
    on_node: Written, tmp_path: Path
) -> None:
    chain, processor = on_node.world.chain, on_node.world.processor
    number = chain.finalized_head().number
    chain.call(processor.revoke_worker(on_node.world.worker, bytes(32)), signer=ADMIN)

    last = receipt_command(on_node, tmp_path)
    older = receipt_command(on_node, tmp_path, "--block", number)

    assert last.returncode == 1
    assert "E14 keys not revoked" in last.stderr
    assert "an earlier --block may be one where it was" in last.stderr
    assert older.returncode == 0, older.stderr
    block = chain.block_hash(number)
    assert block is not None
    report = examine_receipt(
        (tmp_path / "receipt.json").read_bytes(),
        cells=ContractCells(load_bundle()),
        trusted_block=block,
        policy=load_policy(on_node.policy.read_bytes()),
    )
    assert not report.failed
    assert not report.missing


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_no_byte_of_a_receipt_can_be_changed(
    on_node: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each but those of the events, which nothing proves and no step claims to have checked."""
    data, block = on_node.path.read_bytes(), bytes.fromhex(on_node.block)
    cells = ContractCells(load_bundle())
    assert not examine_receipt(data, cells=cells, trusted_block=block).failed
    events = events_range(data)
    places = [at for at in range(len(data)) if at not in events]
    sample = random.Random(5).sample(places, SAMPLE)
    began = time.process_time()

    found = refusals(data, places, cells=cells, trusted_block=block, changes=1)
    found += refusals(data, sample, cells=cells, trusted_block=block, changes=CHANGES)

    assert sum(found.values()) == len(places) + SAMPLE * CHANGES
    assert not [name for name in found if name.startswith("nobody")]
    assert {"canonical form", "signature", "block", "storage proof", "evidence", "policy"} <= set(
        found
    )
    with capsys.disabled():
        print(
            f"\n{len(data)} bytes, {len(events)} of them events; {sum(found.values())} changes"
            f" refused in {time.process_time() - began:.0f} s of computing, first by"
            f" {dict(found.most_common())}"
        )


def test_changed_events_are_no_claim(on_node: Written) -> None:
    data, block = on_node.path.read_bytes(), bytes.fromhex(on_node.block)
    at = data.index(b'"data": "0x', events_range(data).start) + len(b'"data": "0x')
    digit = b"1" if data[at : at + 1] == b"0" else b"0"
    changed = data[:at] + digit + data[at + 1 :]

    report = examine_receipt(changed, cells=ContractCells(load_bundle()), trusted_block=block)

    assert not report.failed
    (step,) = (step for step in report.steps if step.name == "events")
    assert step.outcome.value == "not checked"
