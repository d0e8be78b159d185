//! Admin, roles, mode and code.

use crate::assert_events;
use crate::errors::Error;
use crate::events::{AdminChanged, AdminProposed, ModeChanged, RoleGranted, RoleRevoked};
use crate::types::{Mode, Role};

use super::world::{all_but, Who, World, EVERYBODY, ROLES};

const MODES: [Mode; 3] = [Mode::Running, Mode::Draining, Mode::Halted];

#[test]
fn the_deployer_is_admin_and_has_no_role() {
    let world = World::new();

    assert_eq!(world.read().admin(), Who::Admin.id());
    assert_eq!(world.read().mode(), Mode::Running);
    for role in ROLES {
        assert!(!world.read().has_role(Who::Admin.id(), role));
    }
}

#[test]
fn only_the_admin_grants_and_revokes_roles() {
    let mut world = World::new();
    for who in all_but(&[Who::Admin]) {
        for role in ROLES {
            world.refused(Error::NotAdmin, who, |contract| {
                contract.grant_role(Who::Stranger.id(), role)
            });
            world.refused(Error::NotAdmin, who, |contract| {
                contract.revoke_role(Who::Registrar.id(), role)
            });
        }
    }
}

#[test]
fn a_role_is_granted_and_revoked_in_every_mode() {
    for mode in MODES {
        let mut world = World::new();
        world.set_mode(mode);
        let account = Who::Stranger.id();
        for role in ROLES {
            let (result, events) =
                world.events_of(Who::Admin, |contract| contract.grant_role(account, role));
            assert_eq!(result, Ok(()));
            assert_events!(events, [RoleGranted { account, role }]);
            assert!(world.read().has_role(account, role));

            let (result, events) =
                world.events_of(Who::Admin, |contract| contract.revoke_role(account, role));
            assert_eq!(result, Ok(()));
            assert_events!(events, [RoleRevoked { account, role }]);
            assert!(!world.read().has_role(account, role));
        }
    }
}

#[test]
fn a_role_is_one_accounts_and_not_another_role() {
    let mut world = World::new();
    world
        .by(Who::Admin)
        .grant_role(Who::Stranger.id(), Role::Operator)
        .unwrap();

    let holders = |role| {
        EVERYBODY
            .into_iter()
            .filter(|who| world.read().has_role(who.id(), role))
            .collect::<Vec<_>>()
    };
    assert_eq!(holders(Role::Operator), [Who::Operator, Who::Stranger]);
    assert_eq!(holders(Role::Registrar), [Who::Registrar]);
    assert_eq!(holders(Role::Guardian), [Who::Guardian]);
}

#[test]
fn granting_and_revoking_twice_changes_nothing() {
    let mut world = World::new();
    let before = world.state();

    let (result, events) = world.events_of(Who::Admin, |contract| {
        contract.grant_role(Who::Registrar.id(), Role::Registrar)
    });
    assert_eq!((result, events.len()), (Ok(()), 0));
    let (result, events) = world.events_of(Who::Admin, |contract| {
        contract.revoke_role(Who::Stranger.id(), Role::Guardian)
    });
    assert_eq!((result, events.len()), (Ok(()), 0));

    assert_eq!(world.state(), before);
}

#[test]
fn a_revoked_role_is_worth_nothing() {
    let mut world = World::with_job();
    world
        .by(Who::Admin)
        .revoke_role(Who::Operator.id(), Role::Operator)
        .unwrap();

    world.refused(Error::MissingRole, Who::Operator, |contract| {
        contract.complete_jobs(vec![])
    });
}

#[test]
fn the_admin_changes_in_two_steps_in_every_mode() {
    for mode in MODES {
        let mut world = World::new();
        world.set_mode(mode);

        let (result, events) = world.events_of(Who::Admin, |contract| {
            contract.propose_admin(Who::Stranger.id())
        });
        assert_eq!(result, Ok(()));
        assert_events!(
            events,
            [AdminProposed {
                proposed: Who::Stranger.id()
            }]
        );
        assert_eq!(world.read().admin(), Who::Admin.id());

        let (result, events) = world.events_of(Who::Stranger, |contract| contract.accept_admin());
        assert_eq!(result, Ok(()));
        assert_events!(
            events,
            [AdminChanged {
                previous: Who::Admin.id(),
                admin: Who::Stranger.id()
            }]
        );
        assert_eq!(world.read().admin(), Who::Stranger.id());
        world.refused(Error::NotAdmin, Who::Admin, |contract| {
            contract.propose_admin(Who::Admin.id())
        });
    }
}

