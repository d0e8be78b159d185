//! What the messages take and return.
//!
//! Enum variants are appended, never reordered: SCALE encodes them by index. Bytes that are signed
//! never use those indices; see `attestation`.
#![allow(
    clippy::cast_possible_truncation,
    reason = "the derived SCALE code casts a variant's index, a constant, to u8"
)]

use ink::prelude::vec::Vec;
use ink::primitives::AccountId;

/// A job's number; the first is 1.
pub type JobId = u128;

/// A worker's number; the first is 1.
pub type WorkerId = u32;

/// Who calls, and when: what a rule may know of the outside.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The account that sent the message.
    pub caller: AccountId,
    /// The block's time in milliseconds since the epoch.
    pub now: u64,
}

/// Which contract on which chain: binds everything that is signed.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// The chain's genesis hash, as given at deployment.
    pub genesis_hash: [u8; 32],
    /// The contract's own address.
    pub contract: AccountId,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum JobStatus {
    /// Waits for an attestation.
    Submitted,
    /// A worker's signed result is recorded.
    Attested,
    /// The result was accepted.
    Processed,
    /// Every worker of the job reported that it failed.
    Failed,
    /// The owner withdrew the job.
    Cancelled,
    /// The deadline passed without an attestation.
    Expired,
}

/// Which messages the contract accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub enum Mode {
    /// Everything but `set_code`.
    #[default]
    Running,
    /// No new jobs; submitted ones may be finished.
    Draining,
    /// Neither submitting nor recording nor marking; the code may be replaced.
    Halted,
}

/// What an account is trusted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub enum Role {
    /// Decides which workers and measurements are trusted.
    Registrar,
    /// Marks jobs processed for their owners.
    Operator,
    /// Suspends workers and moves the mode towards `Halted`.
    Guardian,
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Outcome {
    /// The task ran and gave a result.
    Completed,
    /// The task, or opening its payload, failed.
    Failed,
}

/// A worker's signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub enum PublicKey {
    /// An sr25519 public key.
    Sr25519([u8; 32]),
    /// A compressed secp256k1 public key.
    Ecdsa([u8; 33]),
}

/// A worker's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Signature {
    /// An sr25519 signature, signing context `substrate`.
    Sr25519([u8; 64]),
    /// `r`, `s` and the recovery id 0 to 3, over secp256k1.
    Ecdsa([u8; 65]),
}

/// Where a job's sealed payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Payload {
    /// In the contract.
    Inline(Vec<u8>),
    /// In a blob store, under its hash.
    Reference {
        /// The payload's length in bytes.
        length: u64,
        /// A hint where it may be found.
        location: Vec<u8>,
    },
}

/// A worker's signed report that it failed a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct WorkerFailure {
    /// Who failed.
    pub worker: WorkerId,
    /// The hash of the sealed failure report.
    pub result_hash: [u8; 32],
    /// What the execution used, in the worker's units.
    pub units: u64,
    /// The block time of recording.
    pub timestamp: u64,
}

/// A job with its payload and its failures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct ConfidentialJob {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
    /// The sealed payload, or where it is.
    pub encrypted_payload: Payload,
    /// The X25519 key that the result is sealed to.
    pub public_key: [u8; 32],
    /// The block time of submitting.
    pub created_at: u64,
    /// Whether the status is `Processed`.
    pub processed: bool,
    /// Where the job is in its life.
    pub status: JobStatus,
    /// The blake2-256 hash of the sealed payload.
    pub payload_hash: [u8; 32],
    /// The last moment at which an attestation is taken.
    pub deadline: u64,
    /// The workers that the payload is sealed to, in the owner's order of preference.
    pub workers: Vec<WorkerId>,
    /// Failures in the order of recording, at most one per worker.
    pub failures: Vec<WorkerFailure>,
    /// The block time of marking.
    pub processed_at: Option<u64>,
}

