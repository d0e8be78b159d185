//! Recording statements: every row of protocol 3.2, each failing alone.

use crate::errors::Error;
use crate::parameters::Parameters;
use crate::types::{JobStatus, Mode, Outcome, Signature};

use super::keys::Key;
use super::reference::Attempt;
use super::rules::broken_rows;
use super::world::{record, Who, World, DAY, MEASUREMENT, START, TTL};

/// Every row of protocol 3.2 with its errors and the test here that fails it alone. `coverage`
/// checks that these tests exist and mention these errors.
pub const ROWS: [(u8, &[Error], &str); 13] = [
    (1, &[Error::WrongMode], "row_1_recording_needs_a_mode"),
    (2, &[Error::JobNotFound], "row_2_the_job_exists"),
    (
        3,
        &[
            Error::AlreadyAttested,
            Error::WrongStatus,
            Error::DeadlinePassed,
        ],
        "row_3_the_job_is_open",
    ),
    (
        4,
        &[Error::WorkerNotFound, Error::KeyMismatch],
        "row_4_the_key_is_a_registered_workers",
    ),
    (
        5,
        &[Error::WorkerNotEligible],
        "row_5_the_worker_is_one_of_the_jobs",
    ),
    (
        6,
        &[Error::WorkerNotTrusted],
        "row_6_the_worker_is_trusted_now",
    ),
    (
        7,
        &[Error::AlreadyFailed],
        "row_7_the_worker_has_not_failed_the_job",
    ),
    (
        8,
        &[Error::EmptyResultHash],
        "row_8_the_result_hash_is_not_zero",
    ),
    (
        9,
        &[Error::StatementTimesInverted],
        "row_9_the_times_are_in_order",
    ),
    (
        10,
        &[Error::StatementBeforeJob],
        "row_10_execution_began_after_the_job",
    ),
    (
        11,
        &[Error::StatementFromFuture],
        "row_11_the_statement_is_not_from_the_future",
    ),
    (
        12,
        &[Error::StatementTooOld],
        "row_12_the_statement_is_not_too_old",
    ),
    (
        13,
        &[Error::BadSignature],
        "row_13_the_signature_is_the_workers",
    ),
];

/// Shows that the reference finds this row broken and no other, and that the contract refuses with
/// this error and changes nothing.
fn breaks_only(row: u8, error: Error, world: &mut World, attempt: &Attempt) {
    assert_eq!(broken_rows(world, attempt), [row]);
    let completion = attempt.completion();
    world.refused(error, Who::Stranger, |contract| {
        record(contract, completion)
    });
}

fn passes(world: &mut World, attempt: &Attempt) {
    assert_eq!(broken_rows(world, attempt), Vec::<u8>::new());
    assert_eq!(world.record(attempt), Ok(()));
}

#[test]
fn row_1_recording_needs_a_mode() {
    let mut world = World::with_job();
    let attempt = world.attempt(1, 1);
    world.set_mode(Mode::Halted);
    breaks_only(1, Error::WrongMode, &mut world, &attempt);

    world.set_mode(Mode::Draining);
    passes(&mut world, &attempt);
}

#[test]
fn row_2_the_job_exists() {
    let mut world = World::with_job();
    for job_id in [0, 2, u128::MAX] {
        let attempt = world.attempt(job_id, 1);
        breaks_only(2, Error::JobNotFound, &mut world, &attempt);
    }

    world.by(Who::Owner).cancel_job(1).unwrap();
    let attempt = world.attempt(1, 1);
    world.by(Who::Owner).purge_job(1).unwrap();
    breaks_only(2, Error::JobNotFound, &mut world, &attempt);
}

#[test]
fn row_3_the_job_is_open() {
    let mut world = World::with_attested_job();
    let attempt = world.attempt(1, 2);
    breaks_only(3, Error::AlreadyAttested, &mut world, &attempt);
    world.by(Who::Owner).mark_job_processed(1).unwrap();
    breaks_only(3, Error::AlreadyAttested, &mut world, &attempt);

    let mut world = World::with_job();
    let attempt = world.attempt(1, 1);
    world.by(Who::Owner).cancel_job(1).unwrap();
    breaks_only(3, Error::WrongStatus, &mut world, &attempt);

    let mut world = World::with_job();
    world.now = START + TTL;
    let attempt = world.attempt(1, 1);
    world.now += 1;
    breaks_only(3, Error::DeadlinePassed, &mut world, &attempt);
    world.by(Who::Stranger).expire_job(1).unwrap();
    breaks_only(3, Error::WrongStatus, &mut world, &attempt);

    // The deadline itself is in time.
    let mut world = World::with_job();
    world.now = START + TTL;
    let attempt = world.attempt(1, 1);
    passes(&mut world, &attempt);
}

