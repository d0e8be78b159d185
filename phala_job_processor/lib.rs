//! Confidential jobs on TEE workers, every attestation verified by the contract itself.
//!
//! Owners submit sealed jobs for workers of a trusted list. Anybody may carry a worker's signed
//! statement here: the contract rebuilds the signed bytes from its own storage and checks the
//! signature. An attested job is marked processed by its owner or an operator.
//!
//! The rules are in plain modules that take the caller and the time as arguments; this file only
//! connects them with the chain. Every check of a message comes before its first write.
#![cfg_attr(not(feature = "std"), no_std, no_main)]
// ink! exports `call` and `deploy` as `no_mangle` functions, which the lint counts as unsafe.
#![cfg_attr(not(feature = "std"), allow(unsafe_code))]

pub mod access;
pub mod attestation;
mod cells;
pub mod deadline;
mod ensure;
pub mod errors;
pub mod events;
pub mod job_row;
pub mod jobs;
pub mod page;
pub mod parameters;
pub mod rate;
pub mod recording;
pub mod types;
pub mod workers;

#[cfg(test)]
mod tests;

pub use crate::phala_job_processor::{PhalaJobProcessor, PhalaJobProcessorRef};

/// The contract: storage and thin messages.
#[ink::contract]
pub mod phala_job_processor {
    use ink::prelude::vec::Vec;
    #[cfg(not(feature = "std"))]
    use ink::storage::traits::StorageKey;

    use crate::access::Access;
    use crate::ensure::ensure;
    use crate::errors::{Error, Result};
    use crate::events::{CodeChanged, JobFailed, ParametersChanged};
    use crate::job_row::JobRow;
    use crate::jobs::{ensure_may_mark, Admission, Jobs, Submission};
    use crate::parameters::Parameters;
    use crate::rate::Accounts;
    use crate::recording::Judge;
    use crate::types::{
        AttestationProof, AttestationStatus, Call, Completion, ConfidentialJob, Domain,
        JobAttestation, JobHead, JobId, JobOptions, JobStatus, Mode, Outcome, Page, PublicKey,
        Role, Signature, Worker, WorkerId, WorkerRegistration,
    };
    use crate::workers::{Authority, Renewal, Workers};

    /// The version of the storage's layout.
    pub const STORAGE_VERSION: u32 = 1;

    /// The most completions in one message.
    pub const MAX_COMPLETIONS: usize = 10;

    // A chain that runs contracts by wasmi translates each function when it is first called, at a
    // price per byte that exceeds the price of running most messages. So every message is a
    // function of its own (`inline(never)`), and a call pays for those that it runs.

    /// The job processor's storage.
    #[ink(storage)]
    pub struct PhalaJobProcessor {
        /// The version of this layout, for upgrades in place.
        pub(crate) version: u32,
        /// The chain's genesis hash, as the deployer gave it; part of everything that is signed.
        pub(crate) genesis_hash: [u8; 32],
        /// The limits.
        pub(crate) parameters: Parameters,
        /// The admin, the roles and the mode.
        pub(crate) access: Access,
        /// The trusted list.
        pub(crate) workers: Workers,
        /// The jobs.
        pub(crate) jobs: Jobs,
        /// The accounts that submit.
        pub(crate) accounts: Accounts,
    }

    impl PhalaJobProcessor {
        /// Deploys the contract in mode `Running`; the deployer becomes admin and has no other
        /// role.
        ///
        /// Clients compare `genesis_hash` with their chain's, which the contract can't see.
        ///
        /// # Errors
        ///
        /// `ParameterOutOfRange` if a parameter is outside its bounds.
        #[ink(constructor)]
        pub fn new(genesis_hash: [u8; 32], parameters: Parameters) -> Result<Self> {
            parameters.ensure_in_bounds()?;
            Ok(Self {
                version: STORAGE_VERSION,
                genesis_hash,
                parameters,
                access: Access::new(Self::env().caller()),
                workers: Workers::default(),
                jobs: Jobs::default(),
                accounts: Accounts::default(),
            })
        }

