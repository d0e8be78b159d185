//! A deployed contract with its people, its workers and a clock, and its whole state to compare.

use std::fmt::Debug;
use std::sync::OnceLock;

use ink::env::test;
use ink::env::DefaultEnvironment;
use ink::primitives::AccountId;
use ink::scale::Decode;
use ink::storage::traits::Storable;

use crate::errors::{Error, Result};
use crate::job_row::JobRow;
use crate::parameters::Parameters;
use crate::rate::Account;
use crate::types::{
    AttestationStatus, Completion, ConfidentialJob, JobId, JobOptions, JobStatus, Mode, Outcome,
    PublicKey, Role, Signature, Worker, WorkerId, WorkerRegistration,
};
use crate::workers::MeasurementStatus;
use crate::PhalaJobProcessor;

use super::keys::Key;
use super::reference::{blake2_256, bytes_of, Attempt, Possession};

pub const GENESIS: [u8; 32] = [0x6e; 32];
pub const CONTRACT: [u8; 32] = [0xcc; 32];
pub const START: u64 = 1_793_000_000_000;
pub const MEASUREMENT: [u8; 32] = [0x4d; 32];
pub const OTHER_MEASUREMENT: [u8; 32] = [0x4e; 32];
pub const REPLY_KEY: [u8; 32] = [0x2a; 32];
pub const RESULT: [u8; 32] = [0x33; 32];
pub const TTL: u64 = 3_600_000;
pub const DAY: u64 = 86_400_000;

/// The people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Admin,
    Registrar,
    Operator,
    Guardian,
    Owner,
    OtherOwner,
    Stranger,
}

pub const EVERYBODY: [Who; 7] = [
    Who::Admin,
    Who::Registrar,
    Who::Operator,
    Who::Guardian,
    Who::Owner,
    Who::OtherOwner,
    Who::Stranger,
];

pub const ROLES: [Role; 3] = [Role::Registrar, Role::Operator, Role::Guardian];

impl Who {
    pub fn id(self) -> AccountId {
        AccountId::from([0xa0 + self as u8; 32])
    }
}

/// Everybody but those named.
pub fn all_but(named: &[Who]) -> impl Iterator<Item = Who> + '_ {
    EVERYBODY.into_iter().filter(|who| !named.contains(who))
}

/// Everything that the contract has in storage, as far as the tests can have put it there; `cells`
/// counts what they did not think of.
#[derive(Debug, PartialEq)]
pub struct State {
    root: Vec<u8>,
    cells: usize,
    proposed_admin: Option<AccountId>,
    roles: Vec<bool>,
    measurements: Vec<Option<MeasurementStatus>>,
    workers: Vec<Option<Worker>>,
    keys: Vec<Option<WorkerId>>,
    encryption_keys: Vec<bool>,
    accounts: Vec<Option<Account>>,
    rows: Vec<Option<(JobRow, u32)>>,
}

pub struct World {
    pub contract: PhalaJobProcessor,
    pub now: u64,
}

impl World {
    /// A contract with roles given and a measurement allowed, and nothing else.
    pub fn new() -> Self {
        Self::with_parameters(Parameters::default())
    }

    pub fn with_parameters(parameters: Parameters) -> Self {
        reset_engine();
        test::set_caller::<DefaultEnvironment>(Who::Admin.id());
        let contract = PhalaJobProcessor::new(GENESIS, parameters).unwrap();
        let mut world = Self {
            contract,
            now: START,
        };
        for (who, role) in [
            (Who::Registrar, Role::Registrar),
            (Who::Operator, Role::Operator),
            (Who::Guardian, Role::Guardian),
        ] {
            world.by(Who::Admin).grant_role(who.id(), role).unwrap();
        }
        world
            .by(Who::Registrar)
            .allow_measurement(MEASUREMENT)
            .unwrap();
        world
    }

    /// The same with `count` trusted workers; odd ones sign by ECDSA, even ones by sr25519.
    pub fn with_workers(count: u8) -> Self {
        let mut world = Self::new();
        for seed in 1..=count {
            world.register(seed).unwrap();
        }
        world
    }

    /// Two workers and one submitted job, number 1.
    pub fn with_job() -> Self {
        let mut world = Self::with_workers(2);
        world.submit(&[1, 2]);
        world
    }

    /// The same, attested by worker 1.
    pub fn with_attested_job() -> Self {
        let mut world = Self::with_job();
        let attempt = world.attempt(1, 1);
        world.record(&attempt).unwrap();
        world
    }

    /// The contract, called by `who` at this world's time.
    pub fn by(&mut self, who: Who) -> &mut PhalaJobProcessor {
        test::set_caller::<DefaultEnvironment>(who.id());
        test::set_block_timestamp::<DefaultEnvironment>(self.now);
        &mut self.contract
    }

