//! A job's life as a property: random actions on the contract and on the reference model give the
//! same answers and the same state, and a refused action changes nothing.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use crate::errors::Result;
use crate::job_row::JobRow;
use crate::parameters::Parameters;
use crate::rate::Account;
use crate::types::{
    Completion, JobOptions, JobStatus, Mode, Outcome, Payload, Signature, WorkerStatus,
};

use super::life_model::{Flaw, Model, Sent, Worker};
use super::reference::Attempt;
use super::world::{
    record, Who, World, EVERYBODY, MEASUREMENT, OTHER_MEASUREMENT, REPLY_KEY, START,
};

const SKEW: u64 = 1_000;
const AGE: u64 = 20_000;

fn parameters() -> Parameters {
    Parameters {
        min_ttl: 10_000,
        max_ttl: 100_000,
        rate_limit: 4,
        rate_window: 50_000,
        max_attestation_age: AGE,
        max_clock_skew: SKEW,
        mark_grace: 60_000,
        ..Parameters::default()
    }
}

#[derive(Clone, Debug)]
enum Action {
    Wait(u64),
    Submit(Who, Vec<u32>, u64),
    Record(Sent),
    Complete(Who, Vec<Sent>),
    Mark(Who, u128),
    Cancel(Who, u128),
    Expire(Who, u128),
    Purge(Who, u128),
    Release(Who),
    SetStatus(u32, WorkerStatus),
    RevokeMeasurement(u8),
    SetMode(Who, Mode),
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        6 => Just(Who::Owner),
        2 => Just(Who::OtherOwner),
        2 => Just(Who::Operator),
        1 => select(EVERYBODY.to_vec()),
    ]
}

fn job() -> impl Strategy<Value = u128> {
    prop_oneof![8 => 1_u128..6, 1 => Just(0), 1 => 6_u128..9]
}

fn sent() -> impl Strategy<Value = Sent> {
    let flaw = prop_oneof![
        12 => Just(Flaw::None),
        4 => select(vec![
            Flaw::SignedOtherwise,
            Flaw::OtherScheme,
            Flaw::EmptyResult,
            Flaw::Inverted,
            Flaw::BeforeJob,
            Flaw::FromFuture,
            Flaw::TooOld,
        ]),
    ];
    let outcome = prop_oneof![2 => Just(Outcome::Completed), 1 => Just(Outcome::Failed)];
    (job(), 1_u32..5, outcome, 1_u8..3, flaw).prop_map(|(job, worker, outcome, result, flaw)| {
        Sent {
            job,
            worker,
            outcome,
            result,
            flaw,
        }
    })
}

fn action() -> impl Strategy<Value = Action> {
    let workers = prop_oneof![
        6 => Just(vec![1, 2]),
        3 => Just(vec![3]),
        3 => Just(vec![3, 1, 2]),
        2 => prop::collection::vec(1_u32..5, 0..6),
    ];
    let ttl = select(vec![9_999, 10_000, 50_000, 50_000, 100_000, 100_001]);
    let mode = select(vec![
        Mode::Running,
        Mode::Running,
        Mode::Draining,
        Mode::Halted,
    ]);
    let status = select(vec![
        WorkerStatus::Active,
        WorkerStatus::Active,
        WorkerStatus::Suspended,
        WorkerStatus::Revoked,
    ]);
    prop_oneof![
        4 => select(vec![1, 1_000, 10_000, 30_001, 61_000]).prop_map(Action::Wait),
        8 => (who(), workers, ttl).prop_map(|(who, ids, ttl)| Action::Submit(who, ids, ttl)),
        12 => sent().prop_map(Action::Record),
        4 => (who(), prop::collection::vec(sent(), 0..4))
            .prop_map(|(who, items)| Action::Complete(who, items)),
        6 => (who(), job()).prop_map(|(who, job)| Action::Mark(who, job)),
        4 => (who(), job()).prop_map(|(who, job)| Action::Cancel(who, job)),
        4 => (who(), job()).prop_map(|(who, job)| Action::Expire(who, job)),
        5 => (who(), job()).prop_map(|(who, job)| Action::Purge(who, job)),
        1 => who().prop_map(Action::Release),
        2 => (1_u32..5, status).prop_map(|(worker, status)| Action::SetStatus(worker, status)),
        1 => select(vec![0x4d, 0x4e, 0x4e]).prop_map(Action::RevokeMeasurement),
        2 => (select(vec![Who::Admin, Who::Admin, Who::Guardian, Who::Stranger]), mode)
            .prop_map(|(who, mode)| Action::SetMode(who, mode)),
    ]
}

