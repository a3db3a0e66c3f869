//! The `Clock` port.

use jiff::Timestamp;

/// The only place where time is read.
pub trait Clock {
    fn now(&self) -> Timestamp;
}
