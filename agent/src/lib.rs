//! The agent: makes one device run what the fleet repository says.
//!
//! Floors, lower never imports higher (`tests/suite/floors.rs` holds it):
//! `phase`, `retry`, `window`, `plan` (pure) → `ports`, `config` → `systemd`
//! (a client that two adapters share) → adapters (`source`, `runtime`,
//! `health`, `journal`, `uplink`, `clock`; never each other) → `daemon`,
//! `control`, commands.

pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod crash;
pub mod daemon;
pub mod health;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod phase;
pub mod plan;
pub mod ports;
pub mod retry;
pub mod runtime;
pub mod source;
pub mod systemd;
pub mod tls;
pub mod update;
pub mod uplink;
pub mod window;
