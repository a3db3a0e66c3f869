//! The roles that the daemon needs filled, and the values they exchange.
//!
//! Each error enum stands beside its port; every one of them says what failed
//! for which thing, whether waiting alone can help ([`Reason::is_transient`]),
//! a stable cause for the wire and a hint for a person.

pub mod clock;
pub mod control;
pub mod journal;
pub mod prober;
pub mod runtime;
pub mod source;
pub mod uplink;

/// What every port's error can say about itself.
pub trait Reason: std::error::Error {
    /// A stable cause in CamelCase, for conditions and reports.
    fn reason(&self) -> &'static str;
    /// Whether waiting alone can help.
    fn is_transient(&self) -> bool;
    /// The next step for a tired person on site, if there is one.
    fn hint(&self) -> Option<String> {
        None
    }
}
