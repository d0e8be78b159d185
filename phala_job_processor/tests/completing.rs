//! Recording and marking many at once.

use ink::env::test::recorded_events;

use crate::assert_events;
use crate::errors::Error;
use crate::events::{AttestationRecorded, JobFailed, JobProcessed};
use crate::types::{CompletedStatement, Completion, JobId, JobStatus, Mode, Outcome};

use super::reference::Attempt;
use super::world::{all_but, Who, World, RESULT};

fn recorded(completion: &Completion, worker: u32) -> AttestationRecorded {
    let proof = &completion.attestation_proof;
    AttestationRecorded {
        job_id: completion.job_id,
        worker,
        outcome: proof.outcome,
        result_hash: completion.result_hash,
        units: proof.units,
        started_at: proof.started_at,
        finished_at: proof.finished_at,
        issued_at: proof.issued_at,
        signature: proof.signature,
    }
}

fn processed(job_id: JobId) -> JobProcessed {
    JobProcessed {
        job_id,
        owner: Who::Owner.id(),
        result_hash: RESULT,
        statement: None,
    }
}

/// The only event of an item that was recorded and marked in one step.
fn completed(completion: &Completion, worker: u32) -> JobProcessed {
    let proof = &completion.attestation_proof;
    JobProcessed {
        statement: Some(CompletedStatement {
            worker,
            units: proof.units,
            started_at: proof.started_at,
            finished_at: proof.finished_at,
            issued_at: proof.issued_at,
            signature: proof.signature,
        }),
        ..processed(completion.job_id)
    }
}

fn with_jobs(count: u8) -> World {
    let mut world = World::with_workers(2);
    for _ in 0..count {
        world.submit(&[1, 2]);
    }
    world
}

#[test]
fn only_an_operator_completes() {
    let mut world = World::with_job();
    let completion = world.attempt(1, 1).completion();
    for who in all_but(&[Who::Operator]) {
        world.refused(Error::MissingRole, who, |contract| {
            contract.complete_jobs(vec![completion.clone()])
        });
    }

    assert_eq!(
        world.by(Who::Operator).complete_jobs(vec![completion]),
        Ok(vec![Ok(())])
    );
}

#[test]
fn completing_needs_a_mode() {
    let mut world = World::with_job();
    let completion = world.attempt(1, 1).completion();
    world.set_mode(Mode::Halted);
    world.refused(Error::WrongMode, Who::Operator, |contract| {
        contract.complete_jobs(vec![completion.clone()])
    });

    world.set_mode(Mode::Draining);
    assert_eq!(
        world.by(Who::Operator).complete_jobs(vec![completion]),
        Ok(vec![Ok(())])
    );
}

#[test]
fn ten_items_are_taken_and_not_more() {
    let mut world = with_jobs(11);
    let mut completions: Vec<_> = (1..=11)
        .map(|job_id| world.attempt(job_id, 1).completion())
        .collect();
    world.refused(Error::TooManyItems, Who::Operator, |contract| {
        contract.complete_jobs(completions.clone())
    });

    completions.pop();
    assert_eq!(
        world.by(Who::Operator).complete_jobs(completions),
        Ok(vec![Ok(()); 10])
    );
    for job_id in 1..=10 {
        assert_eq!(world.status(job_id), JobStatus::Processed);
    }
    assert_eq!(world.by(Who::Operator).complete_jobs(vec![]), Ok(vec![]));
}

#[test]
fn an_item_is_recorded_and_marked() {
    let mut world = World::with_job();
    world.now += 3;
    let completion = world.attempt(1, 2).completion();

    let (result, events) = world.events_of(Who::Operator, |contract| {
        contract.complete_jobs(vec![completion.clone()])
    });

    assert_eq!(result, Ok(vec![Ok(())]));
    assert_eq!(world.job(1).processed_at, Some(world.now));
    let attestation = world.read().get_attestation(1).unwrap();
    assert_eq!(attestation.attestation_proof, completion.attestation_proof);
    assert_eq!((attestation.worker, attestation.timestamp), (2, world.now));
    assert_events!(events, [completed(&completion, 2)]);
}