/// The contract and the model, with workers 1 and 2 of one measurement, 3 of another.
fn start() -> (World, Model) {
    let mut world = World::with_parameters(parameters());
    world
        .by(Who::Registrar)
        .allow_measurement(OTHER_MEASUREMENT)
        .unwrap();
    let mut model = Model {
        now: START,
        mode: Mode::Running,
        parameters: parameters(),
        workers: Default::default(),
        revoked: BTreeSet::new(),
        counter: 0,
        jobs: Default::default(),
        accounts: Default::default(),
    };
    for (seed, measurement, validity) in [
        (1, MEASUREMENT, 10_000_000),
        (2, MEASUREMENT, 90_000),
        (3, OTHER_MEASUREMENT, 10_000_000),
    ] {
        let mut registration = world.registration(seed);
        registration.measurement = measurement;
        registration.valid_until = START + validity;
        let possession = World::possession(&registration).signature(&World::key(seed));
        let worker = world
            .by(Who::Registrar)
            .register_worker(registration, possession)
            .unwrap();
        let expected = Worker {
            status: WorkerStatus::Active,
            valid_until: START + validity,
            measurement: measurement[0],
        };
        model.workers.insert(worker, expected);
    }
    (world, model)
}

/// What a carrier sends; flaws are made so that, by the clock, they are the only ones.
fn completion(world: &World, model: &Model, sent: Sent) -> Completion {
    let seed = sent.worker as u8;
    let created = model.jobs.get(&sent.job).map_or(START, |job| job.created);
    let now = world.now;
    let mut attempt = Attempt {
        outcome: sent.outcome,
        result_hash: [sent.result; 32],
        units: u64::from(sent.result),
        measurement: match sent.worker {
            3 => OTHER_MEASUREMENT,
            _ => MEASUREMENT,
        },
        ..world.attempt(sent.job, seed)
    };
    match sent.flaw {
        Flaw::None | Flaw::SignedOtherwise | Flaw::OtherScheme => {}
        Flaw::EmptyResult => attempt.result_hash = [0; 32],
        Flaw::Inverted => attempt.finished_at = now - 1,
        Flaw::BeforeJob => attempt.started_at = created - SKEW - 1,
        Flaw::FromFuture => attempt.issued_at = now + SKEW + 1,
        Flaw::TooOld => {
            attempt.issued_at = now - AGE - 1;
            attempt.finished_at = attempt.issued_at;
            attempt.started_at = attempt.issued_at;
        }
    }
    let mut completion = attempt.completion();
    match sent.flaw {
        Flaw::SignedOtherwise => {
            attempt.units += 1;
            completion.attestation_proof.signature = attempt.signature();
        }
        Flaw::OtherScheme => {
            completion.attestation_proof.signature = match attempt.signature() {
                Signature::Ecdsa(_) => Signature::Sr25519([1; 64]),
                Signature::Sr25519(_) => Signature::Ecdsa([1; 65]),
            };
        }
        _ => {}
    }
    completion
}

