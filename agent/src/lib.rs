//! The agent: makes one device run what the fleet repository says.
//!
//! Floors, lower never imports higher (`tests/suite/floors.rs` holds it):
//! `phase`, `retry`, `window`, `plan` (pure) → `ports`, `config` → adapters
//! (`source`, `runtime`, `health`, `journal`, `uplink`, `clock`; never each
//! other) → `daemon`, `control`, commands.

pub mod commands;
pub mod config;
pub mod phase;
pub mod plan;
pub mod ports;
pub mod retry;
pub mod runtime;
pub mod tls;
pub mod uplink;
pub mod window;
