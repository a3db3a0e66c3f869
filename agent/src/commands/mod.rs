//! The agent's command line: what each command does with an [`args::Invocation`].
//!
//! Data goes to stdout, messages and hints to stderr, and the exit code says
//! how it went (design §13). What needs the running agent asks it over the
//! local socket; nothing here touches the journal or a runtime.

pub mod args;
mod doctor;
pub mod enroll;
mod help;
mod render;
mod renewal;
mod status;
mod sync;
mod table;
pub mod verify;

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::args::{Command, Global, Invocation, Output};
use self::table::{Paint, Table};
use crate::clock::SystemClock;
use crate::config::settings::Settings;
use crate::config::{self, ConfigError, Inputs};
use crate::control::{ControlError, ask};
use crate::daemon;
use crate::journal;
use crate::ports::clock::Clock as _;
use crate::ports::control::{Answer, Ask};
use crate::ports::journal::JournalError;
use crate::update::start::{self, Launched};

/// Why a command did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code, by design §13.
    pub code: u8,
    /// One sentence, lower case.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
}

impl Failure {
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says it on stderr.
    pub fn print(&self) {
        let paint = Paint::on(stderr().is_terminal());
        let mut text = format!("{}: {}\n", paint.red("error"), self.message);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{}: {hint}\n", paint.bold("hint")));
        }
        // Nobody is left to tell where stderr is gone.
        drop(stderr().write_all(text.as_bytes()));
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { code: 2, message: chain(&error), hint }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let code = if matches!(error, ControlError::Unreachable { .. }) { 5 } else { 1 };
        Self { code, message: chain(&error), hint: error.hint() }
    }
}

/// An error and its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Writes data to stdout. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) {
    let mut out = stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// The level to log from: `--log`, else `$BURGEE_LOG`, else what suits.
#[must_use]
pub fn log_level(invocation: &Invocation) -> String {
    let suits = if matches!(invocation.command, Command::Run { .. }) { "info" } else { "warn" };
    let said = invocation.global.log.clone().or_else(|| std::env::var("BURGEE_LOG").ok());
    said.filter(|level| !level.is_empty()).unwrap_or_else(|| suits.to_owned())
}

