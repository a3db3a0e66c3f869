//! `burgee-hub command`: signs, keeps, wakes the hub, and waits.

use std::time::Duration;

use fleet::wire::command::Act;
use fleet::wire::report::ReportBody;
use jiff::Timestamp;

use super::{Config, Failure, Order, OrderAct, out, say, store_failed, wake};
use crate::clock;
use crate::keys;
use crate::order::{self, OrderError};
use crate::store::{HubStore, NewCommand, Outcome, Store, StoredCommand};

pub(super) async fn run(store: &HubStore, config: &Config, asked: Order) -> Result<(), Failure> {
    let act = match asked.act {
        OrderAct::Sync => Act::Sync,
        OrderAct::Suspend => Act::Suspend,
        OrderAct::Resume => Act::Resume,
        OrderAct::Retry => Act::Retry,
        OrderAct::Rollback => Act::Rollback,
        OrderAct::Logs { app, lines } => Act::Logs { app, lines },
    };
    let key = keys::load_or_create(&config.data).map_err(|error| Failure::failed("the hub has no key", &error))?;
    let now = clock::now();
    let issued = order::issue(store, &key, &config.fleet, &asked.device, act, asked.expires, now).await;
    let command = issued.map_err(|error| {
        let failure = Failure::failed("the command was not issued", &error);
        match error {
            OrderError::NoDevice(_) => failure.hint("burgee-hub device list shows who is accepted"),
            _ => failure,
        }
    })?;
    let serving = wake(config);
    if asked.no_wait {
        say(&format!("command {} waits for {}", command.sequence, command.device));
        return Ok(());
    }
    if !serving {
        return Err(Failure::unreachable("no hub is serving: the command is kept and sent once one is")
            .hint("start burgee-hub serve, or add --no-wait"));
    }
    let until = now.saturating_add(asked.timeout).unwrap_or(Timestamp::MAX);
    let done = wait(store, &command, until).await?;
    match done.outcome {
        Some(Outcome::Done) => finish(store, &command, &done).await,
        Some(Outcome::Refused) => Err(Failure::plain(format!("{} refused: {}", command.device, done.message))),
        None => {
            let sent = if done.sent.is_some() { "it was sent" } else { "it was not sent yet" };
            Err(Failure::unreachable(format!("{} did not answer in time; {sent}", command.device))
                .hint("the command stays until it expires; the device's page shows what becomes of it"))
        }
    }
}

async fn wait(store: &HubStore, command: &NewCommand, until: Timestamp) -> Result<StoredCommand, Failure> {
    loop {
        let found = store.command(&command.device, command.sequence).await.map_err(|error| store_failed(&error))?;
        let Some(stored) = found else {
            return Err(Failure::plain(format!("{} was removed meanwhile", command.device)));
        };
        let now = clock::now();
        if stored.outcome.is_some() || now >= until || now >= command.expires {
            return Ok(stored);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Logs come in a report of their own: they are the answer.
async fn finish(store: &HubStore, command: &NewCommand, done: &StoredCommand) -> Result<(), Failure> {
    let entries = store.entries(&command.device, 1000).await.map_err(|error| store_failed(&error))?;
    let logs = entries.into_iter().find_map(|entry| match entry.body {
        ReportBody::Logs(logs) if logs.command == command.sequence => Some(logs),
        _ => None,
    });
    match logs {
        Some(logs) => logs.lines.iter().try_for_each(|line| out(line)),
        None => {
            let message = if done.message.is_empty() { "taken on" } else { done.message.as_str() };
            say(&format!("{}: {message}", command.device));
            Ok(())
        }
    }
}
