//! The command line: text → [`Invocation`]. Touches nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use fleet::name::AppName;
use fleet::revision::CommitId;
use lexopt::prelude::{Long, Short, Value};
use lexopt::{Parser, ValueExt as _};

use super::Failure;
use super::doctor::Bundle;
use super::help;
use crate::config::keys::nearest;

/// The flag whose value may be left out.
const BUNDLE: &str = "--bundle";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub global: Global,
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// `--config FILE`: that file alone.
    pub config: Option<PathBuf>,
    /// `--set KEY=VALUE`, in order.
    pub set: Vec<String>,
    /// `--log LEVEL`.
    pub log: Option<String>,
    pub output: Output,
}

/// `-o`: how data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// One command and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Run {
        once: bool,
    },
    /// What follows the name; the command reads it itself.
    Enroll(Vec<OsString>),
    Status,
    Sync {
        prune: bool,
        wait: Wait,
    },
    Diff,
    History,
    Rollback {
        wait: Wait,
    },
    Suspend {
        all: bool,
    },
    Resume,
    Retry,
    Logs {
        app: AppName,
        lines: usize,
    },
    /// What follows the name; the command reads it itself.
    Verify(Vec<OsString>),
    Render(RenderArgs),
    Doctor {
        bundle: Bundle,
    },
    Anchor {
        accept: CommitId,
    },
    /// For the agent itself alone ([`crate::journal::look`]).
    LookAtDatabase(PathBuf),
    /// `--help`, of one command or of all.
    Help(Option<&'static str>),
    Version,
}

/// Whether a command waits for what it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    No,
    /// `None`: for as long as it takes.
    Yes(Option<Duration>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderArgs {
    /// Default: `source.url`.
    pub repo: Option<String>,
    /// Default: `device.name`.
    pub device: Option<String>,
    /// On top of `device.labels`, later wins.
    pub labels: Vec<(String, String)>,
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// Wrong usage: what was not understood, and what was probably meant.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Failure> {
    let mut parser = Parser::from_args(arguments);
    let mut global = Global::default();
    let mut command: Option<&'static str> = None;
    let mut rest = Rest::default();
    while let Some(argument) = parser.next().map_err(|error| usage(&error.to_string(), command))? {
        match argument {
            Short('h') | Long("help") => {
                // `help` says more of the command that it follows.
                return Ok(Invocation { global, command: Command::Help(command) });
            }
            Short('V') | Long("version") => return Ok(Invocation { global, command: Command::Version }),
            Short('c') | Long("config") => global.config = Some(value(&mut parser, command)?.into()),
            Long("set") => global.set.push(text(&mut parser, command)?),
            Long("log") => global.log = Some(text(&mut parser, command)?),
            Short('o') | Long("output") => {
                global.output = match text(&mut parser, command)?.as_str() {
                    "json" => Output::Json,
                    "table" => Output::Table,
                    other => return Err(usage(&format!("-o {other}: expected json or table"), command)),
                };
            }
            Value(word) if command.is_none() => {
                let word = word.string().map_err(|error| usage(&error.to_string(), None))?;
                if word == "help" {
                    let about = parser.value().ok().and_then(|name| name.into_string().ok());
                    let about = about.map(|name| find(&name)).transpose()?;
                    return Ok(Invocation { global, command: Command::Help(about) });
                }
                if word == crate::journal::look::COMMAND {
                    let folder = parser.value().map_err(|error| usage(&error.to_string(), None))?;
                    return Ok(Invocation { global, command: Command::LookAtDatabase(folder.into()) });
                }
                let name = find(&word)?;
                command = Some(name);
                if let Some(own) = own_reader(name) {
                    let rest = parser.raw_args().map_err(|error| usage(&error.to_string(), command))?.collect();
                    return Ok(Invocation { global, command: own(rest) });
                }
            }
            Value(word) => rest.positional.push(word),
            Short(flag) => rest.take(&format!("-{flag}"), &mut parser, command)?,
            Long(flag) => {
                let flag = format!("--{flag}");
                rest.take(&flag, &mut parser, command)?;
            }
        }
    }
    let Some(name) = command else {
        return Err(Failure::new(2, "no command given").hint("burgee-agent --help lists the commands"));
    };
    let command = rest.command(name)?;
    Ok(Invocation { global, command })
}

/// Commands that read what follows their name themselves.
fn own_reader(name: &str) -> Option<fn(Vec<OsString>) -> Command> {
    match name {
        "enroll" => Some(Command::Enroll),
        "verify" => Some(Command::Verify),
        _ => None,
    }
}

/// A command by its name.
fn find(word: &str) -> Result<&'static str, Failure> {
    let names = || help::COMMANDS.iter().map(|command| command.name);
    names().find(|name| *name == word).ok_or_else(|| {
        let hint = match nearest(word, names()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "burgee-agent --help lists the commands".to_owned(),
        };
        Failure::new(2, format!("there is no command {word:?}")).hint(hint)
    })
}

