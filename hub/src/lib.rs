//! The hub: enrolment, reports, commands and a page for a burgee fleet.
//!
//! Pure rooms first (`axes`, `hook`, `order`, `join` and the judging half of
//! `ingest`), the store behind its port, then what runs: `broker`, `duty`,
//! `api`, `page`, put together by `serve`. The hub can delay a device and ask
//! things of it; it has no way to give it content.

pub mod api;
pub mod axes;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod duty;
pub mod exit;
pub mod hook;
pub mod hub;
pub mod ingest;
pub mod join;
pub mod keys;
pub mod login;
pub mod metrics;
pub mod net;
pub mod order;
pub mod page;
pub mod passed;
pub mod serve;
pub mod store;
