//! Losing and regaining trust: suspending, reinstating, revoking; measurements.

use crate::assert_events;
use crate::errors::{Error, Result};
use crate::events::{
    MeasurementAllowed, MeasurementRevoked, WorkerReinstated, WorkerRevoked, WorkerSuspended,
};
use crate::types::Mode;

use super::world::{all_but, Who, World, MEASUREMENT, OTHER_MEASUREMENT};

const MODES: [Mode; 3] = [Mode::Running, Mode::Draining, Mode::Halted];

#[test]
fn a_registrar_or_guardian_suspends_in_every_mode() {
    for mode in MODES {
        for who in [Who::Registrar, Who::Guardian] {
            let mut world = World::with_workers(1);
            world.set_mode(mode);

            let (result, events) = world.events_of(who, |contract| contract.suspend_worker(1));

            assert_eq!(result, Ok(()));
            assert!(!world.read().is_trusted(1));
            assert_events!(events, [WorkerSuspended { worker: 1 }]);
        }
    }
    let mut world = World::with_workers(1);
    for who in all_but(&[Who::Registrar, Who::Guardian]) {
        world.refused(Error::MissingRole, who, |contract| {
            contract.suspend_worker(1)
        });
    }
}

#[test]
fn a_registrar_reinstates_in_every_mode() {
    for mode in MODES {
        let mut world = World::with_workers(1);
        world.by(Who::Guardian).suspend_worker(1).unwrap();
        world.set_mode(mode);
        for who in all_but(&[Who::Registrar]) {
            world.refused(Error::MissingRole, who, |contract| {
                contract.reinstate_worker(1)
            });
        }

        let (result, events) =
            world.events_of(Who::Registrar, |contract| contract.reinstate_worker(1));

        assert_eq!(result, Ok(()));
        assert!(world.read().is_trusted(1));
        assert_events!(events, [WorkerReinstated { worker: 1 }]);
    }
}

#[test]
fn a_registrar_revokes_in_every_mode_and_for_ever() {
    for mode in MODES {
        for suspended in [false, true] {
            let mut world = World::with_workers(1);
            if suspended {
                world.by(Who::Registrar).suspend_worker(1).unwrap();
            }
            world.set_mode(mode);
            for who in all_but(&[Who::Registrar]) {
                world.refused(Error::MissingRole, who, |contract| {
                    contract.revoke_worker(1, [7; 32])
                });
            }

            let (result, events) = world.events_of(Who::Registrar, |contract| {
                contract.revoke_worker(1, [7; 32])
            });

            assert_eq!(result, Ok(()));
            assert!(!world.read().is_trusted(1));
            assert_events!(
                events,
                [WorkerRevoked {
                    worker: 1,
                    reason: [7; 32]
                }]
            );
            let refused = |world: &mut World, message: fn(&mut _) -> Result<()>| {
                world.refused(Error::WorkerRevoked, Who::Registrar, message);
            };
            refused(&mut world, |contract: &mut crate::PhalaJobProcessor| {
                contract.revoke_worker(1, [7; 32])
            });
            refused(&mut world, |contract| contract.suspend_worker(1));
            refused(&mut world, |contract| contract.reinstate_worker(1));
        }
    }
}

#[test]
fn a_status_changes_only_from_the_other_one() {
    let mut world = World::with_workers(1);
    world.refused(Error::WrongStatus, Who::Registrar, |contract| {
        contract.reinstate_worker(1)
    });
    world.by(Who::Registrar).suspend_worker(1).unwrap();
    for who in [Who::Registrar, Who::Guardian] {
        world.refused(Error::WrongStatus, who, |contract| {
            contract.suspend_worker(1)
        });
    }
}

