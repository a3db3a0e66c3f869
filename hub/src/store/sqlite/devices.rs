//! Devices: rows, filters and counts.

use fleet::name::DeviceName;
use fleet::wire::status::Status;
use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};

use super::{bytes32, from_json, json, name, query, unsigned};
use crate::axes::{HealthAxis, LinkAxis, SyncAxis};
use crate::clock::{from_millis, millis};
use crate::store::{Device, DeviceFilter, DeviceState, Enrolled, FleetCounts, Group, NewDevice, StoreError, Twin};

const COLUMNS: &str = "SELECT name, key, state, labels, token, enrolled, status, status_at, status_received, \
                       sync, health, last_seen, mqtt_link, twin_since, twin_seen FROM devices";

fn device(row: &SqliteRow) -> Result<Device, StoreError> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<String, _>("name")?,
            row.try_get::<Vec<u8>, _>("key")?,
            row.try_get::<String, _>("state")?,
            row.try_get::<String, _>("labels")?,
            row.try_get::<Option<String>, _>("token")?,
            row.try_get::<i64, _>("enrolled")?,
            row.try_get::<Option<String>, _>("status")?,
            row.try_get::<Option<i64>, _>("status_at")?,
            row.try_get::<Option<i64>, _>("status_received")?,
            (row.try_get::<String, _>("sync")?, row.try_get::<String, _>("health")?),
            row.try_get::<Option<i64>, _>("last_seen")?,
            row.try_get::<Option<String>, _>("mqtt_link")?,
            (row.try_get::<Option<i64>, _>("twin_since")?, row.try_get::<Option<i64>, _>("twin_seen")?),
        ))
    };
    let (text, key, state, labels, token, enrolled, status, status_at, received, (sync, health), seen, link, twin) =
        read().map_err(query("reading a device"))?;
    Ok(Device {
        name: name(&text)?,
        key: bytes32("device key", &key)?,
        state: match state.as_str() {
            "lobby" => DeviceState::Lobby,
            "accepted" => DeviceState::Accepted,
            "removed" => DeviceState::Removed,
            _ => return Err(StoreError::Corrupt { what: "device state", text: state }),
        },
        labels: from_json("set of labels", &labels)?,
        token,
        enrolled: from_millis(enrolled),
        status: status.map(|text| from_json::<Status>("status", &text)).transpose()?,
        status_at: status_at.map(from_millis),
        status_received: received.map(from_millis),
        sync: SyncAxis::parse(&sync).unwrap_or(SyncAxis::Unknown),
        health: HealthAxis::parse(&health).unwrap_or(HealthAxis::Unknown),
        last_seen: seen.map(from_millis),
        mqtt_up: link.map(|link| link == "up"),
        twin: twin.0.zip(twin.1).map(|(since, seen)| Twin { since: from_millis(since), seen: from_millis(seen) }),
    })
}

pub(super) async fn one(pool: &SqlitePool, name: &DeviceName) -> Result<Option<Device>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(COLUMNS);
    sql.push(" WHERE name = ").push_bind(name.as_str());
    let row = sql.build().fetch_optional(pool).await.map_err(query("reading a device"))?;
    row.as_ref().map(device).transpose()
}

/// `LIKE` with what a person typed taken literally.
fn pattern(text: &str) -> String {
    let mut out = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('%');
    out
}

