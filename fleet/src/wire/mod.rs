//! The messages between device and hub, and what scripts read from the agent.

pub mod command;
pub mod report;
pub mod status;
