//! Join tokens: hashes, never the tokens.

use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, Sqlite, Transaction};

use super::{bytes32, from_json, json, query};
use crate::clock::{from_millis, millis};
use crate::store::{NewToken, StoreError, Token, TokenUse};

fn token(row: &SqliteRow) -> Result<Token, StoreError> {
    let get = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<String, _>("id")?,
            row.try_get::<Vec<u8>, _>("hash")?,
            (row.try_get::<Option<i64>, _>("uses")?, row.try_get::<i64, _>("used")?),
            row.try_get::<String, _>("labels")?,
            row.try_get::<i64, _>("lobby")?,
            (row.try_get::<i64, _>("created")?, row.try_get::<i64, _>("expires")?),
            row.try_get::<Option<i64>, _>("revoked")?,
        ))
    };
    let (id, hash, (uses, used), labels, lobby, (created, expires), revoked) =
        get().map_err(query("reading a join token"))?;
    Ok(Token {
        id,
        hash: bytes32("token hash", &hash)?,
        uses: uses.map(|uses| u32::try_from(uses).unwrap_or(u32::MAX)),
        used: u32::try_from(used).unwrap_or(u32::MAX),
        labels: from_json("set of labels", &labels)?,
        lobby: lobby != 0,
        created: from_millis(created),
        expires: from_millis(expires),
        revoked: revoked.is_some(),
    })
}

pub(super) async fn add(pool: &SqlitePool, token: &NewToken) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO tokens (id, hash, uses, labels, lobby, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(&token.id)
        .bind(token.hash.as_slice())
        .bind(token.uses.map(i64::from))
        .bind(json("set of labels", &token.labels)?)
        .bind(i64::from(token.lobby))
        .bind(millis(token.created))
        .bind(millis(token.expires))
        .execute(pool)
        .await
        .map_err(query("keeping a join token"))?;
    Ok(())
}

pub(super) async fn list(pool: &SqlitePool) -> Result<Vec<Token>, StoreError> {
    let rows = sqlx::query("SELECT * FROM tokens ORDER BY created DESC, id")
        .fetch_all(pool)
        .await
        .map_err(query("listing join tokens"))?;
    rows.iter().map(token).collect()
}

pub(super) async fn by_hash(pool: &SqlitePool, hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
    let row = sqlx::query("SELECT * FROM tokens WHERE hash = ?")
        .bind(hash.as_slice())
        .fetch_optional(pool)
        .await
        .map_err(query("looking up a join token"))?;
    row.as_ref().map(token).transpose()
}

pub(super) async fn take(
    mut tx: Transaction<'static, Sqlite>,
    id: &str,
    now: Timestamp,
) -> Result<TokenUse, StoreError> {
    let failed = "using a join token";
    let row = sqlx::query("SELECT * FROM tokens WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(failed))?;
    let Some(found) = row.as_ref().map(token).transpose()? else { return Ok(TokenUse::Unknown) };
    if found.revoked {
        return Ok(TokenUse::Revoked);
    }
    if now >= found.expires {
        return Ok(TokenUse::Expired);
    }
    if found.uses.is_some_and(|uses| found.used >= uses) {
        return Ok(TokenUse::UsedUp);
    }
    sqlx::query("UPDATE tokens SET used = used + 1 WHERE id = ?")
        .bind(id)
        .execute(&mut *tx)
        .await
        .map_err(query(failed))?;
    tx.commit().await.map_err(query(failed))?;
    Ok(TokenUse::Taken)
}

pub(super) async fn give_back(pool: &SqlitePool, id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE tokens SET used = max(used - 1, 0) WHERE id = ?")
        .bind(id)
        .execute(pool)
        .await
        .map_err(query("giving a join token back"))?;
    Ok(())
}

pub(super) async fn revoke(pool: &SqlitePool, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE tokens SET revoked = coalesce(revoked, ?2) WHERE id = ?1")
        .bind(id)
        .bind(millis(now))
        .execute(pool)
        .await
        .map_err(query("revoking a join token"))?;
    Ok(done.rows_affected() > 0)
}
