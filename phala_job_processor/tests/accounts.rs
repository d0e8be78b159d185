//! How much an account submits, and what it leaves in storage.

use crate::errors::Error;
use crate::parameters::Parameters;
use crate::rate::Account;
use crate::types::{JobId, Mode};
use crate::PhalaJobProcessor;

use super::world::{Who, World, REPLY_KEY, START};

const WINDOW: u64 = 10_000;
const LIMIT: u32 = 3;

fn with_small_windows() -> World {
    let mut world = World::with_workers(2);
    let parameters = Parameters {
        rate_limit: LIMIT,
        rate_window: WINDOW,
        ..Parameters::default()
    };
    world.by(Who::Admin).set_parameters(parameters).unwrap();
    world
}

fn submit(contract: &mut PhalaJobProcessor) -> Result<JobId, Error> {
    contract.submit_confidential_job(b"sealed".to_vec(), REPLY_KEY, World::options(&[1]))
}

fn left(world: &World, who: Who) -> u32 {
    world.read().rate_limit_left(who.id())
}

#[test]
fn an_account_submits_up_to_the_limit_in_a_window() {
    let mut world = with_small_windows();
    for used in 0..LIMIT {
        assert_eq!(left(&world, Who::Owner), LIMIT - used);
        submit(world.by(Who::Owner)).unwrap();
        world.now += 1;
    }
    assert_eq!(left(&world, Who::Owner), 0);
    world.refused(Error::RateLimited, Who::Owner, submit);

    // The window ends with its last millisecond, counted from the first submit.
    world.now = START + WINDOW;
    world.refused(Error::RateLimited, Who::Owner, submit);
    world.now += 1;
    assert_eq!(left(&world, Who::Owner), LIMIT);
    submit(world.by(Who::Owner)).unwrap();
    assert_eq!(
        world.account(Who::Owner),
        Some(Account {
            live_jobs: LIMIT + 1,
            window_start: START + WINDOW + 1,
            used: 1
        })
    );
}

#[test]
fn the_limit_covers_references_too() {
    let mut world = with_small_windows();
    for _ in 0..LIMIT {
        submit(world.by(Who::Owner)).unwrap();
    }
    world.refused(Error::RateLimited, Who::Owner, |contract| {
        contract.submit_job_reference([1; 32], 1, vec![], REPLY_KEY, World::options(&[1]))
    });
}

#[test]
fn a_window_starts_at_the_first_submit_after_the_last_one_ended() {
    let mut world = with_small_windows();
    submit(world.by(Who::Owner)).unwrap();
    world.now += 5 * WINDOW;
    submit(world.by(Who::Owner)).unwrap();

    let cell = world.account(Who::Owner).unwrap();
    assert_eq!((cell.window_start, cell.used), (world.now, 1));
}

#[test]
fn one_account_does_not_use_up_anothers_window() {
    let mut world = with_small_windows();
    for _ in 0..LIMIT {
        submit(world.by(Who::Owner)).unwrap();
    }

    assert_eq!(left(&world, Who::OtherOwner), LIMIT);
    assert!(submit(world.by(Who::OtherOwner)).is_ok());
}

#[test]
fn cancelling_and_purging_give_nothing_back() {
    let mut world = with_small_windows();
    for job_id in 1..=LIMIT.into() {
        submit(world.by(Who::Owner)).unwrap();
        world.by(Who::Owner).cancel_job(job_id).unwrap();
        world.by(Who::Owner).purge_job(job_id).unwrap();
    }

    assert_eq!(left(&world, Who::Owner), 0);
    world.refused(Error::RateLimited, Who::Owner, submit);
}

#[test]
fn a_lowered_limit_counts_at_once() {
    let mut world = with_small_windows();
    submit(world.by(Who::Owner)).unwrap();
    submit(world.by(Who::Owner)).unwrap();
    let parameters = Parameters {
        rate_limit: 1,
        ..world.read().parameters()
    };
    world.by(Who::Admin).set_parameters(parameters).unwrap();

    assert_eq!(left(&world, Who::Owner), 0);
    world.refused(Error::RateLimited, Who::Owner, submit);
}

#[test]
fn a_cell_is_released_by_its_account_alone_when_nothing_needs_it() {
    let mut world = with_small_windows();
    submit(world.by(Who::Owner)).unwrap();
    world.by(Who::Owner).cancel_job(1).unwrap();
    let release = |contract: &mut PhalaJobProcessor| contract.release_account();

    // A live job keeps it, also after the window.
    world.now = START + WINDOW + 1;
    world.refused(Error::AccountInUse, Who::Owner, release);

    // A window that is not over keeps it, also without live jobs.
    world.now = START + WINDOW;
    world.by(Who::Owner).purge_job(1).unwrap();
    world.refused(Error::AccountInUse, Who::Owner, release);

    // Somebody else's release does nothing to it.
    world.now += 1;
    let before = world.state();
    assert_eq!(world.by(Who::Stranger).release_account(), Ok(()));
    assert_eq!(world.state(), before);

    assert_eq!(world.by(Who::Owner).release_account(), Ok(()));
    assert_eq!(world.account(Who::Owner), None);
    assert_eq!(world.by(Who::Owner).release_account(), Ok(()));
}

#[test]
fn a_cell_is_released_in_every_mode() {
    for mode in [Mode::Running, Mode::Draining, Mode::Halted] {
        let mut world = with_small_windows();
        submit(world.by(Who::Owner)).unwrap();
        world.by(Who::Owner).cancel_job(1).unwrap();
        world.by(Who::Owner).purge_job(1).unwrap();
        world.now = START + WINDOW + 1;
        world.set_mode(mode);

        assert_eq!(world.by(Who::Owner).release_account(), Ok(()));
        assert_eq!(world.account(Who::Owner), None);
    }
}

#[test]
fn the_last_purge_releases_the_cell_by_itself() {
    let mut world = with_small_windows();
    for job_id in [1, 2] {
        submit(world.by(Who::Owner)).unwrap();
        world.by(Who::Owner).cancel_job(job_id).unwrap();
    }
    world.now = START + WINDOW + 1;
    world.by(Who::Owner).purge_job(1).unwrap();
    assert_eq!(world.account(Who::Owner).unwrap().live_jobs, 1);

    world.by(Who::Owner).purge_job(2).unwrap();

    assert_eq!(world.account(Who::Owner), None);
}
