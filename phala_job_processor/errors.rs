//! Why a message was refused: one variant per reason.

/// The reason why a message was refused. A refused message changes nothing.
///
/// Variants are appended, never reordered: SCALE encodes them by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
pub enum Error {
    /// The message, or this change of mode, is the admin's alone.
    NotAdmin,
    /// The caller lacks the role that the message asks for.
    MissingRole,
    /// The contract's mode does not allow the message, or is already the one asked for.
    WrongMode,
    /// There is no job with this id, or it was purged.
    JobNotFound,
    /// The caller does not own the job and, where operators may act too, is none.
    NotJobOwner,
    /// The job's or the worker's status does not allow the message.
    WrongStatus,
    /// The payload, inline or by reference, is empty.
    EmptyPayload,
    /// The inline payload is longer than `max_payload`.
    PayloadTooLarge,
    /// The referenced payload is longer than `max_reference`.
    ReferenceTooLarge,
    /// The location of a referenced payload is longer than 256 bytes.
    LocationTooLong,
    /// A worker's endpoint is longer than 128 bytes.
    EndpointTooLong,
    /// A job names no worker.
    NoWorkers,
    /// A job names more than four workers.
    TooManyWorkers,
    /// A job names the same worker twice.
    DuplicateWorker,
    /// No such worker was ever registered.
    WorkerNotFound,
    /// The worker is suspended, revoked or expired, or its measurement is not allowed.
    WorkerNotTrusted,
    /// The job's `ttl` is not within `min_ttl..=max_ttl`.
    TtlOutOfRange,
    /// The caller has submitted `rate_limit` jobs in its current window.
    RateLimited,
    /// The job's deadline has passed.
    DeadlinePassed,
    /// The job's deadline has not passed yet.
    DeadlineNotPassed,
    /// The worker is not one of those that the job was sealed to.
    WorkerNotEligible,
    /// The signature is of another scheme than the signing key.
    KeyMismatch,
    /// An encryption key is all zero.
    InvalidKey,
    /// The result hash is all zero.
    EmptyResultHash,
    /// The statement was issued longer ago than `max_attestation_age`.
    StatementTooOld,
    /// The statement was issued later than now plus `max_clock_skew`.
    StatementFromFuture,
    /// Not `started_at <= finished_at <= issued_at`.
    StatementTimesInverted,
    /// Execution began earlier than the job's creation minus `max_clock_skew`.
    StatementBeforeJob,
    /// The signature is malformed, or not the key's over the bytes rebuilt from storage.
    BadSignature,
    /// The job already has an attestation.
    AlreadyAttested,
    /// This worker has already reported that it failed this job.
    AlreadyFailed,
    /// The job's attestation is no longer good enough to mark the job processed.
    AttestationNotValid,
    /// The measurement was never allowed, or was revoked.
    MeasurementNotAllowed,
    /// A signing or encryption key has been used by a worker before.
    KeyAlreadyRegistered,
    /// `valid_until` has passed, is later than `max_registration` allows, or does not extend.
    ValidityOutOfRange,
    /// The worker was revoked, which is final.
    WorkerRevoked,
    /// A parameter is outside its bounds, or `min_ttl` exceeds `max_ttl`.
    ParameterOutOfRange,
    /// A page's limit is not within `1..=50`.
    LimitOutOfRange,
    /// More than ten completions in one message.
    TooManyItems,
    /// The account has jobs that were not purged, or its rate window is not over.
    AccountInUse,
    /// The caller was not proposed as admin.
    NoPendingAdmin,
    /// The chain refused to set the contract's code; most likely it was not uploaded.
    SetCodeFailed,
    /// A counter is exhausted.
    Overflow,
}

/// What rules and messages return.
pub type Result<T> = core::result::Result<T, Error>;
