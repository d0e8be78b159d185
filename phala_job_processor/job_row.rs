//! A job's row: everything of a job, packed into bytes whose number never changes.
//!
//! The chain charges and refunds storage deposit to whoever sends a transaction. A row that kept
//! its length costs a carrier of statements nothing and pays nobody for shrinking it. So the row is
//! padded from the start for all that may be recorded about a job with its number of workers.
//!
//! The payload is the row's end. A cell of its own would cost the owner a storage item and a write,
//! each dearer than all the bytes that later messages write again.
//!
//! In storage a row is a SCALE byte string (`Vec<u8>`) with this content, integers little-endian:
//!
//! ```text
//! owner 32, created_at 8, deadline 8, status 1, payload_hash 32, public_key 32,
//! reference_length 8 (0: the payload is inline), processed_at 8 (if status is Processed),
//! number of failures f 1, number of workers n 1, worker numbers 4 n,
//! failures 49 (n - 1), last 139, payload or its location (the rest)
//! failure: position of the worker 1, result_hash 32, units 8, timestamp 8
//! last:    the attestation, or the n-th failure, or unused
//! attestation: position of the worker 1, scheme 1, signature 65, result_hash 32, units 8,
//!          started_at 8, finished_at 8, issued_at 8, timestamp 8
//! ```
//!
//! An attested job has at most `n - 1` failures, so the attestation and the `n`-th failure can
//! share their room. `first byte of last` is `0xff` when neither is there.
//!
//! Another layout is another `STORAGE_VERSION`: an upgrade sees in the metadata only that a row is
//! bytes, and would let code read rows that it does not understand.
//!
//! Fields are read and written in place: a message touches few of them, and a chain that runs
//! contracts by wasmi charges every byte of code that would decode the rest. What is no row traps.

use ink::prelude::vec::Vec;
use ink::primitives::AccountId;
use ink::scale::{Decode, Encode, Error as ScaleError, Input, Output};

use crate::types::{JobStatus, Signature, WorkerId};

/// The most workers that a job may name.
pub const MAX_WORKERS: usize = 4;

const OWNER: usize = 0;
const CREATED_AT: usize = 32;
const DEADLINE: usize = 40;
const STATUS: usize = 48;
const PAYLOAD_HASH: usize = 49;
const PUBLIC_KEY: usize = 81;
const REFERENCE_LENGTH: usize = 113;
const PROCESSED_AT: usize = 121;
const FAILURES: usize = 129;
const WORKERS: usize = 130;
const HEAD_LENGTH: usize = 131;
const FAILURE_LENGTH: usize = 49;
const LAST_LENGTH: usize = 139;
const ABSENT: u8 = 0xff;

/// The failure that the worker at `position` in the job's list reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode)]
pub struct FailureEntry {
    /// The worker's place in the job's list.
    pub position: u8,
    /// The hash of the sealed failure report.
    pub result_hash: [u8; 32],
    /// What the execution used.
    pub units: u64,
    /// The block time of recording.
    pub timestamp: u64,
}

/// The statement that the worker at `position` in the job's list signed, outcome `Completed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttestationEntry {
    /// The worker's place in the job's list.
    pub position: u8,
    /// The worker's signature.
    pub signature: Signature,
    /// The hash of the sealed result.
    pub result_hash: [u8; 32],
    /// What the execution used.
    pub units: u64,
    /// When the execution began.
    pub started_at: u64,
    /// When the execution ended.
    pub finished_at: u64,
    /// When the statement was signed.
    pub issued_at: u64,
    /// The block time of recording.
    pub timestamp: u64,
}