/// A statement is too old for a young job only if it is older than the job, which row 10 finds
/// first; then the model has to know.
fn as_seen(model: &Model, sent: Sent, now: u64) -> Sent {
    let created = model.jobs.get(&sent.job).map(|job| job.created);
    match (sent.flaw, created) {
        (Flaw::TooOld, Some(created)) if now - AGE - 1 < created - SKEW => Sent {
            flaw: Flaw::BeforeJob,
            ..sent
        },
        _ => sent,
    }
}

/// Plays the action on both. The answers are made alike: values are compared with the state.
fn play(world: &mut World, model: &mut Model, action: &Action) {
    let before = world.state();
    let (answer, expected): (Result<()>, Result<()>) = match action.clone() {
        Action::Wait(time) => {
            world.now += time;
            model.now += time;
            (Ok(()), Ok(()))
        }
        Action::Submit(owner, workers, ttl) => {
            let payload = vec![1; 1 + world.contract.jobs.counter as usize];
            let options = JobOptions {
                workers: workers.clone(),
                ttl,
            };
            let contract = world.by(owner);
            let answer = contract.submit_confidential_job(payload, REPLY_KEY, options);
            let expected = model.submit(owner, &workers, ttl);
            assert_eq!(answer, expected.map(|()| model.counter));
            (answer.map(drop), expected)
        }
        Action::Record(sent) => {
            let completion = completion(world, model, sent);
            let sent = as_seen(model, sent, world.now);
            (
                record(world.by(Who::Stranger), completion),
                model.record(sent),
            )
        }
        Action::Complete(who, items) => {
            let completions = items
                .iter()
                .map(|sent| completion(world, model, *sent))
                .collect();
            let items: Vec<_> = items
                .iter()
                .map(|sent| as_seen(model, *sent, world.now))
                .collect();
            let answer = world.by(who).complete_jobs(completions);
            let expected = model.complete(who, &items);
            assert_eq!(answer, expected);
            // All items refused is as good as a refused message.
            let alike = |answers: Result<Vec<Result<()>>>| {
                answers.and_then(|items| {
                    items
                        .iter()
                        .find(|item| item.is_ok())
                        .or(items.first())
                        .copied()
                        .unwrap_or(Ok(()))
                })
            };
            (alike(answer), alike(expected))
        }
        Action::Mark(who, job) => (world.by(who).mark_job_processed(job), model.mark(who, job)),
        Action::Cancel(who, job) => (world.by(who).cancel_job(job), model.cancel(who, job)),
        Action::Expire(who, job) => (world.by(who).expire_job(job), model.expire(job)),
        Action::Purge(who, job) => (world.by(who).purge_job(job), model.purge(who, job)),
        Action::Release(who) => (world.by(who).release_account(), model.release(who)),
        Action::SetStatus(worker, status) => {
            let registrar = world.by(Who::Registrar);
            let answer = match status {
                WorkerStatus::Active => registrar.reinstate_worker(worker),
                WorkerStatus::Suspended => registrar.suspend_worker(worker),
                WorkerStatus::Revoked => registrar.revoke_worker(worker, [1; 32]),
            };
            (answer, model.set_status(worker, status))
        }
        Action::RevokeMeasurement(byte) => {
            model.revoked.insert(byte);
            let answer = world.by(Who::Registrar).revoke_measurement([byte; 32]);
            (answer, Ok(()))
        }
        Action::SetMode(who, mode) => (world.by(who).set_mode(mode), model.set_mode(who, mode)),
    };
    assert_eq!(answer, expected, "{action:?}");
    if answer.is_err() {
        assert_eq!(world.state(), before, "{action:?} was refused");
    }
}