#[test]
fn row_3_a_failed_job_takes_nothing() {
    let mut world = World::with_workers(2);
    world.submit(&[1]);
    let failure = world.failure(1, 1);
    world.record(&failure).unwrap();
    assert_eq!(world.status(1), JobStatus::Failed);

    let attempt = world.attempt(1, 1);
    let completion = attempt.completion();
    world.refused(Error::WrongStatus, Who::Stranger, |contract| {
        record(contract, completion)
    });
}

#[test]
fn row_4_the_key_is_a_registered_workers() {
    let mut world = World::with_job();
    for key in [Key::ecdsa(9), Key::sr25519(9)] {
        let attempt = Attempt {
            key,
            ..world.attempt(1, 1)
        };
        breaks_only(4, Error::WorkerNotFound, &mut world, &attempt);
    }

    for (worker, other) in [(1, Key::sr25519(9)), (2, Key::ecdsa(9))] {
        let attempt = world.attempt(1, worker);
        let mut completion = attempt.completion();
        let signed_by_other = Attempt {
            key: other,
            ..attempt
        };
        completion.attestation_proof.signature = signed_by_other.signature();
        world.refused(Error::KeyMismatch, Who::Stranger, |contract| {
            record(contract, completion)
        });
    }
}

#[test]
fn row_4_comes_before_row_5_for_workers_of_other_jobs() {
    let mut world = World::with_workers(3);
    world.submit(&[1, 2]);
    let mut completion = world.attempt(1, 3).completion();
    completion.attestation_proof.signature = Signature::Sr25519([0; 64]);

    world.refused(Error::KeyMismatch, Who::Stranger, |contract| {
        record(contract, completion)
    });
}

#[test]
fn row_5_the_worker_is_one_of_the_jobs() {
    let mut world = World::with_workers(3);
    world.submit(&[1, 2]);

    let attempt = world.attempt(1, 3);
    breaks_only(5, Error::WorkerNotEligible, &mut world, &attempt);

    let attempt = world.attempt(1, 2);
    passes(&mut world, &attempt);
}

#[test]
fn row_6_the_worker_is_trusted_now() {
    type Distrust = fn(&mut World);
    let ways: [Distrust; 4] = [
        |world| world.by(Who::Guardian).suspend_worker(1).unwrap(),
        |world| world.by(Who::Registrar).revoke_worker(1, [1; 32]).unwrap(),
        |world| {
            world
                .by(Who::Registrar)
                .revoke_measurement(MEASUREMENT)
                .unwrap()
        },
        |world| world.now = START + DAY + 1,
    ];
    for distrust in ways {
        let mut world = World::with_workers(2);
        world.now = START + DAY;
        world.submit(&[1]);
        distrust(&mut world);
        let attempt = world.attempt(1, 1);
        breaks_only(6, Error::WorkerNotTrusted, &mut world, &attempt);
    }

    // The last moment of a registration is in time.
    let mut world = World::with_workers(2);
    world.now = START + DAY;
    world.submit(&[1]);
    let attempt = world.attempt(1, 1);
    passes(&mut world, &attempt);
}

#[test]
fn row_7_the_worker_has_not_failed_the_job() {
    let mut world = World::with_job();
    let failure = world.failure(1, 1);
    passes(&mut world, &failure);

    breaks_only(7, Error::AlreadyFailed, &mut world, &failure);
    let attempt = world.attempt(1, 1);
    breaks_only(7, Error::AlreadyFailed, &mut world, &attempt);

    let attempt = world.attempt(1, 2);
    passes(&mut world, &attempt);
}

#[test]
fn row_8_the_result_hash_is_not_zero() {
    for outcome in [Outcome::Completed, Outcome::Failed] {
        let mut world = World::with_job();
        let attempt = Attempt {
            outcome,
            result_hash: [0; 32],
            ..world.attempt(1, 1)
        };
        breaks_only(8, Error::EmptyResultHash, &mut world, &attempt);
    }

    let mut world = World::with_job();
    let mut attempt = world.attempt(1, 1);
    attempt.result_hash = [0; 32];
    attempt.result_hash[31] = 1;
    passes(&mut world, &attempt);
}

