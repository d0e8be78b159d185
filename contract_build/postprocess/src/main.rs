//! `contract-postprocess strip IN OUT` keeps what a chain runs; `contract-postprocess check FILE`
//! refuses what pallet-contracts 38 (and stricter chains) would refuse at upload.

mod check;
mod strip;

use std::{env, error::Error, fs, process::ExitCode};

const USAGE: &str = "usage: contract-postprocess strip IN OUT | contract-postprocess check FILE";

fn run(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    match arguments {
        ["strip", input, output] => Ok(fs::write(output, strip::strip(&fs::read(input)?)?)?),
        ["check", file] => Ok(check::check(&fs::read(file)?)?),
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contract-postprocess: {error}");
            ExitCode::FAILURE
        }
    }
}