/// Compares all that the contract tells with the model.
fn compare(world: &World, model: &Model) {
    let contract = world.read();
    assert_eq!(contract.mode(), model.mode);
    assert_eq!(contract.get_job_counter(), model.counter);
    for worker in 1..=4 {
        assert_eq!(contract.is_trusted(worker), model.trusted(worker));
    }
    for who in EVERYBODY {
        let expected = model.accounts.get(&(who as u8));
        let expected = expected.map(|&(live_jobs, window_start, used)| Account {
            live_jobs,
            window_start,
            used,
        });
        assert_eq!(world.account(who), expected);
    }
    let heads = contract.jobs_page(1, 50).unwrap().items;
    let listed: Vec<_> = heads.iter().map(|head| head.job_id).collect();
    assert_eq!(listed, model.jobs.keys().copied().collect::<Vec<_>>());
    for job_id in 0..=model.counter + 1 {
        assert_eq!(
            contract.attestation_status(job_id),
            model.attestation_status(job_id)
        );
        let Some(expected) = model.jobs.get(&job_id) else {
            assert_eq!(contract.get_job(job_id), None);
            assert_eq!(world.row_length(job_id), None);
            continue;
        };
        let job = world.job(job_id);
        assert_eq!(job.owner, expected.owner.id());
        assert_eq!(job.status, expected.status);
        assert_eq!(job.processed, expected.status == JobStatus::Processed);
        assert_eq!(job.processed_at, expected.processed_at);
        assert_eq!(job.created_at, expected.created);
        assert_eq!(job.deadline, expected.deadline);
        assert_eq!(job.workers, expected.workers);
        let failures: Vec<_> = job
            .failures
            .iter()
            .map(|failure| (failure.worker, failure.result_hash[0], failure.timestamp))
            .collect();
        assert_eq!(failures, expected.failures);
        let attestation = contract.get_attestation(job_id);
        assert_eq!(
            attestation.map(|found| (found.worker, found.result_hash[0], found.timestamp)),
            expected.attestation
        );
        let Payload::Inline(payload) = job.encrypted_payload else {
            panic!("the model submits no references");
        };
        let length = 2 + JobRow::packed_length(expected.workers.len()) + payload.len();
        assert_eq!(world.row_length(job_id), Some(length as u32));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_contract_does_what_the_model_does(
        actions in prop::collection::vec(action(), 1..80)
    ) {
        let (mut world, mut model) = start();
        for action in &actions {
            play(&mut world, &mut model, action);
            compare(&world, &model);
        }
    }
}

/// The random actions are worth something only if they get somewhere.
#[test]
fn random_actions_reach_every_status_and_most_errors() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let plan = prop::collection::vec(action(), 1..80);
    let (mut statuses, mut errors) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..300 {
        let actions = plan.new_tree(&mut runner).unwrap().current();
        let (_, mut model) = start();
        for action in actions {
            if let Err(error) = model_only(&mut model, action) {
                errors.insert(format!("{error:?}"));
            }
            statuses.extend(model.jobs.values().map(|job| format!("{:?}", job.status)));
        }
    }

    assert_eq!(statuses.len(), 6, "{statuses:?}");
    assert!(errors.len() >= 26, "{} of them: {errors:?}", errors.len());
}

fn model_only(model: &mut Model, action: Action) -> Result<()> {
    match action {
        Action::Wait(time) => {
            model.now += time;
            Ok(())
        }
        Action::Submit(owner, workers, ttl) => model.submit(owner, &workers, ttl),
        Action::Record(sent) => model.record(as_seen(model, sent, model.now)),
        Action::Complete(who, items) => {
            let items: Vec<_> = items
                .iter()
                .map(|sent| as_seen(model, *sent, model.now))
                .collect();
            model.complete(who, &items).map(drop)
        }
        Action::Mark(who, job) => model.mark(who, job),
        Action::Cancel(who, job) => model.cancel(who, job),
        Action::Expire(_, job) => model.expire(job),
        Action::Purge(who, job) => model.purge(who, job),
        Action::Release(who) => model.release(who),
        Action::SetStatus(worker, status) => model.set_status(worker, status),
        Action::RevokeMeasurement(byte) => {
            model.revoked.insert(byte);
            Ok(())
        }
        Action::SetMode(who, mode) => model.set_mode(who, mode),
    }
}
