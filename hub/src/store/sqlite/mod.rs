//! The store in one SQLite file.
//!
//! WAL with `synchronous=FULL`: what was committed survives a power cut, which
//! is what an acknowledgement promises. Several processes may have it open (the
//! command line beside `serve`), so every read that decides a write is in an
//! immediate transaction.

mod commands;
mod devices;
mod reports;
mod rest;
mod runs;
mod tokens;

use std::path::Path;
use std::time::Duration;

use fleet::name::DeviceName;
use fleet::wire::report::Report;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

use super::{
    Delivery, Device, DeviceFilter, DeviceState, Enrolled, Entry, FleetCounts, NewCommand, NewDevice, NewToken,
    Refusal, RunSeen, Store, StoreError, Stored, StoredCommand, Token, TokenUse,
};

/// A handle on the database; clones share its connections.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, makes it if it is missing, and brings its tables up to date.
    ///
    /// # Errors
    /// When the file can't be opened, or is of a newer version of the hub.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source: Box<dyn std::error::Error + Send + std::marker::Sync>| StoreError::Open {
            path: path.display().to_string(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .pragma("cache_size", "-4096")
            .pragma("journal_size_limit", "16777216");
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(20))
            .connect_with(options)
            .await
            .map_err(|source| failed(source.into()))?;
        sqlx::migrate!("./migrations").run(&pool).await.map_err(|source| failed(source.into()))?;
        Ok(Self { pool })
    }

    /// Waits for what is under way, and lets go of the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(query(doing))
    }
}

fn query(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { doing, source }
}

/// Sequences and places are far below 2^63; what is not was refused on its way in.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt { what, text: error.to_string() })
}

fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what, text: text.chars().take(80).collect() })
}

fn name(text: &str) -> Result<DeviceName, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what: "device name", text: text.to_owned() })
}

fn bytes32(what: &'static str, bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt { what, text: format!("{} bytes", bytes.len()) })
}

impl Store for SqliteStore {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await.map_err(query("asking whether it answers"))?;
        Ok(())
    }

    async fn device(&self, name: &DeviceName) -> Result<Option<Device>, StoreError> {
        devices::one(&self.pool, name).await
    }

    async fn devices(&self, filter: &DeviceFilter) -> Result<Vec<Device>, StoreError> {
        devices::list(&self.pool, filter).await
    }

    async fn count(&self, filter: &DeviceFilter) -> Result<u64, StoreError> {
        devices::count(&self.pool, filter).await
    }

    async fn counts(&self, silent_before: Timestamp) -> Result<FleetCounts, StoreError> {
        devices::counts(&self.pool, silent_before).await
    }

    async fn enroll(&self, device: &NewDevice) -> Result<Enrolled, StoreError> {
        devices::enroll(self.begin("enrolling a device").await?, device).await
    }

    async fn set_state(&self, name: &DeviceName, state: DeviceState, now: Timestamp) -> Result<bool, StoreError> {
        devices::set_state(self.begin("changing a device's state").await?, name, state, now).await
    }

    async fn set_links(&self, links: &[(DeviceName, bool)]) -> Result<(), StoreError> {
        devices::set_links(self.begin("noting devices' links").await?, links).await
    }

    async fn add_token(&self, token: &NewToken) -> Result<(), StoreError> {
        tokens::add(&self.pool, token).await
    }

    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        tokens::list(&self.pool).await
    }

    async fn token(&self, hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        tokens::by_hash(&self.pool, hash).await
    }

    async fn use_token(&self, id: &str, now: Timestamp) -> Result<TokenUse, StoreError> {
        tokens::take(self.begin("using a join token").await?, id, now).await
    }

    async fn unuse_token(&self, id: &str) -> Result<(), StoreError> {
        tokens::give_back(&self.pool, id).await
    }

    async fn revoke_token(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        tokens::revoke(&self.pool, id, now).await
    }

    async fn store(&self, reports: &[Report], now: Timestamp) -> Result<Stored, StoreError> {
        reports::store(self.begin("storing reports").await?, reports, now).await
    }

    async fn runs(&self, device: &DeviceName) -> Result<Vec<RunSeen>, StoreError> {
        runs::list(&self.pool, device).await
    }

    async fn forget_runs(&self, device: &DeviceName) -> Result<bool, StoreError> {
        let doing = "forgetting runs";
        let mut tx = self.begin(doing).await?;
        let done = runs::forget(&mut tx, device).await?;
        tx.commit().await.map_err(query(doing))?;
        Ok(done)
    }

    async fn entries(&self, device: &DeviceName, limit: u32) -> Result<Vec<Entry>, StoreError> {
        reports::entries(&self.pool, device, limit).await
    }

    async fn sequence(&self, device: &DeviceName, now: Timestamp) -> Result<Option<u64>, StoreError> {
        commands::sequence(&self.pool, device, now).await
    }

    async fn add_command(&self, command: &NewCommand) -> Result<(), StoreError> {
        commands::add(&self.pool, command).await
    }

    async fn commands(&self, device: &DeviceName, limit: u32) -> Result<Vec<StoredCommand>, StoreError> {
        commands::list(&self.pool, device, limit).await
    }

    async fn command(&self, device: &DeviceName, sequence: u64) -> Result<Option<StoredCommand>, StoreError> {
        commands::one(&self.pool, device, sequence).await
    }

    async fn open_commands(
        &self,
        device: Option<&DeviceName>,
        after: u64,
        now: Timestamp,
    ) -> Result<Vec<StoredCommand>, StoreError> {
        commands::open(&self.pool, device, after, now).await
    }

    async fn command_sent(&self, device: &DeviceName, sequence: u64, now: Timestamp) -> Result<(), StoreError> {
        commands::sent(&self.pool, device, sequence, now).await
    }

    async fn refuse(
        &self,
        reason: &'static str,
        device: Option<&str>,
        count: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        rest::refuse(&self.pool, reason, device, count, now).await
    }

    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        rest::refusals(&self.pool).await
    }

    async fn add_delivery(&self, delivery: &Delivery) -> Result<(), StoreError> {
        rest::add_delivery(&self.pool, delivery).await
    }

    async fn deliveries(&self, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        rest::deliveries(&self.pool, limit).await
    }

    async fn expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        rest::expire(self.begin("dropping what is old").await?, before).await
    }
}

#[cfg(test)]
mod tests;
