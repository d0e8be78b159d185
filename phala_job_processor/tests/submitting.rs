//! Submitting jobs, inline and by reference.

use crate::errors::{Error, Result};
use crate::events::JobSubmitted;
use crate::parameters::Parameters;
use crate::types::{ConfidentialJob, JobId, JobOptions, JobStatus, Mode, Payload, WorkerId};
use crate::{assert_events, PhalaJobProcessor};

use super::reference::blake2_256;
use super::world::{Who, World, DAY, MEASUREMENT, REPLY_KEY, START, TTL};

const PAYLOAD: &[u8] = b"sealed";
const HASH: [u8; 32] = [0x55; 32];

/// What differs between one submit and the next.
#[derive(Clone)]
struct Submit {
    payload: Vec<u8>,
    public_key: [u8; 32],
    workers: Vec<WorkerId>,
    ttl: u64,
}

fn good() -> Submit {
    Submit {
        payload: PAYLOAD.to_vec(),
        public_key: REPLY_KEY,
        workers: vec![1, 2],
        ttl: TTL,
    }
}

impl Submit {
    fn send(self, contract: &mut PhalaJobProcessor) -> Result<JobId> {
        let options = JobOptions {
            workers: self.workers,
            ttl: self.ttl,
        };
        contract.submit_confidential_job(self.payload, self.public_key, options)
    }
}

fn reference(contract: &mut PhalaJobProcessor, length: u64, location: usize) -> Result<JobId> {
    let location = vec![b'l'; location];
    contract.submit_job_reference(HASH, length, location, REPLY_KEY, World::options(&[1, 2]))
}

/// Shows that a good submit passes and that it is refused with this one change.
fn refused_with(error: Error, change: impl FnOnce(&mut Submit)) {
    let mut world = World::with_workers(5);
    let mut submit = good();
    change(&mut submit);

    world.refused(error, Who::Owner, |contract| submit.send(contract));

    assert_eq!(good().send(world.by(Who::Owner)), Ok(1));
}

#[test]
fn a_job_is_stored_as_submitted() {
    let mut world = World::with_workers(2);

    let (job_id, events) = world.events_of(Who::Owner, |contract| good().send(contract));

    assert_eq!(job_id, Ok(1));
    assert_eq!(
        world.job(1),
        ConfidentialJob {
            job_id: 1,
            owner: Who::Owner.id(),
            encrypted_payload: Payload::Inline(PAYLOAD.to_vec()),
            public_key: REPLY_KEY,
            created_at: START,
            processed: false,
            status: JobStatus::Submitted,
            payload_hash: blake2_256(PAYLOAD),
            deadline: START + TTL,
            workers: vec![1, 2],
            failures: vec![],
            processed_at: None,
        }
    );
    assert_events!(
        events,
        [JobSubmitted {
            job_id: 1,
            owner: Who::Owner.id(),
            payload_hash: blake2_256(PAYLOAD),
            workers: vec![1, 2],
            deadline: START + TTL,
        }]
    );
}

#[test]
fn a_reference_is_stored_as_submitted() {
    let mut world = World::with_workers(2);

    let (job_id, events) = world.events_of(Who::Owner, |contract| reference(contract, 1 << 20, 3));

    assert_eq!(job_id, Ok(1));
    let job = world.job(1);
    assert_eq!(job.payload_hash, HASH);
    assert_eq!(
        job.encrypted_payload,
        Payload::Reference {
            length: 1 << 20,
            location: b"lll".to_vec()
        }
    );
    assert_events!(
        events,
        [JobSubmitted {
            job_id: 1,
            owner: Who::Owner.id(),
            payload_hash: HASH,
            workers: vec![1, 2],
            deadline: START + TTL,
        }]
    );
}

#[test]
fn a_reference_without_location_is_allowed() {
    let mut world = World::with_workers(2);

    assert_eq!(reference(world.by(Who::Owner), 1, 0), Ok(1));
}

#[test]
fn jobs_are_numbered_from_one_and_purging_gives_no_number_back() {
    let mut world = World::with_workers(2);
    assert_eq!(good().send(world.by(Who::Owner)), Ok(1));
    assert_eq!(good().send(world.by(Who::OtherOwner)), Ok(2));
    world.by(Who::OtherOwner).cancel_job(2).unwrap();
    world.by(Who::OtherOwner).purge_job(2).unwrap();

    assert_eq!(good().send(world.by(Who::Owner)), Ok(3));
    assert_eq!(world.read().get_job_counter(), 3);
}

#[test]
fn anybody_may_submit() {
    let mut world = World::with_workers(2);

    for who in super::world::EVERYBODY {
        assert!(good().send(world.by(who)).is_ok(), "{who:?}");
    }
}

#[test]
fn submitting_needs_mode_running() {
    for mode in [Mode::Draining, Mode::Halted] {
        let mut world = World::with_workers(2);
        world.set_mode(mode);

        world.refused(Error::WrongMode, Who::Owner, |contract| {
            good().send(contract)
        });
        world.refused(Error::WrongMode, Who::Owner, |contract| {
            reference(contract, 1, 1)
        });

        world.set_mode(Mode::Running);
        assert_eq!(good().send(world.by(Who::Owner)), Ok(1));
    }
}