fn usage(message: &str, command: Option<&str>) -> Failure {
    let about = command.map(|command| format!(" {command}")).unwrap_or_default();
    Failure::new(2, message).hint(format!("see burgee-agent{about} --help"))
}

fn value(parser: &mut Parser, command: Option<&str>) -> Result<OsString, Failure> {
    parser.value().map_err(|error| usage(&error.to_string(), command))
}

fn text(parser: &mut Parser, command: Option<&str>) -> Result<String, Failure> {
    value(parser, command)?.string().map_err(|error| usage(&error.to_string(), command))
}

/// Flags and words that belong to one command.
#[derive(Default)]
struct Rest {
    positional: Vec<OsString>,
    /// By the name in [`help::Flag`]; switches have no value.
    flags: Vec<(&'static str, Option<OsString>)>,
}

impl Rest {
    /// A flag of the command. Flags before the command's name are of no command.
    fn take(&mut self, flag: &str, parser: &mut Parser, command: Option<&'static str>) -> Result<(), Failure> {
        let all =
            || help::COMMANDS.iter().find(|known| Some(known.name) == command).map_or(&[][..], |known| known.flags);
        let known = all().iter().find(|known| known.long == flag || known.short == Some(flag));
        let Some(known) = known else {
            let global = help::GLOBAL.iter();
            let names = all().iter().chain(global).map(|known| known.long);
            let failure = usage(&format!("there is no option {flag}"), command);
            return Err(match nearest(flag, names) {
                Some(meant) => failure.hint(format!("did you mean {meant}?")),
                None => failure,
            });
        };
        let given = match known.value {
            // Its value may be left out.
            Some(_) if known.long == BUNDLE => parser.optional_value(),
            Some(_) => Some(value(parser, command)?),
            None => None,
        };
        self.flags.push((known.long, given));
        Ok(())
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == flag)
    }

    fn all(&self, flag: &str) -> impl Iterator<Item = &OsString> {
        self.flags.iter().filter(move |(name, _)| *name == flag).filter_map(|(_, value)| value.as_ref())
    }

    fn text(&self, flag: &str) -> Result<Option<String>, Failure> {
        let wrong = |_| Failure::new(2, format!("{flag}: expected text in UTF-8"));
        self.all(flag).last().cloned().map(OsString::into_string).transpose().map_err(wrong)
    }

