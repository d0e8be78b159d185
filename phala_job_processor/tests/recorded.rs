//! What a recorded statement does to its job.

use crate::assert_events;
use crate::events::{AttestationRecorded, JobFailed};
use crate::types::{AttestationStatus, JobAttestation, JobStatus, Outcome, WorkerFailure};

use super::reference::Attempt;
use super::world::{record, Who, World, EVERYBODY, START};

#[test]
fn anybody_may_carry_a_statement() {
    for who in EVERYBODY {
        for worker in [1, 2] {
            let mut world = World::with_job();
            let completion = world.attempt(1, worker).completion();
            assert_eq!(record(world.by(who), completion), Ok(()), "{who:?}");
        }
    }
}

#[test]
fn a_completed_statement_attests_the_job() {
    let mut world = World::with_job();
    world.now += 10;
    let attempt = Attempt {
        started_at: START + 1,
        finished_at: START + 2,
        issued_at: START + 3,
        ..world.attempt(1, 2)
    };
    let completion = attempt.completion();
    let proof = completion.attestation_proof.clone();

    let (result, events) = world.events_of(Who::Stranger, |contract| record(contract, completion));

    assert_eq!(result, Ok(()));
    assert_eq!(world.status(1), JobStatus::Attested);
    assert_eq!(world.attestation_status(1), AttestationStatus::Valid);
    assert!(world.read().verify_attestation(1));
    assert_eq!(
        world.read().get_attestation(1),
        Some(JobAttestation {
            job_id: 1,
            result_hash: attempt.result_hash,
            attestation_proof: proof.clone(),
            tee_worker_pubkey: attempt.key.public_key(),
            timestamp: START + 10,
            worker: 2,
        })
    );
    assert_events!(
        events,
        [AttestationRecorded {
            job_id: 1,
            worker: 2,
            outcome: Outcome::Completed,
            result_hash: attempt.result_hash,
            units: 7,
            started_at: START + 1,
            finished_at: START + 2,
            issued_at: START + 3,
            signature: proof.signature,
        }]
    );
}

#[test]
fn failures_are_noted_until_all_workers_have_failed() {
    let mut world = World::with_job();
    let first = Attempt {
        result_hash: [0x61; 32],
        units: 5,
        ..world.failure(1, 2)
    };
    let recorded = |attempt: &Attempt, worker, signature| AttestationRecorded {
        job_id: 1,
        worker,
        outcome: Outcome::Failed,
        result_hash: attempt.result_hash,
        units: attempt.units,
        started_at: attempt.started_at,
        finished_at: attempt.finished_at,
        issued_at: attempt.issued_at,
        signature,
    };
    let completion = first.completion();
    let signature = completion.attestation_proof.signature;
    let (_, events) = world.events_of(Who::Stranger, |contract| record(contract, completion));
    assert_events!(events, [recorded(&first, 2, signature)]);
    assert_eq!(world.status(1), JobStatus::Submitted);

    world.now += 1;
    let second = Attempt {
        result_hash: [0x62; 32],
        units: 6,
        ..world.failure(1, 1)
    };
    let completion = second.completion();
    let signature = completion.attestation_proof.signature;
    let (_, events) = world.events_of(Who::Stranger, |contract| record(contract, completion));

    assert_events!(
        events,
        [
            recorded(&second, 1, signature),
            JobFailed {
                job_id: 1,
                owner: Who::Owner.id()
            }
        ]
    );
    assert_eq!(world.status(1), JobStatus::Failed);
    assert_eq!(
        world.job(1).failures,
        [
            WorkerFailure {
                worker: 2,
                result_hash: [0x61; 32],
                units: 5,
                timestamp: START
            },
            WorkerFailure {
                worker: 1,
                result_hash: [0x62; 32],
                units: 6,
                timestamp: START + 1
            }
        ]
    );
    assert_eq!(world.read().get_attestation(1), None);
    assert_eq!(world.attestation_status(1), AttestationStatus::NotFound);
}
