//! A job's row: everything of a job but its payload, packed into bytes whose number never changes.
//!
//! The chain charges and refunds storage deposit to whoever sends a transaction. A row that kept
//! its length costs a carrier of statements nothing and pays nobody for shrinking it. So the row is
//! padded from the start for all that may be recorded about a job with its number of workers.
//!
//! In storage a row is a SCALE byte string (`Vec<u8>`) with this content, integers little-endian:
//!
//! ```text
//! owner 32, created_at 8, deadline 8, status 1, payload_hash 32, public_key 32,
//! reference_length 8 (0: the payload is inline), processed_at 8 (if status is Processed),
//! number of workers n 1, worker numbers 4 n,
//! number of failures f 1, failures 49 (n - 1), last 139
//! failure: position of the worker 1, result_hash 32, units 8, timestamp 8
//! last:    the attestation, or the n-th failure, or unused
//! attestation: position of the worker 1, scheme 1, signature 65, result_hash 32, units 8,
//!          started_at 8, finished_at 8, issued_at 8, timestamp 8
//! ```
//!
//! An attested job has at most `n - 1` failures, so the attestation and the `n`-th failure can
//! share their room. `first byte of last` is `0xff` when neither is there.

use ink::prelude::vec::Vec;
use ink::primitives::AccountId;
use ink::scale::{Compact, Decode, Encode, EncodeLike, Error as ScaleError, Input, Output};

use crate::types::{JobStatus, Signature, WorkerId};

/// The most workers that a job may name.
pub const MAX_WORKERS: usize = 4;

const HEAD_LENGTH: usize = 130;
const FAILURE_LENGTH: usize = 49;
const LAST_LENGTH: usize = 139;
const ABSENT: u8 = 0xff;

/// The failure that the worker at `position` in the job's list reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A job without its number and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Who submitted it.
    pub owner: AccountId,
    /// The block time of submitting.
    pub created_at: u64,
    /// The last moment at which an attestation is taken.
    pub deadline: u64,
    /// Where the job is in its life.
    pub status: JobStatus,
    /// The hash of the sealed payload.
    pub payload_hash: [u8; 32],
    /// The key that the result is sealed to.
    pub public_key: [u8; 32],
    /// The payload's length if it is not in the contract.
    pub reference_length: Option<u64>,
    /// The block time of marking; kept only while the status is `Processed`, which is final.
    pub processed_at: Option<u64>,
    /// One to four workers.
    pub workers: Vec<WorkerId>,
    /// At most one failure per worker.
    pub failures: Vec<FailureEntry>,
    /// The first valid statement that the job completed.
    pub attestation: Option<AttestationEntry>,
}

impl JobRow {
    /// The length of a packed row with `workers` workers, without its length prefix.
    pub const fn packed_length(workers: usize) -> usize {
        HEAD_LENGTH
            .saturating_add(workers.saturating_mul(4))
            .saturating_add(1)
            .saturating_add(workers.saturating_sub(1).saturating_mul(FAILURE_LENGTH))
            .saturating_add(LAST_LENGTH)
    }

    /// The number of the worker at `position` in the job's list.
    pub fn worker_at(&self, position: u8) -> Option<WorkerId> {
        self.workers.get(usize::from(position)).copied()
    }

    fn encode_last<O: Output + ?Sized>(&self, last_failure: Option<&FailureEntry>, out: &mut O) {
        if let Some(attestation) = &self.attestation {
            attestation.encode_to(out);
        } else if let Some(failure) = last_failure {
            failure.encode_to(out);
            out.write(&[0; LAST_LENGTH - FAILURE_LENGTH]);
        } else {
            out.push_byte(ABSENT);
            out.write(&[0; LAST_LENGTH - 1]);
        }
    }
}

impl Encode for FailureEntry {
    fn size_hint(&self) -> usize {
        FAILURE_LENGTH
    }

    fn encode_to<O: Output + ?Sized>(&self, out: &mut O) {
        out.push_byte(self.position);
        out.write(&self.result_hash);
        out.write(&self.units.to_le_bytes());
        out.write(&self.timestamp.to_le_bytes());
    }
}

impl FailureEntry {
    fn decode_at<I: Input>(position: u8, input: &mut I) -> Result<Self, ScaleError> {
        Ok(Self {
            position,
            result_hash: Decode::decode(input)?,
            units: Decode::decode(input)?,
            timestamp: Decode::decode(input)?,
        })
    }
}

impl Encode for AttestationEntry {
    fn size_hint(&self) -> usize {
        LAST_LENGTH
    }

