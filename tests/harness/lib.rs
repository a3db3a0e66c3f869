//! What the suites stand on: real engines, hosts and services, on demand.

pub mod engine;
