"""The typed processor: every message is there, and models go through unchanged."""

import inspect
from dataclasses import replace

import pytest

from orchestrator.attestation.statement import sign_statement, statement_of
from orchestrator.chain import Block, RawEvent
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.interface import ADAPTERS, MESSAGES
from orchestrator.chain.processor import ContractEvent, JobProcessor
from orchestrator.chain.scale import Variant
from orchestrator.crypto.keys import EcdsaSigner
from orchestrator.encoding import blake2_256
from orchestrator.errors import ChainMismatchError, ContractError, InputError
from orchestrator.models import (
    AttestationProof,
    Completion,
    InlinePayload,
    JobId,
    JobOptions,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    PublicKey,
    ReferencePayload,
    Role,
    Scheme,
    Signature,
)
from orchestrator.testing import LocalAccount, deploy_processor, register_test_worker

_RAW = RawEvent(
    contract=b"\1" * 32,
    topics=(bytes(32),),
    data=b"",
    block=Block(number=1, hash=bytes(32), timestamp=1),
    index=0,
)


@pytest.fixture
def processor() -> JobProcessor:
    return JobProcessor(b"\1" * 32)


def test_there_is_a_method_for_every_message(processor: JobProcessor) -> None:
    names = {name for name, _ in inspect.getmembers(processor, inspect.ismethod)}

    assert {name for name in names if not name.startswith("_")} == {
        *MESSAGES,
        "new",
        "decode_event",
    }


def test_calls_name_their_contract_and_message(processor: JobProcessor) -> None:
    call = processor.get_job(7)

    assert (call.contract, call.label) == (b"\1" * 32, "get_job")
    assert call.data.endswith((7).to_bytes(16, "little"))


def test_a_contract_address_has_32_bytes() -> None:
    with pytest.raises(InputError, match="contract: 31 bytes, not 32"):
        JobProcessor(bytes(31))


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("JobStatus", JobStatus.FAILED, Variant("Failed")),
        ("Mode", Mode.HALTED, Variant("Halted")),
        ("Role", Role.OPERATOR, Variant("Operator")),
        ("Outcome", Outcome.FAILED, Variant("Failed")),
        (
            "PublicKey",
            PublicKey(scheme=Scheme.ECDSA, key=b"\2" * 33),
            Variant("Ecdsa", b"\2" * 33),
        ),
        (
            "Signature",
            Signature(scheme=Scheme.SR25519, data=bytes(64)),
            Variant("Sr25519", bytes(64)),
        ),
        ("Payload", InlinePayload(data=b"0xab"), Variant("Inline", b"0xab")),
        (
            "Payload",
            ReferencePayload(length=5, location=b"x"),
            Variant("Reference", {"length": 5, "location": b"x"}),
        ),
        ("Error", Variant("Overflow"), Variant("Overflow")),
    ],
)
def test_models_and_their_plain_values(name: str, value: object, plain: object) -> None:
    assert ADAPTERS[name].to_plain(value) == plain
    assert ADAPTERS[name].from_plain(plain) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JobStatus", "Failed"),
        ("JobStatus", Mode.HALTED),
        ("Outcome", 1),
        ("PublicKey", b"\2" * 33),
        ("PublicKey", Signature(scheme=Scheme.ECDSA, data=bytes(65))),
        ("Payload", b"\2"),
        ("Parameters", {}),
    ],
)
def test_other_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{type(value).__name__} is not a"):
        ADAPTERS[name].to_plain(value)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("JobStatus", "Failed"),
        ("PublicKey", Variant("Ecdsa", "text")),
        ("Payload", Variant("Inline", 5)),
        ("Payload", Variant("Reference", {"length": 1})),
    ],
)
def test_plain_values_of_another_shape_are_refused(name: str, plain: object) -> None:
    with pytest.raises(ChainMismatchError):
        ADAPTERS[name].from_plain(plain)


def test_a_key_of_the_wrong_length_names_the_field(processor: JobProcessor) -> None:
    key = PublicKey(scheme=Scheme.ECDSA, key=bytes(32))

    with pytest.raises(InputError, match="signing_key: 32 bytes given where 33 bytes"):
        processor.worker_by_key(key)


def test_a_parameter_out_of_its_width_names_the_field(processor: JobProcessor) -> None:
    parameters = replace(Parameters(), rate_limit=1 << 32)

    with pytest.raises(InputError, match="parameters: rate_limit: 4294967296 is not a u32"):
        processor.set_parameters(parameters)


def test_an_event_of_another_contract_is_refused(processor: JobProcessor) -> None:
    with pytest.raises(ChainMismatchError, match="no event of the contract"):
        processor.decode_event(_RAW)