        /// Submits a job whose sealed payload is stored here; anyone may. Its hash is computed
        /// here too.
        ///
        /// # Events
        ///
        /// `JobSubmitted`.
        ///
        /// # Errors
        ///
        /// The first that applies:
        /// `WrongMode` unless the mode is `Running`.
        /// `EmptyPayload`, `PayloadTooLarge` unless `1 <= length <= max_payload`.
        /// `InvalidKey` if `public_key` is all zero.
        /// `TtlOutOfRange` unless `min_ttl <= ttl <= max_ttl`.
        /// `NoWorkers`, `TooManyWorkers`, `DuplicateWorker` unless one to four distinct workers are
        /// named.
        /// `WorkerNotFound`, `WorkerNotTrusted` unless all of them are trusted now.
        /// `RateLimited` if the caller submitted `rate_limit` jobs in its window.
        /// `Overflow` if a counter is exhausted.
        #[ink(message)]
        #[inline(never)]
        pub fn submit_confidential_job(
            &mut self,
            encrypted_payload: Vec<u8>,
            public_key: [u8; 32],
            options: JobOptions,
        ) -> Result<JobId> {
            let job_id = self.submit(public_key, options, |parameters| {
                Submission::inline(encrypted_payload, parameters)
            });
            self.save(job_id)
        }

        /// Submits a job whose sealed payload is in a blob store, under `payload_hash`; anyone may.
        /// `location` is a hint.
        ///
        /// # Events
        ///
        /// `JobSubmitted`.
        ///
        /// # Errors
        ///
        /// `WrongMode` unless the mode is `Running`.
        /// `EmptyPayload`, `ReferenceTooLarge` unless `1 <= length <= max_reference`.
        /// `LocationTooLong` above 256 bytes.
        /// Then as `submit_confidential_job`, from `InvalidKey` on.
        #[ink(message)]
        #[inline(never)]
        pub fn submit_job_reference(
            &mut self,
            payload_hash: [u8; 32],
            length: u64,
            location: Vec<u8>,
            public_key: [u8; 32],
            options: JobOptions,
        ) -> Result<JobId> {
            let job_id = self.submit(public_key, options, |parameters| {
                Submission::reference(payload_hash, length, location, parameters)
            });
            self.save(job_id)
        }

        /// Records a worker's statement about a job. Anyone may carry it: the signature is the
        /// authority.
        ///
        /// `Completed` makes the job `Attested`. `Failed` is noted, and makes the job `Failed` once
        /// all its workers have failed. Nothing ever overwrites a recorded statement.
        ///
        /// # Events
        ///
        /// `AttestationRecorded`, and `JobFailed` after the last failure.
        ///
        /// # Errors
        ///
        /// `WrongMode` if the mode is `Halted`.
        /// `JobNotFound` if there is no such job.
        /// Then as `recording::Judge::record`, in its order.
        #[ink(message)]
        #[inline(never)]
        pub fn record_attestation(
            &mut self,
            job_id: JobId,
            result_hash: [u8; 32],
            attestation_proof: AttestationProof,
            tee_worker_pubkey: PublicKey,
        ) -> Result<()> {
            finish(self.record(&Completion {
                job_id,
                result_hash,
                attestation_proof,
                tee_worker_pubkey,
            }))
        }

        /// Rebuilds the statement of a job's attestation and checks its signature and today's trust
        /// in the worker: whether `attestation_status` is `Valid`.
        #[ink(message)]
        #[inline(never)]
        pub fn verify_attestation(&self, job_id: JobId) -> bool {
            answer(self.status_of(job_id) == AttestationStatus::Valid)
        }

        /// What a job's attestation is worth now: the first status that applies.
        #[ink(message)]
        #[inline(never)]
        pub fn attestation_status(&self, job_id: JobId) -> AttestationStatus {
            answer(self.status_of(job_id))
        }

