//! A job's life as a reference model: plain maps, written from the protocol and not from the
//! contract's modules. `lifecycle` plays random actions on both.

use std::collections::{BTreeMap, BTreeSet};

use crate::errors::Error;
use crate::parameters::Parameters;
use crate::types::{AttestationStatus, JobStatus, Mode, Outcome, WorkerStatus};

use super::world::Who;

/// What is wrong with a statement, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    SignedOtherwise,
    OtherScheme,
    EmptyResult,
    Inverted,
    BeforeJob,
    FromFuture,
    TooOld,
}

/// A statement that somebody sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub job: u128,
    /// 1 to 3 are registered, 4 is not.
    pub worker: u32,
    pub outcome: Outcome,
    pub result: u8,
    pub flaw: Flaw,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub owner: Who,
    pub status: JobStatus,
    pub created: u64,
    pub deadline: u64,
    pub workers: Vec<u32>,
    /// Worker, result and time.
    pub failures: Vec<(u32, u8, u64)>,
    pub attestation: Option<(u32, u8, u64)>,
    pub processed_at: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Worker {
    pub status: WorkerStatus,
    pub valid_until: u64,
    pub measurement: u8,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub now: u64,
    pub mode: Mode,
    pub parameters: Parameters,
    pub workers: BTreeMap<u32, Worker>,
    pub revoked: BTreeSet<u8>,
    pub counter: u128,
    pub jobs: BTreeMap<u128, Job>,
    /// Live jobs, start of the window, used in it.
    pub accounts: BTreeMap<u8, (u32, u64, u32)>,
}

type Answer = Result<(), Error>;

/// The error of the first condition that does not hold.
fn first(conditions: &[(bool, Error)]) -> Answer {
    match conditions.iter().find(|(holds, _)| !holds) {
        Some((_, error)) => Err(*error),
        None => Ok(()),
    }
}

impl Model {
    fn is_trusted(worker: &Worker, revoked: &BTreeSet<u8>, now: u64) -> bool {
        worker.status == WorkerStatus::Active
            && now <= worker.valid_until
            && !revoked.contains(&worker.measurement)
    }

    pub fn trusted(&self, worker: u32) -> bool {
        self.workers
            .get(&worker)
            .is_some_and(|worker| Self::is_trusted(worker, &self.revoked, self.now))
    }

    fn window_over(&self, start: u64) -> bool {
        self.now > start + self.parameters.rate_window
    }

    pub fn submit(&mut self, owner: Who, workers: &[u32], ttl: u64) -> Answer {
        let distinct: BTreeSet<_> = workers.iter().collect();
        // Workers are looked at in the owner's order: the first bad one decides.
        let bad = workers.iter().find(|id| !self.trusted(**id));
        let bad_is_known = bad.is_none_or(|id| self.workers.contains_key(id));
        let account = self.accounts.get(&(owner as u8)).copied();
        let used = match account {
            Some((_, start, used)) if !self.window_over(start) => used,
            _ => 0,
        };
        first(&[
            (self.mode == Mode::Running, Error::WrongMode),
            (
                ttl >= self.parameters.min_ttl && ttl <= self.parameters.max_ttl,
                Error::TtlOutOfRange,
            ),
            (!workers.is_empty(), Error::NoWorkers),
            (workers.len() <= 4, Error::TooManyWorkers),
            (distinct.len() == workers.len(), Error::DuplicateWorker),
            (bad_is_known, Error::WorkerNotFound),
            (bad.is_none(), Error::WorkerNotTrusted),
            (used < self.parameters.rate_limit, Error::RateLimited),
        ])?;
        let (live, start) = match account {
            Some((live, start, _)) if used > 0 => (live, start),
            Some((live, ..)) => (live, self.now),
            None => (0, self.now),
        };
        self.accounts
            .insert(owner as u8, (live + 1, start, used + 1));
        self.counter += 1;
        let job = Job {
            owner,
            status: JobStatus::Submitted,
            created: self.now,
            deadline: self.now + ttl,
            workers: workers.to_vec(),
            failures: vec![],
            attestation: None,
            processed_at: None,
        };
        self.jobs.insert(self.counter, job);
        Ok(())
    }