#[test]
fn row_9_the_times_are_in_order() {
    let mut world = World::with_job();
    world.now += 1_000;
    let good = world.attempt(1, 1);
    for (started_at, finished_at, issued_at) in [
        (good.issued_at, good.issued_at - 1, good.issued_at),
        (good.issued_at, good.issued_at + 1, good.issued_at),
        (good.issued_at + 1, good.issued_at, good.issued_at),
    ] {
        let attempt = Attempt {
            started_at,
            finished_at,
            issued_at,
            ..good.clone()
        };
        breaks_only(9, Error::StatementTimesInverted, &mut world, &attempt);
    }
    passes(&mut world, &good);
}

#[test]
fn row_10_execution_began_after_the_job() {
    let skew = Parameters::default().max_clock_skew;
    let mut world = World::with_job();
    let good = world.attempt(1, 1);
    let early = Attempt {
        started_at: START - skew - 1,
        ..good.clone()
    };
    breaks_only(10, Error::StatementBeforeJob, &mut world, &early);

    let just_in_time = Attempt {
        started_at: START - skew,
        ..good
    };
    passes(&mut world, &just_in_time);
}

#[test]
fn row_11_the_statement_is_not_from_the_future() {
    let skew = Parameters::default().max_clock_skew;
    let mut world = World::with_job();
    let good = world.attempt(1, 1);
    for issued_at in [START + skew + 1, u64::MAX] {
        let attempt = Attempt {
            issued_at,
            ..good.clone()
        };
        breaks_only(11, Error::StatementFromFuture, &mut world, &attempt);
    }

    let just_in_time = Attempt {
        issued_at: START + skew,
        ..good
    };
    passes(&mut world, &just_in_time);
}

#[test]
fn row_12_the_statement_is_not_too_old() {
    let age = Parameters::default().max_attestation_age;
    let mut world = World::with_job();
    let attempt = world.attempt(1, 1);
    world.now = START + age + 1;
    breaks_only(12, Error::StatementTooOld, &mut world, &attempt);

    world.now = START + age;
    passes(&mut world, &attempt);
}

#[test]
fn row_12_a_worker_may_sign_the_same_result_again() {
    let mut world = World::with_job();
    let mut attempt = world.attempt(1, 1);
    world.now = START + Parameters::default().max_attestation_age + 1;
    assert_eq!(world.record(&attempt), Err(Error::StatementTooOld));

    attempt.issued_at = world.now;
    passes(&mut world, &attempt);
}

#[test]
fn row_13_the_signature_is_the_workers() {
    // Each field that is signed and not sent, or sent otherwise than signed.
    type Spoil = fn(&mut Attempt);
    let signed_otherwise: [Spoil; 11] = [
        |attempt| attempt.genesis_hash = [1; 32],
        |attempt| attempt.contract = [1; 32],
        |attempt| attempt.job_id = 2,
        |attempt| attempt.payload_hash = [1; 32],
        |attempt| attempt.outcome = Outcome::Failed,
        |attempt| attempt.result_hash = [1; 32],
        |attempt| attempt.units += 1,
        |attempt| attempt.measurement = [1; 32],
        |attempt| attempt.started_at -= 1,
        |attempt| attempt.finished_at -= 1,
        |attempt| attempt.issued_at += 1,
    ];
    for worker in [1, 2] {
        for spoil in signed_otherwise {
            let mut world = World::with_job();
            let good = world.attempt(1, worker);
            let mut signed = good.clone();
            spoil(&mut signed);
            let mut completion = good.completion();
            completion.attestation_proof.signature = signed.signature();

            world.refused(Error::BadSignature, Who::Stranger, |contract| {
                record(contract, completion)
            });

            passes(&mut world, &good);
        }
    }
}

#[test]
fn row_13_every_bit_of_a_signature_counts() {
    for worker in [1, 2] {
        let mut world = World::with_job();
        let good = world.attempt(1, worker).completion();
        let before = world.state();
        let bits = match good.attestation_proof.signature {
            Signature::Ecdsa(_) => 65 * 8,
            Signature::Sr25519(_) => 64 * 8,
        };
        for bit in 0..bits {
            let mut spoiled = good.clone();
            match &mut spoiled.attestation_proof.signature {
                Signature::Ecdsa(bytes) => bytes[bit / 8] ^= 1 << (bit % 8),
                Signature::Sr25519(bytes) => bytes[bit / 8] ^= 1 << (bit % 8),
            }
            let result = record(world.by(Who::Stranger), spoiled);
            assert_eq!(result, Err(Error::BadSignature), "bit {bit}");
        }
        assert_eq!(world.state(), before);
        assert_eq!(record(world.by(Who::Stranger), good), Ok(()));
    }
}
