//! What the contract tells the world.
//!
//! Events are named, never anonymous, and their signature is the first topic. A chain charges each
//! topic like a storage write, so the events of jobs have no other: whoever reads events by block
//! finds job and owner in their data. Where there are more topics, none is a 32-byte value that a
//! caller chooses: it could equal another event's signature.

use ink::prelude::vec::Vec;
use ink::primitives::AccountId;

use crate::parameters::Parameters;
use crate::types::{
    CompletedStatement, JobId, Mode, Outcome, PublicKey, Role, Signature, WorkerId,
};

/// A job was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct JobSubmitted {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
    /// The blake2-256 hash of the sealed payload.
    pub payload_hash: [u8; 32],
    /// The workers that the payload is sealed to.
    pub workers: Vec<WorkerId>,
    /// The last moment at which an attestation is taken.
    pub deadline: u64,
}

/// A worker's signed statement was verified and recorded.
///
/// Not for an item of `complete_jobs` that is marked at once: `JobProcessed` holds its statement.
///
/// With `JobSubmitted` it holds all that anybody needs to verify the statement, also after the job
/// was purged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct AttestationRecorded {
    /// The job's number.
    pub job_id: JobId,
    /// Who signed.
    pub worker: WorkerId,
    /// How the execution ended.
    pub outcome: Outcome,
    /// The blake2-256 hash of the sealed result or failure report.
    pub result_hash: [u8; 32],
    /// What the execution used, in the worker's units.
    pub units: u64,
    /// When the execution began, by the worker's clock.
    pub started_at: u64,
    /// When the execution ended, by the worker's clock.
    pub finished_at: u64,
    /// When the statement was signed, by the worker's clock.
    pub issued_at: u64,
    /// The worker's signature over the statement's digest.
    pub signature: Signature,
}

/// A job's result was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct JobProcessed {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
    /// The blake2-256 hash of the sealed result.
    pub result_hash: [u8; 32],
    /// The worker's signed statement, if it was verified and recorded in the same step: there is
    /// no `AttestationRecorded` then.
    pub statement: Option<CompletedStatement>,
}

/// Every worker of a job has failed it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct JobFailed {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
}

/// A job was withdrawn by its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct JobCancelled {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
}

/// A job's deadline passed without an attestation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct JobExpired {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
}

/// A job's row and payload were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct JobPurged {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
}

impl From<AttestationRecorded> for CompletedStatement {
    fn from(recorded: AttestationRecorded) -> Self {
        Self {
            worker: recorded.worker,
            units: recorded.units,
            started_at: recorded.started_at,
            finished_at: recorded.finished_at,
            issued_at: recorded.issued_at,
            signature: recorded.signature,
        }
    }
}

/// A worker entered the trusted list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct WorkerRegistered {
    /// The worker's number.
    #[ink(topic)]
    pub worker: WorkerId,
    /// The key that it signs statements with.
    pub signing_key: PublicKey,
    /// The X25519 key that payloads are sealed to.
    pub encryption_key: [u8; 32],
    /// What it runs.
    pub measurement: [u8; 32],
    /// The blake2-256 hash of its evidence.
    pub evidence_hash: [u8; 32],
    /// Its URL.
    pub endpoint: Vec<u8>,
    /// The last moment at which it is trusted.
    pub valid_until: u64,
}

/// A worker's registration was extended on new evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct WorkerRenewed {
    /// The worker's number.
    #[ink(topic)]
    pub worker: WorkerId,
    /// The blake2-256 hash of the new evidence.
    pub evidence_hash: [u8; 32],
    /// The last moment at which it is trusted.
    pub valid_until: u64,
}

/// A worker is not trusted for now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct WorkerSuspended {
    /// The worker's number.
    #[ink(topic)]
    pub worker: WorkerId,
}

/// A suspended worker is trusted again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct WorkerReinstated {
    /// The worker's number.
    #[ink(topic)]
    pub worker: WorkerId,
}

/// A worker is never trusted again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct WorkerRevoked {
    /// The worker's number.
    #[ink(topic)]
    pub worker: WorkerId,
    /// The registrar's reason, or its hash.
    pub reason: [u8; 32],
}

/// Workers with this measurement may be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct MeasurementAllowed {
    /// The measurement.
    pub measurement: [u8; 32],
}

/// No worker with this measurement is ever trusted again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct MeasurementRevoked {
    /// The measurement.
    pub measurement: [u8; 32],
}

/// An account received a role.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct RoleGranted {
    /// The account.
    pub account: AccountId,
    /// The role.
    pub role: Role,
}

/// An account lost a role.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct RoleRevoked {
    /// The account.
    pub account: AccountId,
    /// The role.
    pub role: Role,
}

/// The admin proposed a successor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct AdminProposed {
    /// Who may accept.
    pub proposed: AccountId,
}

/// The proposed successor became admin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct AdminChanged {
    /// Who was admin.
    pub previous: AccountId,
    /// Who is admin now.
    pub admin: AccountId,
}

/// The limits changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct ParametersChanged {
    /// The limits from now on.
    pub parameters: Parameters,
}

/// The mode changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct ModeChanged {
    /// The mode from now on.
    pub mode: Mode,
}

/// The contract runs other code from the next message on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::event]
pub struct CodeChanged {
    /// The hash of that code.
    pub code_hash: [u8; 32],
}