    /// The contract, read at this world's time.
    pub fn read(&self) -> &PhalaJobProcessor {
        test::set_block_timestamp::<DefaultEnvironment>(self.now);
        &self.contract
    }

    pub fn key(seed: u8) -> Key {
        if seed % 2 == 1 {
            Key::ecdsa(seed)
        } else {
            Key::sr25519(seed)
        }
    }

    pub fn registration(&self, seed: u8) -> WorkerRegistration {
        WorkerRegistration {
            signing_key: Self::key(seed).public_key(),
            encryption_key: [0xe0 + seed; 32],
            measurement: MEASUREMENT,
            evidence_hash: [0xf0; 32],
            endpoint: b"https://worker.example:8443".to_vec(),
            valid_until: self.now + DAY,
        }
    }

    /// What the worker itself signs about `registration`.
    pub fn possession(registration: &WorkerRegistration) -> Possession {
        Possession {
            genesis_hash: GENESIS,
            contract: CONTRACT,
            encryption_key: registration.encryption_key,
            measurement: registration.measurement,
            evidence_hash: registration.evidence_hash,
            valid_until: registration.valid_until,
        }
    }

    pub fn register(&mut self, seed: u8) -> Result<WorkerId> {
        let registration = self.registration(seed);
        let possession = Self::possession(&registration).signature(&Self::key(seed));
        self.by(Who::Registrar)
            .register_worker(registration, possession)
    }

    /// A good possession signature for renewing the worker that was registered with `seed`.
    pub fn renewal(&self, seed: u8, evidence_hash: [u8; 32], valid_until: u64) -> Signature {
        let worker = self.read().get_worker(seed.into()).unwrap();
        Possession {
            genesis_hash: GENESIS,
            contract: CONTRACT,
            encryption_key: worker.encryption_key,
            measurement: worker.measurement,
            evidence_hash,
            valid_until,
        }
        .signature(&Self::key(seed))
    }

    pub fn options(workers: &[WorkerId]) -> JobOptions {
        JobOptions {
            workers: workers.to_vec(),
            ttl: TTL,
        }
    }

    /// A job of the owner with a payload of its own.
    pub fn submit(&mut self, workers: &[WorkerId]) -> JobId {
        let payload = format!("sealed {}", self.contract.get_job_counter()).into_bytes();
        self.by(Who::Owner)
            .submit_confidential_job(payload, REPLY_KEY, Self::options(workers))
            .unwrap()
    }

    pub fn job(&self, job_id: JobId) -> ConfidentialJob {
        self.read().get_job(job_id).unwrap()
    }

    pub fn status(&self, job_id: JobId) -> JobStatus {
        self.job(job_id).status
    }

    pub fn attestation_status(&self, job_id: JobId) -> AttestationStatus {
        self.read().attestation_status(job_id)
    }

    /// A statement of this worker about this job with which nothing is wrong.
    pub fn attempt(&self, job_id: JobId, worker: u8) -> Attempt {
        Attempt {
            key: Self::key(worker),
            genesis_hash: GENESIS,
            contract: CONTRACT,
            job_id,
            payload_hash: self
                .read()
                .get_job(job_id)
                .map_or_else(|| blake2_256(b""), |job| job.payload_hash),
            outcome: Outcome::Completed,
            result_hash: RESULT,
            units: 7,
            measurement: MEASUREMENT,
            started_at: self.now,
            finished_at: self.now,
            issued_at: self.now,
        }
    }

    /// A failure report with which nothing is wrong.
    pub fn failure(&self, job_id: JobId, worker: u8) -> Attempt {
        Attempt {
            outcome: Outcome::Failed,
            ..self.attempt(job_id, worker)
        }
    }

    pub fn record(&mut self, attempt: &Attempt) -> Result<()> {
        record(self.by(Who::Stranger), attempt.completion())
    }

    /// Shows that the message is refused for this reason, changes nothing and emits nothing.
    pub fn refused<T: Debug + PartialEq>(
        &mut self,
        error: Error,
        who: Who,
        message: impl FnOnce(&mut PhalaJobProcessor) -> Result<T>,
    ) {
        let before = self.state();
        let events = test::recorded_events().count();

        let result = message(self.by(who));

        assert_eq!(result, Err(error), "called by {who:?}");
        assert_eq!(self.state(), before, "called by {who:?}");
        assert_eq!(test::recorded_events().count(), events);
    }

    /// The events of `message`, encoded, and its value.
    pub fn events_of<T>(
        &mut self,
        who: Who,
        message: impl FnOnce(&mut PhalaJobProcessor) -> T,
    ) -> (T, Vec<test::EmittedEvent>) {
        let before = test::recorded_events().count();
        let value = message(self.by(who));
        (value, test::recorded_events().skip(before).collect())
    }