#[test]
fn a_failure_is_recorded_and_not_marked() {
    let mut world = World::with_workers(2);
    world.submit(&[1, 2]);
    world.submit(&[1]);
    let items = vec![
        world.failure(1, 1).completion(),
        world.failure(2, 1).completion(),
    ];

    let (result, events) = world.events_of(Who::Operator, |contract| {
        contract.complete_jobs(items.clone())
    });

    assert_eq!(result, Ok(vec![Ok(()), Ok(())]));
    assert_eq!(world.status(1), JobStatus::Submitted);
    assert_eq!(world.status(2), JobStatus::Failed);
    assert_events!(
        events,
        [
            recorded(&items[0], 1),
            recorded(&items[1], 1),
            JobFailed {
                job_id: 2,
                owner: Who::Owner.id()
            }
        ]
    );
}

#[test]
fn an_attested_item_is_only_marked() {
    let mut world = World::with_attested_job();
    let attestation = world.read().get_attestation(1);
    // The same result, signed again later: fine, and not recorded anew.
    world.now += 5;
    let again = world.attempt(1, 1).completion();

    let (result, events) = world.events_of(Who::Operator, |contract| {
        contract.complete_jobs(vec![again])
    });

    assert_eq!(result, Ok(vec![Ok(())]));
    assert_eq!(world.status(1), JobStatus::Processed);
    assert_eq!(world.read().get_attestation(1), attestation);
    assert_events!(events, [processed(1)]);
}

/// The item's signature is not looked at: what is marked is the recorded attestation.
#[test]
fn an_attested_item_is_marked_only_if_it_is_the_same() {
    type Change = fn(&World, &mut Completion);
    let changes: [Change; 3] = [
        |_, item| item.result_hash = [1; 32],
        |_, item| item.attestation_proof.outcome = Outcome::Failed,
        |world, item| *item = world.attempt(1, 2).completion(),
    ];
    for change in changes {
        let mut world = World::with_attested_job();
        let mut item = world.attempt(1, 1).completion();
        change(&world, &mut item);
        let before = world.state();

        let result = world.by(Who::Operator).complete_jobs(vec![item]);

        assert_eq!(result, Ok(vec![Err(Error::AlreadyAttested)]));
        assert_eq!(world.state(), before);
    }
}

#[test]
fn an_attested_item_whose_worker_lost_its_trust_is_not_marked() {
    let mut world = World::with_attested_job();
    let item = world.attempt(1, 1).completion();
    world.by(Who::Guardian).suspend_worker(1).unwrap();
    let before = world.state();

    let result = world.by(Who::Operator).complete_jobs(vec![item]);

    assert_eq!(result, Ok(vec![Err(Error::AttestationNotValid)]));
    assert_eq!(world.state(), before);
}

#[test]
fn each_item_fails_alone_and_changes_nothing() {
    let mut world = with_jobs(4);
    let good = [
        world.attempt(1, 1).completion(),
        world.attempt(4, 2).completion(),
    ];
    let bad = Attempt {
        result_hash: [0; 32],
        ..world.attempt(2, 1)
    };
    let unsigned = Completion {
        result_hash: [8; 32],
        ..world.attempt(3, 1).completion()
    };
    let items = vec![
        good[0].clone(),
        bad.completion(),
        unsigned,
        world.attempt(9, 1).completion(),
        good[0].clone(),
        good[1].clone(),
    ];
    let rows_before = (world.contract.jobs.row(2), world.contract.jobs.row(3));

    let (results, events) =
        world.events_of(Who::Operator, |contract| contract.complete_jobs(items));

    assert_eq!(
        results,
        Ok(vec![
            Ok(()),
            Err(Error::EmptyResultHash),
            Err(Error::BadSignature),
            Err(Error::JobNotFound),
            Err(Error::AlreadyAttested),
            Ok(()),
        ])
    );
    let rows_after = (world.contract.jobs.row(2), world.contract.jobs.row(3));
    assert_eq!(rows_after, rows_before);
    assert_events!(events, [completed(&good[0], 1), completed(&good[1], 2)]);
}

#[test]
fn a_refused_item_alone_leaves_the_whole_state() {
    let mut world = World::with_job();
    let mut item = world.attempt(1, 1).completion();
    item.attestation_proof.units += 1;
    let before = world.state();
    let events = recorded_events().count();

    let result = world.by(Who::Operator).complete_jobs(vec![item]);

    assert_eq!(result, Ok(vec![Err(Error::BadSignature)]));
    assert_eq!(world.state(), before);
    assert_eq!(recorded_events().count(), events);
}
