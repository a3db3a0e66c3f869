//! Runs of a device's agent, and what tells two that live from one that was
//! started again.
//!
//! A run draws an id at its start and says in each report the highest
//! acknowledgement that it has heard. Each run *began* at a sequence of its
//! own. **An older run that has heard a word from after a newer one began is
//! alive beside it**: two agents have one key. A run that ended, a report that
//! came late, a disk that was restored: none of them hears what is said later.

use fleet::name::DeviceName;
use fleet::wire::report::Report;
use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};

use super::{query, signed};
use crate::clock::{from_millis, millis};
use crate::store::{RunSeen, StoreError};

const DOING: &str = "noting a run";
/// A run that was not heard of for so long is over: three repeats of an idle
/// agent's status.
pub(super) const SILENCE: SignedDuration = SignedDuration::from_mins(90);
/// Runs of a device that are remembered, but for those that live.
const KEPT: i64 = 15;

/// What is known of a run, in the device's sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    began: i64,
    heard: i64,
}

/// Whether both lived at the same time.
fn live_beside(a: Known, b: Known) -> bool {
    let (older, newer) = if a.began < b.began { (a, b) } else { (b, a) };
    older.began != newer.began && older.heard > newer.began
}

/// The run that sent a report; '' where its agent draws none.
pub(super) fn id(report: &Report) -> &str {
    report.run.as_ref().map_or("", |run| run.id.as_str())
}

/// Since when the other one has been silent for too long.
fn silent_before(now: Timestamp) -> i64 {
    millis(now.saturating_sub(SILENCE).unwrap_or(Timestamp::MIN))
}

/// Since when two runs live with the device's key, if they still do at `now`.
pub(super) fn twin(since: Option<i64>, seen: Option<i64>, now: Timestamp) -> Option<Timestamp> {
    seen.filter(|seen| *seen >= silent_before(now)).and(since).map(from_millis)
}

/// Notes that the run of `report` was heard of, and whether it has a twin.
pub(super) async fn note(
    tx: &mut Transaction<'static, Sqlite>,
    report: &Report,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (device, run) = (report.device.as_str(), id(report));
    let known: Option<(i64,)> = sqlx::query_as("SELECT began FROM runs WHERE device = ? AND run = ?")
        .bind(device)
        .bind(run)
        .fetch_optional(&mut **tx)
        .await
        .map_err(query(DOING))?;
    if known.is_none() && !begin(tx, device, run, now).await? {
        return Ok(());
    }
    let heard = report.run.as_ref().map_or(0, |run| signed(run.heard));
    let machine = report.run.as_ref().and_then(|run| run.machine.clone());
    sqlx::query(
        "UPDATE runs SET last_seen = max(last_seen, ?3), heard = max(heard, ?4), machine = coalesce(?5, machine) \
         WHERE device = ?1 AND run = ?2",
    )
    .bind(device)
    .bind(run)
    .bind(millis(now))
    .bind(heard)
    .bind(machine)
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    find_twin(tx, device, run, now).await
}

/// `false`: there is no such device.
async fn begin(
    tx: &mut Transaction<'static, Sqlite>,
    device: &str,
    run: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // Agents that are started again and again must not fill the table.
    sqlx::query(
        "DELETE FROM runs WHERE device = ?1 AND last_seen < ?2 AND run NOT IN \
         (SELECT run FROM runs WHERE device = ?1 ORDER BY began DESC LIMIT ?3)",
    )
    .bind(device)
    .bind(silent_before(now))
    .bind(KEPT)
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    // A sequence that no acknowledgement has: whoever hears a higher one was there after this.
    let began: Option<(i64,)> = sqlx::query_as(
        "UPDATE devices SET ack_sequence = max(ack_sequence + 1, ?2) WHERE name = ?1 RETURNING ack_sequence",
    )
    .bind(device)
    .bind(millis(now))
    .fetch_optional(&mut **tx)
    .await
    .map_err(query(DOING))?;
    let Some((began,)) = began else { return Ok(false) };
    sqlx::query("INSERT INTO runs (device, run, first_seen, last_seen, began) VALUES (?1, ?2, ?3, ?3, ?4)")
        .bind(device)
        .bind(run)
        .bind(millis(now))
        .bind(began)
        .execute(&mut **tx)
        .await
        .map_err(query(DOING))?;
    Ok(true)
}

