//! Refusals, webhooks, and what is dropped by age.

use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};

use super::{query, signed, unsigned};
use crate::clock::{from_millis, millis};
use crate::store::{Delivery, Refusal, StoreError};

/// Webhooks that are remembered: enough to see why one did nothing.
const DELIVERIES: i64 = 500;
/// Events and logs of a device that stay at any age.
const KEPT: i64 = 200;

pub(super) async fn refuse(
    pool: &SqlitePool,
    reason: &'static str,
    device: Option<&str>,
    count: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO refusals (reason, count, last, device) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (reason) \
         DO UPDATE SET count = count + ?2, last = ?3, device = coalesce(?4, device)",
    )
    .bind(reason)
    .bind(signed(count))
    .bind(millis(now))
    .bind(device)
    .execute(pool)
    .await
    .map_err(query("counting a refusal"))?;
    Ok(())
}

pub(super) async fn refusals(pool: &SqlitePool) -> Result<Vec<Refusal>, StoreError> {
    let rows: Vec<(String, i64, i64, Option<String>)> =
        sqlx::query_as("SELECT reason, count, last, device FROM refusals ORDER BY count DESC, reason")
            .fetch_all(pool)
            .await
            .map_err(query("listing refusals"))?;
    Ok(rows
        .into_iter()
        .map(|(reason, count, last, device)| Refusal {
            reason,
            count: unsigned(count),
            last: from_millis(last),
            device,
        })
        .collect())
}

pub(super) async fn add_delivery(pool: &SqlitePool, delivery: &Delivery) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO deliveries (kind, received, outcome, branch) VALUES (?, ?, ?, ?)")
        .bind(&delivery.kind)
        .bind(millis(delivery.received))
        .bind(&delivery.outcome)
        .bind(&delivery.branch)
        .execute(pool)
        .await
        .map_err(query("noting a webhook"))?;
    Ok(())
}

pub(super) async fn deliveries(pool: &SqlitePool, limit: u32) -> Result<Vec<Delivery>, StoreError> {
    let rows: Vec<(String, i64, String, Option<String>)> =
        sqlx::query_as("SELECT kind, received, outcome, branch FROM deliveries ORDER BY id DESC LIMIT ?")
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await
            .map_err(query("listing webhooks"))?;
    Ok(rows
        .into_iter()
        .map(|(kind, received, outcome, branch)| Delivery { kind, received: from_millis(received), outcome, branch })
        .collect())
}

pub(super) async fn expire(mut tx: Transaction<'static, Sqlite>, before: Timestamp) -> Result<u64, StoreError> {
    let doing = "dropping what is old";
    let before = millis(before);
    // The floor first: a place that was dropped still counts as seen.
    for sql in [
        "UPDATE devices SET floor_at = ?1, (floor_epoch, floor_counter) = (SELECT epoch, counter FROM reports \
         WHERE device = devices.name AND received < ?1 ORDER BY epoch DESC, counter DESC LIMIT 1) \
         WHERE EXISTS (SELECT 1 FROM reports WHERE device = devices.name AND received < ?1 \
         AND (epoch, counter) > (floor_epoch, floor_counter))",
        "DELETE FROM commands WHERE expires < ?1",
        "DELETE FROM runs WHERE last_seen < ?1",
    ] {
        sqlx::query(sql).bind(before).execute(&mut *tx).await.map_err(query(doing))?;
    }
    // The newest of each device stay at any age: a wrong clock must not take them.
    let dropped = sqlx::query(
        "DELETE FROM reports WHERE received < ?1 AND (device, epoch, counter) NOT IN \
         (SELECT device, epoch, counter FROM (SELECT device, epoch, counter, row_number() OVER \
         (PARTITION BY device ORDER BY epoch DESC, counter DESC) AS age FROM reports WHERE kind <> 'status') \
         WHERE age <= ?2)",
    )
    .bind(before)
    .bind(KEPT)
    .execute(&mut *tx)
    .await
    .map_err(query(doing))?;
    sqlx::query("DELETE FROM deliveries WHERE id <= (SELECT max(id) FROM deliveries) - ?1")
        .bind(DELIVERIES)
        .execute(&mut *tx)
        .await
        .map_err(query(doing))?;
    tx.commit().await.map_err(query(doing))?;
    Ok(dropped.rows_affected())
}
