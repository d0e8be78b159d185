//! A job's row: its bytes, and that their number never changes.

use ink::primitives::AccountId;
use ink::scale::{Decode, Encode};

use crate::job_row::{AttestationEntry, FailureEntry, JobRow};
use crate::types::{JobStatus, Signature};

use super::world::{Who, World, DAY};

fn row(workers: u32, failures: u8, attested: Option<Signature>) -> JobRow {
    JobRow {
        owner: AccountId::from([1; 32]),
        created_at: 2,
        deadline: 3,
        status: JobStatus::Submitted,
        payload_hash: [4; 32],
        public_key: [5; 32],
        reference_length: None,
        processed_at: None,
        workers: (0..workers).map(|worker| u32::MAX - worker).collect(),
        failures: (0..failures)
            .map(|position| FailureEntry {
                position,
                result_hash: [6 + position; 32],
                units: u64::MAX,
                timestamp: 7,
            })
            .collect(),
        attestation: attested.map(|signature| AttestationEntry {
            position: failures,
            signature,
            result_hash: [8; 32],
            units: 9,
            started_at: 10,
            finished_at: 11,
            issued_at: 12,
            timestamp: 13,
        }),
    }
}

/// All rows that the rules can make, by number of workers, failures and attestation.
fn all_rows() -> Vec<JobRow> {
    let signatures = [
        None,
        Some(Signature::Ecdsa([0xe1; 65])),
        Some(Signature::Sr25519([0xe2; 64])),
    ];
    let mut rows = Vec::new();
    for workers in 1..=4 {
        for failures in 0..=workers {
            for signature in signatures {
                if failures < workers || signature.is_none() {
                    rows.push(row(workers, failures as u8, signature));
                }
            }
        }
    }
    rows
}

#[test]
fn a_row_survives_storage() {
    for row in all_rows() {
        let bytes = row.encode();
        assert_eq!(JobRow::decode(&mut bytes.as_slice()), Ok(row));
    }
    for status in [
        JobStatus::Submitted,
        JobStatus::Attested,
        JobStatus::Processed,
        JobStatus::Failed,
        JobStatus::Cancelled,
        JobStatus::Expired,
    ] {
        let row = JobRow {
            status,
            processed_at: (status == JobStatus::Processed).then_some(77),
            reference_length: Some(1 << 39),
            ..row(3, 1, None)
        };
        assert_eq!(JobRow::decode(&mut row.encode().as_slice()), Ok(row));
    }
}

#[test]
fn the_lengths_are_those_of_the_documentation() {
    let lengths: Vec<_> = [1, 2, 3, 4]
        .map(|workers| row(workers, 0, None).encode().len())
        .into();

    assert_eq!(lengths, [276, 329, 382, 435]);
    for row in all_rows() {
        assert_eq!(row.encode().len(), lengths[row.workers.len() - 1]);
        assert_eq!(row.size_hint(), row.encode().len());
    }
}

/// The metadata says that a row is a byte string.
#[test]
fn a_row_is_a_scale_byte_string() {
    for row in all_rows() {
        let encoded = row.encode();
        let bytes = Vec::<u8>::decode(&mut encoded.as_slice()).unwrap();
        assert_eq!(bytes.len(), JobRow::packed_length(row.workers.len()));
    }
}

#[test]
fn what_is_no_row_is_not_decoded() {
    let good = row(2, 1, Some(Signature::Ecdsa([1; 65]))).encode();
    for length in 0..good.len() {
        assert!(JobRow::decode(&mut &good[..length]).is_err(), "{length}");
    }
    let spoiled = |place: usize, value| {
        let mut bytes = good.clone();
        bytes[place] = value;
        JobRow::decode(&mut bytes.as_slice())
    };
    let (prefix, status, count) = (0, 2 + 48, 2 + 129);
    let scheme = good.len() - 138;
    assert!(spoiled(prefix, good[prefix].wrapping_add(4)).is_err());
    assert!(spoiled(status, 6).is_err());
    for workers in [0, 1, 3, 5, 255] {
        assert!(spoiled(count, workers).is_err());
    }
    for unknown in [0, 3, 255] {
        assert!(spoiled(scheme, unknown).is_err());
    }
}

/// Every message that changes a job, for each number of workers and either scheme.
#[test]
fn no_message_changes_a_rows_length() {
    type Message = fn(&mut World, u8);
    let attest: Message = |world, workers| {
        let attempt = world.attempt(1, workers);
        world.record(&attempt).unwrap();
    };
    let fail_but_last: Message = |world, workers| {
        for worker in 1..workers {
            let failure = world.failure(1, worker);
            world.record(&failure).unwrap();
        }
    };
    let fail_last: Message = |world, workers| {
        let failure = world.failure(1, workers);
        world.record(&failure).unwrap();
    };
    let mark: Message = |world, _| world.by(Who::Owner).mark_job_processed(1).unwrap();
    let complete: Message = |world, workers| {
        let item = world.attempt(1, workers).completion();
        let results = world.by(Who::Operator).complete_jobs(vec![item]);
        assert_eq!(results, Ok(vec![Ok(())]));
    };
    let cancel: Message = |world, _| world.by(Who::Owner).cancel_job(1).unwrap();
    let expire: Message = |world, _| world.by(Who::Stranger).expire_job(1).unwrap();
    let wait: Message = |world, _| world.now += DAY / 2;

    let lives: [&[Message]; 7] = [
        &[attest, mark],
        &[fail_but_last, attest, mark],
        &[fail_but_last, fail_last],
        &[fail_but_last, complete],
        &[attest, wait, cancel],
        &[cancel],
        &[fail_but_last, wait, expire],
    ];
    for workers in 1..=4_u8 {
        for life in lives {
            let mut world = World::with_workers(4);
            let named: Vec<u32> = (1..=workers.into()).collect();
            world.submit(&named);
            let length = world.row_length(1);
            assert_eq!(length, Some(223 + 53 * u32::from(workers)));
            for message in life {
                message(&mut world, workers);
                assert_eq!(world.row_length(1), length);
            }
        }
    }
}

#[test]
fn no_message_touches_a_payload_or_an_accounts_length() {
    let mut world = World::with_job();
    let payload = world.contract.jobs.payloads.get(1);
    let cell = world.contract.accounts.cells.size(Who::Owner.id());
    assert_eq!(cell, Some(16));

    let attempt = world.attempt(1, 1);
    world.record(&attempt).unwrap();
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    world.submit(&[1]);

    assert_eq!(world.contract.jobs.payloads.get(1), payload);
    assert_eq!(world.contract.accounts.cells.size(Who::Owner.id()), cell);
}
