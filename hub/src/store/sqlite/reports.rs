//! Reports: each once, by its place and by what it says; the newest status beside its device.

use fleet::name::DeviceName;
use fleet::wire::ack;
use fleet::wire::report::{GIVEN_UP, Place, Report, ReportBody};
use fleet::wire::status::Status;
use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};

use super::{commands, from_json, json, query, runs, signed, unsigned};
use crate::axes;
use crate::clock::{from_millis, millis};
use crate::keys::{hex, sha256};
use crate::store::{AckAt, Entry, StoreError, Stored, Taken};

const DOING: &str = "storing reports";

pub(super) async fn store(
    mut tx: Transaction<'static, Sqlite>,
    reports: &[Report],
    now: Timestamp,
) -> Result<Stored, StoreError> {
    let mut stored = Stored::default();
    let mut senders: Vec<(&DeviceName, &str)> = Vec::new();
    for report in reports {
        runs::note(&mut tx, report, now).await?;
        stored.taken.push(store_one(&mut tx, report, now).await?);
        acknowledge(&mut tx, report).await?;
        let sender = (&report.device, runs::id(report));
        if !senders.contains(&sender) {
            senders.push(sender);
        }
    }
    for (device, run) in senders {
        stored.acks.extend(ack_of(&mut tx, device, run, now).await?);
    }
    tx.commit().await.map_err(query(DOING))?;
    Ok(stored)
}

/// Sequence, the highest place known, since when there is a twin and when it was seen.
type AckRow = (i64, i64, i64, Option<i64>, Option<i64>);

/// One sequence a batch and run; none while nothing can be acknowledged.
async fn ack_of(
    tx: &mut Transaction<'static, Sqlite>,
    device: &DeviceName,
    run: &str,
    now: Timestamp,
) -> Result<Option<AckAt>, StoreError> {
    let acked: Option<(i64, i64)> = sqlx::query_as(
        "SELECT acked_epoch, acked_counter FROM runs WHERE device = ? AND run = ? AND acked_epoch IS NOT NULL",
    )
    .bind(device.as_str())
    .bind(run)
    .fetch_optional(&mut **tx)
    .await
    .map_err(query(DOING))?;
    let Some((epoch, counter)) = acked else { return Ok(None) };
    let row: Option<AckRow> = sqlx::query_as(
        "UPDATE devices SET ack_sequence = max(ack_sequence + 1, ?2) WHERE name = ?1 \
         RETURNING ack_sequence, known_epoch, known_counter, twin_since, twin_seen",
    )
    .bind(device.as_str())
    .bind(millis(now))
    .fetch_optional(&mut **tx)
    .await
    .map_err(query(DOING))?;
    let place = |epoch, counter| Place { epoch: unsigned(epoch), counter: unsigned(counter) };
    Ok(row.map(|(sequence, known_epoch, known_counter, since, seen)| AckAt {
        device: device.clone(),
        place: place(epoch, counter),
        sequence: unsigned(sequence),
        run: run.to_owned(),
        known: place(known_epoch, known_counter),
        twin: runs::twin(since, seen, now),
    }))
}

/// Also for a report that was there already: it may come again just because
/// the one before it was missing. Each run has its own: what one sent, another
/// must not forget.
async fn acknowledge(tx: &mut Transaction<'static, Sqlite>, report: &Report) -> Result<(), StoreError> {
    let row: Option<(Option<i64>, Option<i64>)> =
        sqlx::query_as("SELECT acked_epoch, acked_counter FROM runs WHERE device = ? AND run = ?")
            .bind(report.device.as_str())
            .bind(runs::id(report))
            .fetch_optional(&mut **tx)
            .await
            .map_err(query(DOING))?;
    let Some((epoch, counter)) = row else { return Ok(()) };
    let acked = epoch.zip(counter).map(|(e, c)| Place { epoch: unsigned(e), counter: unsigned(c) });
    let next = ack::advance(acked, report);
    if let Some(next) = next.filter(|_| next != acked) {
        sqlx::query("UPDATE runs SET acked_epoch = ?3, acked_counter = ?4 WHERE device = ?1 AND run = ?2")
            .bind(report.device.as_str())
            .bind(runs::id(report))
            .bind(signed(next.epoch))
            .bind(signed(next.counter))
            .execute(&mut **tx)
            .await
            .map_err(query(DOING))?;
    }
    Ok(())
}