    pub fn record(&mut self, sent: Sent) -> Answer {
        first(&[(self.mode != Mode::Halted, Error::WrongMode)])?;
        let known = self.workers.get(&sent.worker);
        let trusted = self.trusted(sent.worker);
        let now = self.now;
        let job = self.jobs.get_mut(&sent.job).ok_or(Error::JobNotFound)?;
        let attested = matches!(job.status, JobStatus::Attested | JobStatus::Processed);
        let failed_before = job.failures.iter().any(|(id, ..)| *id == sent.worker);
        let fine = |flaw| sent.flaw != flaw;
        first(&[
            (!attested, Error::AlreadyAttested),
            (job.status == JobStatus::Submitted, Error::WrongStatus),
            (now <= job.deadline, Error::DeadlinePassed),
            (known.is_some(), Error::WorkerNotFound),
            (fine(Flaw::OtherScheme), Error::KeyMismatch),
            (job.workers.contains(&sent.worker), Error::WorkerNotEligible),
            (trusted, Error::WorkerNotTrusted),
            (!failed_before, Error::AlreadyFailed),
            (fine(Flaw::EmptyResult), Error::EmptyResultHash),
            (fine(Flaw::Inverted), Error::StatementTimesInverted),
            (fine(Flaw::BeforeJob), Error::StatementBeforeJob),
            (fine(Flaw::FromFuture), Error::StatementFromFuture),
            (fine(Flaw::TooOld), Error::StatementTooOld),
            (fine(Flaw::SignedOtherwise), Error::BadSignature),
        ])?;
        match sent.outcome {
            Outcome::Completed => {
                job.attestation = Some((sent.worker, sent.result, now));
                job.status = JobStatus::Attested;
            }
            Outcome::Failed => {
                job.failures.push((sent.worker, sent.result, now));
                if job.failures.len() == job.workers.len() {
                    job.status = JobStatus::Failed;
                }
            }
        }
        Ok(())
    }

    pub fn attestation_status(&self, job: u128) -> AttestationStatus {
        let attestation = self.jobs.get(&job).and_then(|job| job.attestation);
        let Some((worker, ..)) = attestation else {
            return AttestationStatus::NotFound;
        };
        let worker = &self.workers[&worker];
        if worker.status == WorkerStatus::Revoked {
            AttestationStatus::WorkerRevoked
        } else if self.revoked.contains(&worker.measurement) {
            AttestationStatus::MeasurementRevoked
        } else if worker.status == WorkerStatus::Suspended {
            AttestationStatus::WorkerSuspended
        } else if self.now > worker.valid_until {
            AttestationStatus::WorkerExpired
        } else {
            AttestationStatus::Valid
        }
    }

    fn set_processed(&mut self, job: u128) -> Answer {
        let markable = matches!(
            self.attestation_status(job),
            AttestationStatus::Valid | AttestationStatus::WorkerExpired
        );
        let now = self.now;
        let job = self.jobs.get_mut(&job).ok_or(Error::JobNotFound)?;
        first(&[
            (job.status == JobStatus::Attested, Error::WrongStatus),
            (markable, Error::AttestationNotValid),
        ])?;
        job.status = JobStatus::Processed;
        job.processed_at = Some(now);
        Ok(())
    }

    pub fn mark(&mut self, who: Who, job: u128) -> Answer {
        let owner = self.jobs.get(&job).ok_or(Error::JobNotFound)?.owner;
        first(&[
            (who == owner || who == Who::Operator, Error::NotJobOwner),
            (self.mode != Mode::Halted, Error::WrongMode),
        ])?;
        self.set_processed(job)
    }