impl Encode for AttestationEntry {
    fn encode_to<O: Output + ?Sized>(&self, out: &mut O) {
        let (scheme, signature): (u8, &[u8]) = match &self.signature {
            Signature::Sr25519(signature) => (1, signature),
            Signature::Ecdsa(signature) => (2, signature),
        };
        out.write(&[self.position, scheme]);
        out.write(signature);
        out.write(&[0_u8; 65][signature.len()..]);
        out.write(&self.result_hash);
        for number in [
            self.units,
            self.started_at,
            self.finished_at,
            self.issued_at,
            self.timestamp,
        ] {
            out.write(&number.to_le_bytes());
        }
    }
}

impl Decode for AttestationEntry {
    fn decode<I: Input>(input: &mut I) -> Result<Self, ScaleError> {
        let [position, scheme] = Decode::decode(input)?;
        let signature = <[u8; 65]>::decode(input)?;
        let signature = match scheme {
            1 => Signature::Sr25519(*signature.first_chunk().ok_or("too short")?),
            2 => Signature::Ecdsa(signature),
            _ => return Err("unknown scheme".into()),
        };
        let result_hash = Decode::decode(input)?;
        let [units, started_at, finished_at, issued_at, timestamp] = Decode::decode(input)?;
        Ok(Self {
            position,
            signature,
            result_hash,
            units,
            started_at,
            finished_at,
            issued_at,
            timestamp,
        })
    }
}

/// What is known of a job when it is submitted, but its payload.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Who submits it.
    pub owner: AccountId,
    /// The block time.
    pub created_at: u64,
    /// The last moment at which an attestation is taken.
    pub deadline: u64,
    /// The hash of the sealed payload.
    pub payload_hash: [u8; 32],
    /// The key that the result is sealed to.
    pub public_key: [u8; 32],
    /// The payload's length if it is not in the contract.
    pub reference_length: Option<u64>,
    /// One to four workers.
    pub workers: Vec<WorkerId>,
}

/// A job without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub struct JobRow {
    bytes: Vec<u8>,
}

impl JobRow {
    /// The row of a submitted job; `payload` is its payload, or the location of a referenced one.
    pub fn new(job: &NewJob, payload: &[u8]) -> Self {
        let length = Self::packed_length(job.workers.len());
        let mut bytes = Vec::with_capacity(length.saturating_add(payload.len()));
        bytes.extend_from_slice(job.owner.as_ref());
        bytes.extend_from_slice(&job.created_at.to_le_bytes());
        bytes.extend_from_slice(&job.deadline.to_le_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&job.payload_hash);
        bytes.extend_from_slice(&job.public_key);
        bytes.extend_from_slice(&job.reference_length.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        // Four workers at most: the number is not cut.
        bytes.extend_from_slice(&[0, u8::try_from(job.workers.len()).unwrap_or(ABSENT)]);
        for worker in &job.workers {
            bytes.extend_from_slice(&worker.to_le_bytes());
        }
        bytes.resize(length, 0);
        bytes.extend_from_slice(payload);
        let mut row = Self { bytes };
        let last = row.last();
        row.put(last, &[ABSENT]);
        row
    }

    /// The length of a row with `workers` workers, without its payload and its length prefix.
    pub const fn packed_length(workers: usize) -> usize {
        last_offset(workers).saturating_add(LAST_LENGTH)
    }

    /// Who submitted the job.
    pub fn owner(&self) -> AccountId {
        self.take::<32>(OWNER).into()
    }

    /// The block time of submitting.
    pub fn created_at(&self) -> u64 {
        self.number(CREATED_AT)
    }

    /// The last moment at which an attestation is taken.
    pub fn deadline(&self) -> u64 {
        self.number(DEADLINE)
    }

    /// Where the job is in its life.
    pub fn status(&self) -> JobStatus {
        self.decode(STATUS)
    }

    /// Moves the job on in its life.
    pub fn set_status(&mut self, status: JobStatus) {
        self.put(STATUS, &status.encode());
    }

    /// The hash of the sealed payload.
    pub fn payload_hash(&self) -> [u8; 32] {
        self.take(PAYLOAD_HASH)
    }

    /// The key that the result is sealed to.
    pub fn public_key(&self) -> [u8; 32] {
        self.take(PUBLIC_KEY)
    }

    /// The payload's length if it is not in the contract.
    pub fn reference_length(&self) -> Option<u64> {
        Some(self.number(REFERENCE_LENGTH)).filter(|length| *length != 0)
    }

    /// The block time of marking; kept only while the status is `Processed`, which is final.
    pub fn processed_at(&self) -> Option<u64> {
        (self.status() == JobStatus::Processed).then(|| self.number(PROCESSED_AT))
    }

    /// Makes the job `Processed`.
    pub fn set_processed(&mut self, now: u64) {
        self.set_status(JobStatus::Processed);
        self.put(PROCESSED_AT, &now.to_le_bytes());
    }

    /// One to four workers.
    pub fn workers(&self) -> Vec<WorkerId> {
        let [count] = self.take(WORKERS);
        (0..count)
            .filter_map(|position| self.worker_at(position))
            .collect()
    }

    /// The number of the worker at `position` in the job's list.
    pub fn worker_at(&self, position: u8) -> Option<WorkerId> {
        let offset = usize::from(position)
            .saturating_mul(4)
            .saturating_add(HEAD_LENGTH);
        (position < self.take::<1>(WORKERS)[0]).then(|| WorkerId::from_le_bytes(self.take(offset)))
    }

    /// At most one failure per worker.
    pub fn failures(&self) -> impl Iterator<Item = FailureEntry> + '_ {
        let [count] = self.take(FAILURES);
        (0..count).map(|failure| self.decode(self.failure_offset(failure)))
    }