/// What a report says, whoever sends it and however often.
fn digest(report: &Report) -> Result<String, StoreError> {
    let said = json("report", &(report.at, &report.body))?;
    Ok(hex(&sha256(said.as_bytes())[..8]))
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
    // Below the floor, places were dropped by age: they count as seen, but for what was made since (a disk that was
    // restored counts from an old epoch). Reports of before there were digests count by their place.
    let stored = sqlx::query(
        "INSERT INTO reports (device, epoch, counter, at, received, kind, body, digest, run) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM devices WHERE name = ?1 \
         AND ((floor_epoch, floor_counter) < (?2, ?3) OR floor_at < ?4) AND NOT EXISTS \
         (SELECT 1 FROM reports WHERE device = ?1 AND epoch = ?2 AND counter = ?3 AND digest = '') \
         ON CONFLICT DO NOTHING",
    )
    .bind(report.device.as_str())
    .bind(epoch)
    .bind(counter)
    .bind(millis(report.at))
    .bind(millis(now))
    .bind(kind)
    .bind(body)
    .bind(digest(report)?)
    .bind(runs::id(report))
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
    sqlx::query(
        "UPDATE devices SET known_epoch = ?2, known_counter = ?3 WHERE name = ?1 \
         AND (known_epoch, known_counter) < (?2, ?3)",
    )
    .bind(report.device.as_str())
    .bind(epoch)
    .bind(counter)
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    match &report.body {
        ReportBody::Event(event) if event.event == GIVEN_UP => drop(runs::forget(tx, &report.device).await?),
        ReportBody::Status(status) => store_status(tx, report, status, now).await?,
        body => commands::answered(tx, &report.device, body, now).await?,
    }
    Ok(Taken::New)
}

/// An older status that comes late must not hide a newer one: not by its place
/// and, of another run, not unless that one began later or lives.
async fn store_status(
    tx: &mut Transaction<'static, Sqlite>,
    report: &Report,
    status: &Status,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET status = ?4, status_epoch = ?2, status_counter = ?3, status_at = ?5, \
         status_received = ?6, phase = ?7, sync = ?8, health = ?9, revision = ?10, last_good = ?11, \
         status_run = ?12 WHERE name = ?1 AND CASE WHEN status_run = ?12 \
         THEN (status_epoch, status_counter) < (?2, ?3) \
         ELSE coalesce((SELECT max(own.began, own.heard) > shown.began FROM runs AS own \
         JOIN runs AS shown ON shown.device = own.device WHERE own.device = ?1 AND own.run = ?12 \
         AND shown.run = devices.status_run), 1) END",
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
    .bind(runs::id(report))
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    Ok(())
}

pub(super) async fn entries(pool: &SqlitePool, device: &DeviceName, limit: u32) -> Result<Vec<Entry>, StoreError> {
    let rows: Vec<(i64, i64, i64, i64, String, String)> = sqlx::query_as(
        "SELECT epoch, counter, at, received, body, run FROM reports \
         WHERE device = ? AND kind IN ('event', 'logs') AND body IS NOT NULL \
         ORDER BY at DESC, epoch DESC, counter DESC LIMIT ?",
    )
    .bind(device.as_str())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(query("listing events"))?;
    rows.into_iter()
        .map(|(epoch, counter, at, received, body, run)| {
            Ok(Entry {
                place: Place { epoch: unsigned(epoch), counter: unsigned(counter) },
                at: from_millis(at),
                received: from_millis(received),
                body: from_json("event", &body)?,
                run,
            })
        })
        .collect()
}