        /// Marks an attested job processed, once; its owner or an operator may.
        ///
        /// # Events
        ///
        /// `JobProcessed`.
        ///
        /// # Errors
        ///
        /// `JobNotFound` if there is no such job.
        /// `NotJobOwner` if the caller is neither its owner nor an operator.
        /// `WrongMode` if the mode is `Halted`.
        /// `WrongStatus` if the job is not attested, or processed already.
        /// `AttestationNotValid` unless `attestation_status` is `Valid` or `WorkerExpired`.
        #[ink(message)]
        #[inline(never)]
        pub fn mark_job_processed(&mut self, job_id: JobId) -> Result<()> {
            finish(self.mark(job_id))
        }

        /// Records up to ten statements and marks their jobs processed; an operator may.
        ///
        /// Each item succeeds, or fails alone and changes nothing. One whose job is already
        /// attested by the same worker with the same result is only marked. One with outcome
        /// `Failed` is recorded and not marked.
        ///
        /// # Events
        ///
        /// For each item that succeeds: `JobProcessed` if marked, with the statement if that was
        /// recorded in the same step; `AttestationRecorded` for a failure, and `JobFailed` after
        /// the last one.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is no operator.
        /// `WrongMode` if the mode is `Halted`.
        /// `TooManyItems` above ten.
        /// For an item: as `record_attestation`, or `AttestationNotValid` if it is only marked.
        #[ink(message)]
        #[inline(never)]
        pub fn complete_jobs(&mut self, completions: Vec<Completion>) -> Result<Vec<Result<()>>> {
            finish(self.complete_all(&completions))
        }

        /// Withdraws a job; its owner may, in every mode: while it is submitted, at once when its
        /// attestation turned out to be worthless, or when it was attested but not marked within
        /// `mark_grace`.
        ///
        /// # Events
        ///
        /// `JobCancelled`.
        ///
        /// # Errors
        ///
        /// `JobNotFound` if there is no such job.
        /// `NotJobOwner` if the caller does not own it.
        /// `WrongStatus` in all other cases.
        #[ink(message)]
        #[inline(never)]
        pub fn cancel_job(&mut self, job_id: JobId) -> Result<()> {
            finish(self.cancel(job_id))
        }

        /// Ends a submitted job after its deadline; anyone may, in every mode.
        ///
        /// # Events
        ///
        /// `JobExpired`.
        ///
        /// # Errors
        ///
        /// `JobNotFound` if there is no such job.
        /// `WrongStatus` if it is not submitted.
        /// `DeadlineNotPassed` until its deadline has passed.
        #[ink(message)]
        #[inline(never)]
        pub fn expire_job(&mut self, job_id: JobId) -> Result<()> {
            finish(self.tell(self.jobs.expire(self.call(), job_id)))
        }

        /// Removes a finished job for good; its owner may, in every mode, and gets the storage
        /// deposit back. Events remain the history.
        ///
        /// # Events
        ///
        /// `JobPurged`.
        ///
        /// # Errors
        ///
        /// `JobNotFound` if there is no such job.
        /// `NotJobOwner` if the caller does not own it.
        /// `WrongStatus` if it is submitted or attested.
        /// `Overflow` if the owner's account counts no live job.
        #[ink(message)]
        #[inline(never)]
        pub fn purge_job(&mut self, job_id: JobId) -> Result<()> {
            let purged = self
                .jobs
                .purge(self.call(), &self.accounts, &self.parameters, job_id);
            finish(self.tell(purged))
        }

        /// Removes what the contract keeps of the caller, in every mode; does nothing if that is
        /// nothing.
        ///
        /// # Events
        ///
        /// None.
        ///
        /// # Errors
        ///
        /// `AccountInUse` if the caller has jobs that were not purged, or its window is not over.
        #[ink(message)]
        #[inline(never)]
        pub fn release_account(&mut self) -> Result<()> {
            finish(self.accounts.release(self.call(), &self.parameters))
        }

