//! One test per hole of the original contract, which believed everything.

use k256::elliptic_curve::PrimeField;
use k256::{FieldBytes, Scalar};

use crate::errors::Error;
use crate::parameters::Parameters;
use crate::types::{JobStatus, Signature};

use super::keys::Key;
use super::reference::Attempt;
use super::world::{record, used_cells, Who, World, REPLY_KEY, START};

/// Shows that this attempt is refused and changes nothing.
fn refused(world: &mut World, error: Error, attempt: &Attempt) {
    let completion = attempt.completion();
    world.refused(error, Who::Stranger, |contract| {
        record(contract, completion)
    });
}

#[test]
fn a_stranger_does_not_attest() {
    let mut world = World::with_job();
    for key in [Key::ecdsa(14), Key::sr25519(14)] {
        let by_stranger = Attempt {
            key,
            ..world.attempt(1, 1)
        };
        refused(&mut world, Error::WorkerNotFound, &by_stranger);

        // Under the worker's name, too.
        let mut forged = by_stranger.completion();
        forged.tee_worker_pubkey = World::key(1).public_key();
        let error = match by_stranger.signature() {
            Signature::Ecdsa(_) => Error::BadSignature,
            Signature::Sr25519(_) => Error::KeyMismatch,
        };
        world.refused(error, Who::Stranger, |contract| record(contract, forged));
    }
}

#[test]
fn a_stranger_does_not_mark() {
    let mut world = World::with_attested_job();
    for who in [Who::Stranger, Who::OtherOwner, Who::Admin] {
        world.refused(Error::NotJobOwner, who, |contract| {
            contract.mark_job_processed(1)
        });
    }
}

#[test]
fn an_attestation_is_not_overwritten_before_processing() {
    let mut world = World::with_attested_job();
    for worker in [1, 2] {
        let other = Attempt {
            result_hash: [0x99; 32],
            ..world.attempt(1, worker)
        };
        refused(&mut world, Error::AlreadyAttested, &other);
    }
}

#[test]
fn an_attestation_is_not_overwritten_after_processing() {
    let mut world = World::with_attested_job();
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    let other = Attempt {
        result_hash: [0x99; 32],
        ..world.attempt(1, 2)
    };
    refused(&mut world, Error::AlreadyAttested, &other);
}

/// Shows that a statement signed with this change is not taken for one about job 1 here.
fn not_replayed(change: fn(&mut Attempt)) {
    for worker in [1, 2] {
        let mut world = World::with_job();
        let here = world.attempt(1, worker);
        let mut there = here.clone();
        change(&mut there);
        let mut completion = here.completion();
        completion.attestation_proof.signature = there.signature();

        world.refused(Error::BadSignature, Who::Stranger, |contract| {
            record(contract, completion)
        });
    }
}

#[test]
fn a_statement_is_not_replayed_for_another_job() {
    let mut world = World::with_job();
    // The very same payload, so that nothing but the number differs.
    let payload = b"sealed 0".to_vec();
    world
        .by(Who::Owner)
        .submit_confidential_job(payload, REPLY_KEY, World::options(&[1, 2]))
        .unwrap();
    for worker in [1, 2] {
        let mut completion = world.attempt(1, worker).completion();
        completion.job_id = 2;
        world.refused(Error::BadSignature, Who::Stranger, |contract| {
            record(contract, completion)
        });
    }
}

#[test]
fn a_statement_is_not_replayed_from_another_contract() {
    not_replayed(|attempt| attempt.contract = [0xcd; 32]);
}

#[test]
fn a_statement_is_not_replayed_from_another_chain() {
    not_replayed(|attempt| attempt.genesis_hash = [0x6f; 32]);
}

#[test]
fn a_statement_is_not_replayed_as_another_workers() {
    let mut world = World::with_workers(4);
    world.submit(&[1, 2, 3, 4]);
    for (signer, claimed) in [(1, 3), (2, 4)] {
        let mut completion = world.attempt(1, signer).completion();
        completion.tee_worker_pubkey = World::key(claimed).public_key();
        world.refused(Error::BadSignature, Who::Stranger, |contract| {
            record(contract, completion)
        });
    }
}

