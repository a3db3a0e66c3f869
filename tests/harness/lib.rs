//! What the suites, the demo and the benchmarks share: real Git hosts, real
//! engines, real devices, each started in a folder of its own and ended with it.
//!
//! Everything here panics when it can't do its part: a test that can't run
//! has failed.

pub mod between;
pub mod bins;
pub mod broker;
pub mod browser;
pub mod clock;
pub mod cluster;
pub mod device;
pub mod disk;
pub mod engine;
pub mod forge;
pub mod http;
pub mod hub;
pub mod installed;
pub mod kube_stage;
pub mod links;
pub mod net;
pub mod packages;
pub mod process;
pub mod proxy;
pub mod repo;
pub mod stage;
pub mod supervisor;
pub mod systemd;
pub mod trust;
pub mod voice;
pub mod wait;
pub mod webhook;
