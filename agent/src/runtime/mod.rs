//! What runs apps, by kind.

pub mod files;
