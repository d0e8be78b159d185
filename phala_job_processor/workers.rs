//! The trusted list: which workers are registered, and which are trusted now.

use ink::storage::Mapping;

use crate::access::Access;
use crate::attestation::{ensure_same_scheme, is_zero, verify_signature, Registration};
use crate::deadline::has_passed;
use crate::ensure::ensure;
use crate::errors::{Error, Result};
use crate::events::{
    MeasurementAllowed, MeasurementRevoked, WorkerRegistered, WorkerReinstated, WorkerRenewed,
    WorkerRevoked, WorkerSuspended,
};
use crate::parameters::Parameters;
use crate::types::{
    Call, Domain, Page, PublicKey, Role, Signature, Worker, WorkerId, WorkerRegistration,
    WorkerStatus,
};

/// The longest endpoint in bytes.
pub const MAX_ENDPOINT: usize = 128;

/// Whether workers with a measurement may be trusted. A measurement that was never named has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub enum MeasurementStatus {
    /// They may.
    Allowed,
    /// Never again.
    Revoked,
}

/// What a worker's registration is worth at some moment: the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The worker was revoked.
    Revoked,
    /// Its measurement is not allowed.
    MeasurementRevoked,
    /// It is suspended.
    Suspended,
    /// Its registration ran out.
    Expired,
    /// None of these: the worker is trusted.
    Trusted,
}

/// What a registrar says when it renews a worker.
#[derive(Clone, Copy, Debug)]
pub struct Renewal<'a> {
    /// The worker's number.
    pub worker: WorkerId,
    /// The hash of the new evidence.
    pub evidence_hash: [u8; 32],
    /// The last moment at which the worker is trusted.
    pub valid_until: u64,
    /// The worker's own signature.
    pub possession: &'a Signature,
}

/// Registered workers, their keys and the measurements. Nothing is ever removed.
#[ink::storage_item]
#[derive(Debug, Default)]
pub struct Workers {
    pub(crate) counter: WorkerId,
    // How many measurements were revoked. While none was, every registered worker's measurement is
    // allowed, and `trust` need not read it.
    pub(crate) revocations: u32,
    pub(crate) rows: Mapping<WorkerId, Worker>,
    pub(crate) by_signing_key: Mapping<PublicKey, WorkerId>,
    pub(crate) encryption_keys: Mapping<[u8; 32], ()>,
    pub(crate) measurements: Mapping<[u8; 32], MeasurementStatus>,
}

impl Workers {
    /// The worker with this number.
    pub fn get(&self, worker: WorkerId) -> Option<Worker> {
        self.rows.get(worker)
    }

    /// The number of the worker that was registered with this signing key.
    pub fn id_by_key(&self, signing_key: &PublicKey) -> Option<WorkerId> {
        self.by_signing_key.get(signing_key)
    }

    /// Whether a worker was registered with this signing key.
    pub fn has_key(&self, signing_key: &PublicKey) -> bool {
        self.by_signing_key.contains(signing_key)
    }

    /// Whether the measurement is allowed.
    pub fn has_measurement(&self, measurement: &[u8; 32]) -> bool {
        self.measurements.get(measurement) == Some(MeasurementStatus::Allowed)
    }

    /// What the worker's registration is worth at `now`.
    pub fn trust(&self, worker: &Worker, now: u64) -> Trust {
        if worker.status == WorkerStatus::Revoked {
            Trust::Revoked
        } else if self.revocations > 0 && !self.has_measurement(&worker.measurement) {
            Trust::MeasurementRevoked
        } else if worker.status == WorkerStatus::Suspended {
            Trust::Suspended
        } else if has_passed(worker.valid_until, now) {
            Trust::Expired
        } else {
            Trust::Trusted
        }
    }

    /// Whether the worker is registered and trusted at `now`.
    pub fn is_trusted(&self, worker: WorkerId, now: u64) -> bool {
        self.ensure_trusted(worker, now).is_ok()
    }

    /// Checks that a worker is registered and trusted at `now`.
    ///
    /// # Errors
    ///
    /// `WorkerNotFound` or `WorkerNotTrusted` if it is not.
    pub fn ensure_trusted(&self, worker: WorkerId, now: u64) -> Result<()> {
        let row = self.get(worker).ok_or(Error::WorkerNotFound)?;
        ensure!(
            self.trust(&row, now) == Trust::Trusted,
            Error::WorkerNotTrusted
        );
        Ok(())
    }

