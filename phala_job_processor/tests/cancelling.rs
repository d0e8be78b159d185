//! How an owner gets out of a job.

use crate::assert_events;
use crate::errors::Error;
use crate::events::JobCancelled;
use crate::parameters::Parameters;
use crate::types::{JobStatus, Mode};

use super::world::{all_but, Who, World, DAY, MEASUREMENT, START};

fn refused(world: &mut World) {
    world.refused(Error::WrongStatus, Who::Owner, |contract| {
        contract.cancel_job(1)
    });
}

#[test]
fn a_submitted_job_is_cancelled_in_every_mode() {
    for mode in [Mode::Running, Mode::Draining, Mode::Halted] {
        let mut world = World::with_job();
        world.set_mode(mode);

        let (result, events) = world.events_of(Who::Owner, |contract| contract.cancel_job(1));

        assert_eq!(result, Ok(()));
        assert_eq!(world.status(1), JobStatus::Cancelled);
        assert_events!(
            events,
            [JobCancelled {
                job_id: 1,
                owner: Who::Owner.id()
            }]
        );
    }
}

#[test]
fn a_job_past_its_deadline_can_still_be_cancelled() {
    let mut world = World::with_job();
    world.now = world.job(1).deadline + 1;

    assert_eq!(world.by(Who::Owner).cancel_job(1), Ok(()));
}

#[test]
fn only_the_owner_cancels() {
    let mut world = World::with_job();
    for who in all_but(&[Who::Owner]) {
        world.refused(Error::NotJobOwner, who, |contract| contract.cancel_job(1));
    }
    world.refused(Error::JobNotFound, Who::Owner, |contract| {
        contract.cancel_job(2)
    });
}

#[test]
fn an_attested_job_has_to_wait_for_the_grace() {
    let grace = Parameters::default().mark_grace;
    let mut world = World::with_job();
    // The grace runs from the recording, not from the signing.
    let attempt = world.attempt(1, 1);
    world.now += 7;
    world.record(&attempt).unwrap();
    let attested_at = world.now;
    refused(&mut world);
    world.now = attested_at + grace;
    refused(&mut world);

    world.now += 1;
    assert_eq!(world.by(Who::Owner).cancel_job(1), Ok(()));
    assert_eq!(world.status(1), JobStatus::Cancelled);
    // What was recorded stays until the purge.
    assert!(world.read().get_attestation(1).is_some());
}

#[test]
fn an_attested_job_is_left_at_once_when_its_attestation_is_refuted() {
    type Refute = fn(&mut World);
    let ways: [Refute; 3] = [
        |world| world.by(Who::Registrar).revoke_worker(1, [9; 32]).unwrap(),
        |world| {
            world
                .by(Who::Registrar)
                .revoke_measurement(MEASUREMENT)
                .unwrap();
        },
        |world| {
            let mut row = world.contract.jobs.row(1).unwrap();
            let mut attestation = row.attestation().unwrap();
            attestation.units += 1;
            row.set_attestation(&attestation);
            world.contract.jobs.store(1, &row);
        },
    ];
    for refute in ways {
        let mut world = World::with_attested_job();
        refused(&mut world);
        refute(&mut world);

        assert_eq!(world.by(Who::Owner).cancel_job(1), Ok(()));
    }
}

#[test]
fn a_suspended_or_expired_worker_is_no_reason_to_leave_at_once() {
    let mut world = World::with_attested_job();
    world.by(Who::Guardian).suspend_worker(1).unwrap();
    refused(&mut world);

    let mut world = World::with_workers(2);
    world.now = START + DAY;
    world.submit(&[1]);
    let attempt = world.attempt(1, 1);
    world.record(&attempt).unwrap();
    world.now += 1;
    refused(&mut world);
}

#[test]
fn a_finished_job_is_not_cancelled() {
    let mut world = World::with_attested_job();
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    world.now += 10 * DAY;
    refused(&mut world);

    let mut world = World::with_job();
    world.by(Who::Owner).cancel_job(1).unwrap();
    refused(&mut world);

    let mut world = World::with_job();
    world.now = world.job(1).deadline + 1;
    world.by(Who::Stranger).expire_job(1).unwrap();
    refused(&mut world);

    let mut world = World::with_job();
    for worker in [1, 2] {
        let failure = world.failure(1, worker);
        world.record(&failure).unwrap();
    }
    refused(&mut world);
}
