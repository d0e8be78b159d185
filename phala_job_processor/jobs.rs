//! A job's life: submitted, attested or failed, processed, cancelled or expired, purged.

use ink::prelude::vec::Vec;
use ink::primitives::AccountId;
use ink::storage::Mapping;

use crate::access::Access;
use crate::attestation::{blake2_256, is_zero};
use crate::cells::cells_of;
use crate::deadline::has_passed;
use crate::ensure::ensure;
use crate::errors::{Error, Result};
use crate::events::{JobCancelled, JobExpired, JobProcessed, JobPurged, JobSubmitted};
use crate::job_row::{JobRow, NewJob, MAX_WORKERS};
use crate::page::page;
use crate::parameters::Parameters;
use crate::rate::Accounts;
use crate::types::{
    AttestationStatus, Call, ConfidentialJob, JobHead, JobId, JobOptions, JobStatus, Page, Payload,
    Role, WorkerFailure, WorkerId,
};
use crate::workers::Workers;

/// The longest location of a referenced payload in bytes.
pub const MAX_LOCATION: usize = 256;

/// The jobs, one row each.
#[ink::storage_item]
#[derive(Debug, Default)]
pub struct Jobs {
    pub(crate) counter: JobId,
    pub(crate) rows: Mapping<JobId, JobRow>,
}

/// A sealed payload as its owner submits it.
#[derive(Debug)]
pub struct Submission {
    /// The payload, or its location.
    bytes: Vec<u8>,
    payload_hash: [u8; 32],
    reference_length: Option<u64>,
}

impl Submission {
    /// A payload that goes into the contract, hashed here.
    ///
    /// # Errors
    ///
    /// `EmptyPayload` or `PayloadTooLarge` unless its length is within `1..=max_payload`.
    pub fn inline(payload: Vec<u8>, parameters: &Parameters) -> Result<Self> {
        ensure!(!payload.is_empty(), Error::EmptyPayload);
        let longest = usize::try_from(parameters.max_payload).unwrap_or(usize::MAX);
        ensure!(payload.len() <= longest, Error::PayloadTooLarge);
        Ok(Self {
            payload_hash: blake2_256(&payload),
            bytes: payload,
            reference_length: None,
        })
    }

    /// A payload that stays in a blob store.
    ///
    /// # Errors
    ///
    /// `EmptyPayload` or `ReferenceTooLarge` unless its length is within `1..=max_reference`.
    /// `LocationTooLong` above 256 bytes.
    pub fn reference(
        payload_hash: [u8; 32],
        length: u64,
        location: Vec<u8>,
        parameters: &Parameters,
    ) -> Result<Self> {
        ensure!(length > 0, Error::EmptyPayload);
        ensure!(length <= parameters.max_reference, Error::ReferenceTooLarge);
        ensure!(location.len() <= MAX_LOCATION, Error::LocationTooLong);
        Ok(Self {
            bytes: location,
            payload_hash,
            reference_length: Some(length),
        })
    }
}

/// What `submit` judges by, and the account that it charges.
pub struct Admission<'a> {
    /// The trusted list.
    pub workers: &'a Workers,
    /// The limits.
    pub parameters: &'a Parameters,
    /// The accounts' windows.
    pub accounts: &'a Accounts,
}

impl Jobs {
    /// The job's row.
    ///
    /// # Errors
    ///
    /// `JobNotFound` if there is none.
    pub fn row(&self, job_id: JobId) -> Result<JobRow> {
        self.rows.get(job_id).ok_or(Error::JobNotFound)
    }

    /// Writes the job's row. Rows have cells of their own, so `self` stays as it is.
    pub fn store(&self, job_id: JobId, row: &JobRow) {
        cells_of(&self.rows).insert(job_id, row);
    }

