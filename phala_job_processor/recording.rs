//! Recording a worker's statement, and what a recorded one is worth later.

use ink::prelude::vec::Vec;

use crate::attestation::{ensure_same_scheme, is_zero, verify_signature, Statement};
use crate::deadline::has_passed;
use crate::ensure::ensure;
use crate::errors::{Error, Result};
use crate::events::AttestationRecorded;
use crate::job_row::{AttestationEntry, FailureEntry, JobRow};
use crate::parameters::Parameters;
use crate::types::{
    AttestationProof, AttestationStatus, Completion, Domain, JobAttestation, JobId, JobStatus,
    Outcome, PublicKey, WorkerId,
};
use crate::workers::{Trust, Workers};

/// What a statement is judged by.
pub struct Judge<'a> {
    /// The trusted list.
    pub workers: &'a Workers,
    /// The limits.
    pub parameters: &'a Parameters,
    /// Which contract on which chain.
    pub domain: &'a Domain,
    /// The block's time.
    pub now: u64,
    // The workers that were read already: many statements of one message mostly have one signer.
    known: Vec<Signer>,
}

/// What counts of a worker when it signs.
#[derive(Clone, Copy, Debug)]
struct Signer {
    worker: WorkerId,
    signing_key: PublicKey,
    measurement: [u8; 32],
    trust: Trust,
}

impl<'a> Judge<'a> {
    /// A judge at the time `now`.
    pub fn new(
        workers: &'a Workers,
        parameters: &'a Parameters,
        domain: &'a Domain,
        now: u64,
    ) -> Self {
        Self {
            workers,
            parameters,
            domain,
            now,
            known: Vec::new(),
        }
    }

    fn signer(&mut self, worker: WorkerId) -> Option<Signer> {
        if let Some(known) = self.known.iter().find(|known| known.worker == worker) {
            return Some(*known);
        }
        let row = self.workers.get(worker)?;
        let signer = Signer {
            worker,
            signing_key: row.signing_key,
            measurement: row.measurement,
            trust: self.workers.trust(&row, self.now),
        };
        self.known.push(signer);
        Some(signer)
    }

    /// Records the statement in `row`, if it passes rows 3 to 13 of protocol 3.2 in their order.
    /// Rows 1 and 2, the mode and the job, are the caller's; so is storing the row.
    ///
    /// 3. The job is submitted and its deadline has not passed.
    /// 4. The key is a registered worker's and the signature of its scheme.
    /// 5. The worker is one of the job's.
    /// 6. It is trusted now.
    /// 7. It has not failed the job before.
    /// 8. The result hash is not zero.
    /// 9. The statement's times are in order.
    /// 10. Execution began after the job was created.
    /// 11. The statement is not from the future.
    /// 12. It is not too old.
    /// 13. The signature over the statement, rebuilt from storage, is the worker's.
    ///
    /// # Errors
    ///
    /// `AlreadyAttested`, `WrongStatus`, `DeadlinePassed`, `WorkerNotFound`, `KeyMismatch`,
    /// `WorkerNotEligible`, `WorkerNotTrusted`, `AlreadyFailed`, `EmptyResultHash`,
    /// `StatementTimesInverted`, `StatementBeforeJob`, `StatementFromFuture`, `StatementTooOld`,
    /// `BadSignature`: the first that applies, in this order. `row` is unchanged then.
    pub fn record(
        &mut self,
        row: &mut JobRow,
        completion: &Completion,
    ) -> Result<AttestationRecorded> {
        match row.status() {
            JobStatus::Submitted => {}
            JobStatus::Attested | JobStatus::Processed => return Err(Error::AlreadyAttested),
            _ => return Err(Error::WrongStatus),
        }
        ensure!(!has_passed(row.deadline(), self.now), Error::DeadlinePassed);
        let (position, signer) = self.find_signer(row, completion)?;
        ensure!(signer.trust == Trust::Trusted, Error::WorkerNotTrusted);
        let failed_before = row.failures().any(|past| past.position == position);
        ensure!(!failed_before, Error::AlreadyFailed);
        ensure!(!is_zero(&completion.result_hash), Error::EmptyResultHash);
        self.check_times(row, &completion.attestation_proof)?;
        let statement = Statement {
            domain: self.domain,
            job_id: completion.job_id,
            payload_hash: &row.payload_hash(),
            outcome: completion.attestation_proof.outcome,
            result_hash: &completion.result_hash,
            units: completion.attestation_proof.units,
            measurement: &signer.measurement,
            started_at: completion.attestation_proof.started_at,
            finished_at: completion.attestation_proof.finished_at,
            issued_at: completion.attestation_proof.issued_at,
        };
        verify_signature(
            &signer.signing_key,
            &completion.attestation_proof.signature,
            &statement.digest(),
        )?;
        Ok(self.write(row, completion, position, signer.worker))
    }

    /// Rows 4 and 5: the worker whose key it is, and its place in the job's list.
    fn find_signer(&mut self, row: &JobRow, completion: &Completion) -> Result<(u8, Signer)> {
        let key = &completion.tee_worker_pubkey;
        let signature = &completion.attestation_proof.signature;
        // The job's own workers come first: mostly that saves looking up the key.
        for (position, worker) in (0..).zip(row.workers()) {
            if let Some(signer) = self.signer(worker).filter(|s| s.signing_key == *key) {
                ensure_same_scheme(key, signature)?;
                return Ok((position, signer));
            }
        }
        ensure!(self.workers.has_key(key), Error::WorkerNotFound);
        ensure_same_scheme(key, signature)?;
        Err(Error::WorkerNotEligible)
    }

