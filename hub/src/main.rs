//! The program `burgee-hub`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    hub::cli::main(hub::cli::Cli::parse())
}