#[test]
fn an_empty_payload_is_refused() {
    refused_with(Error::EmptyPayload, |submit| submit.payload.clear());
    let mut world = World::with_workers(2);
    world.refused(Error::EmptyPayload, Who::Owner, |contract| {
        reference(contract, 0, 1)
    });
}

#[test]
fn a_payload_may_be_as_long_as_the_limit_and_no_longer() {
    let limit = Parameters::default().max_payload as usize;
    refused_with(Error::PayloadTooLarge, |submit| {
        submit.payload = vec![1; limit + 1];
    });
    let mut world = World::with_workers(2);
    for length in [1, limit] {
        let mut submit = good();
        submit.payload = vec![1; length];
        assert!(submit.send(world.by(Who::Owner)).is_ok());
    }
}

#[test]
fn a_reference_may_be_as_long_as_the_limit_and_no_longer() {
    let limit = Parameters::default().max_reference;
    let mut world = World::with_workers(2);

    world.refused(Error::ReferenceTooLarge, Who::Owner, |contract| {
        reference(contract, limit + 1, 1)
    });

    assert_eq!(reference(world.by(Who::Owner), limit, 1), Ok(1));
}

#[test]
fn a_location_may_be_as_long_as_the_limit_and_no_longer() {
    let mut world = World::with_workers(2);

    world.refused(Error::LocationTooLong, Who::Owner, |contract| {
        reference(contract, 1, 257)
    });

    assert_eq!(reference(world.by(Who::Owner), 1, 256), Ok(1));
}

#[test]
fn a_zero_key_is_refused() {
    refused_with(Error::InvalidKey, |submit| submit.public_key = [0; 32]);
}

#[test]
fn the_ttl_has_bounds() {
    let Parameters {
        min_ttl, max_ttl, ..
    } = Parameters::default();
    for ttl in [0, min_ttl - 1, max_ttl + 1, u64::MAX] {
        refused_with(Error::TtlOutOfRange, |submit| submit.ttl = ttl);
    }
    let mut world = World::with_workers(2);
    world
        .by(Who::Registrar)
        .allow_measurement(MEASUREMENT)
        .unwrap();
    for ttl in [min_ttl, max_ttl] {
        let mut submit = good();
        submit.ttl = ttl;
        let job_id = submit.send(world.by(Who::Owner)).unwrap();
        assert_eq!(world.job(job_id).deadline, START + ttl);
    }
}

#[test]
fn one_to_four_workers_are_named() {
    refused_with(Error::NoWorkers, |submit| submit.workers.clear());
    refused_with(Error::TooManyWorkers, |submit| {
        submit.workers = vec![1, 2, 3, 4, 5];
    });
    let mut world = World::with_workers(4);
    for workers in [vec![3], vec![2, 1], vec![4, 1, 3], vec![4, 3, 2, 1]] {
        let job_id = world.submit(&workers);
        assert_eq!(world.job(job_id).workers, workers);
    }
}

#[test]
fn a_worker_is_named_once() {
    for workers in [vec![1, 1], vec![1, 2, 1], vec![2, 1, 3, 3]] {
        refused_with(Error::DuplicateWorker, |submit| submit.workers = workers);
    }
}

#[test]
fn every_worker_must_be_registered() {
    for workers in [vec![0], vec![6], vec![1, 6]] {
        refused_with(Error::WorkerNotFound, |submit| submit.workers = workers);
    }
}

#[test]
fn every_worker_must_be_trusted_now() {
    type Distrust = fn(&mut World);
    let ways: [Distrust; 4] = [
        |world| world.by(Who::Registrar).suspend_worker(2).unwrap(),
        |world| world.by(Who::Registrar).revoke_worker(2, [1; 32]).unwrap(),
        |world| {
            world
                .by(Who::Registrar)
                .revoke_measurement(MEASUREMENT)
                .unwrap()
        },
        |world| world.now = START + DAY + 1,
    ];
    for distrust in ways {
        let mut world = World::with_workers(2);
        assert_eq!(good().send(world.by(Who::Owner)), Ok(1));
        distrust(&mut world);

        world.refused(Error::WorkerNotTrusted, Who::Owner, |contract| {
            good().send(contract)
        });
        world.refused(Error::WorkerNotTrusted, Who::Owner, |contract| {
            reference(contract, 1, 1)
        });
    }
}

#[test]
fn a_worker_is_trusted_up_to_its_last_millisecond() {
    let mut world = World::with_workers(2);
    world.now = START + DAY;

    assert_eq!(good().send(world.by(Who::Owner)), Ok(1));
}

#[test]
fn the_counter_of_jobs_does_not_wrap() {
    let mut world = World::with_workers(2);
    world.contract.jobs.counter = u128::MAX;

    world.refused(Error::Overflow, Who::Owner, |contract| {
        good().send(contract)
    });

    world.contract.jobs.counter = u128::MAX - 1;
    assert_eq!(good().send(world.by(Who::Owner)), Ok(u128::MAX));
}

#[test]
fn the_counter_of_live_jobs_does_not_wrap() {
    let mut world = World::with_workers(2);
    good().send(world.by(Who::Owner)).unwrap();
    let mut cell = world.account(Who::Owner).unwrap();
    cell.live_jobs = u32::MAX;
    world.contract.accounts.store(Who::Owner.id(), &cell);

    world.refused(Error::Overflow, Who::Owner, |contract| {
        good().send(contract)
    });
}
