//! The commands that need no daemon.

pub mod verify;
