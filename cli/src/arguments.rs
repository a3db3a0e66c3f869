//! The arguments that `burgee` takes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Make, check and understand a fleet repository.
///
/// Data goes to standard output, messages to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage or repository
/// content.
#[derive(Debug, Parser)]
#[command(name = "burgee", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a fleet repository with one app, and set up signing in it
    Init(Init),
    /// Say everything that is wrong in a fleet repository
    ///
    /// One line a finding: `path:line:column: what is wrong, what was expected`. Ends with 2 if any is an error.
    Check {
        /// The repository's folder
        #[arg(default_value = ".")]
        dir: PathBuf,
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show what a device would run
    Render(Render),
    /// Say what a range of commits changes, device by device
    Plan {
        /// The repository's folder
        dir: PathBuf,
        /// Two commits, `A..B`; an end that is left out is HEAD
        range: String,
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print the JSON Schema of a file, or write all of them
    Schema {
        /// Which one; without it, their names are listed
        #[arg(value_parser = schema_names())]
        name: Option<String>,
        /// A folder to write all of them to
        #[arg(long, conflicts_with = "name")]
        out: Option<PathBuf>,
    },
    /// Print a completion script for a shell
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder; made if it is not there
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The fleet's name [default: the folder's name]
    #[arg(long)]
    pub(crate) fleet: Option<String>,
    /// An Ed25519 key of SSH to sign with: its private file, or the `.pub` beside it [default: a new one in ~/.ssh]
    #[arg(long)]
    pub(crate) key: Option<PathBuf>,
    /// Who signs, for `trust/allowed_signers` [default: Git's user.email]
    #[arg(long)]
    pub(crate) principal: Option<String>,
    /// Make the new key without a passphrase, and don't ask for one
    #[arg(long, conflicts_with = "key")]
    pub(crate) no_passphrase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Render {
    /// The repository's folder
    pub(crate) dir: PathBuf,
    /// The device's name
    #[arg(long)]
    pub(crate) device: String,
    /// A label of the device's agent.toml, `key=value`; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Yaml,
    Json,
}

fn schema_names() -> clap::builder::PossibleValuesParser {
    fleet::schema::all().into_iter().map(|schema| schema.name).collect::<Vec<_>>().into()
}