    /// Takes a job from the caller.
    ///
    /// # Errors
    ///
    /// `InvalidKey` if `public_key` is all zero.
    /// `TtlOutOfRange` unless `min_ttl <= ttl <= max_ttl`.
    /// `NoWorkers`, `TooManyWorkers`, `DuplicateWorker`, `WorkerNotFound`, `WorkerNotTrusted` as
    /// they say.
    /// `RateLimited` if the caller used up its window.
    /// `Overflow` if a counter is exhausted.
    pub fn submit(
        &mut self,
        call: Call,
        admission: Admission<'_>,
        submission: Submission,
        public_key: [u8; 32],
        options: JobOptions,
    ) -> Result<JobSubmitted> {
        let Admission {
            workers,
            parameters,
            accounts,
        } = admission;
        ensure!(!is_zero(&public_key), Error::InvalidKey);
        ensure!(
            (parameters.min_ttl..=parameters.max_ttl).contains(&options.ttl),
            Error::TtlOutOfRange
        );
        ensure_trusted_set(&options.workers, workers, call.now)?;
        let cell = accounts.charged(call, parameters)?;
        let job_id = self.counter.checked_add(1).ok_or(Error::Overflow)?;

        let job = NewJob {
            owner: call.caller,
            created_at: call.now,
            deadline: call.now.saturating_add(options.ttl),
            payload_hash: submission.payload_hash,
            public_key,
            reference_length: submission.reference_length,
            workers: options.workers,
        };
        self.counter = job_id;
        accounts.store(call.caller, &cell);
        self.store(job_id, &JobRow::new(&job, &submission.bytes));
        Ok(JobSubmitted {
            job_id,
            owner: job.owner,
            payload_hash: job.payload_hash,
            workers: job.workers,
            deadline: job.deadline,
        })
    }

    /// Marks an attested job processed, in `row`; the caller of this stores it.
    ///
    /// # Errors
    ///
    /// `WrongStatus` if the job is not attested.
    pub fn mark(job_id: JobId, row: &mut JobRow, now: u64) -> Result<JobProcessed> {
        ensure!(row.status() == JobStatus::Attested, Error::WrongStatus);
        let attestation = row.attestation().ok_or(Error::WrongStatus)?;
        row.set_processed(now);
        Ok(JobProcessed {
            job_id,
            owner: row.owner(),
            result_hash: attestation.result_hash,
            statement: None,
        })
    }

    /// Withdraws a job; `attestation` is what its attestation is worth now.
    ///
    /// # Errors
    ///
    /// `NotJobOwner` if the caller does not own it.
    /// `WrongStatus` unless it is submitted, or attested by a statement that is refuted or that
    /// waited longer than `mark_grace` to be marked.
    pub fn cancel(
        &self,
        call: Call,
        (job_id, mut row): (JobId, JobRow),
        attestation: AttestationStatus,
        parameters: &Parameters,
    ) -> Result<JobCancelled> {
        ensure!(row.owner() == call.caller, Error::NotJobOwner);
        let may_leave = match row.status() {
            JobStatus::Submitted => true,
            JobStatus::Attested => {
                is_refuted(attestation) || is_grace_over(&row, call.now, parameters)
            }
            _ => false,
        };
        ensure!(may_leave, Error::WrongStatus);
        row.set_status(JobStatus::Cancelled);
        self.store(job_id, &row);
        Ok(JobCancelled {
            job_id,
            owner: row.owner(),
        })
    }

    /// Ends a submitted job whose deadline has passed.
    ///
    /// # Errors
    ///
    /// `JobNotFound`, `WrongStatus`, `DeadlineNotPassed` as they say.
    pub fn expire(&self, call: Call, job_id: JobId) -> Result<JobExpired> {
        let mut row = self.row(job_id)?;
        ensure!(row.status() == JobStatus::Submitted, Error::WrongStatus);
        ensure!(
            has_passed(row.deadline(), call.now),
            Error::DeadlineNotPassed
        );
        row.set_status(JobStatus::Expired);
        self.store(job_id, &row);
        Ok(JobExpired {
            job_id,
            owner: row.owner(),
        })
    }