    /// Rows 9 to 12.
    fn check_times(&self, row: &JobRow, proof: &AttestationProof) -> Result<()> {
        let skew = self.parameters.max_clock_skew;
        ensure!(
            proof.started_at <= proof.finished_at && proof.finished_at <= proof.issued_at,
            Error::StatementTimesInverted
        );
        ensure!(
            proof.started_at >= row.created_at().saturating_sub(skew),
            Error::StatementBeforeJob
        );
        ensure!(
            proof.issued_at <= self.now.saturating_add(skew),
            Error::StatementFromFuture
        );
        ensure!(
            self.now.saturating_sub(proof.issued_at) <= self.parameters.max_attestation_age,
            Error::StatementTooOld
        );
        Ok(())
    }

    fn write(
        &self,
        row: &mut JobRow,
        completion: &Completion,
        position: u8,
        worker: WorkerId,
    ) -> AttestationRecorded {
        let proof = &completion.attestation_proof;
        match proof.outcome {
            Outcome::Completed => row.set_attestation(&AttestationEntry {
                position,
                signature: proof.signature,
                result_hash: completion.result_hash,
                units: proof.units,
                started_at: proof.started_at,
                finished_at: proof.finished_at,
                issued_at: proof.issued_at,
                timestamp: self.now,
            }),
            Outcome::Failed => {
                row.add_failure(&FailureEntry {
                    position,
                    result_hash: completion.result_hash,
                    units: proof.units,
                    timestamp: self.now,
                });
                if row.is_failed_by_all() {
                    row.set_status(JobStatus::Failed);
                }
            }
        }
        AttestationRecorded {
            job_id: completion.job_id,
            worker,
            outcome: proof.outcome,
            result_hash: completion.result_hash,
            units: proof.units,
            started_at: proof.started_at,
            finished_at: proof.finished_at,
            issued_at: proof.issued_at,
            signature: proof.signature,
        }
    }

    /// What the job's attestation is worth now: the first status that applies.
    pub fn attestation_status(&mut self, job_id: JobId, row: &JobRow) -> AttestationStatus {
        let Some((entry, signer)) = self.attested(row) else {
            return AttestationStatus::NotFound;
        };
        let statement = Statement {
            domain: self.domain,
            job_id,
            payload_hash: &row.payload_hash(),
            outcome: Outcome::Completed,
            result_hash: &entry.result_hash,
            units: entry.units,
            measurement: &signer.measurement,
            started_at: entry.started_at,
            finished_at: entry.finished_at,
            issued_at: entry.issued_at,
        };
        let verified = verify_signature(&signer.signing_key, &entry.signature, &statement.digest());
        if verified.is_err() {
            return AttestationStatus::BadSignature;
        }
        match signer.trust {
            Trust::Revoked => AttestationStatus::WorkerRevoked,
            Trust::MeasurementRevoked => AttestationStatus::MeasurementRevoked,
            Trust::Suspended => AttestationStatus::WorkerSuspended,
            Trust::Expired => AttestationStatus::WorkerExpired,
            Trust::Trusted => AttestationStatus::Valid,
        }
    }

    /// The job's attestation as clients see it.
    pub fn get_attestation(&mut self, job_id: JobId, row: &JobRow) -> Option<JobAttestation> {
        let (entry, signer) = self.attested(row)?;
        Some(JobAttestation {
            job_id,
            result_hash: entry.result_hash,
            attestation_proof: AttestationProof {
                outcome: Outcome::Completed,
                units: entry.units,
                started_at: entry.started_at,
                finished_at: entry.finished_at,
                issued_at: entry.issued_at,
                signature: entry.signature,
            },
            tee_worker_pubkey: signer.signing_key,
            timestamp: entry.timestamp,
            worker: signer.worker,
        })
    }

    /// Whether `completion` says again what the job's attestation says.
    pub fn is_repeated(&mut self, row: &JobRow, completion: &Completion) -> bool {
        row.status() == JobStatus::Attested
            && completion.attestation_proof.outcome == Outcome::Completed
            && self.attested(row).is_some_and(|(entry, signer)| {
                signer.signing_key == completion.tee_worker_pubkey
                    && entry.result_hash == completion.result_hash
            })
    }

    /// Checks that an attested job may be marked processed. A worker that expired since does not
    /// matter: its statement was valid when it was recorded.
    ///
    /// # Errors
    ///
    /// `WrongStatus` if the job is not attested.
    /// `AttestationNotValid` if its attestation is worth less than that.
    pub fn ensure_markable(&mut self, job_id: JobId, row: &JobRow) -> Result<()> {
        ensure!(row.status() == JobStatus::Attested, Error::WrongStatus);
        ensure!(
            matches!(
                self.attestation_status(job_id, row),
                AttestationStatus::Valid | AttestationStatus::WorkerExpired
            ),
            Error::AttestationNotValid
        );
        Ok(())
    }

    fn attested(&mut self, row: &JobRow) -> Option<(AttestationEntry, Signer)> {
        let entry = row.attestation()?;
        let signer = self.signer(row.worker_at(entry.position)?)?;
        Some((entry, signer))
    }
}