        /// Enters a worker into the trusted list; a registrar may, in every mode. The registrar
        /// vouches for the evidence, the worker's own signature for its keys.
        ///
        /// # Events
        ///
        /// `WorkerRegistered`.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is no registrar.
        /// `EndpointTooLong` above 128 bytes.
        /// `InvalidKey` if the encryption key is all zero.
        /// `MeasurementNotAllowed` unless the measurement is allowed.
        /// `KeyAlreadyRegistered` if any worker ever had one of the keys.
        /// `ValidityOutOfRange` unless `now < valid_until <= now + max_registration`.
        /// `KeyMismatch`, `BadSignature` if `possession` is not the worker's.
        /// `Overflow` if there are no worker numbers left.
        #[ink(message)]
        #[inline(never)]
        pub fn register_worker(
            &mut self,
            registration: WorkerRegistration,
            possession: Signature,
        ) -> Result<WorkerId> {
            let call = self.call();
            let domain = self.domain();
            let authority = Authority {
                access: &self.access,
                parameters: &self.parameters,
                domain: &domain,
            };
            let registered = self
                .workers
                .register(call, authority, registration, &possession);
            let worker = registered.map(|event| {
                let worker = event.worker;
                self.env().emit_event(event);
                worker
            });
            self.save(worker)
        }

        /// Extends a worker's registration on new evidence; a registrar may, in every mode. A
        /// suspended worker stays so.
        ///
        /// # Events
        ///
        /// `WorkerRenewed`.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is no registrar.
        /// `WorkerNotFound`, `WorkerRevoked` unless the worker is active or suspended.
        /// `MeasurementNotAllowed` unless its measurement is still allowed.
        /// `ValidityOutOfRange` unless `valid_until` is later than the stored one and
        /// `now < valid_until <= now + max_registration`.
        /// `KeyMismatch`, `BadSignature` if `possession` is not the worker's.
        #[ink(message)]
        #[inline(never)]
        pub fn renew_worker(
            &mut self,
            worker: WorkerId,
            evidence_hash: [u8; 32],
            valid_until: u64,
            possession: Signature,
        ) -> Result<()> {
            let call = self.call();
            let domain = self.domain();
            let authority = Authority {
                access: &self.access,
                parameters: &self.parameters,
                domain: &domain,
            };
            let renewal = Renewal {
                worker,
                evidence_hash,
                valid_until,
                possession: &possession,
            };
            let renewed = self.workers.renew(call, authority, renewal);
            self.save(self.tell(renewed))
        }

        /// Takes trust from an active worker for now; a registrar or guardian may, in every mode.
        ///
        /// # Events
        ///
        /// `WorkerSuspended`.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is neither registrar nor guardian.
        /// `WorkerNotFound`, `WorkerRevoked` as they say.
        /// `WrongStatus` if the worker is suspended already.
        #[ink(message)]
        #[inline(never)]
        pub fn suspend_worker(&mut self, worker: WorkerId) -> Result<()> {
            let call = self.call();
            let suspended = self.workers.suspend(call, &self.access, worker);
            self.save(self.tell(suspended))
        }

        /// Gives a suspended worker its trust back; a registrar may, in every mode.
        ///
        /// # Events
        ///
        /// `WorkerReinstated`.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is no registrar.
        /// `WorkerNotFound`, `WorkerRevoked` as they say.
        /// `WrongStatus` if the worker is not suspended.
        #[ink(message)]
        #[inline(never)]
        pub fn reinstate_worker(&mut self, worker: WorkerId) -> Result<()> {
            let call = self.call();
            let reinstated = self.workers.reinstate(call, &self.access, worker);
            self.save(self.tell(reinstated))
        }

        /// Takes trust from a worker for ever; a registrar may, in every mode.
        ///
        /// # Events
        ///
        /// `WorkerRevoked`.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is no registrar.
        /// `WorkerNotFound`, `WorkerRevoked` as they say.
        #[ink(message)]
        #[inline(never)]
        pub fn revoke_worker(&mut self, worker: WorkerId, reason: [u8; 32]) -> Result<()> {
            let call = self.call();
            let revoked = self.workers.revoke(call, &self.access, worker, reason);
            self.save(self.tell(revoked))
        }

