//! Reports: each place once, the newest status beside its device.

use fleet::name::DeviceName;
use fleet::wire::report::ReportBody;
use fleet::wire::status::Status;
use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};

use super::{from_json, json, query, signed, unsigned};
use crate::axes;
use crate::clock::{from_millis, millis};
use crate::store::{Entry, NewReport, Place, StoreError, Taken};

const DOING: &str = "storing reports";

pub(super) async fn store(
    mut tx: Transaction<'static, Sqlite>,
    reports: &[NewReport],
    now: Timestamp,
) -> Result<Vec<Taken>, StoreError> {
    let mut taken = Vec::with_capacity(reports.len());
    for report in reports {
        taken.push(store_one(&mut tx, report, now).await?);
    }
    tx.commit().await.map_err(query(DOING))?;
    Ok(taken)
}

async fn store_one(
    tx: &mut Transaction<'static, Sqlite>,
    report: &NewReport,
    now: Timestamp,
) -> Result<Taken, StoreError> {
    let (epoch, counter) = (signed(report.place.epoch), signed(report.place.counter));
    let (kind, body) = match &report.body {
        // Only the newest status counts, and it is kept beside the device.
        ReportBody::Status(_) => ("status", None),
        ReportBody::Event(_) => ("event", Some(json("event", &report.body)?)),
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
    sqlx::query(
        "UPDATE devices SET last_seen = max(coalesce(last_seen, 0), ?4), \
         epoch = CASE WHEN (epoch, counter) < (?2, ?3) THEN ?2 ELSE epoch END, \
         counter = CASE WHEN (epoch, counter) < (?2, ?3) THEN ?3 ELSE counter END WHERE name = ?1",
    )
    .bind(report.device.as_str())
    .bind(epoch)
    .bind(counter)
    .bind(millis(now))
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    if let ReportBody::Status(status) = &report.body {
        store_status(tx, report, status, now).await?;
    }
    Ok(Taken::New)
}

/// An older status that comes late must not hide a newer one.
async fn store_status(
    tx: &mut Transaction<'static, Sqlite>,
    report: &NewReport,
    status: &Status,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET status = ?4, status_epoch = ?2, status_counter = ?3, status_at = ?5, \
         status_received = ?6, phase = ?7, sync = ?8, health = ?9, revision = ?10, last_good = ?11 \
         WHERE name = ?1 AND (status_epoch, status_counter) < (?2, ?3)",
    )
    .bind(report.device.as_str())
    .bind(signed(report.place.epoch))
    .bind(signed(report.place.counter))
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

pub(super) async fn place(pool: &SqlitePool, device: &DeviceName) -> Result<Option<Place>, StoreError> {
    let row: Option<(i64, i64)> =
        sqlx::query_as("SELECT epoch, counter FROM devices WHERE name = ? AND (epoch, counter) > (0, 0)")
            .bind(device.as_str())
            .fetch_optional(pool)
            .await
            .map_err(query("reading the last place"))?;
    Ok(row.map(|(epoch, counter)| Place { epoch: unsigned(epoch), counter: unsigned(counter) }))
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
