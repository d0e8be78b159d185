//! That the tests are complete: every variant of `Error`, every row of protocol 3.2, every event
//! and every message has one, by name.

use ink::scale_info::{TypeDef, TypeInfo};

use crate::errors::Error;

use super::recording::ROWS;

const CONTRACT: &str = include_str!("../lib.rs");
const EVENTS: &str = include_str!("../events.rs");

const SOURCES: [(&str, &str); 15] = [
    ("access", include_str!("access.rs")),
    ("accounts", include_str!("accounts.rs")),
    ("cancelling", include_str!("cancelling.rs")),
    ("completing", include_str!("completing.rs")),
    ("ending", include_str!("ending.rs")),
    ("holes", include_str!("holes.rs")),
    ("marking", include_str!("marking.rs")),
    ("original", include_str!("original.rs")),
    ("parameters", include_str!("parameters.rs")),
    ("reading", include_str!("reading.rs")),
    ("recorded", include_str!("recorded.rs")),
    ("recording", include_str!("recording.rs")),
    ("submitting", include_str!("submitting.rs")),
    ("trust", include_str!("trust.rs")),
    ("workers", include_str!("workers.rs")),
];

/// What ink!'s engine cannot do. The embedded chain's tests reach these on the compiled contract.
const ONLY_ON_A_CHAIN: [&str; 2] = ["SetCodeFailed", "CodeChanged"];

/// A test that reaches the variant, fails nothing but its check, and shows the state unchanged.
const TESTS: [(&str, &str, &str); 42] = [
    ("NotAdmin", "access", "only_the_admin_proposes"),
    ("MissingRole", "completing", "only_an_operator_completes"),
    ("WrongMode", "submitting", "submitting_needs_mode_running"),
    ("JobNotFound", "recording", "row_2_the_job_exists"),
    (
        "NotJobOwner",
        "marking",
        "nobody_else_marks_whatever_the_jobs_state",
    ),
    (
        "WrongStatus",
        "marking",
        "only_an_attested_job_is_marked_and_once",
    ),
    ("EmptyPayload", "submitting", "an_empty_payload_is_refused"),
    (
        "PayloadTooLarge",
        "submitting",
        "a_payload_may_be_as_long_as_the_limit_and_no_longer",
    ),
    (
        "ReferenceTooLarge",
        "submitting",
        "a_reference_may_be_as_long_as_the_limit_and_no_longer",
    ),
    (
        "LocationTooLong",
        "submitting",
        "a_location_may_be_as_long_as_the_limit_and_no_longer",
    ),
    (
        "EndpointTooLong",
        "workers",
        "an_endpoint_may_be_as_long_as_the_limit_and_no_longer",
    ),
    ("NoWorkers", "submitting", "one_to_four_workers_are_named"),
    (
        "TooManyWorkers",
        "submitting",
        "one_to_four_workers_are_named",
    ),
    ("DuplicateWorker", "submitting", "a_worker_is_named_once"),
    (
        "WorkerNotFound",
        "submitting",
        "every_worker_must_be_registered",
    ),
    (
        "WorkerNotTrusted",
        "submitting",
        "every_worker_must_be_trusted_now",
    ),
    ("TtlOutOfRange", "submitting", "the_ttl_has_bounds"),
    (
        "RateLimited",
        "accounts",
        "an_account_submits_up_to_the_limit_in_a_window",
    ),
    ("DeadlinePassed", "recording", "row_3_the_job_is_open"),
    (
        "DeadlineNotPassed",
        "ending",
        "anybody_expires_a_job_after_its_deadline_in_every_mode",
    ),
    (
        "WorkerNotEligible",
        "recording",
        "row_5_the_worker_is_one_of_the_jobs",
    ),
    (
        "KeyMismatch",
        "recording",
        "row_4_the_key_is_a_registered_workers",
    ),
    ("InvalidKey", "submitting", "a_zero_key_is_refused"),
    (
        "EmptyResultHash",
        "recording",
        "row_8_the_result_hash_is_not_zero",
    ),
    (
        "StatementTooOld",
        "recording",
        "row_12_the_statement_is_not_too_old",
    ),
    (
        "StatementFromFuture",
        "recording",
        "row_11_the_statement_is_not_from_the_future",
    ),
    (
        "StatementTimesInverted",
        "recording",
        "row_9_the_times_are_in_order",
    ),
    (
        "StatementBeforeJob",
        "recording",
        "row_10_execution_began_after_the_job",
    ),
    (
        "BadSignature",
        "recording",
        "row_13_the_signature_is_the_workers",
    ),
    ("AlreadyAttested", "recording", "row_3_the_job_is_open"),
    (
        "AlreadyFailed",
        "recording",
        "row_7_the_worker_has_not_failed_the_job",
    ),
    (
        "AttestationNotValid",
        "marking",
        "a_worker_that_lost_its_trust_does_matter",
    ),
    (
        "MeasurementNotAllowed",
        "workers",
        "the_measurement_must_be_allowed",
    ),
    (
        "KeyAlreadyRegistered",
        "workers",
        "a_key_is_used_by_one_worker_ever",
    ),
    (
        "ValidityOutOfRange",
        "workers",
        "a_registration_has_a_bounded_validity",
    ),
    (
        "WorkerRevoked",
        "workers",
        "a_renewal_needs_a_worker_that_may_be_trusted",
    ),
    (
        "ParameterOutOfRange",
        "parameters",
        "limits_outside_their_bounds_are_refused",
    ),
    (
        "LimitOutOfRange",
        "reading",
        "a_page_has_one_to_fifty_entries",
    ),
    (
        "TooManyItems",
        "completing",
        "ten_items_are_taken_and_not_more",
    ),
    (
        "AccountInUse",
        "accounts",
        "a_cell_is_released_by_its_account_alone_when_nothing_needs_it",
    ),
    (
        "NoPendingAdmin",
        "access",
        "only_the_proposed_account_accepts_and_once",
    ),
    (
        "Overflow",
        "submitting",
        "the_counter_of_jobs_does_not_wrap",
    ),
];

