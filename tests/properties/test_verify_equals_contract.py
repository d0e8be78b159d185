"""`verify_statement` and the contract's `record_attestation` say the same about any statement."""

import os
import random
from collections import Counter

import pytest

from orchestrator.attestation.verifier import verify_statement
from orchestrator.errors import ContractError, VerificationError
from orchestrator.models import Mode, Scheme
from tests.properties.statement_cases import CaseMaker
from tests.properties.statement_world import ROWS, Case, World, build_world

CASES = 10_000
SEED_VARIABLE = "PHALA_JOBS_TEST_SEED"


def python_says(world: World, case: Case) -> str:
    assert case.completion is not None
    try:
        verify_statement(case.completion, view=world.view(case.completion, case.mode), now=case.now)
    except VerificationError as error:
        return error.code
    return "recorded"


def contract_says(world: World, case: Case) -> str:
    assert case.completion is not None
    world.clock.now = case.now
    assert world.chain.now() == case.now
    call = world.processor.record_attestation(case.completion)
    try:
        world.chain.dry_run(call, caller=world.admin.account_id)
    except ContractError as error:
        return error.variant
    return "recorded"


def test_the_code_of_verify_is_the_error_of_the_contract(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    with capsys.disabled():  # shown by every run, also when it passes
        print(f"\nverify against the contract: {SEED_VARIABLE}={seed}")
    world = build_world(random.Random(seed))
    maker = CaseMaker(world)
    valid = [maker.valid() for _ in range(CASES // 2)]
    faulty = [maker.faulty(maker.rows()) for _ in range(CASES - CASES // 2)]

    codes: Counter[str] = Counter()
    schemes: Counter[Scheme] = Counter()
    blocks = world.chain.finalized_head().number
    for mode in Mode:
        world.clock.now = world.start
        if mode is not Mode.RUNNING:
            world.chain.call(world.processor.set_mode(mode), signer=world.admin)
        for case in (case for case in valid + faulty if case.mode is mode):
            assert case.completion is not None
            ours, theirs = python_says(world, case), contract_says(world, case)
            assert ours == theirs, f"{SEED_VARIABLE}={seed} faults {case.faults}: {case}"
            codes[ours] += 1
            schemes[case.completion.tee_worker_pubkey.scheme] += ours == "recorded"
            if len(case.faults) <= 1:
                expected = [ROWS[row] for row in case.faults] or [("recorded",)]
                assert ours in expected[0], f"{SEED_VARIABLE}={seed}: {case}"
            else:
                assert ours in ROWS[min(case.faults)], f"{SEED_VARIABLE}={seed}: {case}"

    rows = {row: sum(codes[code] for code in names) for row, names in ROWS.items()}
    several = sum(len(case.faults) > 1 for case in faulty)
    with capsys.disabled():
        print(f"recorded {codes['recorded']}, by row {rows}, with several faults {several}")
    assert world.chain.finalized_head().number == blocks + len(Mode) - 1
    assert codes["recorded"] == CASES // 2
    assert min(rows.values()) >= 200
    assert min(codes[code] for names in ROWS.values() for code in names) >= 50
    assert min(schemes[scheme] for scheme in Scheme) >= 1_000
    assert several >= 1_000