/// What pages tell of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct JobHead {
    /// The job's number.
    pub job_id: JobId,
    /// Who submitted it.
    pub owner: AccountId,
    /// Where the job is in its life.
    pub status: JobStatus,
    /// The block time of submitting.
    pub created_at: u64,
    /// The last moment at which an attestation is taken.
    pub deadline: u64,
    /// The blake2-256 hash of the sealed payload.
    pub payload_hash: [u8; 32],
    /// The workers that the payload is sealed to, in the owner's order of preference.
    pub workers: Vec<WorkerId>,
    /// The block time of marking.
    pub processed_at: Option<u64>,
}

/// What a worker states about an execution beyond what the contract knows, and its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct AttestationProof {
    /// How the execution ended.
    pub outcome: Outcome,
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

/// The recorded, verified statement that a job completed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct JobAttestation {
    /// The job's number.
    pub job_id: JobId,
    /// The blake2-256 hash of the sealed result.
    pub result_hash: [u8; 32],
    /// The rest of the statement, and the signature.
    pub attestation_proof: AttestationProof,
    /// The worker's signing key.
    pub tee_worker_pubkey: PublicKey,
    /// The block time of recording.
    pub timestamp: u64,
    /// Who signed.
    pub worker: WorkerId,
}

/// A worker's signed statement, ready to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Completion {
    /// The job that it is about.
    pub job_id: JobId,
    /// The blake2-256 hash of the sealed result or failure report.
    pub result_hash: [u8; 32],
    /// The rest of the statement, and the signature.
    pub attestation_proof: AttestationProof,
    /// The worker's signing key.
    pub tee_worker_pubkey: PublicKey,
}

/// What a job's attestation is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum AttestationStatus {
    /// The job has none, or there is no such job.
    NotFound,
    /// The signature is not the worker's over the statement rebuilt from storage.
    BadSignature,
    /// The worker was revoked.
    WorkerRevoked,
    /// The worker's measurement was revoked.
    MeasurementRevoked,
    /// The worker is suspended.
    WorkerSuspended,
    /// The worker's registration ran out.
    WorkerExpired,
    /// The signature is good and the worker is trusted now.
    Valid,
}

/// Whether a worker may be trusted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub enum WorkerStatus {
    /// Until its registration runs out.
    Active,
    /// Not now.
    Suspended,
    /// Never again.
    Revoked,
}

/// A worker as the trusted list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub struct Worker {
    /// The worker's number.
    pub worker: WorkerId,
    /// The key that it signs statements with.
    pub signing_key: PublicKey,
    /// The X25519 key that payloads are sealed to.
    pub encryption_key: [u8; 32],
    /// What it runs (protocol 3.3).
    pub measurement: [u8; 32],
    /// The blake2-256 hash of the evidence that it was registered on.
    pub evidence_hash: [u8; 32],
    /// Its URL.
    pub endpoint: Vec<u8>,
    /// The block time of registration.
    pub registered_at: u64,
    /// The last moment at which it is trusted.
    pub valid_until: u64,
    /// Whether it may be trusted at all.
    pub status: WorkerStatus,
}

/// What a registrar says of a new worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct WorkerRegistration {
    /// The key that it signs statements with.
    pub signing_key: PublicKey,
    /// The X25519 key that payloads are sealed to.
    pub encryption_key: [u8; 32],
    /// What it runs (protocol 3.3).
    pub measurement: [u8; 32],
    /// The blake2-256 hash of the evidence that the registrar checked.
    pub evidence_hash: [u8; 32],
    /// Its URL in UTF-8, at most 128 bytes.
    pub endpoint: Vec<u8>,
    /// The last moment at which it is trusted.
    pub valid_until: u64,
}

/// What `AttestationRecorded` tells of a statement with outcome `Completed`, but its result's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct CompletedStatement {
    /// Who signed.
    pub worker: WorkerId,
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

/// What an owner chooses for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct JobOptions {
    /// The one to four workers that the payload is sealed to, in order of preference.
    pub workers: Vec<WorkerId>,
    /// How long an attestation is taken, in milliseconds from now.
    pub ttl: u64,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub struct Page<T> {
    /// The entries, in the order of their numbers.
    pub items: Vec<T>,
    /// Where to go on, if there is more.
    pub next: Option<u128>,
    /// How many numbers have been given out.
    pub total: u128,
}
