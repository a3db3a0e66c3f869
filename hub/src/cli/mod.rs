//! The command line. Data on stdout, messages on stderr, exit codes of design §13.
//!
//! All but `serve` open the same store, and tell a running hub that it changed.

mod device;
mod order;
mod token;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fleet::name::{AppName, DeviceName};
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::duty;
use crate::exit::Failure;
use crate::keys;
use crate::serve;
use crate::store::{DeviceFilter, HubStore, Store, StoreError};

/// burgee-hub: enrolment, reports, commands and a page for a fleet.
#[derive(Debug, Parser)]
#[command(name = "burgee-hub", version, about, propagate_version = true)]
pub struct Cli {
    /// The configuration; packaging/hub.toml is an example.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/burgee/hub.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the hub until SIGTERM.
    Serve,
    /// Join tokens, by which devices enrol.
    #[command(subcommand)]
    Token(Token),
    /// The fleet's devices.
    #[command(subcommand)]
    Device(Device),
    /// Sends a signed command to a device and waits for what becomes of it.
    #[command(name = "command")]
    Order(Order),
    /// Prints devices, tokens and refusals as JSON; no secrets.
    Export,
    /// Checks the configuration and what it names.
    Check,
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Makes a token and prints it, alone, on stdout. It is not shown again.
    Create(TokenCreate),
    /// Lists tokens, newest first.
    List,
    /// Revokes a token, by its id or by itself. Devices it let in stay.
    Revoke {
        /// As `token list` shows it, or the token.
        token: String,
    },
}

#[derive(Debug, Args)]
struct TokenCreate {
    /// How many devices may use it; any number if left out.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// How long it is good for: 90s, 15m, 24h, 7d.
    #[arg(long, default_value = "24h", value_parser = life)]
    ttl: SignedDuration,
    /// A label that devices may claim; any if none is given. Repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Devices wait for `device accept`.
    #[arg(long)]
    lobby: bool,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// Lists devices: name, state, sync, health, last report, revision.
    List {
        /// Part of the name, or of a label (key=value).
        #[arg(default_value = "")]
        search: String,
    },
    /// Takes a device out of the lobby into the fleet.
    Accept {
        /// Its name.
        device: DeviceName,
    },
    /// Forgets that a device was found copied; if it still is, that is found again.
    Clear {
        /// Its name.
        device: DeviceName,
    },
    /// Decommissions a device: its key counts for nothing from now on.
    Remove {
        /// Its name.
        device: DeviceName,
    },
}

#[derive(Debug, Args)]
struct Order {
    /// To whom.
    device: DeviceName,
    #[command(subcommand)]
    act: OrderAct,
    /// Don't wait for the device's answer.
    #[arg(long, global = true)]
    no_wait: bool,
    /// How long to wait for it.
    #[arg(long, global = true, default_value = "30s", value_parser = life)]
    timeout: SignedDuration,
    /// After this, a device that was away refuses it.
    #[arg(long, global = true, default_value = "1h", value_parser = life)]
    expires: SignedDuration,
}

#[derive(Debug, Subcommand)]
enum OrderAct {
    /// Fetch and reconcile now.
    Sync,
    /// Take no new revisions; what runs is still kept.
    Suspend,
    /// Take new revisions again.
    Resume,
    /// Unblock what failed and try it again.
    Retry,
    /// Go to the revision before last good.
    Rollback,
    /// Print the end of an app's log.
    Logs {
        /// Which app.
        app: AppName,
        /// How many lines.
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: u32,
    },
}

/// `90s`, `15m`, `24h`, `7d`.
fn life(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("{text:?} is no duration: expected a number and s, m, h or d, as in 24h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(secs) {
        Some(secs) if number > 0 && secs <= 3650 * 86_400 => Ok(SignedDuration::from_secs(secs)),
        _ => Err(wrong()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no label: expected key=value")),
    }
}

/// Runs what was asked and says how it ended.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    log(matches!(cli.command, Command::Serve));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(&Failure::failed("starting failed", &error)),
    };
    let ended = runtime.block_on(run(cli));
    // The embedded broker's threads never end by themselves.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure),
    }
}

