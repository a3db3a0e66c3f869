//! What the hub does by itself: sends commands, turns pushes into one hint,
//! counts refusals, drops what is old, and listens to the command line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet::wire::notify::Notify;
use fleet::wire::topics;
use jiff::SignedDuration;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use crate::broker::Publish;
use crate::clock;
use crate::exit::chain;
use crate::hub::{Hint, SharedHub};
use crate::order;
use crate::store::{DeviceFilter, DeviceState, Store};

/// Hints within this time become one.
const COALESCE: Duration = Duration::from_secs(1);
/// From so many devices on, fetches are spread.
const SPREAD_FROM: u64 = 100;

/// How long the fetches after a push are spread: 0 below 100 devices, then
/// what the Git host carries.
#[must_use]
pub fn spread_secs(devices: u64, fetches_per_sec: u64) -> u64 {
    if devices < SPREAD_FROM { 0 } else { devices.div_ceil(fetches_per_sec.max(1)) }
}

/// Publishes hints, at most one in a second. The first one goes at once.
pub async fn hints(hub: SharedHub, mut queue: mpsc::Receiver<Hint>) {
    while let Some(mut hint) = queue.recv().await {
        while let Ok(newer) = queue.try_recv() {
            hint = newer;
        }
        let filter = DeviceFilter { state: Some(DeviceState::Accepted), ..DeviceFilter::default() };
        // Without a count, the fleet may be large: spread as if it were.
        let devices = hub.store.count(&filter).await.unwrap_or(u64::from(u16::MAX));
        let spread = spread_secs(devices, hub.config.webhooks.fetches_per_sec.unwrap_or(20));
        let notify = Notify { spread_secs: spread, branch: hint.branch, commit: hint.commit };
        match (serde_json::to_vec(&notify), &hub.outbox) {
            (Ok(payload), Some(outbox)) => {
                tracing::info!(spread_secs = spread, devices, "notify published");
                let topic = topics::notify(&hub.config.fleet);
                if outbox.send(Publish { topic, payload, wait: true }).await.is_ok() {
                    hub.metrics.notify();
                }
            }
            (Ok(_), None) => tracing::info!("no MQTT: devices find the push when they poll"),
            (Err(error), _) => tracing::error!(%error, "notify not written"),
        }
        tokio::time::sleep(COALESCE).await;
    }
}

/// Publishes commands that are due, until they are answered or expire.
pub async fn orders(hub: SharedHub) {
    loop {
        tokio::select! {
            () = hub.orders.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
        let Some(outbox) = hub.outbox.as_ref().filter(|_| *hub.mqtt_up.borrow()) else { continue };
        let now = clock::now();
        let open = match hub.store.open_commands(None, 0, now).await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(error = chain(&error), "open commands not read");
                continue;
            }
        };
        for command in open.iter().filter(|command| order::is_due(command, now)) {
            let topic = topics::command(&hub.config.fleet, &command.device);
            let payload = command.jws.clone().into_bytes();
            if outbox.send(Publish { topic, payload, wait: false }).await.is_err() {
                return;
            }
            hub.metrics.command("mqtt");
            if let Err(error) = hub.store.command_sent(&command.device, command.sequence, now).await {
                tracing::warn!(error = chain(&error), device = %command.device, "sent command not noted");
            }
            hub.changed();
        }
    }
}

/// Counts refusals once a second, and drops what is old once an hour.
pub async fn housekeeping(hub: SharedHub) {
    let keep = SignedDuration::try_from(hub.config.keep).unwrap_or(SignedDuration::MAX);
    let mut seconds = 0_u64;
    loop {
        hub.flush_refusals().await;
        if seconds % 3600 == 60 {
            match clock::now().checked_sub(keep) {
                Ok(before) => match hub.store.expire(before).await {
                    Ok(0) => {}
                    Ok(dropped) => tracing::info!(dropped, "old reports dropped"),
                    Err(error) => tracing::warn!(error = chain(&error), "old reports not dropped"),
                },
                Err(error) => tracing::warn!(%error, "clock is not set, nothing is dropped"),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        seconds += 1;
    }
}

/// The socket by which the command line says that it changed the store.
pub const WAKE_SOCKET: &str = "wake.sock";

/// Listens to the command line.
///
/// # Errors
/// When the socket can't be made.
pub fn listen(hub: SharedHub, data: &Path) -> std::io::Result<()> {
    let path = data.join(WAKE_SOCKET);
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(path)?;
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        while socket.recv(&mut buffer).await.is_ok() {
            hub.orders.notify_one();
            hub.changed();
        }
    });
    Ok(())
}

/// Tells a running hub that the store changed. None may be running.
pub fn wake(data: &Path) -> bool {
    let told = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(b"changed", data.join(WAKE_SOCKET)));
    told.is_ok()
}

/// Starts what runs until the hub stops.
pub fn start(hub: &SharedHub, queue: mpsc::Receiver<Hint>) {
    tokio::spawn(hints(Arc::clone(hub), queue));
    tokio::spawn(orders(Arc::clone(hub)));
    tokio::spawn(housekeeping(Arc::clone(hub)));
}

#[cfg(test)]
mod tests {
    use super::spread_secs;

    #[test]
    fn spread() {
        for (devices, rate, want) in [(0, 20, 0), (99, 20, 0), (100, 20, 5), (10_000, 20, 500), (101, 0, 101)] {
            assert_eq!(spread_secs(devices, rate), want, "{devices} at {rate}");
        }
    }
}
