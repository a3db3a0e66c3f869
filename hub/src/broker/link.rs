//! The hub's own link to the broker: reports in; commands, acknowledgements
//! and hints out. Reconnects for ever, subscribes anew each time, and never
//! publishes from the task that polls.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::name::DeviceName;
use fleet::wire::topics::{self, Leaf, Topic};
use rumqttc::{AsyncClient, ConnectReturnCode, Event, EventLoop, MqttOptions, Packet, QoS, SubscribeFilter, Transport};
use tokio::sync::{mpsc, watch};

use super::Publish;
use super::embedded::Embedded;
use crate::clock;
use crate::exit::chain;
use crate::hub::SharedHub;
use crate::ingest::{self, DUPLICATE, Refused};
use crate::keys;
use crate::store::{Device, Store};

/// Messages from the broker that wait to be judged; past it they are dropped,
/// and the devices send them again.
const WAITING: usize = 4096;
/// Messages judged for one commit.
const BATCH: usize = 256;
/// The embedded broker is taken for dead after so many failures in a row.
const DEAD_AFTER: u32 = 8;

/// How the hub logs in.
#[derive(Clone)]
pub struct Access {
    /// The tunnel's socket.
    pub socket: PathBuf,
    /// User and password.
    pub login: Option<(String, String)>,
    /// To be started anew if it dies.
    pub embedded: Option<Arc<Embedded>>,
}

enum Inbound {
    Report(DeviceName, Bytes),
    Link(DeviceName, bool),
}

/// Runs the link until the hub stops.
pub async fn run(hub: SharedHub, access: Access, outbox: mpsc::Receiver<Publish>, up: watch::Sender<bool>) {
    let suffix = keys::random::<6>().map(|bytes| keys::hex(&bytes)).unwrap_or_default();
    let client_id = format!("burgee-hub-{}-{suffix}", hub.config.fleet);
    let mut options = MqttOptions::new(client_id, access.socket.to_string_lossy(), 0);
    options.set_transport(Transport::unix());
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_session(true);
    options.set_max_packet_size(1024 * 1024, 1024 * 1024);
    options.set_inflight(200);
    if let Some((user, password)) = &access.login {
        options.set_credentials(user, password);
    }
    let (client, events) = AsyncClient::new(options, 256);
    let (sender, queue) = mpsc::channel(WAITING);
    tokio::spawn(take_in(Arc::clone(&hub), queue));
    tokio::spawn(publish(client.clone(), outbox, up.subscribe()));
    poll(hub, access, client, events, sender, up).await;
}

async fn poll(
    hub: SharedHub,
    access: Access,
    client: AsyncClient,
    mut events: EventLoop,
    sender: mpsc::Sender<Inbound>,
    up: watch::Sender<bool>,
) {
    let mut failures = 0_u32;
    let mut stop = hub.stop.clone();
    loop {
        // Not cancel-safe, but when it is cancelled the hub is at its end.
        let event = tokio::select! {
            event = events.poll() => event,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match event {
            Ok(Event::Incoming(Packet::ConnAck(ack))) if ack.code == ConnectReturnCode::Success => {
                failures = 0;
                subscribe(&hub, &client);
                connected(&hub, &up, true);
            }
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let inbound = match topics::parse(&message.topic) {
                    Some(Topic::Device(fleet, device, leaf)) if fleet == hub.config.fleet => match leaf {
                        Leaf::Report => Some(Inbound::Report(device, message.payload)),
                        Leaf::Link => {
                            Some(Inbound::Link(device, message.payload.as_ref() == topics::LINK_UP.as_bytes()))
                        }
                        Leaf::Command | Leaf::Ack => None,
                    },
                    _ => None,
                };
                if let Some(inbound) = inbound
                    && sender.try_send(inbound).is_err()
                {
                    hub.refuse("Overload", None);
                }
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.iter().any(|code| matches!(code, rumqttc::SubscribeReasonCode::Failure)) {
                    tracing::error!("broker refuses the hub's subscriptions");
                }
            }
            Ok(_) => {}
            Err(error) => {
                connected(&hub, &up, false);
                failures = failures.saturating_add(1);
                tracing::debug!(%error, failures, "broker not connected");
                if failures == 1 || failures.is_multiple_of(32) {
                    tracing::warn!(error = chain(&error), failures, "broker not connected");
                }
                if let Some(embedded) = access.embedded.as_ref().filter(|_| failures.is_multiple_of(DEAD_AFTER)) {
                    tracing::error!("embedded broker does not answer, starting another");
                    if let Err(error) = embedded.restart() {
                        tracing::error!(error = chain(&error), "embedded broker not started");
                    }
                }
                tokio::time::sleep(pause(failures)).await;
            }
        }
    }
}