#[test]
fn a_worker_that_does_not_exist_has_no_status() {
    let mut world = World::with_workers(1);
    for worker in [0, 2, u32::MAX] {
        world.refused(Error::WorkerNotFound, Who::Registrar, |contract| {
            contract.suspend_worker(worker)
        });
        world.refused(Error::WorkerNotFound, Who::Registrar, |contract| {
            contract.reinstate_worker(worker)
        });
        world.refused(Error::WorkerNotFound, Who::Registrar, |contract| {
            contract.revoke_worker(worker, [1; 32])
        });
        assert!(!world.read().is_trusted(worker));
    }
}

#[test]
fn a_measurement_is_allowed_and_revoked_by_a_registrar_in_every_mode() {
    for mode in MODES {
        let mut world = World::with_workers(2);
        world.set_mode(mode);
        for who in all_but(&[Who::Registrar]) {
            world.refused(Error::MissingRole, who, |contract| {
                contract.allow_measurement(OTHER_MEASUREMENT)
            });
            world.refused(Error::MissingRole, who, |contract| {
                contract.revoke_measurement(MEASUREMENT)
            });
        }

        let (result, events) = world.events_of(Who::Registrar, |contract| {
            contract.allow_measurement(OTHER_MEASUREMENT)
        });
        assert_eq!(result, Ok(()));
        assert!(world.read().has_measurement(OTHER_MEASUREMENT));
        assert_events!(
            events,
            [MeasurementAllowed {
                measurement: OTHER_MEASUREMENT
            }]
        );

        assert!(world.read().is_trusted(1) && world.read().is_trusted(2));
        let (result, events) = world.events_of(Who::Registrar, |contract| {
            contract.revoke_measurement(MEASUREMENT)
        });
        assert_eq!(result, Ok(()));
        assert!(!world.read().has_measurement(MEASUREMENT));
        assert!(!world.read().is_trusted(1) && !world.read().is_trusted(2));
        assert_events!(
            events,
            [MeasurementRevoked {
                measurement: MEASUREMENT
            }]
        );
    }
}

#[test]
fn revoking_one_measurement_leaves_workers_with_another_trusted() {
    let mut world = World::with_workers(1);
    world
        .by(Who::Registrar)
        .allow_measurement(OTHER_MEASUREMENT)
        .unwrap();
    let mut registration = world.registration(2);
    registration.measurement = OTHER_MEASUREMENT;
    let possession = World::possession(&registration).signature(&World::key(2));
    world
        .by(Who::Registrar)
        .register_worker(registration, possession)
        .unwrap();

    world
        .by(Who::Registrar)
        .revoke_measurement(MEASUREMENT)
        .unwrap();

    assert!(!world.read().is_trusted(1));
    assert!(world.read().is_trusted(2));
}

#[test]
fn revoking_a_measurement_is_final() {
    let mut world = World::new();
    for measurement in [MEASUREMENT, OTHER_MEASUREMENT] {
        // The second was never allowed: it is banned all the same.
        world
            .by(Who::Registrar)
            .revoke_measurement(measurement)
            .unwrap();
        world.refused(Error::MeasurementNotAllowed, Who::Registrar, |contract| {
            contract.allow_measurement(measurement)
        });
    }
}

#[test]
fn allowing_and_revoking_twice_changes_nothing() {
    let mut world = World::new();
    let before = world.state();
    let (result, events) = world.events_of(Who::Registrar, |contract| {
        contract.allow_measurement(MEASUREMENT)
    });
    assert_eq!((result, events.len()), (Ok(()), 0));
    assert_eq!(world.state(), before);

    world
        .by(Who::Registrar)
        .revoke_measurement(MEASUREMENT)
        .unwrap();
    let before = world.state();
    let (result, events) = world.events_of(Who::Registrar, |contract| {
        contract.revoke_measurement(MEASUREMENT)
    });
    assert_eq!((result, events.len()), (Ok(()), 0));
    assert_eq!(world.state(), before);
}

#[test]
fn the_counter_of_revocations_does_not_wrap() {
    let mut world = World::new();
    world.contract.workers.revocations = u32::MAX;

    world.refused(Error::Overflow, Who::Registrar, |contract| {
        contract.revoke_measurement(MEASUREMENT)
    });
}