    fn encode_to<O: Output + ?Sized>(&self, out: &mut O) {
        out.push_byte(self.position);
        match &self.signature {
            Signature::Sr25519(signature) => {
                out.push_byte(1);
                out.write(signature);
                out.push_byte(0);
            }
            Signature::Ecdsa(signature) => {
                out.push_byte(2);
                out.write(signature);
            }
        }
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

impl AttestationEntry {
    fn decode_at<I: Input>(position: u8, input: &mut I) -> Result<Self, ScaleError> {
        let signature = match input.read_byte()? {
            1 => {
                let signature = Decode::decode(input)?;
                input.read_byte()?;
                Signature::Sr25519(signature)
            }
            2 => Signature::Ecdsa(Decode::decode(input)?),
            _ => return Err("unknown scheme".into()),
        };
        Ok(Self {
            position,
            signature,
            result_hash: Decode::decode(input)?,
            units: Decode::decode(input)?,
            started_at: Decode::decode(input)?,
            finished_at: Decode::decode(input)?,
            issued_at: Decode::decode(input)?,
            timestamp: Decode::decode(input)?,
        })
    }
}

impl Encode for JobRow {
    fn size_hint(&self) -> usize {
        Self::packed_length(self.workers.len()).saturating_add(2)
    }

    fn encode_to<O: Output + ?Sized>(&self, out: &mut O) {
        // Four workers at most, and at most one failure for each: neither number is cut.
        let count = u8::try_from(self.workers.len()).unwrap_or(ABSENT);
        let failures = u8::try_from(self.failures.len()).unwrap_or(ABSENT);
        let length = u32::try_from(Self::packed_length(self.workers.len())).unwrap_or(u32::MAX);

        Compact(length).encode_to(out);
        out.write(self.owner.as_ref());
        out.write(&self.created_at.to_le_bytes());
        out.write(&self.deadline.to_le_bytes());
        self.status.encode_to(out);
        out.write(&self.payload_hash);
        out.write(&self.public_key);
        out.write(&self.reference_length.unwrap_or(0).to_le_bytes());
        out.write(&self.processed_at.unwrap_or(0).to_le_bytes());
        out.push_byte(count);
        for worker in &self.workers {
            out.write(&worker.to_le_bytes());
        }
        out.push_byte(failures);
        let slots = self.workers.len().saturating_sub(1);
        for slot in 0..slots {
            match self.failures.get(slot) {
                Some(failure) => failure.encode_to(out),
                None => out.write(&[0; FAILURE_LENGTH]),
            }
        }
        self.encode_last(self.failures.get(slots), out);
    }
}

impl EncodeLike for JobRow {}

impl Decode for JobRow {
    fn decode<I: Input>(input: &mut I) -> Result<Self, ScaleError> {
        let length = usize::try_from(Compact::<u32>::decode(input)?.0).unwrap_or(usize::MAX);
        let owner = Decode::decode(input)?;
        let created_at = Decode::decode(input)?;
        let deadline = Decode::decode(input)?;
        let status = JobStatus::decode(input)?;
        let payload_hash = Decode::decode(input)?;
        let public_key = Decode::decode(input)?;
        let reference_length = u64::decode(input)?;
        let processed_at = u64::decode(input)?;

        let count = usize::from(input.read_byte()?);
        if count > MAX_WORKERS || length != Self::packed_length(count) {
            return Err("not a job's row".into());
        }
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            workers.push(Decode::decode(input)?);
        }

        let recorded = usize::from(input.read_byte()?);
        let mut failures = Vec::with_capacity(recorded.min(count));
        let slots = count.saturating_sub(1);
        for slot in 0..slots {
            let position = input.read_byte()?;
            let failure = FailureEntry::decode_at(position, input)?;
            if slot < recorded {
                failures.push(failure);
            }
        }
        let mut attestation = None;
        let position = input.read_byte()?;
        if recorded > slots {
            failures.push(FailureEntry::decode_at(position, input)?);
            input.read(&mut [0; LAST_LENGTH - FAILURE_LENGTH])?;
        } else if position == ABSENT {
            input.read(&mut [0; LAST_LENGTH - 1])?;
        } else {
            attestation = Some(AttestationEntry::decode_at(position, input)?);
        }

        Ok(Self {
            owner,
            created_at,
            deadline,
            status,
            payload_hash,
            public_key,
            reference_length: (reference_length != 0).then_some(reference_length),
            processed_at: (status == JobStatus::Processed).then_some(processed_at),
            workers,
            failures,
            attestation,
        })
    }
}

/// What storage holds is a byte string, and the metadata says so.
#[cfg(feature = "std")]
mod layout {
    use ink::metadata::layout::{Layout, LayoutKey, LeafLayout};
    use ink::primitives::Key;
    use ink::scale_info::{Type, TypeInfo};
    use ink::storage::traits::StorageLayout;

    use super::{JobRow, Vec};

    impl TypeInfo for JobRow {
        type Identity = Vec<u8>;

        fn type_info() -> Type {
            Vec::<u8>::type_info()
        }
    }

    impl StorageLayout for JobRow {
        fn layout(key: &Key) -> Layout {
            Layout::Leaf(LeafLayout::from_key::<Vec<u8>>(LayoutKey::from(key)))
        }
    }
}