        /// Lets workers with this measurement be trusted; a registrar may, in every mode. Does
        /// nothing if they may already.
        ///
        /// # Events
        ///
        /// `MeasurementAllowed`, if something changed.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is no registrar.
        /// `MeasurementNotAllowed` if the measurement was revoked, which is final.
        #[ink(message)]
        #[inline(never)]
        pub fn allow_measurement(&mut self, measurement: [u8; 32]) -> Result<()> {
            let call = self.call();
            let allowed = self
                .workers
                .allow_measurement(call, &self.access, measurement);
            self.save(self.tell_some(allowed))
        }

        /// Takes trust from all workers with this measurement, at once and for ever; a registrar
        /// may, in every mode. Does nothing if that was done before.
        ///
        /// # Events
        ///
        /// `MeasurementRevoked`, if something changed.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is no registrar.
        #[ink(message)]
        #[inline(never)]
        pub fn revoke_measurement(&mut self, measurement: [u8; 32]) -> Result<()> {
            let call = self.call();
            let revoked = self
                .workers
                .revoke_measurement(call, &self.access, measurement);
            self.save(self.tell_some(revoked))
        }

        /// Gives an account a role; the admin may, in every mode. Does nothing if it has it.
        ///
        /// # Events
        ///
        /// `RoleGranted`, if something changed.
        ///
        /// # Errors
        ///
        /// `NotAdmin` if the caller is not the admin.
        #[ink(message)]
        #[inline(never)]
        pub fn grant_role(&mut self, account: AccountId, role: Role) -> Result<()> {
            let caller = self.env().caller();
            let granted = self.access.grant_role(caller, account, role);
            self.save(self.tell_some(granted))
        }

        /// Takes a role from an account; the admin may, in every mode. Does nothing if it has it
        /// not.
        ///
        /// # Events
        ///
        /// `RoleRevoked`, if something changed.
        ///
        /// # Errors
        ///
        /// `NotAdmin` if the caller is not the admin.
        #[ink(message)]
        #[inline(never)]
        pub fn revoke_role(&mut self, account: AccountId, role: Role) -> Result<()> {
            let caller = self.env().caller();
            let revoked = self.access.revoke_role(caller, account, role);
            self.save(self.tell_some(revoked))
        }

        /// Proposes the next admin, who has to accept; the admin may, in every mode. An earlier
        /// proposal is dropped.
        ///
        /// # Events
        ///
        /// `AdminProposed`.
        ///
        /// # Errors
        ///
        /// `NotAdmin` if the caller is not the admin.
        #[ink(message)]
        #[inline(never)]
        pub fn propose_admin(&mut self, account: AccountId) -> Result<()> {
            let caller = self.env().caller();
            let proposed = self.access.propose_admin(caller, account);
            self.save(self.tell(proposed))
        }

        /// Makes the caller admin, if it was proposed; in every mode.
        ///
        /// # Events
        ///
        /// `AdminChanged`.
        ///
        /// # Errors
        ///
        /// `NoPendingAdmin` if the caller was not proposed.
        #[ink(message)]
        #[inline(never)]
        pub fn accept_admin(&mut self) -> Result<()> {
            let caller = self.env().caller();
            let accepted = self.access.accept_admin(caller);
            self.save(self.tell(accepted))
        }

        /// Sets all limits; the admin may, in every mode.
        ///
        /// # Events
        ///
        /// `ParametersChanged`.
        ///
        /// # Errors
        ///
        /// `NotAdmin` if the caller is not the admin.
        /// `ParameterOutOfRange` if one is outside its bounds, or `min_ttl` exceeds `max_ttl`.
        #[ink(message)]
        #[inline(never)]
        pub fn set_parameters(&mut self, parameters: Parameters) -> Result<()> {
            let changed = self.change_parameters(parameters);
            self.save(self.tell(changed))
        }

