//! `burgee-agent enroll`: makes this device one of a hub's fleet.
//!
//! The key is made here and only its public half leaves. What the device takes
//! over from the hub is the hub's own key, the fleet's name and the broker's
//! address. **Never the root of trust**: who may sign content is said by the
//! operator, with `--trust FILE`, with `--trust-fingerprint`, or by a file that
//! is already in its place. Asking again does no harm.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use fleet::name::FleetName;
use fleet::wire::enroll::{EnrollResponse, EnrollState, refusal};
use fleet::wire::key::fingerprint;
use lexopt::prelude::{Long, Short, ValueExt as _};

use super::renewal::Renewal;
use crate::config::settings::{DeviceSettings, HubSettings, Settings};
use crate::ports::Reason as _;
use crate::ports::clock::Clock;
use crate::ports::journal::JournalError;
use crate::ports::uplink::UplinkError;
use crate::uplink::{
    Applicant, HubClient, enrolment, enrolment_in, hub_address, is_private, keep_enrolment, keep_name, make_device_key,
    refusal_of, write_durably,
};

const USAGE: &str = "\
usage: burgee-agent [--config FILE] enroll --hub URL (--token TOKEN | --token-file FILE) [OPTIONS]

      --hub URL                     the hub, as https://host (default: hub.url of the settings)
      --token TOKEN                 the join token; --token-file keeps it out of the process list
                                    (default: the file that hub.token_file names)
      --trust FILE                  who may sign content: becomes the file that source.trust names
      --trust-fingerprint SHA256:…  take the hub's file, if it holds these keys and no others (repeatable)
      --ca-file FILE                the hub's certificate authority (default: hub.ca_file of the settings)
      --fleet NAME                  refuse to join any other fleet
      --no-wait                     do not wait in the lobby; ask again later
      --new-hub-key                 accept that the hub signs by another key than at the last enrolment
      --new-identity                a device that was copied: give the key up that it has, and join with another
                                    (and its own device.name); its agent must not run meanwhile
      --insecure-http               allow http:// to another machine
";

/// Exit codes (design §13).
const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE_ERROR: i32 = 2;
const UNTRUSTED: i32 = 3;
const UNREACHABLE: i32 = 5;

/// What was asked.
#[derive(Debug)]
struct Ask {
    hub: HubSettings,
    token: String,
    trust: Option<PathBuf>,
    fingerprints: Vec<String>,
    fleet: Option<FleetName>,
    wait: bool,
    new_hub_key: bool,
    new_identity: bool,
}

/// Why the device is not enrolled.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnrollError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("the hub refuses this device: {message}")]
    Refused { message: String, reason: Option<String> },
    #[error("the agent must not run while the device gets another identity")]
    Held(#[source] JournalError),
    #[error("device.name: {0}")]
    Unnamed(String),
    #[error("the hub's answer lacks its key or the fleet's name")]
    Incomplete,
    #[error("the hub puts the device into fleet {got}, not {want}")]
    OtherFleet { got: FleetName, want: FleetName },
    #[error("the hub signs by {got}, but at the last enrolment it was {known}")]
    OtherHub { got: String, known: String },
    #[error("cannot {action} {path}")]
    Trust {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no ssh-ed25519 key")]
    NoKey { path: PathBuf },
    #[error("nobody said who may sign what this device runs")]
    NoTrust,
    #[error("the hub offers no trust file to compare with")]
    NothingOffered,
    #[error("the hub's trust file holds key {0}, which was not named")]
    OtherKey(String),
    #[error("the hub's trust file lacks key {0}")]
    MissingKey(String),
    #[error("cannot start")]
    Runtime(#[source] std::io::Error),
}

impl EnrollError {
    fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(_)
            | Self::Unnamed(_)
            | Self::NoKey { .. }
            | Self::Uplink(UplinkError::Address { .. } | UplinkError::Tls { .. }) => USAGE_ERROR,
            Self::NoTrust
            | Self::NothingOffered
            | Self::OtherKey(_)
            | Self::MissingKey(_)
            | Self::OtherHub { .. }
            | Self::OtherFleet { .. } => UNTRUSTED,
            Self::Uplink(UplinkError::Unreachable { .. }) => UNREACHABLE,
            _ => FAILED,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage(_) => Some("burgee-agent enroll --help".to_owned()),
            Self::Uplink(UplinkError::Unreachable { .. }) => Some(
                "is the address right, does the hub run, is its certificate authority known (--ca-file)?".to_owned(),
            ),
            Self::Uplink(error) => error.hint(),
            Self::Refused { reason, .. } => match reason.as_deref() {
                None | Some(refusal::TOKEN) => Some("make a new token on the hub: burgee-hub token create".to_owned()),
                reason => Some(refusal_of(reason).1.to_owned()),
            },
            Self::Held(_) => {
                Some("systemctl stop burgee-agent, then this again, then systemctl start burgee-agent".to_owned())
            }
            Self::Unnamed(_) => Some("write a device.name of its own into agent.toml".to_owned()),
            Self::OtherHub { .. } => Some(
                "if the hub was set up anew, say so with --new-hub-key; else somebody else answers there".to_owned(),
            ),
            Self::NoTrust => Some(
                "get trust/allowed_signers from whoever signs your commits, and run this again with --trust FILE"
                    .to_owned(),
            ),
            Self::NothingOffered | Self::OtherKey(_) | Self::MissingKey(_) => {
                Some("get trust/allowed_signers another way, and use --trust FILE".to_owned())
            }
            _ => None,
        }
    }
}

