//! The agent: makes one device run what the fleet repository says.
//!
//! Floors, lower never imports higher (`tests/suite/floors.rs` holds it):
//! `phase`, `retry`, `window`, `plan` (pure) → `ports`, `config` → `systemd`
//! (a client that two adapters share) → adapters (`source`, `runtime`,
//! `health`, `journal`, `uplink`, `clock`; never each other) → `daemon`,
//! `control`, commands.

pub mod config;
pub mod health;
pub mod phase;
pub mod ports;
pub mod runtime;
pub mod systemd;