/// Doubling from an eighth of a second to half a minute, and some chance.
fn pause(failures: u32) -> Duration {
    let base = 125_u64 << failures.saturating_sub(1).min(8);
    let chance = keys::random::<1>().map_or(0, |bytes| u64::from(bytes[0]));
    Duration::from_millis(base + base * chance / 512)
}

fn connected(hub: &SharedHub, up: &watch::Sender<bool>, now: bool) {
    if up.send_if_modified(|was| std::mem::replace(was, now) != now) {
        tracing::info!(connected = now, "link to the broker changed");
        hub.metrics.broker(now);
        hub.changed();
        hub.orders.notify_one();
    }
}

/// In a task of its own: the request queue may be full, and only polling empties it.
fn subscribe(hub: &SharedHub, client: &AsyncClient) {
    let filters = [(Leaf::Report, QoS::AtLeastOnce), (Leaf::Link, QoS::AtLeastOnce)]
        .map(|(leaf, qos)| SubscribeFilter::new(topics::every_device(&hub.config.fleet, leaf), qos));
    let client = client.clone();
    tokio::spawn(async move {
        if let Err(error) = client.subscribe_many(filters).await {
            tracing::warn!(%error, "not subscribed");
        }
    });
}

async fn publish(client: AsyncClient, mut outbox: mpsc::Receiver<Publish>, mut up: watch::Receiver<bool>) {
    while let Some(message) = outbox.recv().await {
        if !*up.borrow() {
            let soon = tokio::time::timeout(Duration::from_secs(30), up.wait_for(|up| *up));
            if !message.wait || !matches!(soon.await, Ok(Ok(_))) {
                continue;
            }
        }
        if let Err(error) = client.publish(message.topic, QoS::AtLeastOnce, false, message.payload).await {
            tracing::warn!(%error, "not published");
        }
    }
}

async fn take_in(hub: SharedHub, mut queue: mpsc::Receiver<Inbound>) {
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            let Ok(next) = queue.try_recv() else { break };
            batch.push(next);
        }
        take_batch(&hub, batch).await;
    }
}

async fn take_batch(hub: &SharedHub, batch: Vec<Inbound>) {
    let now = clock::now();
    let mut known: HashMap<DeviceName, Option<Device>> = HashMap::new();
    let mut reports = Vec::new();
    let mut links = Vec::new();
    for inbound in batch {
        match inbound {
            Inbound::Link(device, up) => links.push((device, up)),
            Inbound::Report(name, payload) => {
                if !known.contains_key(&name) {
                    match hub.store.device(&name).await {
                        Ok(device) => known.insert(name.clone(), device),
                        // Not judged and not acknowledged: it comes again.
                        Err(error) => {
                            tracing::error!(error = chain(&error), device = %name, "report not judged");
                            continue;
                        }
                    };
                }
                let device = known.get(&name).and_then(Option::as_ref);
                let judged = std::str::from_utf8(&payload)
                    .map_err(|_| Refused::Jws(fleet::wire::jws::JwsError::Form))
                    .and_then(|text| ingest::judge(&hub.config.fleet, device, text));
                match judged {
                    Ok(_) if !hub.rate.spend(&name, now) => hub.refuse_report(&Refused::TooMany, Some(&name)),
                    Ok(report) => reports.push(report),
                    Err(refused) => hub.refuse_report(&refused, Some(&name)),
                }
            }
        }
    }
    if !links.is_empty() {
        if let Err(error) = hub.store.set_links(&links).await {
            tracing::warn!(error = chain(&error), "links not noted");
        }
        hub.changed();
    }
    // Who failed was logged by the writer; nothing is acknowledged.
    let Ok(receipt) = hub.inlet.store(reports).await else { return };
    for _ in 0..receipt.duplicates {
        hub.refuse(DUPLICATE, None);
    }
    if receipt.new > 0 {
        hub.metrics.stored("mqtt", receipt.new);
        hub.changed();
    }
    let Some(outbox) = &hub.outbox else { return };
    for at in &receipt.acks {
        match ingest::acknowledge(at, &hub.config.fleet, &hub.key, now) {
            Ok(ack) => {
                let topic = topics::ack(&hub.config.fleet, &at.device);
                let _ = outbox.send(Publish { topic, payload: ack.into_bytes(), wait: false }).await;
            }
            Err(error) => tracing::error!(%error, device = %at.device, "acknowledgement not signed"),
        }
    }
}
