//! `agent.toml`: what each part is told.

pub mod settings;