    /// A flag's value as something that says itself what it expects.
    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self, flag: &str) -> Result<Option<T>, Failure> {
        let parse = |text: String| text.parse().map_err(|error| Failure::new(2, format!("{flag} {text}: {error}")));
        self.text(flag)?.map(parse).transpose()
    }

    fn wait(&self) -> Result<Wait, Failure> {
        if self.has("--no-wait") {
            return Ok(Wait::No);
        }
        Ok(Wait::Yes(self.parsed("--timeout")?.map(Duration::from_secs)))
    }

    fn command(mut self, name: &'static str) -> Result<Command, Failure> {
        let words = match name {
            "logs" => 1,
            "doctor" if self.has(BUNDLE) => 1,
            _ => 0,
        };
        if self.positional.len() > words {
            let word = self.positional[words].to_string_lossy().into_owned();
            return Err(usage(&format!("{word:?} is one word too many"), Some(name)));
        }
        let word = self.positional.pop();
        let needs = |what: &str| usage(&format!("{name} needs {what}"), Some(name));
        Ok(match name {
            "run" => Command::Run { once: self.has("--once") },
            "status" => Command::Status,
            "sync" => Command::Sync { prune: self.has("--prune"), wait: self.wait()? },
            "diff" => Command::Diff,
            "history" => Command::History,
            "rollback" => Command::Rollback { wait: self.wait()? },
            "suspend" => Command::Suspend { all: self.has("--all") },
            "resume" => Command::Resume,
            "retry" => Command::Retry,
            "logs" => {
                let app = word.ok_or_else(|| needs("an app's name"))?;
                let app = app.to_string_lossy().parse().map_err(|error| usage(&format!("{error}"), Some(name)))?;
                Command::Logs { app, lines: self.parsed("--lines")?.unwrap_or(100) }
            }
            "render" => {
                let mut labels = Vec::new();
                for label in self.all("--label") {
                    let label = label.to_string_lossy().into_owned();
                    let (key, value) = label
                        .split_once('=')
                        .ok_or_else(|| usage(&format!("--label {label}: expected key=value"), Some(name)))?;
                    labels.push((key.to_owned(), value.to_owned()));
                }
                Command::Render(RenderArgs { repo: self.text("--repo")?, device: self.text("--device")?, labels })
            }
            "doctor" => Command::Doctor {
                bundle: match self.all(BUNDLE).last().cloned().or(word) {
                    Some(path) => Bundle::To(path.into()),
                    None if self.has(BUNDLE) => Bundle::Here,
                    None => Bundle::No,
                },
            },
            "anchor" => Command::Anchor { accept: self.parsed("--accept")?.ok_or_else(|| needs("--accept REVISION"))? },
            other => return Err(find(other).err().unwrap_or_else(|| usage("no such command", None))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bundle, Command, Global, Invocation, Output, Wait, parse};

    fn check(line: &str) -> Result<Invocation, (u8, String, Option<String>)> {
        parse(line.split_whitespace().map(Into::into)).map_err(|failure| (failure.code, failure.message, failure.hint))
    }

    #[test]
    fn command_lines() {
        let plain = |command| Invocation { global: Global::default(), command };
        let with = |config: &str, output, command| Invocation {
            global: Global { config: Some(config.into()), output, ..Global::default() },
            command,
        };
        let cases = [
            ("--config a.toml run --once", with("a.toml", Output::Table, Command::Run { once: true })),
            ("status -o json --config=a", with("a", Output::Json, Command::Status)),
            ("-c a status -ojson", with("a", Output::Json, Command::Status)),
            ("sync --prune --wait", plain(Command::Sync { prune: true, wait: Wait::Yes(None) })),
            ("sync --no-wait", plain(Command::Sync { prune: false, wait: Wait::No })),
            ("rollback --timeout 5", plain(Command::Rollback { wait: Wait::Yes(Some(Duration::from_secs(5))) })),
            ("suspend --all", plain(Command::Suspend { all: true })),
            ("logs pos -n 5", plain(Command::Logs { app: "pos".parse().unwrap(), lines: 5 })),
            ("logs -n5 pos", plain(Command::Logs { app: "pos".parse().unwrap(), lines: 5 })),
            ("doctor", plain(Command::Doctor { bundle: Bundle::No })),
            ("doctor --bundle", plain(Command::Doctor { bundle: Bundle::Here })),
            ("doctor --bundle /tmp/x", plain(Command::Doctor { bundle: Bundle::To("/tmp/x".into()) })),
            ("doctor --bundle=x", plain(Command::Doctor { bundle: Bundle::To("x".into()) })),
            ("sync --help", plain(Command::Help(Some("sync")))),
            ("help sync", plain(Command::Help(Some("sync")))),
            ("--help", plain(Command::Help(None))),
            ("-V", plain(Command::Version)),
        ];
        for (line, want) in cases {
            assert_eq!(check(line), Ok(want), "{line}");
        }
        let accept = "4f1c0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c";
        assert!(matches!(check(&format!("anchor --accept {accept}")).unwrap().command, Command::Anchor { .. }));
        match check(&format!("verify --repo /r --after {accept}")).unwrap().command {
            Command::Verify(args) => assert_eq!(args.len(), 4),
            other => panic!("{other:?}"),
        }
        match check("render --repo . --device d --label a=b --label c=d").unwrap().command {
            Command::Render(args) => assert_eq!((args.device.as_deref(), args.labels.len()), (Some("d"), 2)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wrong_usage_says_what_was_meant() {
        let cases = [
            ("", "no command given", "burgee-agent --help lists the commands"),
            ("stauts", "there is no command \"stauts\"", "did you mean status?"),
            ("frobnicate", "there is no command \"frobnicate\"", "burgee-agent --help lists the commands"),
            ("sync --prun", "there is no option --prun", "did you mean --prune?"),
            ("status --confg x", "there is no option --confg", "did you mean --config?"),
            ("--prune sync", "there is no option --prune", "see burgee-agent --help"),
            ("logs", "logs needs an app's name", "see burgee-agent logs --help"),
            ("doctor now", "\"now\" is one word too many", "see burgee-agent doctor --help"),
            ("status now", "\"now\" is one word too many", "see burgee-agent status --help"),
            ("status -o xml", "-o xml: expected json or table", "see burgee-agent status --help"),
            ("anchor", "anchor needs --accept REVISION", "see burgee-agent anchor --help"),
            ("render --label a", "--label a: expected key=value", "see burgee-agent render --help"),
        ];
        for (line, message, hint) in cases {
            assert_eq!(check(line), Err((2, message.to_owned(), Some(hint.to_owned()))), "{line}");
        }
        assert!(check("logs pos -n many").unwrap_err().1.starts_with("--lines many: "));
        assert!(check("logs Pos").unwrap_err().1.contains("is not a name"));
        assert!(check("anchor --accept 4f1c").unwrap_err().1.contains("not a full commit id"));
    }
}
