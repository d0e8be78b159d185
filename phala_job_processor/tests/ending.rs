//! Expiring and purging.

use crate::assert_events;
use crate::errors::Error;
use crate::events::{JobExpired, JobPurged};
use crate::rate::Account;
use crate::types::{JobStatus, Mode};

use super::world::{all_but, used_cells, Who, World, EVERYBODY, START};

#[test]
fn anybody_expires_a_job_after_its_deadline_in_every_mode() {
    for (who, mode) in EVERYBODY.into_iter().zip(
        [Mode::Running, Mode::Draining, Mode::Halted]
            .into_iter()
            .cycle(),
    ) {
        let mut world = World::with_job();
        world.set_mode(mode);
        let deadline = world.job(1).deadline;
        for now in [START, deadline] {
            world.now = now;
            world.refused(Error::DeadlineNotPassed, who, |contract| {
                contract.expire_job(1)
            });
        }
        world.now = deadline + 1;

        let (result, events) = world.events_of(who, |contract| contract.expire_job(1));

        assert_eq!(result, Ok(()));
        assert_eq!(world.status(1), JobStatus::Expired);
        assert_events!(
            events,
            [JobExpired {
                job_id: 1,
                owner: Who::Owner.id()
            }]
        );
    }
}

#[test]
fn only_a_submitted_job_expires() {
    let mut world = World::with_attested_job();
    world.now = world.job(1).deadline + 1;
    let refused = |world: &mut World| {
        world.refused(Error::WrongStatus, Who::Stranger, |contract| {
            contract.expire_job(1)
        });
    };
    refused(&mut world);
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    refused(&mut world);

    let mut world = World::with_job();
    world.by(Who::Owner).cancel_job(1).unwrap();
    world.now = world.job(1).deadline + 1;
    refused(&mut world);

    let mut world = World::with_job();
    world.now = world.job(1).deadline + 1;
    world.by(Who::Stranger).expire_job(1).unwrap();
    refused(&mut world);
    world.refused(Error::JobNotFound, Who::Stranger, |contract| {
        contract.expire_job(2)
    });
}

#[test]
fn a_failed_job_does_not_expire() {
    let mut world = World::with_workers(2);
    world.submit(&[1]);
    let failure = world.failure(1, 1);
    world.record(&failure).unwrap();
    world.now = world.job(1).deadline + 1;

    world.refused(Error::WrongStatus, Who::Stranger, |contract| {
        contract.expire_job(1)
    });
}

/// Runs `check` on a world whose job 1 is processed, failed, cancelled, expired.
fn for_each_finished(check: impl Fn(&mut World, JobStatus)) {
    type Finish = fn(&mut World);
    let ways: [(JobStatus, Finish); 4] = [
        (JobStatus::Processed, |world| {
            let attempt = world.attempt(1, 1);
            world.record(&attempt).unwrap();
            world.by(Who::Owner).mark_job_processed(1).unwrap();
        }),
        (JobStatus::Failed, |world| {
            for worker in [1, 2] {
                let failure = world.failure(1, worker);
                world.record(&failure).unwrap();
            }
        }),
        (JobStatus::Cancelled, |world| {
            world.by(Who::Owner).cancel_job(1).unwrap();
        }),
        (JobStatus::Expired, |world| {
            world.now = world.job(1).deadline + 1;
            world.by(Who::Stranger).expire_job(1).unwrap();
        }),
    ];
    for (status, finish) in ways {
        let mut world = World::with_job();
        finish(&mut world);
        assert_eq!(world.status(1), status);
        check(&mut world, status);
    }
}

#[test]
fn a_finished_job_is_purged_in_every_mode() {
    for mode in [Mode::Running, Mode::Draining, Mode::Halted] {
        for_each_finished(|world, _| {
            world.set_mode(mode);

            let (result, events) = world.events_of(Who::Owner, |contract| contract.purge_job(1));

            assert_eq!(result, Ok(()));
            assert_eq!(world.read().get_job(1), None);
            assert_eq!(world.read().get_attestation(1), None);
            assert_eq!(world.row_length(1), None);
            assert_events!(
                events,
                [JobPurged {
                    job_id: 1,
                    owner: Who::Owner.id()
                }]
            );
        });
    }
}

#[test]
fn only_the_owner_purges_and_once() {
    for_each_finished(|world, _| {
        for who in all_but(&[Who::Owner]) {
            world.refused(Error::NotJobOwner, who, |contract| contract.purge_job(1));
        }
        world.by(Who::Owner).purge_job(1).unwrap();
        world.refused(Error::JobNotFound, Who::Owner, |contract| {
            contract.purge_job(1)
        });
    });
}

#[test]
fn a_live_job_is_not_purged() {
    let mut world = World::with_job();
    world.refused(Error::WrongStatus, Who::Owner, |contract| {
        contract.purge_job(1)
    });

    let attempt = world.attempt(1, 1);
    world.record(&attempt).unwrap();
    world.refused(Error::WrongStatus, Who::Owner, |contract| {
        contract.purge_job(1)
    });
}

#[test]
fn a_purge_leaves_not_one_cell_of_the_job() {
    let mut world = World::with_workers(2);
    let before = used_cells();
    world.submit(&[1, 2]);
    assert_eq!(used_cells(), before + 2);
    world.by(Who::Owner).cancel_job(1).unwrap();
    world.by(Who::Owner).purge_job(1).unwrap();
    assert_eq!(used_cells(), before + 1);

    // The account's cell goes with the last purge once the window is over.
    world.submit(&[1, 2]);
    world.now += world.read().parameters().rate_window + 1;
    world.by(Who::Owner).cancel_job(2).unwrap();
    world.by(Who::Owner).purge_job(2).unwrap();
    assert_eq!(used_cells(), before);
}

#[test]
fn a_cell_that_counts_no_job_is_not_counted_down() {
    let mut world = World::with_job();
    world.by(Who::Owner).cancel_job(1).unwrap();
    let cell = Account {
        live_jobs: 0,
        ..world.account(Who::Owner).unwrap()
    };
    world.contract.accounts.store(Who::Owner.id(), &cell);

    world.refused(Error::Overflow, Who::Owner, |contract| {
        contract.purge_job(1)
    });
}
