//! The messages between device and hub, and what scripts read from the agent.
//!
//! Every message that must be believed is a JWS ([`jws`]); `notify` and `link`
//! are hints and unsigned. **Readers ignore fields that they do not know, and
//! fields are only ever added** (`fleet/tests/wire.rs` holds it against golden
//! files); what cannot be said that way gets a new topic and endpoint version.

pub mod ack;
pub mod api;
pub mod command;
pub mod enroll;
pub mod jws;
pub mod key;
pub mod notify;
pub mod release;
pub mod report;
pub mod status;
pub mod token;
pub mod topics;