/// Does what was asked and returns the exit code.
pub async fn execute(invocation: Invocation) -> ExitCode {
    match dispatch(invocation).await {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

async fn dispatch(Invocation { global, command }: Invocation) -> Result<ExitCode, Failure> {
    let inputs = || -> Result<Inputs, Failure> { Ok(config::read(global.config.as_deref(), &global.set)?) };
    // Of the whole configuration, a question needs the socket alone; whoever
    // answers it may be a newer agent.
    let socket =
        || -> Result<PathBuf, Failure> { Ok(config::read_of_any_age(global.config.as_deref(), &global.set)?.socket()) };
    match command {
        Command::Help(about) => print(&help::text(about)),
        Command::Version => print(&format!("burgee-agent {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Status => {
            let status = sync::status(&socket()?).await?;
            let paint = Paint::on(stdout().is_terminal());
            print(&match global.output {
                Output::Json => json(&status)?,
                Output::Table => status::show(&status, SystemClock.now(), &paint),
            });
        }
        Command::Sync { prune, wait } => {
            return sync::sync(&socket()?, Ask::Sync { prune }, wait, global.output).await;
        }
        Command::Rollback { wait } => return sync::sync(&socket()?, Ask::Rollback, wait, global.output).await,
        Command::Diff => answered(&global, ask(&socket()?, Ask::Diff).await?)?,
        Command::History => answered(&global, ask(&socket()?, Ask::History).await?)?,
        Command::Suspend { all } => answered(&global, ask(&socket()?, Ask::Suspend { all }).await?)?,
        Command::Resume => answered(&global, ask(&socket()?, Ask::Resume).await?)?,
        Command::Retry => answered(&global, ask(&socket()?, Ask::Retry).await?)?,
        Command::Logs { app, lines } => answered(&global, ask(&socket()?, Ask::Logs { app, lines }).await?)?,
        Command::Anchor { accept } => answered(&global, ask(&socket()?, Ask::Anchor { accept }).await?)?,
        Command::Doctor { bundle } => {
            let readable = config::read_of_any_age(global.config.as_deref(), &global.set).ok();
            return doctor::doctor(inputs(), readable, bundle, global.output).await;
        }
        Command::Run { once } => {
            // Before a setting is judged: a newer agent may know more of them.
            let store = config::store(global.config.as_deref(), &global.set);
            // Beside an agent that runs, this one will only say so: no start of a trial.
            let launched = match journal::hold(&store) {
                Err(JournalError::Locked { .. }) => start::itself(),
                _ => start::begin(&store, !once),
            };
            return run(settings(&global, &store, &launched)?, once, launched, global.output).await;
        }
        Command::Render(args) => render::render(&inputs()?.settings()?, args, &SystemClock).await?,
        Command::Enroll(_) | Command::Verify(_) | Command::LookAtDatabase(_) => {
            return Err(Failure::new(1, "this command runs before there is a runtime"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings to run by. Where they are those that a downloaded agent knew all
/// of, what this one does not know is passed over: the way back must not end at
/// a key. Nowhere else, for one that is mistyped may be what chooses the apps; and
/// nothing of `[device]`, which does.
fn settings(global: &Global, store: &Path, launched: &Launched) -> Result<Settings, Failure> {
    let (file, flags) = (global.config.as_deref(), &global.set);
    let read = config::read(file, flags).and_then(|inputs| Ok((inputs.settings()?, inputs.print().copied())));
    let error = match read {
        Ok((settings, print)) => {
            if launched.by_base
                && let Some(print) = print
            {
                start::knows(store, &print);
            }
            return Ok(settings);
        }
        Err(error) => error,
    };
    let known =
        |inputs: &Inputs| !inputs.is_stranger() && inputs.print().is_some_and(|print| start::knew(store, print));
    match config::read_of_any_age(file, flags).ok().filter(known).map(|inputs| inputs.settings()) {
        Some(Ok(mut settings)) => {
            settings.passed_over = Some(error.to_string());
            Ok(settings)
        }
        _ => Err(error.into()),
    }
}

/// Runs the agent. With `--once`, prints the status that came of it.
async fn run(settings: Settings, once: bool, launched: Launched, output: Output) -> Result<ExitCode, Failure> {
    let ended = daemon::run(settings, once, launched.clone()).await.map_err(|failed| Failure {
        code: failed.code,
        message: failed.message.clone(),
        hint: failed.hint,
    })?;
    if ended.renew {
        let error = start::restart(&launched);
        let hint = "the service manager starts it again; if it does not, install the package anew";
        return Err(Failure::new(1, format!("cannot begin anew with {}: {error}", launched.base.display())).hint(hint));
    }
    if once {
        print(&match output {
            Output::Json => json(&ended.status)?,
            Output::Table => status::show(&ended.status, SystemClock.now(), &Paint::on(stdout().is_terminal())),
        });
    }
    Ok(ExitCode::from(ended.code))
}

/// Lets the agent that proved itself answer, where the answer is not the running
/// one's (docs/decisions/0027). To be called before anything is opened.
pub fn as_it_runs(Invocation { global, command }: &Invocation) {
    if matches!(command, Command::Doctor { .. } | Command::Verify(_) | Command::Render(_) | Command::Enroll(_)) {
        start::as_it_runs(&config::store(global.config.as_deref(), &global.set));
    }
}

/// Commands that make a runtime of their own, or need none; `None`: the rest.
#[must_use]
pub fn alone(invocation: &Invocation) -> Option<ExitCode> {
    match &invocation.command {
        Command::Verify(arguments) => Some(verify::verify(arguments.clone(), &invocation.global, &SystemClock)),
        Command::Enroll(arguments) => {
            let global = &invocation.global;
            let settings = match config::load(global.config.as_deref(), &global.set) {
                Ok(settings) => settings,
                Err(error) => {
                    let failure = Failure::from(error);
                    failure.print();
                    return Some(ExitCode::from(failure.code));
                }
            };
            let code = enroll::run(arguments.clone(), &settings, &SystemClock);
            Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
        }
        Command::LookAtDatabase(folder) => {
            crate::journal::look::look(folder);
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

/// Prints an answer: what was asked for on stdout, a confirmation on stderr.
fn answered(global: &Global, answer: Answer) -> Result<(), Failure> {
    let as_json = global.output == Output::Json;
    match answer {
        Answer::Status(status) => print(&json(&status)?),
        Answer::Diff(apps) if as_json => print(&json(&apps)?),
        Answer::History(entries) if as_json => print(&json(&entries)?),
        Answer::Lines(lines) if as_json => print(&json(&lines)?),
        Answer::Done(done) if as_json => print(&json(&serde_json::json!({ "done": done }))?),
        Answer::Diff(apps) => {
            let mut text = String::new();
            for app in apps.iter().filter(|app| !app.steps.is_empty()) {
                text.push_str(&format!("{}\n", app.app));
                text.extend(app.steps.iter().map(|step| format!("  {step}\n")));
            }
            if text.is_empty() {
                tell("nothing to do");
            }
            print(&text);
        }
        Answer::History(entries) => {
            let mut table = Table::new(["AT", "REVISION", "EVENT", "MESSAGE"]);
            for entry in entries {
                let at = entry.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
                table.row([at, entry.revision.short().to_owned(), entry.event, entry.message]);
            }
            print(&table.show(&Paint::on(stdout().is_terminal())));
        }
        Answer::Lines(lines) => print(&lines.into_iter().map(|line| line + "\n").collect::<String>()),
        Answer::Done(done) => tell(&done),
    }
    Ok(())
}

/// A message for whoever watches.
fn tell(message: &str) {
    drop(writeln!(stderr(), "{message}"));
}

/// A value as the JSON that scripts read, with a line's end.
///
/// # Errors
/// When it has no JSON form.
fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(1, format!("no JSON: {error}")))?;
    Ok(text + "\n")
}
