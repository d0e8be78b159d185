//! The ten tests that the original contract's README names, with real signatures.

use crate::errors::Error;
use crate::types::{AttestationStatus, JobStatus, Payload};

use super::world::{Who, World, REPLY_KEY, RESULT, START};

#[test]
fn test_new() {
    let world = World::new();

    assert_eq!(world.read().get_job_counter(), 0);
    assert_eq!(world.read().get_job(1), None);
    assert_eq!(world.read().admin(), Who::Admin.id());
}

#[test]
fn test_submit_confidential_job() {
    let mut world = World::with_workers(1);
    let options = World::options(&[1]);

    world.refused(Error::EmptyPayload, Who::Owner, |contract| {
        contract.submit_confidential_job(vec![], REPLY_KEY, options.clone())
    });
    let job_id =
        world
            .by(Who::Owner)
            .submit_confidential_job(b"sealed".to_vec(), REPLY_KEY, options);

    assert_eq!(job_id, Ok(1));
    let job = world.job(1);
    assert_eq!(job.owner, Who::Owner.id());
    assert_eq!(job.encrypted_payload, Payload::Inline(b"sealed".to_vec()));
    assert_eq!(job.public_key, REPLY_KEY);
    assert_eq!(job.created_at, START);
    assert!(!job.processed);
}

#[test]
fn test_record_attestation() {
    for worker in [1, 2] {
        let mut world = World::with_job();
        let attempt = world.attempt(1, worker);

        assert_eq!(world.record(&attempt), Ok(()));

        let attestation = world.read().get_attestation(1).unwrap();
        assert_eq!(attestation.result_hash, RESULT);
        assert_eq!(attestation.worker, u32::from(worker));
    }
}

#[test]
fn test_record_attestation_nonexistent_job() {
    let mut world = World::with_workers(1);
    let attempt = world.attempt(999, 1);

    assert_eq!(world.record(&attempt), Err(Error::JobNotFound));
}

#[test]
fn test_verify_attestation() {
    let mut world = World::with_job();
    assert!(!world.read().verify_attestation(1));
    let attempt = world.attempt(1, 1);
    world.record(&attempt).unwrap();
    assert!(world.read().verify_attestation(1));

    world.by(Who::Registrar).revoke_worker(1, [1; 32]).unwrap();

    assert!(!world.read().verify_attestation(1));
    assert_eq!(
        world.attestation_status(1),
        AttestationStatus::WorkerRevoked
    );
}

#[test]
fn test_mark_job_processed() {
    let mut world = World::with_attested_job();

    assert_eq!(world.by(Who::Owner).mark_job_processed(1), Ok(()));

    assert!(world.job(1).processed);
}

#[test]
fn test_multiple_jobs() {
    let mut world = World::with_workers(2);
    let jobs: Vec<_> = (0..3).map(|_| world.submit(&[1, 2])).collect();
    assert_eq!(jobs, [1, 2, 3]);
    assert_eq!(world.read().get_job_counter(), 3);

    let attempt = world.attempt(2, 1);
    world.record(&attempt).unwrap();

    let statuses = jobs.iter().map(|job_id| world.status(*job_id));
    assert_eq!(
        statuses.collect::<Vec<_>>(),
        [
            JobStatus::Submitted,
            JobStatus::Attested,
            JobStatus::Submitted
        ]
    );
}

#[test]
fn test_complete_job_lifecycle() {
    let mut world = World::with_workers(2);
    let job_id = world.submit(&[2]);
    assert_eq!(world.status(job_id), JobStatus::Submitted);

    world.now += 1_000;
    let attempt = world.attempt(job_id, 2);
    world.record(&attempt).unwrap();
    assert_eq!(world.status(job_id), JobStatus::Attested);
    assert!(world.read().verify_attestation(job_id));

    world.now += 1_000;
    world.by(Who::Owner).mark_job_processed(job_id).unwrap();
    assert_eq!(world.status(job_id), JobStatus::Processed);
    assert_eq!(world.job(job_id).processed_at, Some(START + 2_000));

    world.by(Who::Owner).purge_job(job_id).unwrap();
    assert_eq!(world.read().get_job(job_id), None);
}

#[test]
fn test_get_nonexistent_job() {
    assert_eq!(World::new().read().get_job(999), None);
}

#[test]
fn test_get_nonexistent_attestation() {
    assert_eq!(World::new().read().get_attestation(999), None);
}