    pub fn state(&self) -> State {
        let contract = &self.contract;
        let mut root = Vec::new();
        Storable::encode(contract, &mut root);
        // A planted counter may be huge.
        let jobs = 0..=contract.jobs.counter.min(64) + 2;
        State {
            root,
            cells: used_cells(),
            proposed_admin: contract.access.proposed_admin.get_or_default(),
            roles: EVERYBODY
                .iter()
                .flat_map(|who| ROLES.map(|role| contract.has_role(who.id(), role)))
                .collect(),
            measurements: [MEASUREMENT, OTHER_MEASUREMENT]
                .iter()
                .map(|measurement| contract.workers.measurements.get(measurement))
                .collect(),
            workers: (0..=contract.workers.counter.min(64) + 2)
                .map(|worker| contract.workers.rows.get(worker))
                .collect(),
            keys: known_keys()
                .iter()
                .map(|key| contract.workers.by_signing_key.get(key))
                .collect(),
            encryption_keys: (0xe0..=0xef_u8)
                .map(|byte| contract.workers.encryption_keys.contains([byte; 32]))
                .collect(),
            accounts: EVERYBODY
                .iter()
                .map(|who| contract.accounts.cells.get(who.id()))
                .collect(),
            rows: jobs
                .map(|job_id| {
                    let row = contract.jobs.rows.get(job_id)?;
                    Some((row, contract.jobs.rows.size(job_id)?))
                })
                .collect(),
        }
    }

    /// The length of the job's row in storage, payload and length prefix included.
    pub fn row_length(&self, job_id: JobId) -> Option<u32> {
        self.contract.jobs.rows.size(job_id)
    }

    pub fn account(&self, who: Who) -> Option<Account> {
        self.contract.accounts.cells.get(who.id())
    }

    pub fn set_mode(&mut self, mode: Mode) {
        if self.read().mode() != mode {
            self.by(Who::Admin).set_mode(mode).unwrap();
        }
    }
}

/// The public keys that the tests use.
fn known_keys() -> &'static [PublicKey] {
    static KEYS: OnceLock<Vec<PublicKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        (1..16)
            .flat_map(|seed| [Key::ecdsa(seed), Key::sr25519(seed)])
            .map(|key| key.public_key())
            .collect()
    })
}

pub fn record(contract: &mut PhalaJobProcessor, completion: Completion) -> Result<()> {
    contract.record_attestation(
        completion.job_id,
        completion.result_hash,
        completion.attestation_proof,
        completion.tee_worker_pubkey,
    )
}

/// Shows that `emitted` are these events, field by field and with these topics.
#[macro_export]
macro_rules! assert_events {
    ($emitted:expr, [$($event:expr),* $(,)?]) => {{
        let emitted = $emitted;
        let expected: Vec<ink::env::test::EmittedEvent> =
            vec![$($crate::tests::world::encoded($event)),*];
        assert_eq!(emitted.len(), expected.len());
        let mut index = 0;
        $(
            let event = $event;
            $crate::tests::world::assert_event(&emitted[index], &event, &expected[index]);
            index += 1;
        )*
        let _ = index;
    }};
}

/// The event as the engine would have recorded it.
pub fn encoded<E: ink::env::Event + ink::scale::Encode>(event: E) -> test::EmittedEvent {
    let before = test::recorded_events().count();
    ink::env::emit_event::<DefaultEnvironment, _>(event);
    test::recorded_events().nth(before).unwrap()
}

pub fn assert_event<E: Decode + Debug + PartialEq>(
    emitted: &test::EmittedEvent,
    event: &E,
    expected: &test::EmittedEvent,
) {
    // The topics name the kind of event; only then do the bytes mean anything.
    assert_eq!(emitted.topics.first(), expected.topics.first());
    let fields = E::decode(&mut emitted.data.as_slice()).unwrap();
    assert_eq!(&fields, event);
    assert_eq!(emitted.data, expected.data);
    assert_eq!(emitted.topics, expected.topics);
}

/// How many storage cells the contract uses, its own cell not counted: that one is not written in
/// these tests.
pub fn used_cells() -> usize {
    test::count_used_storage_cells::<DefaultEnvironment>(&AccountId::from(CONTRACT)).unwrap_or(0)
}

fn reset_engine() {
    test::run_test::<DefaultEnvironment, _>(|_| Ok(())).unwrap();
    test::set_callee::<DefaultEnvironment>(AccountId::from(CONTRACT));
    test::set_block_timestamp::<DefaultEnvironment>(START);
    assert_eq!(
        bytes_of(test::callee::<DefaultEnvironment>()),
        CONTRACT,
        "the contract has its own address"
    );
}
