//! The bytes that a worker signs, rebuilt here and never taken from a caller, and the check of the
//! signature over them (protocol sections 3, 3.1 and 3.3).

use ink::env::hash::Blake2x256;
use ink::prelude::vec::Vec;

use crate::ensure::ensure;
use crate::errors::{Error, Result};
use crate::types::{Domain, JobId, Outcome, PublicKey, Signature};

/// The domain tag of a job statement.
pub const STATEMENT_TAG: &[u8] = b"\xffphala-job-processor/job-attestation/v1";

/// The domain tag of a worker's proof that it has the keys it is registered with.
pub const REGISTRATION_TAG: &[u8] = b"\xffphala-job-processor/worker-registration/v1";

/// The length of a job statement.
pub const STATEMENT_LENGTH: usize = 248;

/// The length of a registration.
pub const REGISTRATION_LENGTH: usize = 245;

/// The order `n` of the group of secp256k1 (SEC 2, 2.4.1).
const SECP256K1_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// `n / 2`, rounded down: the largest `s` that is not the twin of a smaller one.
const SECP256K1_HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// All that a worker signs about one job.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// Which contract on which chain.
    pub domain: &'a Domain,
    /// The job's number.
    pub job_id: JobId,
    /// The stored hash of the job's sealed payload.
    pub payload_hash: &'a [u8; 32],
    /// How the execution ended.
    pub outcome: Outcome,
    /// The hash of the sealed result or failure report.
    pub result_hash: &'a [u8; 32],
    /// What the execution used.
    pub units: u64,
    /// The stored measurement of the worker.
    pub measurement: &'a [u8; 32],
    /// When the execution began.
    pub started_at: u64,
    /// When the execution ended.
    pub finished_at: u64,
    /// When the statement was signed.
    pub issued_at: u64,
}

impl Statement<'_> {
    /// The signed bytes of protocol 3.1.
    pub fn encode(&self) -> Vec<u8> {
        let outcome: u8 = match self.outcome {
            Outcome::Completed => 1,
            Outcome::Failed => 2,
        };
        let mut bytes = Vec::with_capacity(STATEMENT_LENGTH);
        bytes.extend_from_slice(STATEMENT_TAG);
        bytes.extend_from_slice(&self.domain.genesis_hash);
        bytes.extend_from_slice(self.domain.contract.as_ref());
        bytes.extend_from_slice(&self.job_id.to_le_bytes());
        bytes.extend_from_slice(self.payload_hash);
        bytes.push(outcome);
        bytes.extend_from_slice(self.result_hash);
        bytes.extend_from_slice(&self.units.to_le_bytes());
        bytes.extend_from_slice(self.measurement);
        bytes.extend_from_slice(&self.started_at.to_le_bytes());
        bytes.extend_from_slice(&self.finished_at.to_le_bytes());
        bytes.extend_from_slice(&self.issued_at.to_le_bytes());
        bytes
    }

    /// The digest that the signature is over.
    pub fn digest(&self) -> [u8; 32] {
        blake2_256(&self.encode())
    }
}

/// All that a worker signs to be registered, or renewed, with its keys.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// Which contract on which chain.
    pub domain: &'a Domain,
    /// The key that it signs with.
    pub signing_key: &'a PublicKey,
    /// The key that payloads are sealed to.
    pub encryption_key: &'a [u8; 32],
    /// What it runs.
    pub measurement: &'a [u8; 32],
    /// The hash of its evidence.
    pub evidence_hash: &'a [u8; 32],
    /// The last moment at which it is to be trusted.
    pub valid_until: u64,
}

impl Registration<'_> {
    /// The signed bytes of protocol 3.3.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REGISTRATION_LENGTH);
        bytes.extend_from_slice(REGISTRATION_TAG);
        bytes.extend_from_slice(&self.domain.genesis_hash);
        bytes.extend_from_slice(self.domain.contract.as_ref());
        bytes.extend_from_slice(&signing_key_bytes(self.signing_key));
        bytes.extend_from_slice(self.encryption_key);
        bytes.extend_from_slice(self.measurement);
        bytes.extend_from_slice(self.evidence_hash);
        bytes.extend_from_slice(&self.valid_until.to_le_bytes());
        bytes
    }

    /// The digest that the signature is over.
    pub fn digest(&self) -> [u8; 32] {
        blake2_256(&self.encode())
    }
}

/// The 34 signing key bytes: the scheme, the key, and for sr25519 one zero byte at the end.
pub fn signing_key_bytes(key: &PublicKey) -> [u8; 34] {
    let (scheme, key): (u8, &[u8]) = match key {
        PublicKey::Sr25519(key) => (1, key),
        PublicKey::Ecdsa(key) => (2, key),
    };
    let mut bytes = [0; 34];
    if let Some((first, rest)) = bytes.split_first_mut() {
        *first = scheme;
        for (to, from) in rest.iter_mut().zip(key) {
            *to = *from;
        }
    }
    bytes
}

/// The blake2-256 hash of `bytes`.
pub fn blake2_256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    ink::env::hash_bytes::<Blake2x256>(bytes, &mut hash);
    hash
}

/// Checks that a signature is of its key's scheme.
///
/// # Errors
///
/// `KeyMismatch` if it is not.
pub fn ensure_same_scheme(key: &PublicKey, signature: &Signature) -> Result<()> {
    ensure!(
        matches!(
            (key, signature),
            (PublicKey::Sr25519(_), Signature::Sr25519(_))
                | (PublicKey::Ecdsa(_), Signature::Ecdsa(_))
        ),
        Error::KeyMismatch
    );
    Ok(())
}

/// Checks that `signature` is by `key` over `digest`, by the rules of protocol 3.1.
///
/// # Errors
///
/// `KeyMismatch` if it is of another scheme.
/// `BadSignature` if it is malformed, or not by this key over this digest.
pub fn verify_signature(key: &PublicKey, signature: &Signature, digest: &[u8; 32]) -> Result<()> {
    match (key, signature) {
        (PublicKey::Sr25519(key), Signature::Sr25519(signature)) => {
            ink::env::sr25519_verify(signature, digest, key).map_err(|_| Error::BadSignature)
        }
        (PublicKey::Ecdsa(key), Signature::Ecdsa(signature)) => {
            verify_ecdsa(key, signature, digest)
        }
        _ => Err(Error::KeyMismatch),
    }
}

fn verify_ecdsa(key: &[u8; 33], signature: &[u8; 65], digest: &[u8; 32]) -> Result<()> {
    // The host accepts more than one form of a signature and ink!'s test engine panics on some, so
    // the one valid form is checked before recovery.
    ensure!(has_canonical_form(signature), Error::BadSignature);
    let mut recovered = [0; 33];
    ink::env::ecdsa_recover(signature, digest, &mut recovered).map_err(|_| Error::BadSignature)?;
    ensure!(recovered == *key, Error::BadSignature);
    Ok(())
}

/// Whether `1 <= r < n`, `1 <= s <= n / 2` and the recovery id is 0 to 3.
fn has_canonical_form(signature: &[u8; 65]) -> bool {
    let (r, rest) = signature.split_at(32);
    let (s, recovery_id) = rest.split_at(32);
    // Big-endian numbers of equal length compare as their bytes do.
    !is_zero(r)
        && r < SECP256K1_ORDER.as_slice()
        && !is_zero(s)
        && s <= SECP256K1_HALF_ORDER.as_slice()
        && recovery_id <= [3].as_slice()
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
