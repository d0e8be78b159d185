//! The trusted list: registering and renewing.

use crate::assert_events;
use crate::errors::{Error, Result};
use crate::events::{WorkerRegistered, WorkerRenewed};
use crate::parameters::Parameters;
use crate::types::{Mode, Signature, Worker, WorkerId, WorkerRegistration, WorkerStatus};

use super::keys::Key;
use super::reference::Possession;
use super::world::{all_but, Who, World, DAY, MEASUREMENT, OTHER_MEASUREMENT, START};

const MODES: [Mode; 3] = [Mode::Running, Mode::Draining, Mode::Halted];
const EVIDENCE: [u8; 32] = [0xf1; 32];

/// Registers with this key and a possession signature over exactly this registration.
fn register(world: &mut World, key: &Key, registration: WorkerRegistration) -> Result<WorkerId> {
    let possession = World::possession(&registration).signature(key);
    world
        .by(Who::Registrar)
        .register_worker(registration, possession)
}

/// Shows that registering with this change, properly signed, is refused.
fn registering_refused(
    error: Error,
    world: &mut World,
    change: impl FnOnce(&mut WorkerRegistration),
) {
    let mut registration = world.registration(3);
    change(&mut registration);
    let possession = World::possession(&registration).signature(&World::key(3));
    world.refused(error, Who::Registrar, |contract| {
        contract.register_worker(registration, possession)
    });
}

#[test]
fn a_worker_is_registered_in_every_mode_with_either_scheme() {
    for mode in MODES {
        let mut world = World::new();
        world.set_mode(mode);
        for seed in [1, 2] {
            let registration = world.registration(seed);
            let key = World::key(seed);
            let possession = World::possession(&registration).signature(&key);

            let (result, events) = world.events_of(Who::Registrar, |contract| {
                contract.register_worker(registration.clone(), possession)
            });

            let worker = u32::from(seed);
            assert_eq!(result, Ok(worker));
            let expected = Worker {
                worker,
                signing_key: registration.signing_key,
                encryption_key: registration.encryption_key,
                measurement: registration.measurement,
                evidence_hash: registration.evidence_hash,
                endpoint: registration.endpoint.clone(),
                registered_at: START,
                valid_until: registration.valid_until,
                status: WorkerStatus::Active,
            };
            assert_eq!(world.read().get_worker(worker), Some(expected.clone()));
            assert_eq!(world.read().worker_by_key(key.public_key()), Some(expected));
            assert!(world.read().is_trusted(worker));
            assert_events!(
                events,
                [WorkerRegistered {
                    worker,
                    signing_key: registration.signing_key,
                    encryption_key: registration.encryption_key,
                    measurement: registration.measurement,
                    evidence_hash: registration.evidence_hash,
                    endpoint: registration.endpoint.clone(),
                    valid_until: registration.valid_until,
                }]
            );
        }
    }
}

#[test]
fn only_a_registrar_registers_and_renews() {
    let mut world = World::with_workers(1);
    let registration = world.registration(2);
    let possession = World::possession(&registration).signature(&World::key(2));
    let renewal = world.renewal(1, EVIDENCE, START + DAY + 1);
    for who in all_but(&[Who::Registrar]) {
        world.refused(Error::MissingRole, who, |contract| {
            contract.register_worker(registration.clone(), possession)
        });
        world.refused(Error::MissingRole, who, |contract| {
            contract.renew_worker(1, EVIDENCE, START + DAY + 1, renewal)
        });
    }
}

#[test]
fn an_endpoint_may_be_as_long_as_the_limit_and_no_longer() {
    let mut world = World::with_workers(2);
    registering_refused(Error::EndpointTooLong, &mut world, |registration| {
        registration.endpoint = vec![b'x'; 129];
    });

    for (seed, length) in [(3, 128), (4, 0)] {
        let mut registration = world.registration(seed);
        registration.endpoint = vec![b'x'; length];
        assert!(register(&mut world, &World::key(seed), registration).is_ok());
    }
}

#[test]
fn a_zero_encryption_key_is_refused() {
    registering_refused(Error::InvalidKey, &mut World::new(), |registration| {
        registration.encryption_key = [0; 32];
    });
}

