//! Reports: each place once, the newest status beside its device.

use fleet::name::DeviceName;
use fleet::wire::ack;
use fleet::wire::report::{Place, Report, ReportBody};
use fleet::wire::status::Status;
use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};

use super::{commands, from_json, json, query, signed, unsigned};
use crate::axes;
use crate::clock::{from_millis, millis};
use crate::store::{AckAt, Entry, StoreError, Stored, Taken};

const DOING: &str = "storing reports";

pub(super) async fn store(
    mut tx: Transaction<'static, Sqlite>,
    reports: &[Report],
    now: Timestamp,
) -> Result<Stored, StoreError> {
    let mut stored = Stored::default();
    let mut devices: Vec<&DeviceName> = Vec::new();
    for report in reports {
        stored.taken.push(store_one(&mut tx, report, now).await?);
        acknowledge(&mut tx, report).await?;
        if !devices.contains(&&report.device) {
            devices.push(&report.device);
        }
    }
    for device in devices {
        // One sequence a batch and device; none while nothing can be acknowledged.
        let row: Option<(i64, i64, i64)> = sqlx::query_as(
            "UPDATE devices SET ack_sequence = max(ack_sequence + 1, ?2) WHERE name = ?1 \
             AND acked_epoch IS NOT NULL RETURNING acked_epoch, acked_counter, ack_sequence",
        )
        .bind(device.as_str())
        .bind(millis(now))
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(DOING))?;
        if let Some((epoch, counter, sequence)) = row {
            let place = Place { epoch: unsigned(epoch), counter: unsigned(counter) };
            stored.acks.push(AckAt { device: device.clone(), place, sequence: unsigned(sequence) });
        }
    }
    tx.commit().await.map_err(query(DOING))?;
    Ok(stored)
}

/// Also for a report that was there already: it may come again just because
/// the one before it was missing.
async fn acknowledge(tx: &mut Transaction<'static, Sqlite>, report: &Report) -> Result<(), StoreError> {
    let row: Option<(Option<i64>, Option<i64>)> =
        sqlx::query_as("SELECT acked_epoch, acked_counter FROM devices WHERE name = ?")
            .bind(report.device.as_str())
            .fetch_optional(&mut **tx)
            .await
            .map_err(query(DOING))?;
    let Some((epoch, counter)) = row else { return Ok(()) };
    let acked = epoch.zip(counter).map(|(e, c)| Place { epoch: unsigned(e), counter: unsigned(c) });
    let next = ack::advance(acked, report);
    if let Some(next) = next.filter(|_| next != acked) {
        sqlx::query("UPDATE devices SET acked_epoch = ?2, acked_counter = ?3 WHERE name = ?1")
            .bind(report.device.as_str())
            .bind(signed(next.epoch))
            .bind(signed(next.counter))
            .execute(&mut **tx)
            .await
            .map_err(query(DOING))?;
    }
    Ok(())
}

async fn store_one(
    tx: &mut Transaction<'static, Sqlite>,
    report: &Report,
    now: Timestamp,
) -> Result<Taken, StoreError> {
    let (epoch, counter) = (signed(report.epoch), signed(report.counter));
    let (kind, body) = match &report.body {
        // Only the newest status counts, and it is kept beside the device.
        ReportBody::Status(_) => ("status", None),
        ReportBody::Event(_) => ("event", Some(json("event", &report.body)?)),
        ReportBody::Answer(_) => ("answer", Some(json("answer", &report.body)?)),
        ReportBody::Logs(_) => ("logs", Some(json("log excerpt", &report.body)?)),
    };
    // Below the floor, places were dropped by age: they all count as seen.
    let stored = sqlx::query(
        "INSERT INTO reports (device, epoch, counter, at, received, kind, body) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 FROM devices WHERE name = ?1 AND (floor_epoch, floor_counter) < (?2, ?3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(report.device.as_str())
    .bind(epoch)
    .bind(counter)
    .bind(millis(report.at))
    .bind(millis(now))
    .bind(kind)
    .bind(body)
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    if stored.rows_affected() == 0 {
        return Ok(Taken::Duplicate);
    }
    sqlx::query("UPDATE devices SET last_seen = max(coalesce(last_seen, 0), ?2) WHERE name = ?1")
        .bind(report.device.as_str())
        .bind(millis(now))
        .execute(&mut **tx)
        .await
        .map_err(query(DOING))?;
    match &report.body {
        ReportBody::Status(status) => store_status(tx, report, status, now).await?,
        body => commands::answered(tx, &report.device, body, now).await?,
    }
    Ok(Taken::New)
}

/// An older status that comes late must not hide a newer one.
async fn store_status(
    tx: &mut Transaction<'static, Sqlite>,
    report: &Report,
    status: &Status,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET status = ?4, status_epoch = ?2, status_counter = ?3, status_at = ?5, \
         status_received = ?6, phase = ?7, sync = ?8, health = ?9, revision = ?10, last_good = ?11 \
         WHERE name = ?1 AND (status_epoch, status_counter) < (?2, ?3)",
    )
    .bind(report.device.as_str())
    .bind(signed(report.epoch))
    .bind(signed(report.counter))
    .bind(json("status", status)?)
    .bind(millis(report.at))
    .bind(millis(now))
    .bind(axes::phase(status.phase))
    .bind(axes::sync(status).as_str())
    .bind(axes::health(status).as_str())
    .bind(status.revision.as_ref().map(|id| id.as_str().to_owned()))
    .bind(status.last_good.as_ref().map(|id| id.as_str().to_owned()))
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    Ok(())
}

pub(super) async fn entries(pool: &SqlitePool, device: &DeviceName, limit: u32) -> Result<Vec<Entry>, StoreError> {
    let rows: Vec<(i64, i64, i64, i64, String)> = sqlx::query_as(
        "SELECT epoch, counter, at, received, body FROM reports \
         WHERE device = ? AND kind IN ('event', 'logs') AND body IS NOT NULL \
         ORDER BY at DESC, epoch DESC, counter DESC LIMIT ?",
    )
    .bind(device.as_str())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(query("listing events"))?;
    rows.into_iter()
        .map(|(epoch, counter, at, received, body)| {
            Ok(Entry {
                place: Place { epoch: unsigned(epoch), counter: unsigned(counter) },
                at: from_millis(at),
                received: from_millis(received),
                body: from_json("event", &body)?,
            })
        })
        .collect()
}