fn source(module: &str) -> &'static str {
    let found = SOURCES.iter().find(|(name, _)| *name == module);
    found.unwrap().1
}

/// The text of a test function.
fn body(module: &str, test: &str) -> &'static str {
    let source = source(module);
    let start = source
        .find(&format!("#[test]\nfn {test}() {{"))
        .unwrap_or_else(|| panic!("there is no test {module}::{test}"));
    let length = source[start..].find("\n}\n").unwrap();
    &source[start..start + length]
}

fn all_sources() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(_, source)| *source)
}

fn variants() -> Vec<&'static str> {
    let TypeDef::Variant(error) = Error::type_info().type_def else {
        panic!("Error is an enum");
    };
    error.variants.iter().map(|variant| variant.name).collect()
}

#[test]
fn every_error_has_its_test() {
    let listed: Vec<_> = TESTS.iter().map(|(variant, _, _)| *variant).collect();
    let expected: Vec<_> = variants()
        .into_iter()
        .filter(|variant| !ONLY_ON_A_CHAIN.contains(variant))
        .collect();
    assert_eq!(listed, expected);

    for (variant, module, test) in TESTS {
        let body = body(module, test);
        assert!(
            body.contains(&format!("Error::{variant}")),
            "{test} reaches {variant}"
        );
        assert!(
            ["refused", "breaks_only"]
                .iter()
                .any(|way| body.contains(way)),
            "{test} shows the state unchanged"
        );
    }
}

#[test]
fn every_row_of_the_protocol_has_its_test() {
    let numbers: Vec<_> = ROWS.iter().map(|(row, _, _)| *row).collect();
    assert_eq!(numbers, (1..=13).collect::<Vec<_>>());
    for (row, errors, test) in ROWS {
        assert!(test.starts_with(&format!("row_{row}_")));
        for error in errors {
            assert!(body("recording", test).contains(&format!("Error::{error:?}")));
        }
    }
}

#[test]
fn every_event_is_compared_field_by_field() {
    let events: Vec<_> = EVENTS
        .lines()
        .filter_map(|line| line.strip_prefix("pub struct ")?.strip_suffix(" {"))
        .filter(|event| !ONLY_ON_A_CHAIN.contains(event))
        .collect();
    assert_eq!(events.len(), 20);
    for event in events {
        assert!(
            all_sources().any(|source| {
                source.contains("assert_events!") && source.contains(&format!("{event} {{"))
            }),
            "{event} is compared"
        );
    }
}

#[test]
fn every_message_is_called() {
    let messages: Vec<_> = CONTRACT
        .lines()
        .filter_map(|line| {
            let (name, _) = line.trim().strip_prefix("pub fn ")?.split_once('(')?;
            (name != "new").then_some(name)
        })
        .collect();
    assert_eq!(messages.len(), 41);
    let world = include_str!("world.rs");
    for message in messages {
        assert!(
            all_sources()
                .chain([world])
                .any(|source| source.contains(&format!(".{message}("))),
            "{message} is called"
        );
    }
}