#[test]
fn the_measurement_must_be_allowed() {
    let mut world = World::with_workers(1);
    registering_refused(Error::MeasurementNotAllowed, &mut world, |registration| {
        registration.measurement = OTHER_MEASUREMENT;
    });

    world
        .by(Who::Registrar)
        .revoke_measurement(MEASUREMENT)
        .unwrap();
    registering_refused(Error::MeasurementNotAllowed, &mut world, |_| {});
}

#[test]
fn a_key_is_used_by_one_worker_ever() {
    let mut world = World::with_workers(2);
    world.by(Who::Registrar).revoke_worker(2, [1; 32]).unwrap();
    // The signing key of worker 1 and of revoked worker 2, each with a fresh encryption key.
    for seed in [1, 2] {
        let mut registration = world.registration(seed);
        registration.encryption_key = [0xee; 32];
        let possession = World::possession(&registration).signature(&World::key(seed));
        world.refused(Error::KeyAlreadyRegistered, Who::Registrar, |contract| {
            contract.register_worker(registration, possession)
        });
    }
    // Their encryption keys, each with a fresh signing key.
    for seed in [1, 2] {
        let taken = world.registration(seed).encryption_key;
        registering_refused(Error::KeyAlreadyRegistered, &mut world, |registration| {
            registration.encryption_key = taken;
        });
    }
}

#[test]
fn a_registration_has_a_bounded_validity() {
    let longest = Parameters::default().max_registration;
    for valid_until in [0, START - 1, START, START + longest + 1, u64::MAX] {
        registering_refused(
            Error::ValidityOutOfRange,
            &mut World::new(),
            |registration| {
                registration.valid_until = valid_until;
            },
        );
    }
    for valid_until in [START + 1, START + longest] {
        let mut world = World::new();
        let mut registration = world.registration(3);
        registration.valid_until = valid_until;
        assert_eq!(register(&mut world, &World::key(3), registration), Ok(1));
    }
}

/// All that the possession signature covers, each signed otherwise than sent.
const SIGNED_OTHERWISE: [fn(&mut Possession); 6] = [
    |possession| possession.genesis_hash = [1; 32],
    |possession| possession.contract = [1; 32],
    |possession| possession.encryption_key = [1; 32],
    |possession| possession.measurement = [1; 32],
    |possession| possession.evidence_hash = [1; 32],
    |possession| possession.valid_until += 1,
];

#[test]
fn a_worker_must_have_signed_its_registration() {
    for seed in [1, 2] {
        let mut world = World::new();
        let registration = world.registration(seed);
        for spoil in SIGNED_OTHERWISE {
            let mut signed = World::possession(&registration);
            spoil(&mut signed);
            let possession = signed.signature(&World::key(seed));
            world.refused(Error::BadSignature, Who::Registrar, |contract| {
                contract.register_worker(registration.clone(), possession)
            });
        }
        // Another key of the same scheme, and one of the other.
        let signed = World::possession(&registration);
        for (other, error) in [
            (World::key(seed + 2), Error::BadSignature),
            (World::key(seed + 1), Error::KeyMismatch),
        ] {
            let possession = signed.signature(&other);
            world.refused(error, Who::Registrar, |contract| {
                contract.register_worker(registration.clone(), possession)
            });
        }
        assert_eq!(register(&mut world, &World::key(seed), registration), Ok(1));
    }
}

#[test]
fn the_counter_of_workers_does_not_wrap() {
    let mut world = World::new();
    world.contract.workers.counter = u32::MAX;
    registering_refused(Error::Overflow, &mut world, |_| {});

    world.contract.workers.counter = u32::MAX - 1;
    assert_eq!(world.register(3), Ok(u32::MAX));
}

#[test]
fn a_worker_is_renewed_in_every_mode_and_keeps_its_status() {
    for (mode, status) in MODES.into_iter().zip([
        WorkerStatus::Active,
        WorkerStatus::Suspended,
        WorkerStatus::Active,
    ]) {
        let mut world = World::with_workers(1);
        if status == WorkerStatus::Suspended {
            world.by(Who::Registrar).suspend_worker(1).unwrap();
        }
        world.set_mode(mode);
        let before = world.read().get_worker(1).unwrap();
        let possession = world.renewal(1, EVIDENCE, START + DAY + 1);

        let (result, events) = world.events_of(Who::Registrar, |contract| {
            contract.renew_worker(1, EVIDENCE, START + DAY + 1, possession)
        });

        assert_eq!(result, Ok(()));
        assert_eq!(
            world.read().get_worker(1),
            Some(Worker {
                evidence_hash: EVIDENCE,
                valid_until: START + DAY + 1,
                status,
                ..before
            })
        );
        assert_events!(
            events,
            [WorkerRenewed {
                worker: 1,
                evidence_hash: EVIDENCE,
                valid_until: START + DAY + 1
            }]
        );
    }
}