    /// Enters a worker into the list, as `Active`.
    ///
    /// # Errors
    ///
    /// `MissingRole` if the caller is no registrar.
    /// `EndpointTooLong` above 128 bytes.
    /// `InvalidKey` if the encryption key is all zero.
    /// `MeasurementNotAllowed`, `KeyAlreadyRegistered`, `ValidityOutOfRange` as they say.
    /// `KeyMismatch` or `BadSignature` if `possession` is not the worker's.
    /// `Overflow` if there are no numbers left.
    pub fn register(
        &mut self,
        call: Call,
        authority: Authority<'_>,
        registration: WorkerRegistration,
        possession: &Signature,
    ) -> Result<WorkerRegistered> {
        authority.access.ensure_role(call.caller, Role::Registrar)?;
        self.check_registration(call.now, &authority, &registration, possession)?;
        let worker = self.counter.checked_add(1).ok_or(Error::Overflow)?;

        let WorkerRegistration {
            signing_key,
            encryption_key,
            measurement,
            evidence_hash,
            endpoint,
            valid_until,
        } = registration;
        let row = Worker {
            worker,
            signing_key,
            encryption_key,
            measurement,
            evidence_hash,
            endpoint,
            registered_at: call.now,
            valid_until,
            status: WorkerStatus::Active,
        };
        self.counter = worker;
        self.by_signing_key.insert(signing_key, &worker);
        self.encryption_keys.insert(encryption_key, &());
        self.rows.insert(worker, &row);
        Ok(WorkerRegistered {
            worker,
            signing_key,
            encryption_key,
            measurement,
            evidence_hash,
            endpoint: row.endpoint,
            valid_until,
        })
    }

    fn check_registration(
        &self,
        now: u64,
        authority: &Authority<'_>,
        registration: &WorkerRegistration,
        possession: &Signature,
    ) -> Result<()> {
        ensure!(
            registration.endpoint.len() <= MAX_ENDPOINT,
            Error::EndpointTooLong
        );
        ensure!(!is_zero(&registration.encryption_key), Error::InvalidKey);
        ensure!(
            self.has_measurement(&registration.measurement),
            Error::MeasurementNotAllowed
        );
        ensure!(
            !self.by_signing_key.contains(registration.signing_key)
                && !self.encryption_keys.contains(registration.encryption_key),
            Error::KeyAlreadyRegistered
        );
        ensure_valid_until(registration.valid_until, now, authority.parameters)?;
        let signed = Registration {
            domain: authority.domain,
            signing_key: &registration.signing_key,
            encryption_key: &registration.encryption_key,
            measurement: &registration.measurement,
            evidence_hash: &registration.evidence_hash,
            valid_until: registration.valid_until,
        };
        verify_possession(&signed, possession)
    }

    /// Extends a worker's registration on new evidence; its status stays.
    ///
    /// # Errors
    ///
    /// `MissingRole` if the caller is no registrar.
    /// `WorkerNotFound`, `WorkerRevoked`, `MeasurementNotAllowed` as they say.
    /// `ValidityOutOfRange` if `valid_until` does not extend the registration, has passed, or
    /// reaches too far.
    /// `KeyMismatch` or `BadSignature` if the possession signature is not the worker's.
    pub fn renew(
        &mut self,
        call: Call,
        authority: Authority<'_>,
        renewal: Renewal<'_>,
    ) -> Result<WorkerRenewed> {
        authority.access.ensure_role(call.caller, Role::Registrar)?;
        let mut row = self.get_unrevoked(renewal.worker)?;
        ensure!(
            self.has_measurement(&row.measurement),
            Error::MeasurementNotAllowed
        );
        ensure!(
            renewal.valid_until > row.valid_until,
            Error::ValidityOutOfRange
        );
        ensure_valid_until(renewal.valid_until, call.now, authority.parameters)?;
        let signed = Registration {
            domain: authority.domain,
            signing_key: &row.signing_key,
            encryption_key: &row.encryption_key,
            measurement: &row.measurement,
            evidence_hash: &renewal.evidence_hash,
            valid_until: renewal.valid_until,
        };
        verify_possession(&signed, renewal.possession)?;

        row.evidence_hash = renewal.evidence_hash;
        row.valid_until = renewal.valid_until;
        self.rows.insert(renewal.worker, &row);
        Ok(WorkerRenewed {
            worker: renewal.worker,
            evidence_hash: renewal.evidence_hash,
            valid_until: renewal.valid_until,
        })
    }

    /// Takes trust from an active worker until it is reinstated.
    ///
    /// # Errors
    ///
    /// `MissingRole` if the caller is neither registrar nor guardian.
    /// `WorkerNotFound`, `WorkerRevoked` as they say.
    /// `WrongStatus` if the worker is suspended already.
    pub fn suspend(
        &mut self,
        call: Call,
        access: &Access,
        worker: WorkerId,
    ) -> Result<WorkerSuspended> {
        ensure!(
            access.has_role(call.caller, Role::Registrar)
                || access.has_role(call.caller, Role::Guardian),
            Error::MissingRole
        );
        self.switch(worker, WorkerStatus::Active, WorkerStatus::Suspended)?;
        Ok(WorkerSuspended { worker })
    }

