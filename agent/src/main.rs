//! The agent's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(command) if command == "verify" => {
            #[expect(clippy::disallowed_methods, reason = "stands in for the clock")]
            let now = jiff::Timestamp::now();
            agent::commands::verify::verify(arguments, now, jiff::Timestamp::UNIX_EPOCH)
        }
        _ => ExitCode::from(2),
    }
}
