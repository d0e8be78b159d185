//! The signed bytes once more, written from the protocol and not from `attestation`.

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use ink::primitives::AccountId;

use crate::types::{AttestationProof, Completion, JobId, Outcome, PublicKey, Signature};

use super::keys::Key;

/// Blake2b with 32 bytes of output, by a library that ink! does not use.
pub fn blake2_256(bytes: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(bytes).into()
}

/// A statement as its worker signs it, and as somebody sends it.
#[derive(Clone)]
pub struct Attempt {
    pub key: Key,
    pub genesis_hash: [u8; 32],
    pub contract: [u8; 32],
    pub job_id: JobId,
    pub payload_hash: [u8; 32],
    pub outcome: Outcome,
    pub result_hash: [u8; 32],
    pub units: u64,
    pub measurement: [u8; 32],
    pub started_at: u64,
    pub finished_at: u64,
    pub issued_at: u64,
}

impl Attempt {
    pub fn bytes(&self) -> Vec<u8> {
        [
            b"\xffphala-job-processor/job-attestation/v1".as_slice(),
            &self.genesis_hash,
            &self.contract,
            &self.job_id.to_le_bytes(),
            &self.payload_hash,
            match self.outcome {
                Outcome::Completed => &[1],
                Outcome::Failed => &[2],
            },
            &self.result_hash,
            &self.units.to_le_bytes(),
            &self.measurement,
            &self.started_at.to_le_bytes(),
            &self.finished_at.to_le_bytes(),
            &self.issued_at.to_le_bytes(),
        ]
        .concat()
    }

    pub fn signature(&self) -> Signature {
        self.key.sign(&blake2_256(&self.bytes()))
    }

    /// What a carrier sends: the signature is over what the fields say now.
    pub fn completion(&self) -> Completion {
        Completion {
            job_id: self.job_id,
            result_hash: self.result_hash,
            attestation_proof: AttestationProof {
                outcome: self.outcome,
                units: self.units,
                started_at: self.started_at,
                finished_at: self.finished_at,
                issued_at: self.issued_at,
                signature: self.signature(),
            },
            tee_worker_pubkey: self.key.public_key(),
        }
    }
}

/// A registration as its worker signs it.
#[derive(Clone)]
pub struct Possession {
    pub genesis_hash: [u8; 32],
    pub contract: [u8; 32],
    pub encryption_key: [u8; 32],
    pub measurement: [u8; 32],
    pub evidence_hash: [u8; 32],
    pub valid_until: u64,
}

impl Possession {
    pub fn bytes(&self, signing_key: &PublicKey) -> Vec<u8> {
        [
            b"\xffphala-job-processor/worker-registration/v1".as_slice(),
            &self.genesis_hash,
            &self.contract,
            &signing_key_bytes(signing_key),
            &self.encryption_key,
            &self.measurement,
            &self.evidence_hash,
            &self.valid_until.to_le_bytes(),
        ]
        .concat()
    }

    pub fn signature(&self, key: &Key) -> Signature {
        key.sign(&blake2_256(&self.bytes(&key.public_key())))
    }
}

pub fn signing_key_bytes(key: &PublicKey) -> Vec<u8> {
    match key {
        PublicKey::Sr25519(key) => [[1].as_slice(), key, &[0]].concat(),
        PublicKey::Ecdsa(key) => [[2].as_slice(), key].concat(),
    }
}

pub fn bytes_of(account: AccountId) -> [u8; 32] {
    *account.as_ref()
}
