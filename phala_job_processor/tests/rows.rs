//! A job's row: its bytes, and that their number never changes.

use ink::scale::{Decode, Encode};

use crate::job_row::{AttestationEntry, FailureEntry, JobRow, NewJob};
use crate::phala_job_processor::STORAGE_VERSION;
use crate::types::{JobStatus, Signature};

use super::world::{Who, World, DAY};

const PAYLOAD: &[u8] = b"sealed";
const LENGTHS: [usize; 4] = [274, 327, 380, 433];

fn new_job(workers: u32) -> NewJob {
    NewJob {
        owner: [1; 32].into(),
        created_at: 2,
        deadline: 3,
        payload_hash: [4; 32],
        public_key: [5; 32],
        reference_length: None,
        workers: (0..workers).map(|worker| u32::MAX - worker).collect(),
    }
}

fn failure(position: u8) -> FailureEntry {
    FailureEntry {
        position,
        result_hash: [6 + position; 32],
        units: u64::MAX,
        timestamp: 7,
    }
}

fn attestation(position: u8, signature: Signature) -> AttestationEntry {
    AttestationEntry {
        position,
        signature,
        result_hash: [8; 32],
        units: 9,
        started_at: 10,
        finished_at: 11,
        issued_at: 12,
        timestamp: 13,
    }
}

/// What the rules can make of a row, by number of workers, failures and attestation.
fn for_each_row(check: impl Fn(&JobRow, u32, u8, Option<AttestationEntry>)) {
    let signatures = [
        None,
        Some(Signature::Ecdsa([0xe1; 65])),
        Some(Signature::Sr25519([0xe2; 64])),
    ];
    for workers in 1..=4 {
        for failures in 0..=workers as u8 {
            for signature in signatures {
                let mut row = JobRow::new(&new_job(workers), PAYLOAD);
                for position in 0..failures {
                    row.add_failure(&failure(position));
                }
                let attested = signature
                    .filter(|_| u32::from(failures) < workers)
                    .map(|signature| attestation(failures, signature));
                if let Some(attestation) = &attested {
                    row.set_attestation(attestation);
                }
                check(&row, workers, failures, attested);
            }
        }
    }
}

fn assert_new(row: &JobRow, job: &NewJob) {
    assert_eq!(row.owner(), job.owner);
    assert_eq!(row.created_at(), job.created_at);
    assert_eq!(row.deadline(), job.deadline);
    assert_eq!(row.payload_hash(), job.payload_hash);
    assert_eq!(row.public_key(), job.public_key);
    assert_eq!(row.reference_length(), job.reference_length);
    assert_eq!(row.workers(), job.workers);
    assert_eq!(row.payload(), PAYLOAD);
}

/// Whatever is written into a row, everything else in it stays what it was.
#[test]
fn a_row_keeps_all_that_was_written() {
    for_each_row(|row, workers, failures, attested| {
        let row = JobRow::decode(&mut row.encode().as_slice()).unwrap();

        assert_new(&row, &new_job(workers));
        assert!(row.failures().eq((0..failures).map(failure)));
        assert_eq!(row.is_failed_by_all(), u32::from(failures) == workers);
        assert_eq!(row.attestation(), attested);
        let status = match attested {
            Some(_) => JobStatus::Attested,
            None => JobStatus::Submitted,
        };
        assert_eq!((row.status(), row.processed_at()), (status, None));
        for position in 0..=u8::MAX {
            let worker = new_job(workers).workers.get(usize::from(position)).copied();
            assert_eq!(row.worker_at(position), worker);
        }
    });
}

