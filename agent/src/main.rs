//! `burgee-agent`: reads the command line and hands over.

use std::process::ExitCode;

use agent::commands::{self, Failure, args};

fn main() -> ExitCode {
    if let Some(code) = agent::systemd::generator::called(std::env::args_os()) {
        return code;
    }
    match begin() {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

fn begin() -> Result<ExitCode, Failure> {
    let invocation = args::parse(std::env::args_os().skip(1))?;
    agent::log::begin(&commands::log_level(&invocation)).map_err(|error| Failure::new(2, error.to_string()))?;
    commands::as_it_runs(&invocation);
    if let Some(code) = commands::alone(&invocation) {
        return Ok(code);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(1, format!("the runtime does not start: {error}")))?;
    Ok(runtime.block_on(commands::execute(invocation)))
}
