//! `burgee`: the command line for people. Scaffolds a fleet repository, checks
//! it, shows what a device would run and what a range of commits changes.
//!
//! Everything that a repository *means* is decided in `fleet`, by the same
//! functions that the devices use; here are folders, Git, arguments and exit
//! codes. No device and no hub is spoken to by these commands.

mod arguments;
mod check;
mod commits;
mod failure;
mod folder;
mod init;
mod kubernetes;
mod output;
mod plan;
mod render;
mod scaffold;
mod schema;
mod signing;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Init(init) => init::run(init),
        Command::Check { dir, output } => check::run(dir, *output),
        Command::Render(render) => render::run(render),
        Command::Plan { dir, range, output } => plan::run(dir, range, *output),
        Command::Schema { name, out } => schema::run(name.as_deref(), out.as_deref()),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "burgee", &mut script);
            output::bytes(&script)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.is_pipe_closed() {
                return ExitCode::SUCCESS;
            }
            failure.tell();
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What a command comes to.
type Done = Result<(), Failure>;