#[test]
fn only_the_admin_proposes() {
    let mut world = World::new();
    for who in all_but(&[Who::Admin]) {
        world.refused(Error::NotAdmin, who, |contract| {
            contract.propose_admin(who.id())
        });
    }
}

#[test]
fn only_the_proposed_account_accepts_and_once() {
    let mut world = World::new();
    for who in EVERYBODY {
        world.refused(Error::NoPendingAdmin, who, |contract| {
            contract.accept_admin()
        });
    }
    world
        .by(Who::Admin)
        .propose_admin(Who::Stranger.id())
        .unwrap();
    for who in all_but(&[Who::Stranger]) {
        world.refused(Error::NoPendingAdmin, who, |contract| {
            contract.accept_admin()
        });
    }
    world.by(Who::Stranger).accept_admin().unwrap();
    world.refused(Error::NoPendingAdmin, Who::Stranger, |contract| {
        contract.accept_admin()
    });
}

#[test]
fn a_later_proposal_replaces_an_earlier_one() {
    let mut world = World::new();
    for proposed in [Who::Stranger, Who::Owner] {
        world.by(Who::Admin).propose_admin(proposed.id()).unwrap();
    }

    world.refused(Error::NoPendingAdmin, Who::Stranger, |contract| {
        contract.accept_admin()
    });
    assert_eq!(world.by(Who::Owner).accept_admin(), Ok(()));
}

#[test]
fn the_admin_makes_any_change_of_mode() {
    for from in MODES {
        for to in MODES.into_iter().filter(|to| *to != from) {
            let mut world = World::new();
            world.set_mode(from);

            let (result, events) = world.events_of(Who::Admin, |contract| contract.set_mode(to));

            assert_eq!(result, Ok(()));
            assert_eq!(world.read().mode(), to);
            assert_events!(events, [ModeChanged { mode: to }]);
        }
    }
}

#[test]
fn a_guardian_changes_the_mode_only_towards_halted() {
    for from in MODES {
        for to in MODES.into_iter().filter(|to| *to != from) {
            let mut world = World::new();
            world.set_mode(from);
            if to > from {
                let (result, events) =
                    world.events_of(Who::Guardian, |contract| contract.set_mode(to));
                assert_eq!(result, Ok(()));
                assert_events!(events, [ModeChanged { mode: to }]);
            } else {
                world.refused(Error::NotAdmin, Who::Guardian, |contract| {
                    contract.set_mode(to)
                });
            }
        }
    }
}

#[test]
fn nobody_else_changes_the_mode() {
    let mut world = World::new();
    for who in all_but(&[Who::Admin, Who::Guardian]) {
        for mode in MODES {
            world.refused(Error::MissingRole, who, |contract| contract.set_mode(mode));
        }
    }
}

#[test]
fn the_mode_that_is_set_already_is_no_change() {
    for mode in MODES {
        let mut world = World::new();
        world.set_mode(mode);
        for who in [Who::Admin, Who::Guardian] {
            world.refused(Error::WrongMode, who, |contract| contract.set_mode(mode));
        }
    }
}

/// That the code really changes, `CodeChanged` and `SetCodeFailed` need a chain: ink!'s engine has
/// no `set_code_hash`.
#[test]
fn only_the_admin_sets_the_code_and_only_while_halted() {
    let mut world = World::new();
    for mode in MODES {
        world.set_mode(mode);
        for who in all_but(&[Who::Admin]) {
            world.refused(Error::NotAdmin, who, |contract| contract.set_code([1; 32]));
        }
    }
    for mode in [Mode::Running, Mode::Draining] {
        world.set_mode(mode);
        world.refused(Error::WrongMode, Who::Admin, |contract| {
            contract.set_code([1; 32])
        });
    }
}
