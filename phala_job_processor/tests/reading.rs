//! What the read messages tell.

use crate::errors::Error;
use crate::types::{JobHead, JobStatus, Page};

use super::keys::Key;
use super::world::{Who, World, GENESIS, START, TTL};

#[test]
fn a_new_contract_tells_what_it_was_deployed_with() {
    let world = World::new();
    let contract = world.read();

    assert_eq!(contract.genesis_hash(), GENESIS);
    assert_eq!(contract.version(), 1);
    assert_eq!(contract.get_job_counter(), 0);
    assert_eq!(contract.parameters(), Default::default());
}

#[test]
fn what_is_absent_is_none() {
    let world = World::with_attested_job();
    let contract = world.read();

    for job_id in [0, 2, u128::MAX] {
        assert_eq!(contract.get_job(job_id), None);
        assert_eq!(contract.get_attestation(job_id), None);
        assert!(!contract.verify_attestation(job_id));
    }
    assert_eq!(contract.get_worker(3), None);
    assert_eq!(contract.worker_by_key(Key::ecdsa(2).public_key()), None);
    assert!(!contract.is_trusted(3));
    assert!(!contract.has_measurement([0; 32]));
    assert_eq!(contract.rate_limit_left(Who::Stranger.id()), 60);
}

#[test]
fn a_submitted_job_has_no_attestation() {
    let world = World::with_job();

    assert_eq!(world.read().get_attestation(1), None);
    assert!(!world.read().verify_attestation(1));
}

#[test]
fn a_head_tells_of_a_job_all_but_its_payload() {
    let mut world = World::with_attested_job();
    world.now += 1;
    world.by(Who::Owner).mark_job_processed(1).unwrap();

    assert_eq!(
        world.read().jobs_page(1, 1).unwrap().items,
        [JobHead {
            job_id: 1,
            owner: Who::Owner.id(),
            status: JobStatus::Processed,
            created_at: START,
            deadline: START + TTL,
            payload_hash: world.job(1).payload_hash,
            workers: vec![1, 2],
            processed_at: Some(START + 1),
        }]
    );
}

fn ids(page: &Page<JobHead>) -> Vec<u128> {
    page.items.iter().map(|head| head.job_id).collect()
}

#[test]
fn jobs_are_paged_and_purged_ones_skipped() {
    let mut world = World::with_workers(1);
    for _ in 0..7 {
        world.submit(&[1]);
    }
    for job_id in [2, 5, 6] {
        world.by(Who::Owner).cancel_job(job_id).unwrap();
        world.by(Who::Owner).purge_job(job_id).unwrap();
    }
    let page = |from, limit| world.read().jobs_page(from, limit).unwrap();

    for from in [0, 1] {
        let first = page(from, 3);
        assert_eq!((ids(&first), first.next), (vec![1, 3], Some(4)));
        assert_eq!(first.total, 7);
    }
    let second = page(4, 3);
    assert_eq!((ids(&second), second.next), (vec![4], Some(7)));
    let third = page(7, 3);
    assert_eq!((ids(&third), third.next), (vec![7], None));
    // A page of purged jobs is empty, and there is more.
    let gap = page(5, 2);
    assert_eq!((ids(&gap), gap.next), (vec![], Some(7)));
    let exact = page(1, 7);
    assert_eq!((ids(&exact), exact.next), (vec![1, 3, 4, 7], None));
    for from in [8, u128::MAX] {
        let beyond = page(from, 50);
        assert_eq!((ids(&beyond), beyond.next, beyond.total), (vec![], None, 7));
    }
}

#[test]
fn workers_are_paged() {
    let world = World::with_workers(5);
    let page = |from, limit| {
        let page = world.read().workers_page(from, limit).unwrap();
        let ids: Vec<_> = page.items.iter().map(|worker| worker.worker).collect();
        (ids, page.next, page.total)
    };

    assert_eq!(page(0, 2), (vec![1, 2], Some(3), 5));
    assert_eq!(page(3, 2), (vec![3, 4], Some(5), 5));
    assert_eq!(page(5, 2), (vec![5], None, 5));
    assert_eq!(page(u32::MAX, 50), (vec![], None, 5));
    assert_eq!(
        world.read().workers_page(2, 1).unwrap().items,
        [world.read().get_worker(2).unwrap()]
    );
}

#[test]
fn a_page_has_one_to_fifty_entries() {
    let mut world = World::with_workers(1);
    for limit in [0, 51, u32::MAX] {
        world.refused(Error::LimitOutOfRange, Who::Stranger, |contract| {
            contract.jobs_page(1, limit)
        });
        world.refused(Error::LimitOutOfRange, Who::Stranger, |contract| {
            contract.workers_page(1, limit)
        });
    }
    for limit in [1, 50] {
        assert!(world.read().jobs_page(1, limit).is_ok());
        assert!(world.read().workers_page(1, limit).is_ok());
    }
}

#[test]
fn a_page_examines_at_most_its_limit() {
    let mut world = World::with_workers(1);
    world.contract.jobs.counter = u128::MAX;

    let page = world.read().jobs_page(1_000, 50).unwrap();

    assert_eq!((page.items.len(), page.next), (0, Some(1_050)));
}
