//! The runtimes: each observes, plans (pure) and executes apps of its kind.
//! What they have in common is the port; the daemon chooses between them.

pub mod compose;
pub mod files;
pub mod kubernetes;