    /// Removes a finished job's row, and its owner's cell if nothing needs it any more.
    ///
    /// # Errors
    ///
    /// `JobNotFound`, `NotJobOwner` as they say.
    /// `WrongStatus` if the job is submitted or attested.
    /// `Overflow` if the owner's cell counts no live job.
    pub fn purge(
        &self,
        call: Call,
        accounts: &Accounts,
        parameters: &Parameters,
        job_id: JobId,
    ) -> Result<JobPurged> {
        let row = self.row(job_id)?;
        ensure!(row.owner() == call.caller, Error::NotJobOwner);
        ensure!(
            !matches!(row.status(), JobStatus::Submitted | JobStatus::Attested),
            Error::WrongStatus
        );
        let cell = accounts.discharged(call.caller)?;

        accounts.store_or_remove(call, &cell, parameters);
        cells_of(&self.rows).remove(job_id);
        Ok(JobPurged {
            job_id,
            owner: row.owner(),
        })
    }

    /// The job with its payload and failures.
    pub fn get(&self, job_id: JobId) -> Option<ConfidentialJob> {
        let row = self.rows.get(job_id)?;
        let failures = row
            .failures()
            .filter_map(|failure| {
                Some(WorkerFailure {
                    worker: row.worker_at(failure.position)?,
                    result_hash: failure.result_hash,
                    units: failure.units,
                    timestamp: failure.timestamp,
                })
            })
            .collect();
        let bytes = row.payload().to_vec();
        Some(ConfidentialJob {
            job_id,
            owner: row.owner(),
            encrypted_payload: match row.reference_length() {
                None => Payload::Inline(bytes),
                Some(length) => Payload::Reference {
                    length,
                    location: bytes,
                },
            },
            public_key: row.public_key(),
            created_at: row.created_at(),
            processed: row.status() == JobStatus::Processed,
            status: row.status(),
            payload_hash: row.payload_hash(),
            deadline: row.deadline(),
            workers: row.workers(),
            failures,
            processed_at: row.processed_at(),
        })
    }

    /// One page of heads in the order of their numbers, from `from` on.
    ///
    /// # Errors
    ///
    /// `LimitOutOfRange` unless `1 <= limit <= 50`.
    pub fn page(&self, from: JobId, limit: u32) -> Result<Page<JobHead>> {
        page(from, limit, self.counter, |job_id| {
            let row = self.rows.get(job_id)?;
            Some(JobHead {
                job_id,
                owner: row.owner(),
                status: row.status(),
                created_at: row.created_at(),
                deadline: row.deadline(),
                payload_hash: row.payload_hash(),
                workers: row.workers(),
                processed_at: row.processed_at(),
            })
        })
    }
}

/// Checks that the caller may mark the job processed.
///
/// # Errors
///
/// `NotJobOwner` if the caller is neither the owner nor an operator.
pub fn ensure_may_mark(owner: AccountId, caller: AccountId, access: &Access) -> Result<()> {
    ensure!(
        owner == caller || access.has_role(caller, Role::Operator),
        Error::NotJobOwner
    );
    Ok(())
}

fn ensure_trusted_set(named: &[WorkerId], workers: &Workers, now: u64) -> Result<()> {
    ensure!(!named.is_empty(), Error::NoWorkers);
    ensure!(named.len() <= MAX_WORKERS, Error::TooManyWorkers);
    for (position, worker) in named.iter().enumerate() {
        ensure!(
            !named.iter().take(position).any(|earlier| earlier == worker),
            Error::DuplicateWorker
        );
    }
    for worker in named {
        workers.ensure_trusted(*worker, now)?;
    }
    Ok(())
}

/// Whether the attestation turned out to be worth nothing, so that the owner may leave at once.
fn is_refuted(attestation: AttestationStatus) -> bool {
    matches!(
        attestation,
        AttestationStatus::BadSignature
            | AttestationStatus::WorkerRevoked
            | AttestationStatus::MeasurementRevoked
    )
}

fn is_grace_over(row: &JobRow, now: u64, parameters: &Parameters) -> bool {
    row.attestation().is_some_and(|attestation| {
        has_passed(
            attestation.timestamp.saturating_add(parameters.mark_grace),
            now,
        )
    })
}