#[test]
fn an_expired_worker_is_trusted_again_once_renewed() {
    let mut world = World::with_workers(1);
    world.now = START + DAY + 1;
    assert!(!world.read().is_trusted(1));
    let possession = world.renewal(1, EVIDENCE, world.now + DAY);
    let valid_until = world.now + DAY;
    world
        .by(Who::Registrar)
        .renew_worker(1, EVIDENCE, valid_until, possession)
        .unwrap();

    assert!(world.read().is_trusted(1));
}

#[test]
fn a_renewal_must_extend_within_bounds() {
    let longest = Parameters::default().max_registration;
    let mut world = World::with_workers(1);
    let renewing_refused = |world: &mut World, valid_until| {
        let possession = world.renewal(1, EVIDENCE, valid_until);
        world.refused(Error::ValidityOutOfRange, Who::Registrar, |contract| {
            contract.renew_worker(1, EVIDENCE, valid_until, possession)
        });
    };
    for valid_until in [0, START + DAY - 1, START + DAY, START + longest + 1] {
        renewing_refused(&mut world, valid_until);
    }
    // Later than the stored one, and yet past.
    world.now = START + 2 * DAY;
    for valid_until in [START + DAY + 1, START + 2 * DAY] {
        renewing_refused(&mut world, valid_until);
    }

    let valid_until = world.now + longest;
    let possession = world.renewal(1, EVIDENCE, valid_until);
    assert_eq!(
        world
            .by(Who::Registrar)
            .renew_worker(1, EVIDENCE, valid_until, possession),
        Ok(())
    );
}

#[test]
fn a_renewal_needs_a_worker_that_may_be_trusted() {
    let mut world = World::with_workers(2);
    let valid_until = START + DAY + 1;
    let possession = world.renewal(1, EVIDENCE, valid_until);
    world.refused(Error::WorkerNotFound, Who::Registrar, |contract| {
        contract.renew_worker(3, EVIDENCE, valid_until, possession)
    });
    let other = world.renewal(2, EVIDENCE, valid_until);
    world.by(Who::Registrar).revoke_worker(2, [1; 32]).unwrap();
    world.refused(Error::WorkerRevoked, Who::Registrar, |contract| {
        contract.renew_worker(2, EVIDENCE, valid_until, other)
    });
    world
        .by(Who::Registrar)
        .revoke_measurement(MEASUREMENT)
        .unwrap();
    world.refused(Error::MeasurementNotAllowed, Who::Registrar, |contract| {
        contract.renew_worker(1, EVIDENCE, valid_until, possession)
    });
}

#[test]
fn a_worker_must_have_signed_its_renewal() {
    let valid_until = START + DAY + 1;
    for seed in [1, 2] {
        let mut world = World::with_workers(2);
        let worker = u32::from(seed);
        let registration = WorkerRegistration {
            evidence_hash: EVIDENCE,
            valid_until,
            ..world.registration(seed)
        };
        for spoil in SIGNED_OTHERWISE {
            let mut signed = World::possession(&registration);
            spoil(&mut signed);
            let possession = signed.signature(&World::key(seed));
            world.refused(Error::BadSignature, Who::Registrar, |contract| {
                contract.renew_worker(worker, EVIDENCE, valid_until, possession)
            });
        }
        let mismatched = match world.renewal(seed, EVIDENCE, valid_until) {
            Signature::Ecdsa(_) => Signature::Sr25519([1; 64]),
            Signature::Sr25519(_) => Signature::Ecdsa([1; 65]),
        };
        world.refused(Error::KeyMismatch, Who::Registrar, |contract| {
            contract.renew_worker(worker, EVIDENCE, valid_until, mismatched)
        });
    }
}
