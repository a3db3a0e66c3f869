//! Runs apps on the device's Kubernetes.
//!
//! What is here so far are rules: no I/O, no clock, objects as the server
//! sends them.

mod fields;

pub mod differences;
pub mod ignore;
pub mod managed;
pub mod order;
pub mod pods;
pub mod status;
pub mod verdict;
