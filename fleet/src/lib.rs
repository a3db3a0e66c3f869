//! What burgee's agent, hub and command line must agree on.
//!
//! The fleet repository's format, rendering, trust and the messages on the
//! wire. **Nothing here does I/O, is async, or reads a clock**: times come in
//! as arguments and files through [`tree::Tree`], so that the same function
//! gives the same answer on the device, on the hub and on a laptop.

pub mod compose;
pub mod desired;
pub mod digest;
pub mod finding;
pub mod kubernetes;
pub mod name;
pub mod plan;
pub mod render;
pub mod repo;
pub mod revision;
pub mod schema;
pub mod select;
pub mod tree;
pub mod trust;
pub mod vars;
pub mod wire;
pub mod yaml;
