//! The `Clock` port.

use jiff::Timestamp;

/// The only place where time is read.
pub trait Clock {
    fn now(&self) -> Timestamp;

    /// When this program was built: a clock before it is not set.
    fn build_date(&self) -> Timestamp;
}