#[test]
fn a_stale_statement_is_refused() {
    let mut world = World::with_job();
    let attempt = world.attempt(1, 1);
    world.now = START + Parameters::default().max_attestation_age + 1;
    refused(&mut world, Error::StatementTooOld, &attempt);
}

#[test]
fn a_statement_from_the_future_is_refused() {
    let mut world = World::with_job();
    let attempt = Attempt {
        issued_at: START + Parameters::default().max_clock_skew + 1,
        ..world.attempt(1, 1)
    };
    refused(&mut world, Error::StatementFromFuture, &attempt);
}

#[test]
fn a_statement_older_than_the_job_is_refused() {
    let mut world = World::with_job();
    let attempt = Attempt {
        started_at: START - Parameters::default().max_clock_skew - 1,
        ..world.attempt(1, 1)
    };
    refused(&mut world, Error::StatementBeforeJob, &attempt);
}

#[test]
fn an_empty_result_hash_is_refused() {
    let mut world = World::with_job();
    let attempt = Attempt {
        result_hash: [0; 32],
        ..world.attempt(1, 1)
    };
    refused(&mut world, Error::EmptyResultHash, &attempt);
}

/// For every ECDSA signature (r, s, v) there is (r, n - s, v ^ 1), which recovers to the same key.
#[test]
fn the_twin_of_a_signature_is_refused() {
    let mut world = World::with_job();
    let good = world.attempt(1, 1).completion();
    let Signature::Ecdsa(mut bytes) = good.attestation_proof.signature else {
        panic!("worker 1 signs by ECDSA");
    };
    let s: [u8; 32] = bytes[32..64].try_into().unwrap();
    let twin = -Scalar::from_repr(FieldBytes::from(s)).unwrap();
    bytes[32..64].copy_from_slice(&twin.to_bytes());
    bytes[64] ^= 1;
    let mut completion = good.clone();
    completion.attestation_proof.signature = Signature::Ecdsa(bytes);

    world.refused(Error::BadSignature, Who::Stranger, |contract| {
        record(contract, completion)
    });
    assert_eq!(record(world.by(Who::Stranger), good), Ok(()));
}

#[test]
fn a_worker_revoked_between_recording_and_marking_is_found() {
    let mut world = World::with_attested_job();
    world.by(Who::Registrar).revoke_worker(1, [1; 32]).unwrap();
    for who in [Who::Owner, Who::Operator] {
        world.refused(Error::AttestationNotValid, who, |contract| {
            contract.mark_job_processed(1)
        });
    }
}

#[test]
fn a_job_is_not_marked_twice() {
    let mut world = World::with_attested_job();
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    for who in [Who::Owner, Who::Operator] {
        world.refused(Error::WrongStatus, who, |contract| {
            contract.mark_job_processed(1)
        });
    }
}

#[test]
fn an_oversize_payload_is_refused() {
    let mut world = World::with_workers(1);
    let payload = vec![1; Parameters::default().max_payload as usize + 1];
    world.refused(Error::PayloadTooLarge, Who::Owner, |contract| {
        contract.submit_confidential_job(payload, REPLY_KEY, World::options(&[1]))
    });
}

#[test]
fn one_account_does_not_flood_the_contract() {
    let mut world = World::with_workers(1);
    for _ in 0..Parameters::default().rate_limit {
        world.submit(&[1]);
    }
    world.refused(Error::RateLimited, Who::Owner, |contract| {
        contract.submit_confidential_job(b"sealed".to_vec(), REPLY_KEY, World::options(&[1]))
    });
}

#[test]
fn the_owner_of_an_attested_job_whose_result_never_comes_gets_out() {
    let mut world = World::with_workers(2);
    let cells = used_cells();
    world.submit(&[1, 2]);
    let attempt = world.attempt(1, 1);
    world.record(&attempt).unwrap();
    let Parameters {
        mark_grace,
        rate_window,
        ..
    } = Parameters::default();

    world.now = START + mark_grace.max(rate_window) + 1;
    world.by(Who::Owner).cancel_job(1).unwrap();
    assert_eq!(world.status(1), JobStatus::Cancelled);
    world.by(Who::Owner).purge_job(1).unwrap();

    // Nothing that the owner paid a deposit for is left.
    assert_eq!(used_cells(), cells);
}
