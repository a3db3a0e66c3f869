//! `burgee-hub token`.

use super::{Failure, TokenCreate, columns, out, say, store_failed};
use crate::clock;
use crate::join;
use crate::keys;
use crate::page::utc;
use crate::store::{HubStore, Store, Token};

pub(super) async fn create(store: &HubStore, asked: TokenCreate) -> Result<(), Failure> {
    let labels = asked.labels.into_iter().collect();
    let (text, token) = join::new_token(asked.uses, asked.ttl, labels, asked.lobby, clock::now())
        .map_err(|error| Failure::failed("making a token failed", &error))?;
    store.add_token(&token).await.map_err(|error| store_failed(&error))?;
    out(&text)?;
    say(&format!("token {}, good until {}", token.id, utc(token.expires)));
    Ok(())
}

fn standing(token: &Token) -> &'static str {
    if token.revoked {
        "revoked"
    } else if clock::now() >= token.expires {
        "expired"
    } else if token.uses.is_some_and(|uses| token.used >= uses) {
        "used-up"
    } else {
        "good"
    }
}

pub(super) async fn list(store: &HubStore) -> Result<(), Failure> {
    let tokens = store.tokens().await.map_err(|error| store_failed(&error))?;
    if tokens.is_empty() {
        say("there are no tokens\nhint: burgee-hub token create");
        return Ok(());
    }
    let head = ["ID", "STATE", "USED", "EXPIRES", "LOBBY", "LABELS"].map(str::to_owned).to_vec();
    let rows = tokens.iter().map(|token| {
        let uses = token.uses.map_or_else(|| "∞".to_owned(), |uses| uses.to_string());
        let labels: Vec<String> = token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            token.id.clone(),
            standing(token).to_owned(),
            format!("{}/{uses}", token.used),
            utc(token.expires),
            if token.lobby { "yes" } else { "no" }.to_owned(),
            if labels.is_empty() { "any".to_owned() } else { labels.join(",") },
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

pub(super) async fn revoke(store: &HubStore, asked: &str) -> Result<(), Failure> {
    let failed = |error| store_failed(&error);
    // Whoever has the token itself has no need to find out its id.
    let id = match store.token(&keys::sha256(asked.as_bytes())).await.map_err(failed)? {
        Some(token) => token.id,
        None => asked.to_owned(),
    };
    if store.revoke_token(&id, clock::now()).await.map_err(failed)? {
        say(&format!("revoked token {id}"));
        Ok(())
    } else {
        Err(Failure::plain("there is no such token").hint("burgee-hub token list"))
    }
}