fn restrict(sql: &mut QueryBuilder<Sqlite>, filter: &DeviceFilter) {
    match filter.state {
        Some(state) => sql.push(" WHERE state = ").push_bind(state.as_str()),
        None => sql.push(" WHERE state IN ('lobby', 'accepted')"),
    };
    if let Some(search) = filter.search.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        // Labels are stored as JSON without spaces: `"region":"eu"`.
        let label = match search.split_once('=') {
            Some((key, value)) => format!("\"{key}\":\"{value}"),
            None => search.to_owned(),
        };
        sql.push(" AND (name LIKE ").push_bind(pattern(search)).push(" ESCAPE '\\' OR labels LIKE ");
        sql.push_bind(pattern(&label)).push(" ESCAPE '\\')");
    }
    for (column, wanted) in [("phase", &filter.phase), ("sync", &filter.sync), ("health", &filter.health)] {
        if let Some(wanted) = wanted {
            sql.push(" AND ").push(column).push(" = ").push_bind(wanted.clone());
        }
    }
    if let Some(revision) = &filter.revision {
        sql.push(" AND revision LIKE ").push_bind(pattern(revision).trim_start_matches('%').to_owned());
        sql.push(" ESCAPE '\\'");
    }
    if let Some(since) = filter.copied {
        sql.push(" AND twin_seen >= ").push_bind(millis(since));
    }
    match filter.link {
        Some((LinkAxis::Silent, before)) => {
            sql.push(" AND last_seen < ").push_bind(millis(before));
        }
        Some((LinkAxis::Heard, before)) => {
            sql.push(" AND last_seen >= ").push_bind(millis(before));
        }
        Some((LinkAxis::Unheard, _)) => {
            sql.push(" AND last_seen IS NULL");
        }
        None => {}
    }
}

pub(super) async fn list(pool: &SqlitePool, filter: &DeviceFilter) -> Result<Vec<Device>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(COLUMNS);
    restrict(&mut sql, filter);
    sql.push(" ORDER BY name");
    if filter.limit > 0 {
        sql.push(" LIMIT ").push_bind(i64::from(filter.limit));
        sql.push(" OFFSET ").push_bind(i64::from(filter.offset));
    }
    let rows = sql.build().fetch_all(pool).await.map_err(query("listing devices"))?;
    rows.iter().map(device).collect()
}

pub(super) async fn count(pool: &SqlitePool, filter: &DeviceFilter) -> Result<u64, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT count(*) FROM devices");
    restrict(&mut sql, filter);
    let count: i64 = sql.build_query_scalar().fetch_one(pool).await.map_err(query("counting devices"))?;
    Ok(unsigned(count))
}

/// Counts of the fleet. The index `devices_axes` answers them alone.
pub(super) const SIZES: &str = "SELECT count(*) FILTER (WHERE state = 'accepted'), \
     count(*) FILTER (WHERE state = 'lobby'), \
     count(*) FILTER (WHERE state = 'accepted' AND last_seen >= ?1), \
     count(*) FILTER (WHERE state = 'accepted' AND last_seen < ?1), \
     count(*) FILTER (WHERE state = 'accepted' AND twin_seen >= ?1) FROM devices";
pub(super) const PHASES: &str =
    "SELECT coalesce(phase, 'unknown'), count(*) FROM devices WHERE state = 'accepted' GROUP BY 1";
pub(super) const SYNC: &str = "SELECT sync, count(*) FROM devices WHERE state = 'accepted' GROUP BY 1";
pub(super) const HEALTH: &str = "SELECT health, count(*) FROM devices WHERE state = 'accepted' GROUP BY 1";
pub(super) const REVISIONS: &str = "SELECT revision, count(*) AS n FROM devices \
     WHERE state = 'accepted' AND revision IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1 LIMIT 12";

async fn groups(pool: &SqlitePool, sql: &'static str) -> Result<Vec<Group>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(pool).await.map_err(query("counting the fleet"))?;
    Ok(rows.into_iter().map(|(key, count)| Group { key, count: unsigned(count) }).collect())
}

pub(super) async fn counts(pool: &SqlitePool, silent_before: Timestamp) -> Result<FleetCounts, StoreError> {
    let (accepted, lobby, heard, silent, copied): (i64, i64, i64, i64, i64) =
        sqlx::query_as(SIZES).bind(millis(silent_before)).fetch_one(pool).await.map_err(query("counting the fleet"))?;
    let (accepted, heard, silent) = (unsigned(accepted), unsigned(heard), unsigned(silent));
    Ok(FleetCounts {
        accepted,
        lobby: unsigned(lobby),
        phases: groups(pool, PHASES).await?,
        sync: groups(pool, SYNC).await?,
        health: groups(pool, HEALTH).await?,
        heard,
        silent,
        copied: unsigned(copied),
        unheard: accepted.saturating_sub(heard).saturating_sub(silent),
        revisions: groups(pool, REVISIONS).await?,
    })
}

