//! Each rule has a module that breaks this rule alone.

use super::{check, MAX_CODE_BYTES};

const MEMORY: &str = r#"(import "env" "memory" (memory 2 16))"#;
const EXPORTS: &str = r#"(func (export "call")) (func (export "deploy"))"#;

fn outcome(text: &str) -> Result<(), String> {
    check(&wat::parse_str(text).unwrap()).map_err(|refusal| refusal.to_string())
}

/// A module that is accepted when `extra` breaks no rule.
fn with(extra: &str) -> Result<(), String> {
    outcome(&format!("(module {MEMORY} {extra} {EXPORTS})"))
}

fn assert_refused(outcome: Result<(), String>, reason: &str) {
    let error = outcome.expect_err("the module was accepted");
    assert!(error.contains(reason), "{error}");
}

#[test]
fn the_smallest_contract_is_accepted() {
    assert_eq!(with(""), Ok(()));
}

#[test]
fn code_above_the_limit_is_refused() {
    let data = "a".repeat(MAX_CODE_BYTES);
    let module = format!(r#"(data (i32.const 0) "{data}")"#);
    assert_refused(with(&module), "the limit is 102400");
}

#[test]
fn a_custom_section_is_refused() {
    assert_refused(
        with(r#"(@custom "note" "text")"#),
        "custom section \"note\"",
    );
}

#[test]
fn a_start_function_is_refused() {
    assert_refused(with("(func $s) (start $s)"), "a start function");
}

#[test]
fn floats_are_refused() {
    assert_refused(
        with("(func (result f64) f64.const 1)"),
        "floating-point support is disabled",
    );
}

#[test]
fn sign_extension_is_refused() {
    assert_refused(
        with("(func (param i32) (result i32) local.get 0 i32.extend8_s)"),
        "sign extension operations support is not enabled",
    );
}

#[test]
fn bulk_memory_is_refused() {
    assert_refused(
        with("(func i32.const 0 i32.const 0 i32.const 0 memory.fill)"),
        "bulk memory support is not enabled",
    );
}

#[test]
fn several_results_are_refused() {
    assert_refused(
        with("(func (result i32 i32) i32.const 0 i32.const 0)"),
        "multi-value",
    );
}

#[test]
fn an_exported_mutable_global_is_refused() {
    assert_refused(
        with(r#"(global (export "g") (mut i32) (i32.const 0))"#),
        "the export \"g\" is not a function",
    );
}

#[test]
fn an_imported_global_is_refused() {
    assert_refused(
        with(r#"(import "env" "g" (global i32))"#),
        "env.g, which is no function and no memory",
    );
}

#[test]
fn a_missing_entry_point_is_refused() {
    let module = format!(r#"(module {MEMORY} (func (export "call")))"#);
    assert_refused(outcome(&module), "must export [\"call\", \"deploy\"]");
}

#[test]
fn a_third_export_is_refused() {
    assert_refused(
        with(r#"(func (export "more"))"#),
        "exports [\"call\", \"deploy\", \"more\"]",
    );
}

#[test]
fn an_entry_point_with_a_result_is_refused() {
    let module = format!(
        r#"(module {MEMORY} (func (export "call"))
            (func (export "deploy") (result i32) i32.const 0))"#
    );
    assert_refused(outcome(&module), "\"deploy\" takes or returns values");
}

#[test]
fn a_stable_host_function_is_accepted() {
    assert_eq!(
        with(r#"(import "seal0" "caller" (func (param i32 i32)))"#),
        Ok(())
    );
}

#[test]
fn an_unstable_host_function_is_refused() {
    assert_refused(
        with(r#"(import "seal0" "reentrance_count" (func (result i32)))"#),
        "seal0.reentrance_count, which is not a stable host function",
    );
}

#[test]
fn another_memory_is_refused() {
    let module = format!(r#"(module (import "env" "heap" (memory 2 16)) {EXPORTS})"#);
    assert_refused(outcome(&module), "imports a memory env.heap");
}

#[test]
fn more_than_sixteen_pages_are_refused() {
    let module = format!(r#"(module (import "env" "memory" (memory 2 17)) {EXPORTS})"#);
    assert_refused(outcome(&module), "up to 17 pages");
}

#[test]
fn the_limits_of_the_schedule_are_kept() {
    let globals = "(global i32 (i32.const 0))".repeat(257);
    assert_refused(with(&globals), "257 globals");
    assert_refused(with("(table 4097 funcref)"), "4097 elements");
    let parameters = "i32 ".repeat(129);
    assert_refused(
        with(&format!("(func (param {parameters}))")),
        "129 parameters",
    );
    let locals = "i32 ".repeat(1025);
    assert_refused(with(&format!("(func (local {locals}))")), "1025 locals");
    let targets = "0 ".repeat(258);
    assert_refused(
        with(&format!("(func (block i32.const 0 br_table {targets}))")),
        "257 targets",
    );
}