    /// Gives a suspended worker its trust back.
    ///
    /// # Errors
    ///
    /// `MissingRole` if the caller is no registrar.
    /// `WorkerNotFound`, `WorkerRevoked` as they say.
    /// `WrongStatus` if the worker is not suspended.
    pub fn reinstate(
        &mut self,
        call: Call,
        access: &Access,
        worker: WorkerId,
    ) -> Result<WorkerReinstated> {
        access.ensure_role(call.caller, Role::Registrar)?;
        self.switch(worker, WorkerStatus::Suspended, WorkerStatus::Active)?;
        Ok(WorkerReinstated { worker })
    }

    /// Takes trust from a worker for ever.
    ///
    /// # Errors
    ///
    /// `MissingRole` if the caller is no registrar.
    /// `WorkerNotFound`, `WorkerRevoked` as they say.
    pub fn revoke(
        &mut self,
        call: Call,
        access: &Access,
        worker: WorkerId,
        reason: [u8; 32],
    ) -> Result<WorkerRevoked> {
        access.ensure_role(call.caller, Role::Registrar)?;
        let mut row = self.get_unrevoked(worker)?;
        row.status = WorkerStatus::Revoked;
        self.rows.insert(worker, &row);
        Ok(WorkerRevoked { worker, reason })
    }

    fn get_unrevoked(&self, worker: WorkerId) -> Result<Worker> {
        let row = self.get(worker).ok_or(Error::WorkerNotFound)?;
        ensure!(row.status != WorkerStatus::Revoked, Error::WorkerRevoked);
        Ok(row)
    }

    fn switch(&mut self, worker: WorkerId, from: WorkerStatus, to: WorkerStatus) -> Result<()> {
        let mut row = self.get_unrevoked(worker)?;
        ensure!(row.status == from, Error::WrongStatus);
        row.status = to;
        self.rows.insert(worker, &row);
        Ok(())
    }

    /// Lets workers with this measurement be trusted; `None` if they may already.
    ///
    /// # Errors
    ///
    /// `MissingRole` if the caller is no registrar.
    /// `MeasurementNotAllowed` if the measurement was revoked.
    pub fn allow_measurement(
        &mut self,
        call: Call,
        access: &Access,
        measurement: [u8; 32],
    ) -> Result<Option<MeasurementAllowed>> {
        access.ensure_role(call.caller, Role::Registrar)?;
        match self.measurements.get(measurement) {
            Some(MeasurementStatus::Allowed) => Ok(None),
            Some(MeasurementStatus::Revoked) => Err(Error::MeasurementNotAllowed),
            None => {
                self.measurements
                    .insert(measurement, &MeasurementStatus::Allowed);
                Ok(Some(MeasurementAllowed { measurement }))
            }
        }
    }

    /// Takes trust from all workers with this measurement, for ever; `None` if that was done
    /// before. A measurement can be revoked before anybody allowed it.
    ///
    /// # Errors
    ///
    /// `MissingRole` if the caller is no registrar.
    /// `Overflow` if the counter of revocations is exhausted.
    pub fn revoke_measurement(
        &mut self,
        call: Call,
        access: &Access,
        measurement: [u8; 32],
    ) -> Result<Option<MeasurementRevoked>> {
        access.ensure_role(call.caller, Role::Registrar)?;
        if self.measurements.get(measurement) == Some(MeasurementStatus::Revoked) {
            return Ok(None);
        }
        self.revocations = self.revocations.checked_add(1).ok_or(Error::Overflow)?;
        self.measurements
            .insert(measurement, &MeasurementStatus::Revoked);
        Ok(Some(MeasurementRevoked { measurement }))
    }

    /// One page of workers in the order of their numbers, from `from` on.
    ///
    /// # Errors
    ///
    /// `LimitOutOfRange` unless `1 <= limit <= 50`.
    pub fn page(&self, from: WorkerId, limit: u32) -> Result<Page<Worker>> {
        crate::page::page(from.into(), limit, self.counter.into(), |number| {
            self.get(WorkerId::try_from(number).ok()?)
        })
    }
}

/// What `register` and `renew` judge by.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    /// Who may register.
    pub access: &'a Access,
    /// How long a registration may be.
    pub parameters: &'a Parameters,
    /// What the worker's signature is bound to.
    pub domain: &'a Domain,
}

fn ensure_valid_until(valid_until: u64, now: u64, parameters: &Parameters) -> Result<()> {
    ensure!(
        now < valid_until && valid_until <= now.saturating_add(parameters.max_registration),
        Error::ValidityOutOfRange
    );
    Ok(())
}

fn verify_possession(signed: &Registration<'_>, possession: &Signature) -> Result<()> {
    ensure_same_scheme(signed.signing_key, possession)?;
    verify_signature(signed.signing_key, possession, &signed.digest())
}