async fn find_twin(
    tx: &mut Transaction<'static, Sqlite>,
    device: &str,
    run: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows: Vec<(String, i64, i64, i64)> =
        sqlx::query_as("SELECT run, began, heard, last_seen FROM runs WHERE device = ?")
            .bind(device)
            .fetch_all(&mut **tx)
            .await
            .map_err(query(DOING))?;
    let known = |row: &(String, i64, i64, i64)| Known { began: row.1, heard: row.2 };
    let Some(own) = rows.iter().find(|row| row.0 == run).map(known) else { return Ok(()) };
    let others = rows.iter().filter(|row| row.0 != run && live_beside(own, known(row)));
    let Some(seen) = others.map(|row| row.3).max().filter(|seen| *seen >= silent_before(now)) else { return Ok(()) };
    sqlx::query(
        "UPDATE devices SET twin_since = CASE WHEN twin_seen >= ?2 THEN twin_since ELSE ?3 END, \
         twin_seen = max(coalesce(twin_seen, 0), ?4) WHERE name = ?1",
    )
    .bind(device)
    .bind(silent_before(now))
    .bind(millis(now))
    .bind(seen)
    .execute(&mut **tx)
    .await
    .map_err(query(DOING))?;
    Ok(())
}

/// Forgets a device's runs: who lives is heard of again.
pub(super) async fn forget(tx: &mut Transaction<'static, Sqlite>, device: &DeviceName) -> Result<bool, StoreError> {
    let doing = "forgetting runs";
    sqlx::query("DELETE FROM runs WHERE device = ?")
        .bind(device.as_str())
        .execute(&mut **tx)
        .await
        .map_err(query(doing))?;
    let done =
        sqlx::query("UPDATE devices SET twin_since = NULL, twin_seen = NULL WHERE name = ? AND state <> 'removed'")
            .bind(device.as_str())
            .execute(&mut **tx)
            .await
            .map_err(query(doing))?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn list(pool: &SqlitePool, device: &DeviceName) -> Result<Vec<RunSeen>, StoreError> {
    let rows: Vec<(String, Option<String>, i64, i64)> = sqlx::query_as(
        "SELECT run, machine, first_seen, last_seen FROM runs WHERE device = ? ORDER BY last_seen DESC, began DESC",
    )
    .bind(device.as_str())
    .fetch_all(pool)
    .await
    .map_err(query("listing runs"))?;
    let seen = |(run, machine, first, last): (String, Option<String>, i64, i64)| RunSeen {
        run,
        machine,
        first: from_millis(first),
        last: from_millis(last),
    };
    Ok(rows.into_iter().map(seen).collect())
}

#[cfg(test)]
mod tests {
    use super::{Known, live_beside};

    #[test]
    fn who_lives_beside_whom() {
        let known = |began, heard| Known { began, heard };
        let cases = [
            ("started again: the older one heard nothing since", known(1, 5), known(6, 0), false),
            ("started again, and the newer one hears much", known(1, 5), known(6, 99), false),
            ("the older one's last word came late", known(1, 6), known(6, 7), false),
            ("the older one heard what was said after", known(1, 7), known(6, 0), true),
            ("both hear", known(1, 9), known(6, 8), true),
            ("neither says what it hears", known(0, 0), known(3, 0), false),
        ];
        for (name, a, b, want) in cases {
            assert_eq!(live_beside(a, b), want, "{name}");
            assert_eq!(live_beside(b, a), want, "{name}, the other way round");
        }
    }
}
