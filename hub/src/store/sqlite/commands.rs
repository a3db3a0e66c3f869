//! Commands, from their sequence to what became of them.

use fleet::name::DeviceName;
use fleet::wire::report::ReportBody;
use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};

use super::{name, query, signed, unsigned};
use crate::clock::{from_millis, millis};
use crate::store::{NewCommand, Outcome, StoreError, StoredCommand};

const COLUMNS: &str = "SELECT device, sequence, act, jws, issued, expires, sent, done, outcome, message FROM commands";

fn command(row: &SqliteRow) -> Result<StoredCommand, StoreError> {
    let get = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<String, _>("device")?,
            row.try_get::<i64, _>("sequence")?,
            (row.try_get::<String, _>("act")?, row.try_get::<String, _>("jws")?),
            (row.try_get::<i64, _>("issued")?, row.try_get::<i64, _>("expires")?),
            (row.try_get::<Option<i64>, _>("sent")?, row.try_get::<Option<i64>, _>("done")?),
            row.try_get::<Option<String>, _>("outcome")?,
            row.try_get::<Option<String>, _>("message")?,
        ))
    };
    let (device, sequence, (act, jws), (issued, expires), (sent, done), outcome, message) =
        get().map_err(query("reading a command"))?;
    Ok(StoredCommand {
        device: name(&device)?,
        sequence: unsigned(sequence),
        act,
        jws,
        issued: from_millis(issued),
        expires: from_millis(expires),
        sent: sent.map(from_millis),
        done: done.map(from_millis),
        outcome: match outcome.as_deref() {
            None => None,
            Some("done") => Some(Outcome::Done),
            Some("refused") => Some(Outcome::Refused),
            Some(other) => return Err(StoreError::Corrupt { what: "command's outcome", text: other.to_owned() }),
        },
        message: message.unwrap_or_default(),
    })
}

pub(super) async fn sequence(
    pool: &SqlitePool,
    device: &DeviceName,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let row: Option<(i64,)> = sqlx::query_as(
        "UPDATE devices SET sequence = max(sequence + 1, ?2) WHERE name = ?1 AND state = 'accepted' RETURNING sequence",
    )
    .bind(device.as_str())
    .bind(millis(now))
    .fetch_optional(pool)
    .await
    .map_err(query("taking a sequence"))?;
    Ok(row.map(|(sequence,)| unsigned(sequence)))
}

pub(super) async fn add(pool: &SqlitePool, command: &NewCommand) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO commands (device, sequence, act, jws, issued, expires) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(command.device.as_str())
        .bind(signed(command.sequence))
        .bind(&command.act)
        .bind(&command.jws)
        .bind(millis(command.issued))
        .bind(millis(command.expires))
        .execute(pool)
        .await
        .map_err(query("keeping a command"))?;
    Ok(())
}

pub(super) async fn list(pool: &SqlitePool, device: &DeviceName, limit: u32) -> Result<Vec<StoredCommand>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(COLUMNS);
    sql.push(" WHERE device = ").push_bind(device.as_str());
    sql.push(" ORDER BY sequence DESC LIMIT ").push_bind(i64::from(limit));
    let rows = sql.build().fetch_all(pool).await.map_err(query("listing commands"))?;
    rows.iter().map(command).collect()
}

pub(super) async fn one(
    pool: &SqlitePool,
    device: &DeviceName,
    sequence: u64,
) -> Result<Option<StoredCommand>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(COLUMNS);
    sql.push(" WHERE device = ").push_bind(device.as_str());
    sql.push(" AND sequence = ").push_bind(signed(sequence));
    let row = sql.build().fetch_optional(pool).await.map_err(query("reading a command"))?;
    row.as_ref().map(command).transpose()
}

pub(super) async fn open(
    pool: &SqlitePool,
    device: Option<&DeviceName>,
    after: u64,
    now: Timestamp,
) -> Result<Vec<StoredCommand>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(COLUMNS);
    sql.push(" WHERE done IS NULL AND expires > ").push_bind(millis(now));
    sql.push(" AND sequence > ").push_bind(signed(after));
    if let Some(device) = device {
        sql.push(" AND device = ").push_bind(device.as_str());
    }
    sql.push(" AND device IN (SELECT name FROM devices WHERE state = 'accepted') ORDER BY sequence LIMIT 1000");
    let rows = sql.build().fetch_all(pool).await.map_err(query("listing open commands"))?;
    rows.iter().map(command).collect()
}

pub(super) async fn sent(
    pool: &SqlitePool,
    device: &DeviceName,
    sequence: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE commands SET sent = ?3 WHERE device = ?1 AND sequence = ?2")
        .bind(device.as_str())
        .bind(signed(sequence))
        .bind(millis(now))
        .execute(pool)
        .await
        .map_err(query("noting that a command was sent"))?;
    Ok(())
}

/// Closes a command with what a report of its device says of it. Only the first one counts.
pub(super) async fn answered(
    tx: &mut Transaction<'static, Sqlite>,
    device: &DeviceName,
    body: &ReportBody,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (sequence, outcome, message) = match body {
        ReportBody::Answer(answer) => (
            answer.command,
            match answer.outcome {
                Outcome::Done => "done",
                Outcome::Refused => "refused",
            },
            answer.message.clone(),
        ),
        ReportBody::Logs(logs) => (logs.command, "done", format!("{} lines", logs.lines.len())),
        ReportBody::Status(_) | ReportBody::Event(_) => return Ok(()),
    };
    sqlx::query(
        "UPDATE commands SET done = ?3, outcome = ?4, message = ?5 \
         WHERE device = ?1 AND sequence = ?2 AND done IS NULL",
    )
    .bind(device.as_str())
    .bind(signed(sequence))
    .bind(millis(now))
    .bind(outcome)
    .bind(message)
    .execute(&mut **tx)
    .await
    .map_err(query("noting what became of a command"))?;
    Ok(())
}