        /// Changes the mode: the admin to any other, a guardian only towards `Halted`.
        ///
        /// # Events
        ///
        /// `ModeChanged`.
        ///
        /// # Errors
        ///
        /// `MissingRole` if the caller is neither the admin nor a guardian.
        /// `WrongMode` if the mode is `mode` already.
        /// `NotAdmin` if a guardian asks for a mode further from `Halted`.
        #[ink(message)]
        #[inline(never)]
        pub fn set_mode(&mut self, mode: Mode) -> Result<()> {
            let caller = self.env().caller();
            let changed = self.access.set_mode(caller, mode);
            self.save(self.tell(changed))
        }

        /// Replaces the contract's code from the next message on; the admin may, only while
        /// `Halted`. Address and storage stay.
        ///
        /// # Events
        ///
        /// `CodeChanged`.
        ///
        /// # Errors
        ///
        /// `NotAdmin` if the caller is not the admin.
        /// `WrongMode` unless the mode is `Halted`.
        /// `SetCodeFailed` if the chain has no such code.
        #[ink(message)]
        #[inline(never)]
        pub fn set_code(&mut self, code_hash: [u8; 32]) -> Result<()> {
            finish(self.tell(self.replace_code(code_hash)))
        }

        /// The job with its payload and failures; `None` if there is none or it was purged.
        #[ink(message)]
        #[inline(never)]
        pub fn get_job(&self, job_id: JobId) -> Option<ConfidentialJob> {
            answer(self.jobs.get(job_id))
        }

        /// The job's attestation; `None` if there is none.
        #[ink(message)]
        #[inline(never)]
        pub fn get_attestation(&self, job_id: JobId) -> Option<JobAttestation> {
            let row = self.jobs.row(job_id).ok();
            answer(row.and_then(|row| self.judge(&self.domain()).get_attestation(job_id, &row)))
        }

        /// How many jobs were ever submitted, which is the last one's number.
        #[ink(message)]
        #[inline(never)]
        pub fn get_job_counter(&self) -> JobId {
            answer(self.jobs.counter)
        }

        /// The worker with this number.
        #[ink(message)]
        #[inline(never)]
        pub fn get_worker(&self, worker: WorkerId) -> Option<Worker> {
            answer(self.workers.get(worker))
        }

        /// The worker that was registered with this signing key.
        #[ink(message)]
        #[inline(never)]
        pub fn worker_by_key(&self, signing_key: PublicKey) -> Option<Worker> {
            let worker = self.workers.id_by_key(&signing_key);
            answer(worker.and_then(|worker| self.workers.get(worker)))
        }

        /// Whether a worker is registered and trusted now.
        #[ink(message)]
        #[inline(never)]
        pub fn is_trusted(&self, worker: WorkerId) -> bool {
            let now = self.env().block_timestamp();
            answer(self.workers.is_trusted(worker, now))
        }

        /// Heads of the jobs whose numbers are within `from..from + limit`; purged ones are
        /// skipped.
        ///
        /// # Errors
        ///
        /// `LimitOutOfRange` unless `1 <= limit <= 50`.
        #[ink(message)]
        #[inline(never)]
        pub fn jobs_page(&self, from: JobId, limit: u32) -> Result<Page<JobHead>> {
            finish(self.jobs.page(from, limit))
        }

        /// The workers whose numbers are within `from..from + limit`.
        ///
        /// # Errors
        ///
        /// `LimitOutOfRange` unless `1 <= limit <= 50`.
        #[ink(message)]
        #[inline(never)]
        pub fn workers_page(&self, from: WorkerId, limit: u32) -> Result<Page<Worker>> {
            finish(self.workers.page(from, limit))
        }

        /// The limits.
        #[ink(message)]
        #[inline(never)]
        pub fn parameters(&self) -> Parameters {
            answer(self.parameters.clone())
        }

        /// The mode.
        #[ink(message)]
        #[inline(never)]
        pub fn mode(&self) -> Mode {
            answer(self.access.mode())
        }

        /// The admin.
        #[ink(message)]
        #[inline(never)]
        pub fn admin(&self) -> AccountId {
            answer(self.access.admin())
        }

        /// The genesis hash that the contract was deployed with. Clients refuse the contract unless
        /// it is their chain's.
        #[ink(message)]
        #[inline(never)]
        pub fn genesis_hash(&self) -> [u8; 32] {
            answer(self.genesis_hash)
        }

