//! Where log lines go: stderr; text on a terminal, JSON elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::panic;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What `--log` can't be.
#[derive(Debug, thiserror::Error)]
#[error("{directives:?} is no log level: expected error, warn, info, debug or trace, or TARGET=LEVEL,…")]
pub struct InvalidLevel {
    directives: String,
}

/// Begins logging from `directives` (`info`, or `info,agent::source=debug`)
/// on, and logs panics. Once a process; a second call changes nothing.
///
/// # Errors
/// When `directives` is none.
pub fn begin(directives: &str) -> Result<(), InvalidLevel> {
    let invalid = || InvalidLevel { directives: directives.to_owned() };
    // The filter takes a lone word for a target and would then show nothing.
    let known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|name| level.eq_ignore_ascii_case(name))
    };
    if !directives.split(',').all(known) {
        return Err(invalid());
    }
    // Targets and levels alone: the filter that also matches fields and spans
    // brings a regular expression engine along.
    let filter: Targets = directives.parse().map_err(|_| invalid())?;
    let terminal = stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(terminal);
    let registry = tracing_subscriber::registry();
    let begun = if terminal {
        registry.with(layer.with_target(false).with_filter(filter)).try_init()
    } else {
        registry.with(layer.json().flatten_event(true).with_filter(filter)).try_init()
    };
    drop(begun);
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let cause = info.payload_as_str().unwrap_or_default();
        tracing::error!(place, cause, "panic");
        if cfg!(panic = "abort") {
            crate::crash::note(&place, cause);
        }
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            before(info);
        }
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::begin;

    #[test]
    fn a_level_is_a_level() {
        for wrong in ["loud", "", "info,shout", "agent=9"] {
            assert!(begin(wrong).is_err(), "{wrong:?}");
        }
    }
}
