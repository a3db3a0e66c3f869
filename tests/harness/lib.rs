//! What the suites share: real counterparts, started on the spot.

pub mod disk;
pub mod systemd;
