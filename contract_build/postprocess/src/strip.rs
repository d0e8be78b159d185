//! Drops every custom section and every export but the functions `call` and `deploy`.
//!
//! The linker exports `__data_end`, `__heap_base` and the like as globals, which makes
//! pallet-contracts refuse the code. All other sections are copied byte for byte.

use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{BinaryReaderError, ExternalKind, Parser, Payload};

const ENTRY_POINTS: [&str; 2] = ["call", "deploy"];

pub fn strip(wasm: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::CustomSection(_) => {}
            Payload::ExportSection(reader) => {
                let mut exports = ExportSection::new();
                for export in reader {
                    let export = export?;
                    if export.kind == ExternalKind::Func && ENTRY_POINTS.contains(&export.name) {
                        exports.export(export.name, ExportKind::Func, export.index);
                    }
                }
                module.section(&exports);
            }
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    let data = section_data(wasm, range);
                    module.section(&RawSection { id, data });
                }
            }
        }
    }
    Ok(module.finish())
}

fn section_data(wasm: &[u8], range: std::ops::Range<u64>) -> &[u8] {
    let place = |offset| usize::try_from(offset).expect("the parser stays inside the slice");
    &wasm[place(range.start)..place(range.end)]
}

#[cfg(test)]
mod tests {
    use super::strip;
    use wasmparser::{Parser, Payload};

    fn exports(wasm: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            if let Payload::ExportSection(reader) = payload.unwrap() {
                names.extend(reader.into_iter().map(|e| e.unwrap().name.to_owned()));
            }
        }
        names
    }

    #[test]
    fn only_the_two_entry_points_stay_exported() {
        let wasm = wat::parse_str(
            r#"(module
                (global $base i32 (i32.const 0)) (func $f) (func $g)
                (export "call" (func $f)) (export "__heap_base" (global $base))
                (export "deploy" (func $g)) (export "helper" (func $f)))"#,
        )
        .unwrap();

        assert_eq!(exports(&strip(&wasm).unwrap()), ["call", "deploy"]);
    }

    #[test]
    fn a_global_named_like_an_entry_point_is_dropped() {
        let wasm =
            wat::parse_str(r#"(module (global i32 (i32.const 0)) (export "call" (global 0)))"#)
                .unwrap();

        assert!(exports(&strip(&wasm).unwrap()).is_empty());
    }

    #[test]
    fn custom_sections_are_dropped_and_the_rest_is_kept() {
        let plain = wat::parse_str(r#"(module (func $f) (export "call" (func $f)))"#).unwrap();
        let named = wat::parse_str(
            r#"(module (@custom "note" "text") (func $f) (export "call" (func $f)))"#,
        )
        .unwrap();
        assert_ne!(plain, named);

        assert_eq!(strip(&named).unwrap(), strip(&plain).unwrap());
    }

    #[test]
    fn bytes_that_are_not_wasm_are_refused() {
        assert!(strip(b"not wasm").is_err());
    }
}