        /// The version of the storage's layout.
        #[ink(message)]
        #[inline(never)]
        pub fn version(&self) -> u32 {
            answer(self.version)
        }

        /// Whether an account has a role.
        #[ink(message)]
        #[inline(never)]
        pub fn has_role(&self, account: AccountId, role: Role) -> bool {
            answer(self.access.has_role(account, role))
        }

        /// Whether a measurement is allowed.
        #[ink(message)]
        #[inline(never)]
        pub fn has_measurement(&self, measurement: [u8; 32]) -> bool {
            answer(self.workers.has_measurement(&measurement))
        }

        /// How many jobs an account may still submit in its window.
        #[ink(message)]
        #[inline(never)]
        pub fn rate_limit_left(&self, account: AccountId) -> u32 {
            let now = self.env().block_timestamp();
            answer(self.accounts.left(account, now, &self.parameters))
        }

        fn call(&self) -> Call {
            Call {
                caller: self.env().caller(),
                now: self.env().block_timestamp(),
            }
        }

        fn domain(&self) -> Domain {
            Domain {
                genesis_hash: self.genesis_hash,
                contract: self.env().account_id(),
            }
        }

        fn judge<'a>(&'a self, domain: &'a Domain) -> Judge<'a> {
            let now = self.env().block_timestamp();
            Judge::new(&self.workers, &self.parameters, domain, now)
        }

        fn submit(
            &mut self,
            public_key: [u8; 32],
            options: JobOptions,
            submission: impl FnOnce(&Parameters) -> Result<Submission>,
        ) -> Result<JobId> {
            self.access.ensure_submitting()?;
            let submission = submission(&self.parameters)?;
            let call = self.call();
            let admission = Admission {
                workers: &self.workers,
                parameters: &self.parameters,
                accounts: &self.accounts,
            };
            let event = self
                .jobs
                .submit(call, admission, submission, public_key, options)?;
            let job_id = event.job_id;
            self.env().emit_event(event);
            Ok(job_id)
        }

        fn change_parameters(&mut self, parameters: Parameters) -> Result<ParametersChanged> {
            self.access.ensure_admin(self.env().caller())?;
            parameters.ensure_in_bounds()?;
            self.parameters = parameters.clone();
            Ok(ParametersChanged { parameters })
        }

        // What follows takes `&self`: it leaves the contract's own cell alone, and its messages
        // end by `finish`.

        fn status_of(&self, job_id: JobId) -> AttestationStatus {
            match self.jobs.row(job_id) {
                Ok(row) => self.judge(&self.domain()).attestation_status(job_id, &row),
                Err(_) => AttestationStatus::NotFound,
            }
        }

        fn record(&self, completion: &Completion) -> Result<()> {
            self.access.ensure_finishing()?;
            let mut row = self.jobs.row(completion.job_id)?;
            let recorded = self.judge(&self.domain()).record(&mut row, completion)?;
            self.jobs.store(completion.job_id, &row);
            self.env().emit_event(recorded);
            self.tell_failed(completion.job_id, &row);
            Ok(())
        }

        fn mark(&self, job_id: JobId) -> Result<()> {
            let mut row = self.jobs.row(job_id)?;
            ensure_may_mark(row.owner(), self.env().caller(), &self.access)?;
            self.access.ensure_finishing()?;
            let domain = self.domain();
            let mut judge = self.judge(&domain);
            judge.ensure_markable(job_id, &row)?;
            let event = Jobs::mark(job_id, &mut row, judge.now)?;
            self.jobs.store(job_id, &row);
            self.env().emit_event(event);
            Ok(())
        }

        fn complete_all(&self, completions: &[Completion]) -> Result<Vec<Result<()>>> {
            self.access
                .ensure_role(self.env().caller(), Role::Operator)?;
            self.access.ensure_finishing()?;
            ensure!(completions.len() <= MAX_COMPLETIONS, Error::TooManyItems);
            let domain = self.domain();
            let mut judge = self.judge(&domain);
            let mut results = Vec::with_capacity(completions.len());
            for completion in completions {
                results.push(self.complete(&mut judge, completion));
            }
            Ok(results)
        }

