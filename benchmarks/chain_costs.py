"""
`python -m benchmarks.chain_costs [--write FILE]`: what each message costs on a real node.

Beside it what the original contract costs, which verifies nothing: measured on the same node,
built by the same compiler (ink! 5.1.1, opt-level z). It keeps payloads as hexadecimal text, so
8 KiB does not fit there. `ref_time` (ps) and `proof_size` (bytes) are what the dry run consumed;
deposit and fee (planck, 1 UNIT is 1e12) are what the block charged.

With `--write` the tables replace what is between two markers in FILE. Exits with 1 when an aim is
missed.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.chain_fill import fill_blocks
from benchmarks.chain_world import (
    ADMIN,
    CARRIER,
    MEASUREMENT,
    OPERATOR,
    OWNER,
    TTL_MS,
    WINDOW_MS,
    ChainWorld,
    Measured,
)
from benchmarks.table import Table
from orchestrator.chain import ContractCall
from orchestrator.chain.devnode import DevNode, find_node
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.crypto import EcdsaSigner
from orchestrator.crypto.accounts import AccountKey
from orchestrator.encoding import blake2_256, registration_digest
from orchestrator.models import (
    JobOptions,
    Mode,
    Parameters,
    Role,
    Scheme,
    Signature,
    WorkerRegistration,
)

KIB = 1_024
SIZES = (256, KIB, 4 * KIB, 8 * KIB)
AIM_SIZE = 4 * KIB
GROUP = 10
PAGE = 10
BEGIN, END = "<!-- begin make bench-chain -->", "<!-- end make bench-chain -->"

SUBMIT, RECORD, MARK = "submit_confidential_job", "record_attestation", "mark_job_processed"
GROUPED = "complete_jobs of ten, per job"
SINGLE_SUM = "submit + record + mark"
GROUP_SUM = "submit + complete_jobs of ten"
RELEASE = "release_account"

# submit, record, mark (ps); the deposit is never returned; all fees of the three.
ORIGINAL: Mapping[int, tuple[int, int, int, int, int]] = {
    256: (748_915_760, 800_528_846, 882_511_524, 204_635_000_000, 4_308_763_920),
    KIB: (793_242_800, 800_647_118, 927_362_340, 212_315_000_000, 4_397_840_117),
    4 * KIB: (970_550_960, 801_120_206, 1_106_765_604, 243_035_000_000, 4_755_748_865),
}
GROUP_AIM = 0.6
PLANCK_LEFT_PER_JOB = 2

# The runtime's limit for what is not operational: 75 % of 2 s, and 3.75 MiB of 5 MiB.
NORMAL_WEIGHT = 1_500_000_000_000
NORMAL_BYTES = 15 * KIB * KIB // 4

Costs = dict[str, Measured]


def _total(*parts: Measured) -> Measured:
    return Measured(
        ref_time=sum(part.ref_time for part in parts),
        proof_size=sum(part.proof_size for part in parts),
        deposit=sum(part.deposit for part in parts),
        fee=sum(part.fee or 0 for part in parts),
    )


def _share(whole: Measured, count: int) -> Measured:
    return Measured(
        ref_time=whole.ref_time // count,
        proof_size=whole.proof_size // count,
        deposit=whole.deposit // count,
        fee=(whole.fee or 0) // count,
    )


def _job_costs(world: ChainWorld, size: int) -> Costs:
    """Every message about a job, for one payload size."""
    payload, call = bytes(range(256)) * (size // 256), world.processor
    world.submit(payload)  # the account's cell is there, as for an owner who is no newcomer
    costs: Costs = {}
    job_id, costs[SUBMIT] = world.made(world.submission(payload), OWNER)
    done = world.completion(job_id, payload)
    _, costs[RECORD] = world.made(call.record_attestation(done), CARRIER)
    by_operator = world.foreseen(call.mark_job_processed(job_id), OPERATOR.account_id)
    _, costs[MARK] = world.made(call.mark_job_processed(job_id), OWNER)
    costs[f"{MARK} by an operator"] = by_operator
    costs[SINGLE_SUM] = _total(costs[SUBMIT], costs[RECORD], costs[MARK])

    group = [world.completion(job, payload) for job in world.submit(payload, GROUP)]
    results, whole = world.made(call.complete_jobs(group), OPERATOR)
    assert results == [None] * GROUP, results
    costs[GROUPED] = _share(whole, GROUP)
    costs[GROUP_SUM] = _total(costs[SUBMIT], costs[GROUPED])

    (withdrawn,) = world.submit(payload)
    _, costs["cancel_job"] = world.made(call.cancel_job(withdrawn), OWNER)
    for read in (
        call.get_job(job_id),
        call.get_attestation(job_id),
        call.verify_attestation(job_id),
        call.attestation_status(job_id),
    ):
        costs[read.label] = _read(world, read)
    costs[f"jobs_page of {PAGE}"] = _read(world, call.jobs_page(job_id, PAGE))
    _, costs["purge_job"] = world.made(call.purge_job(job_id), OWNER)
    return costs


def _all_job_costs(chain: SubstrateChain, scheme: Scheme) -> dict[int, Costs]:
    worlds = {size: ChainWorld(chain, scheme) for size in SIZES}
    costs = {size: _job_costs(world, size) for size, world in worlds.items()}
    late = {size: world.submit(bytes(size), ttl=TTL_MS)[0] for size, world in worlds.items()}
    worlds[AIM_SIZE].pass_time(TTL_MS)
    for size, world in worlds.items():
        expire = world.processor.expire_job(late[size])
        _, costs[size]["expire_job"] = world.made(expire, CARRIER)
    return costs


def _read(world: ChainWorld, call: ContractCall[object]) -> Measured:
    found = world.foreseen(call, OWNER.account_id)
    return Measured(ref_time=found.ref_time, proof_size=found.proof_size)


def _life_deposit(chain: SubstrateChain, jobs: int = 5) -> int:
    """What is left of an owner's deposit after jobs, their purge and the account's release."""
    world = ChainWorld(chain, Scheme.ECDSA)
    payload, call = bytes(AIM_SIZE), world.processor
    paid = 0
    for _ in range(jobs):
        job_id, submitted = world.made(world.submission(payload), OWNER)
        paid += submitted.deposit
        done = call.complete_jobs([world.completion(job_id, payload)])
        _, completed = world.made(done, OPERATOR)
        assert completed.deposit == 0
        _, purged = world.made(call.purge_job(job_id), OWNER)
        paid += purged.deposit
    world.pass_time(WINDOW_MS)
    _, released = world.made(call.release_account(), OWNER)
    return paid + released.deposit


def _other_costs(world: ChainWorld) -> Costs:
    """The messages that no payload makes dearer."""
    call, chain = world.processor, world.chain
    costs: Costs = {}

    def made(message: ContractCall[object], signer: AccountKey = ADMIN) -> None:
        _, costs[message.label] = world.made(message, signer)

    options = JobOptions(workers=(world.worker,), ttl=3_600_000)
    location = b"https://store.example/"
    made(
        call.submit_job_reference(bytes([1]) * 32, 1 << 20, location, bytes([9]) * 32, options),
        OWNER,
    )
    job_id = chain.read(call.get_job_counter())
    chain.call(call.cancel_job(job_id), signer=OWNER)
    chain.call(call.purge_job(job_id), signer=OWNER)
    world.pass_time(WINDOW_MS)
    made(call.release_account(), OWNER)
    assert costs[RELEASE].deposit < 0, "the purge found the window over already"

    signer = EcdsaSigner.generate()
    registration = WorkerRegistration(
        signing_key=signer.public_key,
        encryption_key=bytes([8]) * 32,
        measurement=MEASUREMENT,
        evidence_hash=blake2_256(b"evidence"),
        endpoint=b"https://worker.example:8443",
        valid_until=chain.now() + 86_400_000,
    )

    def possession(said: WorkerRegistration) -> Signature:
        digest = registration_digest(said, genesis_hash=chain.genesis_hash, contract=call.contract)
        return signer.sign(digest)

    made(call.register_worker(registration, possession(registration)))
    worker = world.worker + 1
    renewed = replace(registration, valid_until=registration.valid_until + 1_000)
    proof = possession(renewed)
    made(call.renew_worker(worker, renewed.evidence_hash, renewed.valid_until, proof))
    made(call.suspend_worker(worker))
    made(call.reinstate_worker(worker))
    made(call.revoke_worker(worker, bytes(32)))
    made(call.allow_measurement(bytes([5]) * 32))
    made(call.revoke_measurement(bytes([5]) * 32))
    made(call.grant_role(CARRIER.account_id, Role.GUARDIAN))
    made(call.revoke_role(CARRIER.account_id, Role.GUARDIAN))
    made(call.set_parameters(Parameters(rate_window=WINDOW_MS)))
    made(call.set_mode(Mode.HALTED))
    made(call.set_code(chain.upload(call.bundle.code, signer=ADMIN)))
    made(call.propose_admin(CARRIER.account_id))
    made(call.accept_admin(), CARRIER)
    for read in (
        call.get_job_counter(),
        call.get_worker(worker),
        call.worker_by_key(signer.public_key),
        call.workers_page(1, 2),
        call.is_trusted(world.worker),
        call.has_measurement(MEASUREMENT),
        call.has_role(ADMIN.account_id, Role.REGISTRAR),
        call.rate_limit_left(OWNER.account_id),
        call.parameters(),
        call.mode(),
        call.admin(),
        call.genesis_hash(),
        call.version(),
    ):
        costs[read.label] = _read(world, read)
    return costs


# Tables.


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _row(name: str, measured: Measured) -> tuple[str, ...]:
    numbers = (measured.ref_time, measured.proof_size, measured.deposit, measured.fee)
    return (name, *map(_number, numbers))


COLUMNS = ("message", "ref_time", "proof size", "deposit", "fee")


def _original_rows(size: int) -> Iterator[tuple[str, ...]]:
    if size in ORIGINAL:
        submit, record, mark, deposit, fees = ORIGINAL[size]
        yield (
            "the original: submit, record, mark",
            f"{submit:,}, {record:,}, {mark:,}",
            "",
            "",
            "",
        )
        total = _number(submit + record + mark)
        yield ("the original: sum", total, "", f"{deposit:,} for ever", _number(fees))


def _job_table(size: int, ecdsa: Costs, sr25519: Costs) -> Table:
    rows = [_row(name, measured) for name, measured in ecdsa.items()]
    signed = (RECORD, MARK, SINGLE_SUM, GROUPED, GROUP_SUM)
    rows += [_row(f"{name}, sr25519", sr25519[name]) for name in signed]
    rows += _original_rows(size)
    title = f"{size} B payload" if size < KIB else f"{size // KIB} KiB payload"
    return Table(title=title, columns=COLUMNS, rows=rows)


def _aims(costs: Costs, left: int, jobs: int) -> tuple[Table, bool]:
    original = sum(ORIGINAL[AIM_SIZE][:3])
    single, group = costs[SINGLE_SUM].ref_time, costs[GROUP_SUM].ref_time
    carried = [costs[name].deposit for name in (RECORD, MARK, GROUPED)]
    checks = (
        (
            f"{SINGLE_SUM} <= the original",
            f"{original:,}",
            f"{single:,} ({single / original:.2f})",
            single <= original,
        ),
        (
            f"per job in complete_jobs of ten, submit included, <= {GROUP_AIM} of it",
            f"{int(GROUP_AIM * original):,}",
            f"{group:,} ({group / original:.2f})",
            group <= GROUP_AIM * original,
        ),
        ("deposit of the carrier at every step", "0", f"{max(carried)}", not any(carried)),
        (
            f"deposit of the owner after {jobs} jobs, purge and release",
            f"within {PLANCK_LEFT_PER_JOB * jobs}",
            f"{left}",
            abs(left) <= PLANCK_LEFT_PER_JOB * jobs,
        ),
    )
    rows = [
        (aim, wanted, reached, "reached" if good else "MISSED")
        for aim, wanted, reached, good in checks
    ]
    columns = ("aim, at 4 KiB, one ECDSA worker", "at most", "measured", "")
    return Table(title="Aims", columns=columns, rows=rows), all(good for *_, good in checks)


def _block_table(costs: Mapping[int, Costs], filled: Mapping[str, tuple[int, float]]) -> Table:
    """Jobs that fit into a block: a transaction weighs its fee less its bytes, a planck per ps."""
    rows = []
    for size in SIZES:
        found = costs[size]
        # Besides the payload: signature, era, gas limit and arguments.
        length = size + 350
        by_length = NORMAL_BYTES // length
        single = NORMAL_WEIGHT // ((found[SINGLE_SUM].fee or 0) - length)
        group = NORMAL_WEIGHT // ((found[GROUP_SUM].fee or 0) - length)
        original = NORMAL_WEIGHT // ORIGINAL[size][4] if size in ORIGINAL else None
        rows.append(
            (
                f"{size:,} B",
                f"{min(single, by_length):,}",
                f"{min(group, by_length):,}",
                _number(original),
            )
        )
    columns = (
        "payload",
        "three messages each",
        "submit, then complete_jobs of ten",
        "the original",
    )
    shown = "; ".join(
        f"{count:,} transactions of `{what}` ({share:.0%} of the weight)"
        for what, (count, share) in filled.items()
    )
    note = (
        f"The fullest blocks of a node with `--block-time 1000`, 4 KiB: {shown}."
        " At 8 KiB the length of a block, 3.75 MiB, limits groups."
    )
    return Table(title="Whole jobs per block", columns=columns, rows=rows, note=note)


def measure() -> tuple[list[Table], bool]:
    """
    Measure everything: the tables, and whether every aim was reached.

    Raises:
        SystemExit: There is no node.
    """
    program = find_node()
    if program is None:
        sys.exit("no node: set CONTRACTS_NODE, put contracts-devnode on PATH, or `make node`")
    jobs = 5
    with DevNode(program) as node:
        chain = SubstrateChain(node.url)
        costs = {scheme: _all_job_costs(chain, scheme) for scheme in Scheme}
        left = _life_deposit(chain, jobs)
        other = _other_costs(ChainWorld(chain, Scheme.ECDSA))
        chain.close()
    filled = fill_blocks(program, bytes(AIM_SIZE))
    ecdsa = costs[Scheme.ECDSA]
    aims, is_good = _aims(ecdsa[AIM_SIZE], left, jobs)
    tables = [aims, _block_table(ecdsa, filled)]
    tables += [_job_table(size, ecdsa[size], costs[Scheme.SR25519][size]) for size in SIZES]
    rows = [_row(name, measured) for name, measured in other.items()]
    tables.append(Table(title="The other messages", columns=COLUMNS, rows=rows))
    return tables, is_good


def write_between_markers(path: Path, tables: Sequence[Table]) -> None:
    """Replace what *path* has between the markers."""
    text = path.read_text(encoding="utf-8")
    body = "\n".join(table.markdown() for table in tables)
    found = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not found.search(text):
        sys.exit(f"{path} has no markers {BEGIN} and {END}")
    path.write_text(found.sub(lambda _: f"{BEGIN}\n\n{body}\n{END}", text), encoding="utf-8")


def main() -> None:
    """Print the tables, and write them when asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chain_costs", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into it")
    options = parser.parse_args()
    tables, is_good = measure()
    for table in tables:
        print(table.markdown())
    if options.write is not None:
        write_between_markers(options.write, tables)
    if not is_good:
        sys.exit("an aim was missed")


if __name__ == "__main__":
    main()