    pub fn complete(&mut self, who: Who, items: &[Sent]) -> Result<Vec<Answer>, Error> {
        first(&[
            (who == Who::Operator, Error::MissingRole),
            (self.mode != Mode::Halted, Error::WrongMode),
        ])?;
        let one = |model: &mut Self, sent: &Sent| {
            let same = model.jobs.get(&sent.job).is_some_and(|job| {
                job.status == JobStatus::Attested
                    && sent.outcome == Outcome::Completed
                    && sent.flaw != Flaw::EmptyResult
                    && job.attestation.is_some_and(|(worker, result, _)| {
                        (worker, result) == (sent.worker, sent.result)
                    })
            });
            if !same {
                model.record(*sent)?;
            }
            match sent.outcome {
                Outcome::Completed => model.set_processed(sent.job),
                Outcome::Failed => Ok(()),
            }
        };
        Ok(items.iter().map(|sent| one(self, sent)).collect())
    }

    pub fn cancel(&mut self, who: Who, job: u128) -> Answer {
        let status = self.attestation_status(job);
        let (now, grace) = (self.now, self.parameters.mark_grace);
        let job = self.jobs.get_mut(&job).ok_or(Error::JobNotFound)?;
        let refuted = matches!(
            status,
            AttestationStatus::WorkerRevoked | AttestationStatus::MeasurementRevoked
        );
        let waited = job.attestation.is_some_and(|(_, _, at)| now > at + grace);
        let may = match job.status {
            JobStatus::Submitted => true,
            JobStatus::Attested => refuted || waited,
            _ => false,
        };
        first(&[
            (job.owner == who, Error::NotJobOwner),
            (may, Error::WrongStatus),
        ])?;
        job.status = JobStatus::Cancelled;
        Ok(())
    }

    pub fn expire(&mut self, job: u128) -> Answer {
        let now = self.now;
        let job = self.jobs.get_mut(&job).ok_or(Error::JobNotFound)?;
        first(&[
            (job.status == JobStatus::Submitted, Error::WrongStatus),
            (now > job.deadline, Error::DeadlineNotPassed),
        ])?;
        job.status = JobStatus::Expired;
        Ok(())
    }

    pub fn purge(&mut self, who: Who, job_id: u128) -> Answer {
        let job = self.jobs.get(&job_id).ok_or(Error::JobNotFound)?;
        let live = matches!(job.status, JobStatus::Submitted | JobStatus::Attested);
        first(&[
            (job.owner == who, Error::NotJobOwner),
            (!live, Error::WrongStatus),
        ])?;
        self.jobs.remove(&job_id);
        let (live, start, used) = self.accounts[&(who as u8)];
        if live == 1 && self.window_over(start) {
            self.accounts.remove(&(who as u8));
        } else {
            self.accounts.insert(who as u8, (live - 1, start, used));
        }
        Ok(())
    }

    pub fn release(&mut self, who: Who) -> Answer {
        if let Some((live, start, _)) = self.accounts.get(&(who as u8)).copied() {
            first(&[(live == 0 && self.window_over(start), Error::AccountInUse)])?;
            self.accounts.remove(&(who as u8));
        }
        Ok(())
    }

    /// Suspends, reinstates or revokes a worker, as the registrar.
    pub fn set_status(&mut self, worker: u32, to: WorkerStatus) -> Answer {
        let worker = self.workers.get_mut(&worker).ok_or(Error::WorkerNotFound)?;
        first(&[
            (worker.status != WorkerStatus::Revoked, Error::WorkerRevoked),
            (worker.status != to, Error::WrongStatus),
        ])?;
        worker.status = to;
        Ok(())
    }

    pub fn set_mode(&mut self, who: Who, mode: Mode) -> Answer {
        let rank = |mode| match mode {
            Mode::Running => 0,
            Mode::Draining => 1,
            Mode::Halted => 2,
        };
        first(&[
            (
                matches!(who, Who::Admin | Who::Guardian),
                Error::MissingRole,
            ),
            (mode != self.mode, Error::WrongMode),
            (
                who == Who::Admin || rank(mode) > rank(self.mode),
                Error::NotAdmin,
            ),
        ])?;
        self.mode = mode;
        Ok(())
    }
}
