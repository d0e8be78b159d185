//! Marking attested jobs processed.

use crate::assert_events;
use crate::errors::Error;
use crate::events::JobProcessed;
use crate::types::{AttestationStatus, JobStatus, Mode};

use super::world::{all_but, Who, World, DAY, MEASUREMENT, RESULT, START};

#[test]
fn the_owner_or_an_operator_marks() {
    for who in [Who::Owner, Who::Operator] {
        let mut world = World::with_attested_job();
        world.now += 5;

        let (result, events) = world.events_of(who, |contract| contract.mark_job_processed(1));

        assert_eq!(result, Ok(()));
        let job = world.job(1);
        assert_eq!(job.status, JobStatus::Processed);
        assert!(job.processed);
        assert_eq!(job.processed_at, Some(START + 5));
        assert_events!(
            events,
            [JobProcessed {
                job_id: 1,
                owner: Who::Owner.id(),
                result_hash: RESULT,
                statement: None
            }]
        );
    }
}

#[test]
fn nobody_else_marks_whatever_the_jobs_state() {
    let mut world = World::with_attested_job();
    for who in all_but(&[Who::Owner, Who::Operator]) {
        world.refused(Error::NotJobOwner, who, |contract| {
            contract.mark_job_processed(1)
        });
    }
    let mut world = World::with_job();
    world.refused(Error::NotJobOwner, Who::Stranger, |contract| {
        contract.mark_job_processed(1)
    });
    world.set_mode(Mode::Halted);
    world.refused(Error::NotJobOwner, Who::Stranger, |contract| {
        contract.mark_job_processed(1)
    });
}

#[test]
fn the_job_must_exist() {
    let mut world = World::with_attested_job();
    for who in [Who::Owner, Who::Operator, Who::Stranger] {
        world.refused(Error::JobNotFound, who, |contract| {
            contract.mark_job_processed(2)
        });
    }
}

#[test]
fn marking_needs_a_mode() {
    let mut world = World::with_attested_job();
    world.set_mode(Mode::Halted);
    world.refused(Error::WrongMode, Who::Owner, |contract| {
        contract.mark_job_processed(1)
    });

    world.set_mode(Mode::Draining);
    assert_eq!(world.by(Who::Owner).mark_job_processed(1), Ok(()));
}

#[test]
fn only_an_attested_job_is_marked_and_once() {
    let mut world = World::with_job();
    let mark = |world: &mut World| {
        world.refused(Error::WrongStatus, Who::Owner, |contract| {
            contract.mark_job_processed(1)
        });
    };
    mark(&mut world);
    let attempt = world.attempt(1, 1);
    world.record(&attempt).unwrap();
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    mark(&mut world);

    let mut world = World::with_job();
    world.by(Who::Owner).cancel_job(1).unwrap();
    mark(&mut world);

    let mut world = World::with_job();
    world.now = world.job(1).deadline + 1;
    world.by(Who::Owner).expire_job(1).unwrap();
    mark(&mut world);

    let mut world = World::with_job();
    for worker in [1, 2] {
        let failure = world.failure(1, worker);
        world.record(&failure).unwrap();
    }
    mark(&mut world);
}

#[test]
fn an_expired_worker_does_not_matter() {
    let mut world = World::with_attested_job();
    world.now = START + DAY + 1;
    assert_eq!(
        world.attestation_status(1),
        AttestationStatus::WorkerExpired
    );
    assert!(!world.read().verify_attestation(1));

    assert_eq!(world.by(Who::Owner).mark_job_processed(1), Ok(()));
}

#[test]
fn a_worker_that_lost_its_trust_does_matter() {
    type Distrust = fn(&mut World);
    let ways: [(AttestationStatus, Distrust); 3] = [
        (AttestationStatus::WorkerSuspended, |world| {
            world.by(Who::Guardian).suspend_worker(1).unwrap();
        }),
        (AttestationStatus::WorkerRevoked, |world| {
            world.by(Who::Registrar).revoke_worker(1, [9; 32]).unwrap();
        }),
        (AttestationStatus::MeasurementRevoked, |world| {
            world
                .by(Who::Registrar)
                .revoke_measurement(MEASUREMENT)
                .unwrap();
        }),
    ];
    for (status, distrust) in ways {
        let mut world = World::with_attested_job();
        distrust(&mut world);

        assert_eq!(world.attestation_status(1), status);
        assert!(!world.read().verify_attestation(1));
        for who in [Who::Owner, Who::Operator] {
            world.refused(Error::AttestationNotValid, who, |contract| {
                contract.mark_job_processed(1)
            });
        }
    }
}

#[test]
fn a_reinstated_worker_is_good_again() {
    let mut world = World::with_attested_job();
    world.by(Who::Guardian).suspend_worker(1).unwrap();
    assert_eq!(
        world.by(Who::Owner).mark_job_processed(1),
        Err(Error::AttestationNotValid)
    );
    world.by(Who::Registrar).reinstate_worker(1).unwrap();

    assert_eq!(world.by(Who::Owner).mark_job_processed(1), Ok(()));
}

/// Storage that says something else than what was signed can't come from a message; an upgrade
/// might do it.
#[test]
fn a_signature_that_does_not_fit_storage_is_found() {
    let mut world = World::with_attested_job();
    let mut row = world.contract.jobs.row(1).unwrap();
    let mut attestation = row.attestation().unwrap();
    attestation.result_hash = [0x77; 32];
    row.set_attestation(&attestation);
    world.contract.jobs.store(1, &row);

    assert_eq!(world.attestation_status(1), AttestationStatus::BadSignature);
    world.refused(Error::AttestationNotValid, Who::Owner, |contract| {
        contract.mark_job_processed(1)
    });
}

#[test]
fn the_first_status_that_applies_is_given() {
    let mut world = World::with_attested_job();
    let mut seen = vec![world.attestation_status(1)];
    world.now = START + DAY + 1;
    seen.push(world.attestation_status(1));
    world.by(Who::Guardian).suspend_worker(1).unwrap();
    seen.push(world.attestation_status(1));
    world
        .by(Who::Registrar)
        .revoke_measurement(MEASUREMENT)
        .unwrap();
    seen.push(world.attestation_status(1));
    world.by(Who::Registrar).revoke_worker(1, [9; 32]).unwrap();
    seen.push(world.attestation_status(1));
    world.contract.genesis_hash = [0; 32];
    seen.push(world.attestation_status(1));
    seen.push(world.attestation_status(2));

    assert_eq!(
        seen,
        [
            AttestationStatus::Valid,
            AttestationStatus::WorkerExpired,
            AttestationStatus::WorkerSuspended,
            AttestationStatus::MeasurementRevoked,
            AttestationStatus::WorkerRevoked,
            AttestationStatus::BadSignature,
            AttestationStatus::NotFound,
        ]
    );
}