/// Enrols the device; the exit code (design §13). Progress on stderr, the
/// outcome on stdout.
pub fn run<C: Clock>(args: impl IntoIterator<Item = OsString>, settings: &Settings, clock: &C) -> i32 {
    match parse(args, settings).and_then(|ask| ask.map_or(Ok(()), |ask| enroll(&ask, settings, clock))) {
        Ok(()) => DONE,
        Err(error) => {
            let mut line = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                line = format!("{line}: {cause}");
                source = cause.source();
            }
            say(&format!("error: while enrolling: {line}"));
            if let Some(hint) = error.hint() {
                say(&format!("hint: {hint}"));
            }
            error.exit_code()
        }
    }
}

fn text(parser: &mut lexopt::Parser) -> Result<String, EnrollError> {
    parser.value().and_then(|value| value.string()).map_err(|error| EnrollError::Usage(error.to_string()))
}

/// A join token: the file's first line.
fn read_token(path: &Path) -> Result<String, EnrollError> {
    let read = std::fs::read_to_string(path);
    let read = read.map_err(|source| EnrollError::Trust { action: "read", path: path.to_path_buf(), source })?;
    Ok(read.lines().next().unwrap_or_default().trim().to_owned())
}

/// `None`: help was asked for, and given.
fn parse(args: impl IntoIterator<Item = OsString>, settings: &Settings) -> Result<Option<Ask>, EnrollError> {
    let usage = |error: lexopt::Error| EnrollError::Usage(error.to_string());
    let configured = settings.hub.as_ref();
    let (mut hub, mut ca_file) = (None, configured.and_then(|hub| hub.ca_file.clone()));
    let (mut token, mut trust, mut fleet, mut fingerprints) = (None, None, None, Vec::new());
    let (mut wait, mut new_hub_key, mut new_identity, mut insecure) = (true, false, false, false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Long("hub") => hub = Some(text(&mut parser)?),
            Long("token") => token = Some(text(&mut parser)?),
            Long("token-file") => {
                token = Some(read_token(Path::new(&text(&mut parser)?))?);
            }
            Long("trust") => trust = Some(PathBuf::from(text(&mut parser)?)),
            Long("trust-fingerprint") => fingerprints.push(text(&mut parser)?),
            Long("ca-file") => ca_file = Some(PathBuf::from(text(&mut parser)?)),
            Long("fleet") => {
                let name = text(&mut parser)?;
                fleet = Some(
                    name.parse().map_err(|error: fleet::name::InvalidName| EnrollError::Usage(error.to_string()))?,
                );
            }
            Long("no-wait") => wait = false,
            Long("new-hub-key") => new_hub_key = true,
            Long("new-identity") => new_identity = true,
            Long("insecure-http") => insecure = true,
            Long("help") | Short('h') => {
                let _ = std::io::stdout().write_all(USAGE.as_bytes());
                return Ok(None);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let missing = |what: &str| EnrollError::Usage(format!("{what} is missing"));
    let url = hub.or_else(|| configured.map(|hub| hub.url.clone())).ok_or_else(|| missing("--hub URL"))?;
    let url = hub_address(&url)?;
    if !is_private(&url) && !insecure {
        return Err(EnrollError::Usage(format!(
            "{url} is not https: the token and the hub's key could be read and changed on the way"
        )));
    }
    let token = match (token, configured.and_then(|hub| hub.token_file.as_ref())) {
        (None, Some(path)) => Some(read_token(path)?),
        (said, _) => said,
    };
    let token = token.filter(|token| !token.is_empty()).ok_or_else(|| missing("--token TOKEN"))?;
    if let Some(wrong) = fingerprints.iter().find(|text| !text.starts_with("SHA256:") || text.len() != 50) {
        return Err(EnrollError::Usage(format!(
            "{wrong:?} is no fingerprint: expected SHA256:… as ssh-keygen -l prints it"
        )));
    }
    if trust.is_some() && !fingerprints.is_empty() {
        return Err(EnrollError::Usage("--trust and --trust-fingerprint exclude each other".to_owned()));
    }
    Ok(Some(Ask {
        hub: HubSettings { url, ca_file, token_file: None },
        token,
        trust,
        fingerprints,
        fleet,
        wait,
        new_hub_key,
        new_identity,
    }))
}

fn enroll<C: Clock>(ask: &Ask, settings: &Settings, clock: &C) -> Result<(), EnrollError> {
    // The operator's word comes first: without a root, an enrolled device would wait for content that it can't judge.
    let said = match &ask.trust {
        Some(path) => Some(read_trust(path)?),
        None => None,
    };
    let store = &settings.store.path;
    let renewal = if ask.new_identity { Some(Renewal::begin(settings)?) } else { None };
    let (device, key) = match &renewal {
        Some(renewal) => (&renewal.device, renewal.key.clone()),
        None => (&settings.device, make_device_key(store)?),
    };
    let device = device.clone();
    let known = enrolment(store)?;
    say(&format!("device {} has key {}", device.name, fingerprint(&key.verifying_key())));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EnrollError::Runtime)?;
    let Some(response) = runtime.block_on(ask_hub(ask, &device, &key, clock))? else {
        outcome(&format!("in the lobby of {}: enroll again once the device is accepted", ask.hub.url));
        return Ok(());
    };
    let offered = response.trust.clone();
    let enrolment = enrolment_in(response, &ask.hub.url, &device, clock.now());
    let enrolment = enrolment.ok_or(EnrollError::Incomplete)?;
    if let Some(want) = ask.fleet.as_ref().filter(|want| **want != enrolment.fleet) {
        return Err(EnrollError::OtherFleet { got: enrolment.fleet, want: want.clone() });
    }
    let hub_key = enrolment.hub_key;
    if let Some(known) = known.filter(|known| known.hub_key != hub_key && !ask.new_hub_key) {
        return Err(EnrollError::OtherHub { got: hub_key.fingerprint(), known: known.hub_key.fingerprint() });
    }
    match renewal {
        Some(renewal) => {
            runtime.block_on(renewal.settle(&enrolment, &ask.hub, clock))?.iter().for_each(|told| say(told));
        }
        None => {
            keep_name(store, &device)?;
            keep_enrolment(store, &enrolment)?;
        }
    }
    say(&format!("the hub signs by {}", hub_key.fingerprint()));
    settle_trust(ask, &settings.source.trust, said, offered)?;
    if settings.hub.as_ref().is_none_or(|hub| hub_address(&hub.url).ok().as_ref() != Some(&ask.hub.url)) {
        say(&format!("hint: put this into the agent's settings: [hub] url = \"{}\"", ask.hub.url));
    }
    outcome(&format!("enrolled {} in fleet {} at {}", enrolment.device, enrolment.fleet, enrolment.hub));
    Ok(())
}

/// Asks until the hub decides; `None` while it doesn't and nobody wants to wait.
async fn ask_hub<C: Clock>(
    ask: &Ask,
    device: &DeviceSettings,
    key: &SigningKey,
    clock: &C,
) -> Result<Option<EnrollResponse>, EnrollError> {
    let client = HubClient::new(&ask.hub)?;
    let applicant = Applicant { device, key, token: &ask.token, fleet: ask.fleet.as_ref() };
    let mut waiting = false;
    loop {
        let mut retry = Duration::from_secs(15);
        match applicant.ask(&client, clock.now()).await {
            Ok(response) => match response.state {
                EnrollState::Accepted => return Ok(Some(response)),
                EnrollState::Refused => {
                    let message = response.message.unwrap_or_else(|| "no reason given".to_owned());
                    return Err(EnrollError::Refused { message, reason: response.reason });
                }
                EnrollState::Lobby => {
                    if !ask.wait {
                        return Ok(None);
                    }
                    if !waiting {
                        let why = response.message.as_deref().unwrap_or("an operator has yet to accept the device");
                        say(&format!("in the lobby of {}: {why}", ask.hub.url));
                        say(&format!("waiting; compare the key there with {}", fingerprint(&key.verifying_key())));
                    }
                    waiting = true;
                    retry = Duration::from_secs(response.retry_secs.unwrap_or(15).clamp(1, 300));
                }
            },
            // Once in the lobby, the hub may well restart meanwhile.
            Err(error) if waiting && error.is_transient() => say(&format!("still waiting: {error}")),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(retry).await;
    }
}

/// The trust file that the operator gave, as bytes.
fn read_trust(path: &Path) -> Result<Vec<u8>, EnrollError> {
    let bytes = std::fs::read(path).map_err(|source| EnrollError::Trust {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    if keys(&bytes).is_empty() { Err(EnrollError::NoKey { path: path.to_path_buf() }) } else { Ok(bytes) }
}

/// Puts the device's root of trust where the settings want it, by the
/// operator's word alone.
fn settle_trust(ask: &Ask, place: &Path, said: Option<Vec<u8>>, offered: Option<String>) -> Result<(), EnrollError> {
    let failed = |action, source| EnrollError::Trust { action, path: place.to_path_buf(), source };
    let there = match std::fs::read(place) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", error)),
    };
    let bytes = match (said, &offered) {
        (Some(bytes), _) => bytes,
        (None, offered) if !ask.fingerprints.is_empty() => {
            let offered = offered.as_deref().ok_or(EnrollError::NothingOffered)?;
            compare(&keys(offered.as_bytes()), &ask.fingerprints)?;
            offered.as_bytes().to_vec()
        }
        (None, offered) => match &there {
            Some(bytes) if !keys(bytes).is_empty() => bytes.clone(),
            _ => {
                for key in keys(offered.as_deref().unwrap_or_default().as_bytes()) {
                    say(&format!("the hub says that the fleet trusts {key}; it is not believed"));
                }
                return Err(EnrollError::NoTrust);
            }
        },
    };
    for key in keys(&bytes) {
        say(&format!("this device trusts commits signed by {key} ({})", place.display()));
    }
    if let Some(offered) = offered.filter(|offered| sorted(keys(offered.as_bytes())) != sorted(keys(&bytes))) {
        let offered = keys(offered.as_bytes()).join(" ");
        say(&format!("note: the hub says that the fleet trusts {offered}; your word counts"));
    }
    if there.as_ref() == Some(&bytes) {
        return Ok(());
    }
    if there.is_some() {
        say(&format!("{} is replaced: the device will anchor anew", place.display()));
    }
    if let Some(folder) = place.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed("make the folder of", error))?;
    }
    write_durably(place, &bytes, 0o644).map_err(|error| failed("write", error))
}

fn sorted(mut keys: Vec<String>) -> Vec<String> {
    keys.sort();
    keys
}

/// The hub's file may hold the keys that the operator named, and no others.
fn compare(offered: &[String], named: &[String]) -> Result<(), EnrollError> {
    if let Some(other) = offered.iter().find(|key| !named.contains(key)) {
        return Err(EnrollError::OtherKey(other.clone()));
    }
    match named.iter().find(|key| !offered.contains(key)) {
        Some(missing) => Err(EnrollError::MissingKey(missing.clone())),
        None => Ok(()),
    }
}

/// Fingerprints of the Ed25519 keys in an `allowed_signers` file; for people
/// and for comparing. What counts for trust is judged where commits are.
fn keys(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut found: Vec<String> = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace().skip_while(|word| *word != "ssh-ed25519");
        let Some(blob) = words.nth(1).and_then(|word| STANDARD.decode(word).ok()) else { continue };
        let Some(key) = blob.strip_prefix(b"\0\0\0\x0bssh-ed25519\0\0\0\x20") else { continue };
        let Some(key) = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok()) else { continue };
        let key = fingerprint(&key);
        if !found.contains(&key) {
            found.push(key);
        }
    }
    found
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn outcome(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::{compare, keys};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
    const FINGERPRINT: &str = "SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8";

    fn check(name: &str, text: &str, want: usize) {
        let found = keys(text.as_bytes());
        assert_eq!(found.len(), want, "{name}: {found:?}");
        assert!(found.iter().all(|key| key == FINGERPRINT), "{name}: {found:?}");
    }

    #[test]
    fn fingerprints() {
        check("plain", &format!("ops@example.com {KEY} comment\n"), 1);
        check("options", &format!("a,b namespaces=\"git\",valid-after=\"20260101Z\" {KEY}\r\n"), 1);
        check("twice", &format!("a {KEY}\nb {KEY}\n"), 1);
        check("comment", &format!("# a {KEY}\n"), 0);
        check("another kind", "a ssh-rsa AAAAB3NzaC1yc2E=\n", 0);
        check("cut short", &format!("a {}\n", &KEY[..40]), 0);
        check("empty", "", 0);
    }

    #[test]
    fn comparison() {
        let check = |name, offered: &[&str], named: &[&str], want| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            assert_eq!(compare(&owned(offered), &owned(named)).is_ok(), want, "{name}");
        };
        check("the same", &["a"], &["a"], true);
        check("in another order", &["a", "b"], &["b", "a"], true);
        check("one key too many", &["a", "b"], &["a"], false);
        check("one key too few", &["a"], &["a", "b"], false);
        check("an empty file", &[], &["a"], false);
    }
}
