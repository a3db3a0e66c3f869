//! The checks of `app.yaml`: http, tcp, unit, exec.
//!
//! Each looks once, in bounded time, and says in one sentence what it saw. How
//! often to look, and what follows, is the daemon's.

mod exec;
mod http;
mod tcp;

use fleet::desired::Check;
use fleet::wire::status::Health;

use crate::config::settings::HealthSettings;
use crate::ports::prober::Prober;
use crate::ports::runtime::Verdict;
use crate::systemd::Systemd;

/// Carries checks out.
#[derive(Debug)]
pub struct Probes {
    settings: HealthSettings,
    http: http::Http,
    systemd: Systemd,
}

impl Probes {
    /// Opens nothing: clients and the bus come with the first check that needs them.
    #[must_use]
    pub fn new(settings: &HealthSettings) -> Self {
        Self { settings: settings.clone(), http: http::Http::default(), systemd: Systemd::default() }
    }
}

impl Prober for Probes {
    async fn probe(&self, check: &Check) -> Verdict {
        let seen = match check {
            Check::Http { url, status } => self.http.probe(url, *status).await,
            Check::Tcp(address) => tcp::probe(address).await,
            Check::Exec(command) => exec::probe(&self.settings.exec, command).await,
            Check::Unit(name) => match self.systemd.unit(name).await {
                Ok(unit) => return unit.verdict(false),
                Err(error) if Systemd::is_booted() => Err(format!("{name} is unknown: {}", chain(&error))),
                Err(_) => Err(format!("{name} is unknown: this device does not run systemd")),
            },
        };
        match seen {
            Ok(()) => Verdict { health: Health::Healthy, message: String::new() },
            Err(message) => Verdict { health: Health::Degraded, message },
        }
    }
}

/// An error and what is below it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let said = cause.to_string();
        // Some libraries repeat their source.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        below = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
