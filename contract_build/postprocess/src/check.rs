//! What a chain with pallet-contracts accepts, at its strictest.
//!
//! 1. At most 100 KiB, no custom section, no start function.
//! 2. WebAssembly 1.0 without floats, without imported or exported mutable globals and without sign
//!    extension (newer pallets allow it, older ones do not).
//! 3. The exports are exactly the functions `call` and `deploy`, both `() -> ()`.
//! 4. The imports are stable host functions that ink! 5 calls, and `env.memory` with at most 16 pages.
//! 5. The limits of the pallet's default schedule.

use std::fmt;
use wasmparser::{
    types::Types, ExternalKind, FuncValidatorAllocations, FunctionBody, Import, Operator, Parser,
    Payload, TypeRef, ValidPayload, Validator, WasmFeatures,
};

const MAX_CODE_BYTES: usize = 100 * 1024;
const MAX_MEMORY_PAGES: u64 = 16;

// pallet-contracts 38.0.0, schedule.rs, `Limits::default`.
const MAX_GLOBALS: u32 = 256;
const MAX_LOCALS: u32 = 1024;
const MAX_PARAMETERS: usize = 128;
const MAX_TABLE_ELEMENTS: u64 = 4096;
const MAX_BRANCH_TABLE: u32 = 256;

const ENTRY_POINTS: [&str; 2] = ["call", "deploy"];

/// Host functions without `#[unstable]` that ink! 5.1.1 may import. `call_chain_extension` is left
/// out because chains without an extension refuse it, `debug_message` because a release has none.
const HOST_FUNCTIONS: [(&str, &[&str]); 3] = [
    (
        "seal0",
        &[
            "address",
            "balance",
            "block_number",
            "call_runtime",
            "caller",
            "caller_is_origin",
            "code_hash",
            "delegate_call",
            "deposit_event",
            "ecdsa_recover",
            "ecdsa_to_eth_address",
            "gas_left",
            "hash_blake2_128",
            "hash_blake2_256",
            "hash_keccak_256",
            "hash_sha2_256",
            "input",
            "is_contract",
            "minimum_balance",
            "now",
            "own_code_hash",
            "seal_return",
            "set_code_hash",
            "sr25519_verify",
            "take_storage",
            "transfer",
            "value_transferred",
            "weight_to_fee",
        ],
    ),
    (
        "seal1",
        &[
            "call",
            "clear_storage",
            "contains_storage",
            "get_storage",
            "instantiate",
            "terminate",
        ],
    ),
    ("seal2", &["call", "instantiate", "set_storage"]),
];

/// Why a chain would refuse the code.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl From<wasmparser::BinaryReaderError> for Refusal {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self(error.to_string())
    }
}

fn ensure(condition: bool, reason: impl FnOnce() -> String) -> Result<(), Refusal> {
    if condition {
        Ok(())
    } else {
        Err(Refusal(reason()))
    }
}

fn features() -> WasmFeatures {
    WasmFeatures::WASM1
        .difference(WasmFeatures::FLOATS)
        .difference(WasmFeatures::MUTABLE_GLOBAL)
}

pub fn check(wasm: &[u8]) -> Result<(), Refusal> {
    let size = wasm.len();
    ensure(size <= MAX_CODE_BYTES, || {
        format!("the code has {size} bytes, the limit is {MAX_CODE_BYTES}")
    })?;
    let mut validator = Validator::new_with_features(features());
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        check_section(&payload, &mut exports)?;
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => {
                check_body(&body)?;
                let allocations = FuncValidatorAllocations::default();
                function.into_validator(allocations).validate(&body)?;
            }
            ValidPayload::End(types) => return check_exports(&exports, &types),
            _ => {}
        }
    }
    Err(Refusal("the code has no end".into()))
}

fn check_section(payload: &Payload<'_>, exports: &mut Vec<(String, u32)>) -> Result<(), Refusal> {
    match payload {
        Payload::CustomSection(section) => {
            Err(Refusal(format!("custom section {:?}", section.name())))
        }
        Payload::StartSection { .. } => Err(Refusal("a start function".into())),
        Payload::ImportSection(reader) => reader
            .clone()
            .into_imports()
            .try_for_each(|import| check_import(&import?)),
        Payload::GlobalSection(reader) => {
            let count = reader.count();
            ensure(count <= MAX_GLOBALS, || {
                format!("{count} globals, the limit is {MAX_GLOBALS}")
            })
        }
        Payload::TableSection(reader) => reader.clone().into_iter().try_for_each(|table| {
            let elements = table?.ty.initial;
            ensure(elements <= MAX_TABLE_ELEMENTS, || {
                format!("a table of {elements} elements, the limit is {MAX_TABLE_ELEMENTS}")
            })
        }),
        Payload::TypeSection(reader) => {
            reader
                .clone()
                .into_iter_err_on_gc_types()
                .try_for_each(|kind| {
                    let parameters = kind?.params().len();
                    ensure(parameters <= MAX_PARAMETERS, || {
                        format!(
                            "a function of {parameters} parameters, the limit is {MAX_PARAMETERS}"
                        )
                    })
                })
        }
        Payload::ExportSection(reader) => {
            for export in reader.clone() {
                let export = export?;
                let name = export.name;
                ensure(export.kind == ExternalKind::Func, || {
                    format!("the export {name:?} is not a function")
                })?;
                exports.push((name.to_owned(), export.index));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_import(import: &Import<'_>) -> Result<(), Refusal> {
    let (module, name) = (import.module, import.name);
    match import.ty {
        TypeRef::Memory(memory) => {
            ensure((module, name) == ("env", "memory"), || {
                format!("imports a memory {module}.{name}")
            })?;
            let pages = memory.maximum.unwrap_or(u64::MAX);
            ensure(pages <= MAX_MEMORY_PAGES, || {
                format!("a memory of up to {pages} pages, the limit is {MAX_MEMORY_PAGES}")
            })
        }
        TypeRef::Func(_) => {
            let known = HOST_FUNCTIONS
                .iter()
                .any(|(known, names)| *known == module && names.contains(&name));
            ensure(known, || {
                format!("imports {module}.{name}, which is not a stable host function")
            })
        }
        _ => Err(Refusal(format!(
            "imports {module}.{name}, which is no function and no memory"
        ))),
    }
}

fn check_body(body: &FunctionBody<'_>) -> Result<(), Refusal> {
    let mut locals: u32 = 0;
    for group in body.get_locals_reader()? {
        locals = locals.saturating_add(group?.0);
    }
    ensure(locals <= MAX_LOCALS, || {
        format!("a function of {locals} locals, the limit is {MAX_LOCALS}")
    })?;
    for operator in body.get_operators_reader()? {
        if let Operator::BrTable { targets } = operator? {
            let targets = targets.len();
            ensure(targets <= MAX_BRANCH_TABLE, || {
                format!("a branch table of {targets} targets, the limit is {MAX_BRANCH_TABLE}")
            })?;
        }
    }
    Ok(())
}

fn check_exports(exports: &[(String, u32)], types: &Types) -> Result<(), Refusal> {
    let mut names: Vec<&str> = exports.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    ensure(names == ENTRY_POINTS, || {
        format!("exports {names:?}, must export {ENTRY_POINTS:?}")
    })?;
    for (name, index) in exports {
        let kind = types[types.as_ref().core_function_at(*index)].unwrap_func();
        ensure(
            kind.params().is_empty() && kind.results().is_empty(),
            || format!("the export {name:?} takes or returns values"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