fn end(failure: &Failure) -> ExitCode {
    let _ = writeln!(io::stderr(), "burgee-hub: {failure}");
    failure.code()
}

fn log(serving: bool) {
    let default = if serving { "info,rumqttd=off,rumqttc=off,sqlx=warn" } else { "error,sqlx=off" };
    let filter = EnvFilter::try_from_env("BURGEE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Text for people, JSON for collectors.
    if io::stderr().is_terminal() { log.init() } else { log.json().init() }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let config = Config::load(&cli.config).map_err(|error| {
        let failure = Failure::usage(crate::exit::chain(&error));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    match cli.command {
        Command::Serve => serve::serve(config).await,
        Command::Check => check(&config),
        Command::Export => export(&open(&config).await?, &config).await,
        Command::Token(Token::Create(asked)) => token::create(&open(&config).await?, asked).await,
        Command::Token(Token::List) => token::list(&open(&config).await?).await,
        Command::Token(Token::Revoke { token }) => token::revoke(&open(&config).await?, &token).await,
        Command::Device(asked) => device::run(&open(&config).await?, &config, asked).await,
        Command::Order(asked) => order::run(&open(&config).await?, &config, asked).await,
    }
}

async fn open(config: &Config) -> Result<HubStore, Failure> {
    serve::data_folder(&config.data)?;
    serve::open_store(&config.data).await
}

fn store_failed(error: &StoreError) -> Failure {
    Failure::failed("the store did not answer", error)
}

/// One line on stdout. A reader that went away is no failure.
fn out(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("writing the answer failed", &error))
        }
        _ => Ok(()),
    }
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Columns, as wide as they must be.
fn columns(rows: &[Vec<String>]) -> Result<(), Failure> {
    let count = rows.first().map_or(0, Vec::len);
    let width: Vec<usize> =
        (0..count).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&width).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        out(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A running hub looks at the store by itself every two seconds, too.
fn wake(config: &Config) -> bool {
    duty::wake(&config.data)
}

fn check(config: &Config) -> Result<(), Failure> {
    serve::secrets(config)?;
    if let Some(files) = &config.tls {
        crate::net::acceptor(files, &[]).map_err(|error| Failure::usage(crate::exit::chain(&error)))?;
    }
    if let crate::config::Broker::External { host, port, tls, ca_file, .. } = &config.broker {
        crate::broker::tunnel::Target::external(host, *port, *tls, ca_file.as_deref())
            .map_err(|error| Failure::usage(crate::exit::chain(&error)))?;
    }
    say(&format!(
        "ok: fleet {}, data in {}, {} on {}",
        config.fleet,
        config.data.display(),
        config.public_url,
        config.listen
    ));
    Ok(())
}

async fn export(store: &HubStore, config: &Config) -> Result<(), Failure> {
    let failed = |error: StoreError| store_failed(&error);
    let key = keys::load_or_create(&config.data).map_err(|error| Failure::failed("the hub has no key", &error))?;
    let mut devices = store.devices(&DeviceFilter::default()).await.map_err(failed)?;
    let removed = DeviceFilter { state: Some(crate::store::DeviceState::Removed), ..DeviceFilter::default() };
    devices.extend(store.devices(&removed).await.map_err(failed)?);
    let mut entries = Vec::with_capacity(devices.len());
    for device in &devices {
        let commands = store.commands(&device.name, 100).await.map_err(failed)?;
        entries.push(serde_json::json!({ "device": device, "commands": commands }));
    }
    let all = serde_json::json!({
        "fleet": config.fleet,
        "hubKey": keys::public(&key),
        "devices": entries,
        "tokens": store.tokens().await.map_err(failed)?,
        "refusals": store.refusals().await.map_err(failed)?,
        "webhooks": store.deliveries(500).await.map_err(failed)?,
    });
    let text =
        serde_json::to_string_pretty(&all).map_err(|error| Failure::failed("writing the export failed", &error))?;
    out(&text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, life};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        let cases = [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("0s", None),
            ("-1h", None),
            ("24", None),
            ("", None),
            ("1é", None),
            ("99999999999d", None),
        ];
        for (text, want) in cases {
            assert_eq!(life(text).ok().map(|life| life.as_secs()), want, "{text:?}");
        }
    }
}
