//! What the hub remembers: the `Store` port and the values it takes and gives.
//!
//! One port for one process on SQLite today; every method is one transaction
//! and says what it needs of the others (`sequence`, `use_token`), so that
//! several equal hubs on PostgreSQL keep the same promises. No method judges a
//! signature or a clock: times come in as arguments.

pub mod model;
pub mod sqlite;

use std::future::Future;

use fleet::name::DeviceName;
use fleet::wire::report::Report;
use jiff::Timestamp;

pub use model::{
    AckAt, Delivery, Device, DeviceFilter, DeviceState, Enrolled, Entry, FleetCounts, Group, NewCommand, NewDevice,
    NewToken, Outcome, Place, Refusal, RunSeen, Stored, StoredCommand, Taken, Token, TokenUse, Twin,
};

/// The store this build runs on.
pub type HubStore = sqlite::SqliteStore;

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened or brought up to date.
    #[error("opening the database {path} failed")]
    Open {
        /// Where it is.
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A read or write.
    #[error("{doing} failed in the database")]
    Query {
        /// What was being done.
        doing: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// A row that this version can't read.
    #[error("the database holds a {what} that can't be read: {text:?}")]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// What it is.
        text: String,
    },
}

/// Devices, reports, commands and join tokens.
pub trait Store: Clone + Send + Sync + 'static {
    /// Answers when the database does.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// One device; removed ones included.
    fn device(&self, name: &DeviceName) -> impl Future<Output = Result<Option<Device>, StoreError>> + Send;

    /// Devices in order of their names.
    fn devices(&self, filter: &DeviceFilter) -> impl Future<Output = Result<Vec<Device>, StoreError>> + Send;

    /// How many devices match, paging aside.
    fn count(&self, filter: &DeviceFilter) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The fleet in numbers. A device last seen before `silent_before` is silent.
    fn counts(&self, silent_before: Timestamp) -> impl Future<Output = Result<FleetCounts, StoreError>> + Send;

    /// Enrols a device, or takes over a removed one of that name. The same key
    /// under the same name again changes nothing.
    fn enroll(&self, device: &NewDevice) -> impl Future<Output = Result<Enrolled, StoreError>> + Send;

    /// Moves a device to a state. `false`: there is none.
    fn set_state(
        &self,
        name: &DeviceName,
        state: DeviceState,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Keeps the broker's unsigned word on devices, in one commit.
    fn set_links(&self, links: &[(DeviceName, bool)]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Keeps a join token's hash.
    fn add_token(&self, token: &NewToken) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Every token, newest first.
    fn tokens(&self) -> impl Future<Output = Result<Vec<Token>, StoreError>> + Send;

    /// The token of that hash.
    fn token(&self, hash: &[u8; 32]) -> impl Future<Output = Result<Option<Token>, StoreError>> + Send;

    /// Takes one use, if one is left at `now`. Two at once never take the same.
    fn use_token(&self, id: &str, now: Timestamp) -> impl Future<Output = Result<TokenUse, StoreError>> + Send;

    /// Gives a use back: the enrolment it was for did not happen.
    fn unuse_token(&self, id: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// `false`: no such token.
    fn revoke_token(&self, id: &str, now: Timestamp) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Stores reports whose signatures are verified, in one commit, and answers
    /// after it. A report whose predecessor is missing is stored, and moves no
    /// acknowledgement ([`fleet::wire::ack::advance`]). An answer to a command,
    /// or its logs, closes the command; only the first one counts.
    fn store(&self, reports: &[Report], now: Timestamp) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// Runs of a device's agent that are remembered, heard of last first.
    fn runs(&self, device: &DeviceName) -> impl Future<Output = Result<Vec<RunSeen>, StoreError>> + Send;

    /// Forgets them, and that two lived: whoever lives is heard of again.
    /// `false`: there is no such device.
    fn forget_runs(&self, device: &DeviceName) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Events and logs of a device, newest first by the device's own time.
    fn entries(&self, device: &DeviceName, limit: u32) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;

    /// A sequence for a command: max(last + 1, Unix milliseconds), so that a
    /// hub restored from a backup is not taken for a replay.
    fn sequence(
        &self,
        device: &DeviceName,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Keeps a signed command.
    fn add_command(&self, command: &NewCommand) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A device's commands, newest first.
    fn commands(
        &self,
        device: &DeviceName,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<StoredCommand>, StoreError>> + Send;

    /// One command.
    fn command(
        &self,
        device: &DeviceName,
        sequence: u64,
    ) -> impl Future<Output = Result<Option<StoredCommand>, StoreError>> + Send;

    /// Commands nobody answered that have not expired: of one device above
    /// `after`, or of all.
    fn open_commands(
        &self,
        device: Option<&DeviceName>,
        after: u64,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<StoredCommand>, StoreError>> + Send;

    /// A command was handed to a device, or to the broker for it.
    fn command_sent(
        &self,
        device: &DeviceName,
        sequence: u64,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Counts what was refused.
    fn refuse(
        &self,
        reason: &'static str,
        device: Option<&str>,
        count: u64,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What was refused so far, most first.
    fn refusals(&self) -> impl Future<Output = Result<Vec<Refusal>, StoreError>> + Send;

    /// Notes a webhook.
    fn add_delivery(&self, delivery: &Delivery) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The last webhooks, newest first.
    fn deliveries(&self, limit: u32) -> impl Future<Output = Result<Vec<Delivery>, StoreError>> + Send;

    /// Drops reports received before `before`, and commands and deliveries of
    /// that age; the last 200 events of a device stay at any age. Places stay
    /// known: a replay is still one.
    fn expire(&self, before: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
