//! The limits' defaults and bounds.

use crate::assert_events;
use crate::errors::Error;
use crate::events::ParametersChanged;
use crate::parameters::Parameters;
use crate::types::Mode;
use crate::PhalaJobProcessor;

use super::world::{all_but, Who, World, GENESIS};

type Change = fn(&mut Parameters);

/// One change for each end of each bound of protocol 2.4, just inside.
const INSIDE: [Change; 20] = [
    |p| p.max_payload = 256,
    |p| p.max_payload = 12_288,
    |p| p.max_reference = 1,
    |p| p.max_reference = 1 << 40,
    |p| p.min_ttl = 10_000,
    |p| p.min_ttl = p.max_ttl,
    |p| p.max_ttl = p.min_ttl,
    |p| p.max_ttl = 30 * 86_400_000,
    |p| p.rate_limit = 1,
    |p| p.rate_limit = 1_000_000,
    |p| p.rate_window = 1_000,
    |p| p.rate_window = 86_400_000,
    |p| p.max_attestation_age = 1_000,
    |p| p.max_attestation_age = 86_400_000,
    |p| p.max_clock_skew = 0,
    |p| p.max_clock_skew = 600_000,
    |p| p.max_registration = 3_600_000,
    |p| p.max_registration = 365 * 86_400_000,
    |p| p.mark_grace = 60_000,
    |p| p.mark_grace = 7 * 86_400_000,
];

/// The same, just outside.
const OUTSIDE: [Change; 21] = [
    |p| p.max_payload = 255,
    |p| p.max_payload = 12_289,
    |p| p.max_reference = 0,
    |p| p.max_reference = (1 << 40) + 1,
    |p| p.min_ttl = 9_999,
    |p| p.min_ttl = p.max_ttl + 1,
    |p| p.max_ttl = p.min_ttl - 1,
    |p| p.max_ttl = 30 * 86_400_000 + 1,
    |p| p.rate_limit = 0,
    |p| p.rate_limit = 1_000_001,
    |p| p.rate_window = 999,
    |p| p.rate_window = 86_400_001,
    |p| p.max_attestation_age = 999,
    |p| p.max_attestation_age = 86_400_001,
    |p| p.max_clock_skew = 600_001,
    |p| p.max_clock_skew = u64::MAX,
    |p| p.max_registration = 3_599_999,
    |p| p.max_registration = 365 * 86_400_000 + 1,
    |p| p.mark_grace = 59_999,
    |p| p.mark_grace = 7 * 86_400_000 + 1,
    |p| {
        p.min_ttl = 30 * 86_400_000 + 1;
        p.max_ttl = p.min_ttl;
    },
];

fn changed(change: Change) -> Parameters {
    let mut parameters = Parameters::default();
    change(&mut parameters);
    parameters
}

#[test]
fn the_defaults_are_those_of_the_protocol() {
    assert_eq!(
        Parameters::default(),
        Parameters {
            max_payload: 8_192,
            max_reference: 1 << 30,
            min_ttl: 60_000,
            max_ttl: 7 * 86_400_000,
            rate_limit: 60,
            rate_window: 3_600_000,
            max_attestation_age: 600_000,
            max_clock_skew: 60_000,
            max_registration: 30 * 86_400_000,
            mark_grace: 3_600_000,
        }
    );
}

#[test]
fn limits_inside_their_bounds_are_set_in_every_mode() {
    let mut world = World::new();
    for mode in [Mode::Running, Mode::Draining, Mode::Halted] {
        world.set_mode(mode);
        for change in INSIDE {
            let parameters = changed(change);
            let (result, events) = world.events_of(Who::Admin, |contract| {
                contract.set_parameters(parameters.clone())
            });
            assert_eq!(result, Ok(()));
            assert_eq!(world.read().parameters(), parameters);
            assert_events!(
                events,
                [ParametersChanged {
                    parameters: parameters.clone()
                }]
            );
        }
    }
}

#[test]
fn limits_outside_their_bounds_are_refused() {
    let mut world = World::new();
    for change in OUTSIDE {
        world.refused(Error::ParameterOutOfRange, Who::Admin, |contract| {
            contract.set_parameters(changed(change))
        });
    }
}

#[test]
fn a_contract_is_not_deployed_with_limits_outside_their_bounds() {
    let _engine_with_a_caller = World::new();
    for change in OUTSIDE {
        let result = PhalaJobProcessor::new(GENESIS, changed(change));
        assert_eq!(result.err(), Some(Error::ParameterOutOfRange));
    }
    for change in INSIDE {
        assert!(PhalaJobProcessor::new(GENESIS, changed(change)).is_ok());
    }
}

#[test]
fn only_the_admin_sets_limits() {
    let mut world = World::new();
    for who in all_but(&[Who::Admin]) {
        world.refused(Error::NotAdmin, who, |contract| {
            contract.set_parameters(Parameters::default())
        });
    }
}