_SAID = {"worker": 4, "units": 5, "started_at": 6, "finished_at": 7, "issued_at": 8}


@pytest.mark.parametrize(
    ("name", "fields", "statement"),
    [
        ("AttestationRecorded", {"job_id": 1, "outcome": Outcome.FAILED}, None),
        (
            "JobProcessed",
            {"job_id": 1, "owner": b"", "result_hash": b"\2", "statement": _SAID},
            {**_SAID, "job_id": 1, "result_hash": b"\2", "outcome": Outcome.COMPLETED},
        ),
    ],
)
def test_events_that_hold_a_statement(
    name: str, fields: dict[str, object], statement: dict[str, object] | None
) -> None:
    event = ContractEvent(name=name, fields=fields, raw=_RAW)

    assert event.statement == (statement or fields)


@pytest.mark.parametrize("name", ["JobProcessed", "JobSubmitted"])
def test_events_that_hold_none(name: str) -> None:
    fields = {"job_id": 1, "owner": b"", "result_hash": b"\2", "statement": None}

    assert ContractEvent(name=name, fields=fields, raw=_RAW).statement is None


def test_a_bundle_of_ones_own(processor: JobProcessor) -> None:
    other = JobProcessor(bytes(32), load_bundle())

    assert other.mode().data == processor.mode().data


def test_settling_tells_items_of_one_job_apart() -> None:
    chain, admin, measurement = EmbeddedChain(":memory:"), LocalAccount.named("admin"), b"\1" * 32
    processor = deploy_processor(chain, admin=admin, measurement=measurement)
    signers = [EcdsaSigner.generate(), EcdsaSigner.generate()]
    workers = [
        register_test_worker(chain, processor, s, registrar=admin, measurement=measurement)
        for s in signers
    ]

    def submit(*chosen: int) -> JobId:
        options = JobOptions(workers=tuple(workers[n] for n in chosen), ttl=60_000)
        call = processor.submit_confidential_job(b"sealed", b"\7" * 32, options)
        return chain.call(call, signer=admin).value

    def item(job: JobId, worker: int, outcome: Outcome, result: bytes) -> Completion:
        signature = Signature(scheme=Scheme.ECDSA, data=bytes(65))
        now, signer = chain.now(), signers[worker]
        proof = AttestationProof(
            outcome=outcome, units=0, started_at=now, finished_at=now, issued_at=now,
            signature=signature,
        )  # fmt: skip
        draft = Completion(
            job_id=job,
            result_hash=result * 32,
            attestation_proof=proof,
            tee_worker_pubkey=signer.public_key,
        )
        statement = statement_of(
            draft,
            genesis_hash=chain.genesis_hash,
            contract=processor.contract,
            payload_hash=blake2_256(b"sealed"),
            measurement=measurement,
        )
        signed = replace(proof, signature=sign_statement(statement, signer))
        return replace(draft, attestation_proof=signed)

    first, second, third = submit(0, 1), submit(0), submit(1)
    chain.call(processor.record_attestation(item(third, 1, Outcome.COMPLETED, b"\5")), signer=admin)
    call = processor.complete_jobs(
        [
            item(first, 0, Outcome.FAILED, b"\1"),
            # The same result as the next, by another worker.
            item(first, 0, Outcome.COMPLETED, b"\3"),
            item(first, 1, Outcome.COMPLETED, b"\3"),
            item(first, 1, Outcome.COMPLETED, b"\3"),
            item(second, 0, Outcome.FAILED, b"\4"),
            item(third, 1, Outcome.COMPLETED, b"\6"),
            item(third, 1, Outcome.COMPLETED, b"\5"),
            item(99, 1, Outcome.COMPLETED, b"\7"),
        ]
    )

    receipt = chain.call(call, signer=admin)

    refused = ["", "AlreadyFailed", "", "AlreadyAttested", "", "AlreadyAttested", "", "JobNotFound"]
    foreseen = ContractError("Foreseen")
    assert _variants(receipt.value) == refused
    assert _variants(call.settle(receipt.value, receipt.events)) == refused
    # Whatever was foreseen, the events tell which items took effect.
    assert _variants(call.settle([foreseen] * 8, receipt.events)) == [
        v and "Foreseen" for v in refused
    ]
    assert _variants(call.settle([None] * 8, receipt.events)) == [
        v and "WrongStatus" for v in refused
    ]
    chain.close()


def _variants(items: list[ContractError | None]) -> list[str]:
    return ["" if item is None else item.variant for item in items]
