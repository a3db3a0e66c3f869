//! The Compose specification, as far as a device can honour it.

pub mod model;
