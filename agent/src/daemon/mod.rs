//! The daemon: one loop over what happens, its work, and its watch.

mod apply;
mod context;
mod core;
mod fetch;
mod gate;
mod inbound;
mod polling;
mod prepare;
mod probe;
mod status;
mod watch;
mod work;
