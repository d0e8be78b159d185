//! The recording rules once more, as a reference: written from the protocol, all conditions
//! evaluated instead of the first that fails. `lifecycle` has the rest of a job's life.

use std::collections::HashSet;

use crate::types::{JobStatus, Mode, PublicKey, Signature, WorkerStatus};

use super::reference::{blake2_256, Attempt};
use super::world::{World, CONTRACT, GENESIS};

/// Every row of protocol 3.2 that recording this attempt breaks, read off the contract's views. A
/// row that makes no sense without an earlier one does not count as broken.
pub fn broken_rows(world: &World, attempt: &Attempt) -> Vec<u8> {
    let view = world.read();
    let completion = attempt.completion();
    let proof = &completion.attestation_proof;
    let parameters = view.parameters();
    let (now, skew) = (u128::from(world.now), u128::from(parameters.max_clock_skew));
    let mut broken = HashSet::new();
    let mut check = |row: u8, holds: bool| {
        if !holds {
            broken.insert(row);
        }
    };

    check(1, view.mode() != Mode::Halted);
    let job = view.get_job(completion.job_id);
    check(2, job.is_some());
    let worker = view.worker_by_key(completion.tee_worker_pubkey);
    check(4, worker.is_some());
    if let (Some(worker), Some(job)) = (&worker, &job) {
        check(5, job.workers.contains(&worker.worker));
        let failed = job.failures.iter().any(|past| past.worker == worker.worker);
        check(7, !failed);
    }
    if let Some(worker) = &worker {
        check(
            6,
            worker.status == WorkerStatus::Active
                && world.now <= worker.valid_until
                && view.has_measurement(worker.measurement),
        );
    }
    check(8, completion.result_hash != [0; 32]);
    let times = [proof.started_at, proof.finished_at, proof.issued_at];
    check(9, times.is_sorted());
    check(11, u128::from(proof.issued_at) <= now + skew);
    check(
        12,
        now <= u128::from(proof.issued_at) + u128::from(parameters.max_attestation_age),
    );
    if let Some(job) = &job {
        check(
            3,
            job.status == JobStatus::Submitted && world.now <= job.deadline,
        );
        let created = u128::from(job.created_at);
        check(10, u128::from(proof.started_at) + skew >= created);
        let rebuilt = Attempt {
            genesis_hash: GENESIS,
            contract: CONTRACT,
            payload_hash: job.payload_hash,
            measurement: worker
                .as_ref()
                .map_or(attempt.measurement, |worker| worker.measurement),
            ..attempt.clone()
        };
        check(
            13,
            is_signed(
                &completion.tee_worker_pubkey,
                &proof.signature,
                &rebuilt.bytes(),
            ),
        );
    }
    let mut broken: Vec<u8> = broken.into_iter().collect();
    broken.sort_unstable();
    broken
}

/// Whether the signature is the key's, by k256 and schnorrkel.
pub fn is_signed(key: &PublicKey, signature: &Signature, bytes: &[u8]) -> bool {
    let digest = blake2_256(bytes);
    match (key, signature) {
        (PublicKey::Sr25519(key), Signature::Sr25519(signature)) => {
            let key = schnorrkel::PublicKey::from_bytes(key);
            let signature = schnorrkel::Signature::from_bytes(signature);
            key.is_ok_and(|key| {
                signature.is_ok_and(|signature| {
                    key.verify_simple(b"substrate", &digest, &signature).is_ok()
                })
            })
        }
        (PublicKey::Ecdsa(key), Signature::Ecdsa(signature)) => {
            let Ok(parsed) = k256::ecdsa::Signature::from_slice(&signature[..64]) else {
                return false;
            };
            let Some(recovery_id) = k256::ecdsa::RecoveryId::from_byte(signature[64]) else {
                return false;
            };
            // `normalize_s` gives a value only for an `s` above n / 2.
            parsed.normalize_s().is_none()
                && k256::ecdsa::VerifyingKey::recover_from_prehash(&digest, &parsed, recovery_id)
                    .is_ok_and(|found| found.to_encoded_point(true).as_bytes() == key)
        }
        _ => false,
    }
}