#[test]
fn a_row_keeps_its_status() {
    let job = NewJob {
        reference_length: Some(1 << 39),
        ..new_job(3)
    };
    for status in [
        JobStatus::Submitted,
        JobStatus::Attested,
        JobStatus::Processed,
        JobStatus::Failed,
        JobStatus::Cancelled,
        JobStatus::Expired,
    ] {
        let mut row = JobRow::new(&job, PAYLOAD);
        row.set_status(status);
        assert_eq!(row.status(), status);
        assert_new(&row, &job);
    }
    let mut row = JobRow::new(&job, PAYLOAD);
    row.set_processed(77);
    assert_eq!(row.status(), JobStatus::Processed);
    assert_eq!(row.processed_at(), Some(77));
    assert_new(&row, &job);
}

#[test]
fn the_lengths_are_those_of_the_documentation() {
    for_each_row(|row, workers, _, _| {
        let length = LENGTHS[workers as usize - 1];
        let bytes = Vec::<u8>::decode(&mut row.encode().as_slice()).unwrap();
        assert_eq!(bytes.len(), length + PAYLOAD.len());
        assert_eq!(JobRow::packed_length(workers as usize), length);
    });
}

#[test]
fn a_row_is_packed_as_documented() {
    // Whoever changes the bytes below has made another layout.
    assert_eq!(STORAGE_VERSION, 1);
    let mut row = JobRow::new(&new_job(2), PAYLOAD);
    row.add_failure(&failure(0));
    row.set_attestation(&attestation(1, Signature::Sr25519([0xe2; 64])));
    row.set_processed(0x77);

    let mut expected = [[1; 32].as_slice(), &[2], &[0; 7], &[3], &[0; 7], &[2]].concat();
    expected.extend([[4; 32], [5; 32]].concat());
    expected.extend([0; 8]);
    expected.extend([0x77, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([1, 2, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff]);
    expected.push(0);
    expected.extend([6; 32]);
    expected.extend([0xff; 8]);
    expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([1, 1]);
    expected.extend([0xe2; 64]);
    expected.push(0);
    expected.extend([8; 32]);
    for number in 9..=13_u64 {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(PAYLOAD);
    assert_eq!(row.encode(), expected.encode());
}

/// A row that the contract did not write stops the message; nothing is made up.
#[test]
fn what_is_no_row_traps() {
    fn traps<T>(bytes: &[u8], read: impl Fn(&JobRow) -> T + std::panic::RefUnwindSafe) -> bool {
        let row = JobRow::decode(&mut bytes.encode().as_slice()).unwrap();
        std::panic::catch_unwind(|| read(&row)).is_err()
    }
    let mut row = JobRow::new(&new_job(2), b"");
    row.set_attestation(&attestation(1, Signature::Ecdsa([1; 65])));
    let good = Vec::<u8>::decode(&mut row.encode().as_slice()).unwrap();
    let spoiled = |place: usize, value| {
        let mut bytes = good.clone();
        bytes[place] = value;
        bytes
    };
    let (status, count, scheme) = (48, 130, good.len() - 138);

    assert!(!traps(&good, JobRow::status));
    assert!(!traps(&good, JobRow::attestation));
    assert!(traps(&good[..status], JobRow::status));
    assert!(traps(&good[..count], JobRow::workers));
    assert!(traps(&good[..good.len() - 1], JobRow::attestation));
    assert!(traps(&spoiled(status, 6), JobRow::status));
    assert!(traps(&spoiled(count, 200), JobRow::attestation));
    for unknown in [0, 3, 255] {
        assert!(traps(&spoiled(scheme, unknown), JobRow::attestation));
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
            let packed = LENGTHS[usize::from(workers) - 1] as u32;
            assert_eq!(length, Some(2 + packed + "sealed 0".len() as u32));
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
    let payload = world.job(1).encrypted_payload;
    let cell = world.contract.accounts.cells.size(Who::Owner.id());
    assert_eq!(cell, Some(16));

    let attempt = world.attempt(1, 1);
    world.record(&attempt).unwrap();
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    world.submit(&[1]);

    assert_eq!(world.job(1).encrypted_payload, payload);
    assert_eq!(world.contract.accounts.cells.size(Who::Owner.id()), cell);
}