        fn complete(&self, judge: &mut Judge<'_>, completion: &Completion) -> Result<()> {
            let job_id = completion.job_id;
            let mut row = self.jobs.row(job_id)?;
            if judge.is_repeated(&row, completion) {
                judge.ensure_markable(job_id, &row)?;
                let processed = Jobs::mark(job_id, &mut row, judge.now)?;
                self.jobs.store(job_id, &row);
                self.env().emit_event(processed);
                return Ok(());
            }
            let recorded = judge.record(&mut row, completion)?;
            if recorded.outcome == Outcome::Failed {
                self.jobs.store(job_id, &row);
                self.env().emit_event(recorded);
                self.tell_failed(job_id, &row);
                return Ok(());
            }
            // A statement that was recorded just now is valid: `record` checked all of it.
            let mut processed = Jobs::mark(job_id, &mut row, judge.now)?;
            processed.statement = Some(recorded.into());
            self.jobs.store(job_id, &row);
            self.env().emit_event(processed);
            Ok(())
        }

        fn cancel(&self, job_id: JobId) -> Result<()> {
            let row = self.jobs.row(job_id)?;
            let domain = self.domain();
            let status = self.judge(&domain).attestation_status(job_id, &row);
            let cancelled = self
                .jobs
                .cancel(self.call(), (job_id, row), status, &self.parameters);
            self.tell(cancelled)
        }

        fn replace_code(&self, code_hash: [u8; 32]) -> Result<CodeChanged> {
            self.access.ensure_admin(self.env().caller())?;
            self.access.ensure_halted()?;
            self.env()
                .set_code_hash(&Hash::from(code_hash))
                .map_err(|_| Error::SetCodeFailed)?;
            Ok(CodeChanged { code_hash })
        }

        fn tell_failed(&self, job_id: JobId, row: &JobRow) {
            if row.status() == JobStatus::Failed {
                let owner = row.owner();
                self.env().emit_event(JobFailed { job_id, owner });
            }
        }

        fn tell<E: ink::env::Event>(&self, event: Result<E>) -> Result<()> {
            event.map(|event| self.env().emit_event(event))
        }

        fn tell_some<E: ink::env::Event>(&self, event: Result<Option<E>>) -> Result<()> {
            event.map(|event| {
                event
                    .into_iter()
                    .for_each(|event| self.env().emit_event(event))
            })
        }

        /// Ends a message that may have changed the contract's own cell.
        fn save<T: ink::scale::Encode>(&self, result: Result<T>) -> Result<T> {
            #[cfg(not(feature = "std"))]
            if result.is_ok() {
                ink::env::set_contract_storage(&<Self as StorageKey>::KEY, self);
            }
            finish(result)
        }
    }

    // On the chain each message ends the call itself, by one of these: what ink! would do then
    // (write the contract's own cell back, changed or not, and answer) is dead code. Its copies for
    // forty messages would all be in the one function that a chain translates for every call, and
    // the write alone costs an eighth of a message.

    /// Ends a message that left the contract's own cell as it was: only cells of their own changed.
    fn finish<T: ink::scale::Encode>(result: Result<T>) -> Result<T> {
        #[cfg(not(feature = "std"))]
        end(result.is_err(), &result);
        #[cfg(feature = "std")]
        result
    }

    /// Ends a message that reads and can't be refused.
    fn answer<T: ink::scale::Encode>(value: T) -> T {
        #[cfg(not(feature = "std"))]
        end(false, &value);
        #[cfg(feature = "std")]
        value
    }

    #[cfg(not(feature = "std"))]
    fn end<T: ink::scale::Encode>(is_refused: bool, value: &T) -> ! {
        let flags = match is_refused {
            true => ink::env::ReturnFlags::REVERT,
            false => ink::env::ReturnFlags::empty(),
        };
        ink::env::return_value::<ink::MessageResult<&T>>(flags, &Ok(value))
    }
}