    /// Whether all of the job's workers have failed it.
    pub fn is_failed_by_all(&self) -> bool {
        let [failures, workers] = self.take(FAILURES);
        failures == workers
    }

    /// Adds a failure; there is room for one of each worker.
    pub fn add_failure(&mut self, failure: &FailureEntry) {
        let [count] = self.take(FAILURES);
        self.put(self.failure_offset(count), &failure.encode());
        self.put(FAILURES, &[count.saturating_add(1)]);
    }

    /// The first valid statement that the job completed.
    pub fn attestation(&self) -> Option<AttestationEntry> {
        let last = self.last();
        (!self.is_failed_by_all() && self.take(last) != [ABSENT]).then(|| self.decode(last))
    }

    /// Makes the job `Attested`, by this statement.
    pub fn set_attestation(&mut self, attestation: &AttestationEntry) {
        self.set_status(JobStatus::Attested);
        self.put(self.last(), &attestation.encode());
    }

    /// The payload, or the location of a referenced one.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.last().saturating_add(LAST_LENGTH)..]
    }

    fn last(&self) -> usize {
        last_offset(self.take::<1>(WORKERS)[0].into())
    }

    fn failure_offset(&self, failure: u8) -> usize {
        failures_offset(self.take::<1>(WORKERS)[0].into())
            .saturating_add(FAILURE_LENGTH.saturating_mul(failure.into()))
    }

    #[inline(never)]
    fn number(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.take(offset))
    }

    fn decode<T: Decode>(&self, offset: usize) -> T {
        T::decode(&mut &self.bytes[offset..]).expect("the contract wrote it")
    }

    fn take<const N: usize>(&self, offset: usize) -> [u8; N] {
        *self.bytes[offset..]
            .first_chunk()
            .expect("the row is whole")
    }

    #[inline(never)]
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..][..bytes.len()].copy_from_slice(bytes);
    }
}

const fn failures_offset(workers: usize) -> usize {
    HEAD_LENGTH.saturating_add(workers.saturating_mul(4))
}

/// Where the n-th failure of n would be.
const fn last_offset(workers: usize) -> usize {
    failures_offset(workers)
        .saturating_add(workers.saturating_sub(1).saturating_mul(FAILURE_LENGTH))
}
