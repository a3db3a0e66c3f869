//! `doctor`: looks for what could keep the agent from working, with the agent
//! or without it.
//!
//! Every look is read-only and bounded in time. A part that is not configured
//! is not looked at. What a support person needs goes into one file
//! ([`bundle`]), without secrets.

mod bundle;
mod device;
mod engine;
mod reach;
mod redact;
mod state;
mod tar;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use self::state::Known;
use super::args::Output;
use super::table::{Paint, Table};
use super::{Failure, chain, json, print};
use crate::config::Inputs;
use crate::config::settings::Settings;
use crate::control::{ControlError, ask};
use crate::ports::control::{Answer, Ask};

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// One part, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    part: &'static str,
    result: Grade,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// What a failure means (design §13).
    #[serde(skip)]
    code: u8,
}

fn found(part: &'static str, result: Grade, message: impl Into<String>) -> Finding {
    Finding { part, result, message: message.into(), hint: None, code: FAILED }
}

impl Finding {
    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn maybe(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNTRUSTED: u8 = 3;
const UNREACHABLE: u8 = 5;

/// Where the bundle goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bundle {
    No,
    /// Into the working folder, under a name of its own.
    Here,
    To(PathBuf),
}

/// Looks at everything and prints a line for each part, or bundles it. `readable`:
/// the settings as far as they can be read, where something is wrong with them.
pub(super) async fn doctor(
    inputs: Result<Inputs, Failure>,
    readable: Option<Inputs>,
    bundle: Bundle,
    output: Output,
) -> Result<ExitCode, Failure> {
    let settings = inputs.and_then(|inputs| inputs.settings().map_err(Failure::from));
    let mut findings = Vec::new();
    let known = match &settings {
        Ok(settings) => {
            let files = readable.iter().flat_map(Inputs::files).map(|file| file.display().to_string());
            let files = files.collect::<Vec<_>>().join(", ");
            findings.push(found("config", Grade::Ok, if files.is_empty() { "flags alone".to_owned() } else { files }));
            look(settings, &mut findings).await
        }
        Err(failure) => {
            let finding = found("config", Grade::Fail, failure.message.clone()).code(USAGE);
            let hint = failure.hint.as_deref().unwrap_or("docs/agent-toml.md explains every key");
            findings.push(finding.hint(hint));
            findings.push(device::clock());
            findings.push(device::cgroups(std::path::Path::new("/")));
            // What a bundle must not show is known by what is kept.
            Known::by_journal(&readable.as_ref().map_or_else(|| Inputs::default().store(), Inputs::store))
        }
    };
    if bundle != Bundle::No {
        let path = bundle::write(bundle, readable.as_ref(), settings.as_ref().ok(), &findings, &known).await?;
        print(&format!("{}\n", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let code = code(&findings);
    print(&match output {
        Output::Json => json(&findings)?,
        Output::Table => table(&findings, &Paint::on(std::io::IsTerminal::is_terminal(&std::io::stdout()))),
    });
    Ok(ExitCode::from(code))
}

/// The exit code: 0 where nothing failed; else what is to be mended first.
fn code(findings: &[Finding]) -> u8 {
    let failed = || findings.iter().filter(|finding| finding.result == Grade::Fail).map(|finding| finding.code);
    [USAGE, UNTRUSTED, FAILED, UNREACHABLE].into_iter().find(|code| failed().any(|failed| failed == *code)).unwrap_or(0)
}

fn table(findings: &[Finding], paint: &Paint) -> String {
    let mut table = Table::new(["PART", "RESULT", "MESSAGE"]);
    for Finding { part, result, message, hint, .. } in findings {
        let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        table.row([(*part).to_owned(), super::status::word(result), format!("{message}{hint}")]);
    }
    table.show(paint)
}

async fn look(settings: &Settings, findings: &mut Vec<Finding>) -> Known {
    let (agent, known) = agent(settings).await;
    findings.push(device::name(settings));
    findings.push(device::clock());
    findings.push(device::disk(&settings.store.path));
    findings.push(device::store(&settings.store.path));
    findings.extend(state::sizes(&settings.store.path));
    findings.push(device::cgroups(std::path::Path::new("/")));
    findings.push(device::trust(&settings.source.trust));
    findings.push(agent);
    findings.extend(state::conditions(&known));
    findings.push(state::last_good(&known, &settings.store.path));
    findings.extend(engine::engine(settings).await);
    // Gone, or emptied, once it did its work.
    let join = settings.hub.as_ref().and_then(|hub| hub.token_file.as_deref());
    let join = join.filter(|path| std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0));
    let secrets = [
        ("join token", join),
        ("git token", settings.source.token_file.as_deref()),
        ("ssh key", settings.source.ssh_key_file.as_deref()),
        ("registry", settings.compose.auth_file.as_deref()),
        ("kubeconfig", settings.kubernetes.kubeconfig.as_deref()),
    ];
    findings.extend(secrets.into_iter().filter_map(|(part, path)| Some(device::secret(part, path?))));
    findings.extend(reach::git(settings, &known).await);
    findings.extend(reach::hub(settings).await);
    findings.extend(reach::broker(settings).await);
    known
}

/// The agent that runs, and what is known by it or, without it, by the journal.
async fn agent(settings: &Settings) -> (Finding, Known) {
    let socket = &settings.control.socket;
    let mut known = Known::by_journal(&settings.store.path);
    let finding = match timeout(PATIENCE, ask(socket, Ask::Status)).await {
        Ok(Ok(Answer::Status(status))) => {
            let phase = super::status::word(&status.phase);
            let stuck = status.phase == fleet::wire::status::PhaseName::Stalled;
            let suspended = if status.suspended { ", suspended" } else { "" };
            let message = format!("answers at {}: {phase}{suspended}, version {}", socket.display(), status.agent);
            known.status = Some(*status);
            if let Ok(Ok(Answer::History(history))) = timeout(PATIENCE, ask(socket, Ask::History)).await {
                known.history = history;
            }
            let finding = found("agent", if stuck { Grade::Warn } else { Grade::Ok }, message);
            if stuck {
                finding.hint("see burgee-agent status; a newer commit or `burgee-agent retry` goes on")
            } else {
                finding
            }
        }
        Ok(Ok(_)) => found("agent", Grade::Fail, format!("what listens at {} gives no status", socket.display()))
            .hint("an agent of another version? control.socket names where it listens"),
        Ok(Err(error @ ControlError::Unreachable { .. })) => {
            found("agent", Grade::Warn, chain(&error)).maybe(error.hint())
        }
        Ok(Err(error)) => found("agent", Grade::Fail, chain(&error)).hint("journalctl -u burgee-agent"),
        Err(_) => found("agent", Grade::Fail, format!("no answer at {} in time", socket.display()))
            .hint("journalctl -u burgee-agent"),
    };
    (finding, known)
}

#[cfg(test)]
mod tests {
    use super::{Finding, Grade, code, found};

    #[test]
    fn exit_codes() {
        let fail = |code| found("x", Grade::Fail, "").code(code);
        let cases: [(&[Finding], u8); 6] = [
            (&[], 0),
            (&[found("x", Grade::Warn, "").code(5)], 0),
            (&[fail(5)], 5),
            (&[fail(5), fail(1)], 1),
            (&[fail(1), fail(3), fail(5)], 3),
            (&[fail(3), fail(2)], 2),
        ];
        for (findings, want) in cases {
            assert_eq!(code(findings), want, "{findings:?}");
        }
    }
}