pub(super) async fn enroll(mut tx: Transaction<'static, Sqlite>, device: &NewDevice) -> Result<Enrolled, StoreError> {
    let failed = "enrolling a device";
    let other: Option<(String,)> =
        sqlx::query_as("SELECT name FROM devices WHERE key = ? AND name <> ? AND state <> 'removed'")
            .bind(device.key.as_slice())
            .bind(device.name.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(query(failed))?;
    if let Some((other,)) = other {
        return Ok(Enrolled::KeyOf(name(&other)?));
    }
    let known: Option<(Vec<u8>, String)> = sqlx::query_as("SELECT key, state FROM devices WHERE name = ?")
        .bind(device.name.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(failed))?;
    match known {
        Some((key, state)) if state != "removed" => {
            return Ok(if key == device.key { Enrolled::Done } else { Enrolled::NameTaken });
        }
        // A decommissioned name starts over: nothing of the old device's state
        // is shown as the new one's. The sequence goes on, so that no command
        // to the old one fits the new.
        Some(_) => {
            sqlx::query("DELETE FROM reports WHERE device = ?")
                .bind(device.name.as_str())
                .execute(&mut *tx)
                .await
                .map_err(query(failed))?;
            sqlx::query("DELETE FROM runs WHERE device = ?")
                .bind(device.name.as_str())
                .execute(&mut *tx)
                .await
                .map_err(query(failed))?;
            sqlx::query("DELETE FROM commands WHERE device = ?")
                .bind(device.name.as_str())
                .execute(&mut *tx)
                .await
                .map_err(query(failed))?;
        }
        None => {}
    }
    sqlx::query(
        "INSERT INTO devices (name, key, state, labels, token, enrolled, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) \
         ON CONFLICT (name) DO UPDATE SET key = ?2, state = ?3, labels = ?4, token = ?5, enrolled = ?6, changed = ?6, \
         acked_epoch = NULL, acked_counter = NULL, status = NULL, status_epoch = 0, status_counter = 0, status_at = NULL, \
         status_received = NULL, phase = NULL, sync = 'unknown', health = 'unknown', revision = NULL, \
         last_good = NULL, last_seen = NULL, mqtt_link = NULL, floor_epoch = 0, floor_counter = 0, \
         floor_at = 0, known_epoch = 0, known_counter = 0, status_run = '', twin_since = NULL, twin_seen = NULL",
    )
    .bind(device.name.as_str())
    .bind(device.key.as_slice())
    .bind(device.state.as_str())
    .bind(json("set of labels", &device.labels)?)
    .bind(&device.token)
    .bind(millis(device.now))
    .execute(&mut *tx)
    .await
    .map_err(query(failed))?;
    tx.commit().await.map_err(query(failed))?;
    Ok(Enrolled::Done)
}

pub(super) async fn set_state(
    mut tx: Transaction<'static, Sqlite>,
    name: &DeviceName,
    state: DeviceState,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let failed = "changing a device's state";
    // What was decommissioned comes back by enrolling alone.
    let done = sqlx::query("UPDATE devices SET state = ?2, changed = ?3 WHERE name = ?1 AND state <> 'removed'")
        .bind(name.as_str())
        .bind(state.as_str())
        .bind(millis(now))
        .execute(&mut *tx)
        .await
        .map_err(query(failed))?;
    tx.commit().await.map_err(query(failed))?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn set_links(
    mut tx: Transaction<'static, Sqlite>,
    links: &[(DeviceName, bool)],
) -> Result<(), StoreError> {
    let failed = "noting devices' links";
    for (name, up) in links {
        sqlx::query("UPDATE devices SET mqtt_link = ?2 WHERE name = ?1 AND mqtt_link IS NOT ?2 AND state <> 'removed'")
            .bind(name.as_str())
            .bind(if *up { "up" } else { "down" })
            .execute(&mut *tx)
            .await
            .map_err(query(failed))?;
    }
    tx.commit().await.map_err(query(failed))
}
