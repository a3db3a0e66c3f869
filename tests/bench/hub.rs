//! A hub with ten thousand devices: what it needs, that it loses nothing, and
//! how soon its page is there.

use std::future::Future;
use std::time::{Duration, Instant};

use fleet::wire::enroll::EnrollState;
use fleet::wire::topics;
use harness::hub::{Device, Hub, Mqtt, client, status};
use harness::net::get;

use crate::idle::proc_figure;
use crate::table::Table;

const DEVICES: usize = 10_000;
/// Of them, connected over MQTT at once: each costs the hub three sockets, and
/// a machine has limits.
const CONNECTED: usize = 3_000;
const ROUNDS: usize = 3;
/// How many devices speak at once.
const AT_ONCE: usize = 64;

pub(crate) fn measure(table: &mut Table) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(speak(table));
}

async fn speak(table: &mut Table) {
    let hub = Hub::start("");
    let token = hub.token(&["--uses", &DEVICES.to_string()]);
    let client = client();
    let devices = (0..DEVICES).map(|number| Device::by(&hub, &format!("till-{number:05}"), &client)).collect();
    let devices = each(devices, move |mut device: Device| {
        let token = token.clone();
        async move {
            let answer = device.enroll(&token).await;
            assert_eq!(answer.state, EnrollState::Accepted, "{answer:?}");
            device.hub_key = answer.hub_key;
            device
        }
    })
    .await;

    // A status and an event each, over and over; what is not acknowledged by the hub's key is lost.
    let start = Instant::now();
    let told = each(devices, |device: Device| async move {
        let mut sent = 0;
        let mut kept = 0;
        for _ in 0..ROUNDS {
            let apps = [("pos", "synced", "healthy"), ("base", "synced", "healthy")];
            let now = device.status(status(device.name.as_str(), "steady", 'a', 'a', &apps));
            let reports = [now, device.event("steady", "")].map(|report| device.sign(&report));
            sent += 2;
            let (_, answer) = device.post(&reports).await;
            if let Some(ack) = answer.ack {
                kept = device.ack(&ack).counter;
            }
        }
        (device, sent - kept)
    })
    .await;
    let took = start.elapsed().as_secs_f64();
    let mut lost: u64 = told.iter().map(|(_, lost)| lost).sum();

    // Some stay connected, and report over MQTT.
    let devices: Vec<Device> = told.into_iter().map(|(device, _)| device).take(CONNECTED).collect();
    let connected: Vec<(Mqtt, bool)> = each(devices, |device: Device| async move {
        let ack = topics::ack(&device.fleet, &device.name);
        let mut mqtt = device.mqtt(std::slice::from_ref(&ack)).await;
        let report = device.event("steady", "over MQTT");
        mqtt.publish(&topics::report(&device.fleet, &device.name), device.sign(&report)).await;
        let answer = mqtt.next(&ack, Duration::from_secs(60)).await;
        let kept = device.ack(&String::from_utf8(answer).expect("text")).counter == report.counter;
        (mqtt, kept)
    })
    .await;
    lost += connected.iter().map(|(_, kept)| u64::from(!kept)).sum::<u64>();

    let how = format!("{DEVICES} devices, {CONNECTED} of them connected to the embedded broker");
    let peak = proc_figure(hub.pid(), "status", "VmHWM:") / 1024.0;
    table.add("hub: peak RSS", peak, "MB", Some(300.0), &how);
    let reports = DEVICES * ROUNDS * 2 + CONNECTED;
    let how = format!(
        "of {reports}; {:.0} a second over HTTP, the devices on the same two cores",
        (DEVICES * ROUNDS * 2) as f64 / took
    );
    table.add("hub: reports lost", lost as f64, "reports", Some(0.0), &how);
    let mut times: Vec<f64> = (0..7).map(|_| page(&hub)).collect();
    times.sort_by(f64::total_cmp);
    table.add("hub: overview page", times[3], "ms", Some(100.0), "median of seven, as many devices");
}

fn page(hub: &Hub) -> f64 {
    let start = Instant::now();
    let (status, body) = get(hub.port(), "/").expect("the hub answers");
    assert!(status == 200 && body.contains(&format!("{DEVICES} devices")), "{status}: not all of them");
    start.elapsed().as_secs_f64() * 1000.0
}

/// Does `work` for each, [`AT_ONCE`] at a time, and keeps what came of it in any order.
async fn each<T, U, F>(all: Vec<T>, work: impl Fn(T) -> F + Clone + Send + 'static) -> Vec<U>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Future<Output = U> + Send,
{
    let mut lanes: Vec<Vec<T>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    for (number, one) in all.into_iter().enumerate() {
        lanes[number % AT_ONCE].push(one);
    }
    let lanes: Vec<_> = lanes
        .into_iter()
        .map(|lane| {
            let work = work.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                for one in lane {
                    done.push(work(one).await);
                }
                done
            })
        })
        .collect();
    let mut done = Vec::new();
    for lane in lanes {
        done.extend(lane.await.expect("a lane that ended"));
    }
    done
}
