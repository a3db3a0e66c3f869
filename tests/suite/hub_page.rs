//! The hub's pages in a real browser: whole without script, live with it, fit
//! for a narrow phone, nothing from elsewhere. Leaves pictures in
//! `target/pictures`.

use fleet::wire::report::ReportBody;
use harness::browser::Browser;
use harness::hub::{Device, Hub, Mqtt, eventually, status};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_without_script_and_live_with_it() {
    let hub = Hub::start("");
    let device = hub.device("store-042").await;
    let page = hub.get("/");
    assert!(page.contains("store-042") && page.contains("Never reported"), "rendered by the server");
    let headers = reqwest::Client::builder().build().expect("a client").get(hub.url()).send().await.expect("answers");
    let policy = headers.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");

    // Without script everything is there, and the page looks again by itself.
    let mut browser = Browser::start();
    browser.scripts(false);
    browser.open(&hub.url());
    let document = browser.document();
    assert!(document.contains("store-042") && document.contains("http-equiv=\"refresh\""), "{document}");

    // With it, a report that comes while the page is open is shown at once.
    browser.scripts(true);
    browser.open(&hub.url());
    eventually("the page is live", || hub.metric("burgee_hub_pages_live") > 0).await;
    let steady = status("store-042", "steady", 'c', 'c', &[("pos", "synced", "degraded")]);
    assert_eq!(device.post(&[device.sign(&device.status(steady))]).await.0, 200);
    eventually("the page shows the report", || {
        let document = browser.document();
        document.contains("cccccccccccc") && document.contains("Degraded")
    })
    .await;

    // A search goes by itself through the form, and another device appears in it.
    browser.open(&format!("{}/?q=kiosk", hub.url()));
    assert!(browser.document().contains("No device matches"));
    hub.device("kiosk-1").await;
    eventually("the new device appears", || browser.document().contains("/devices/kiosk-1")).await;

    // Nothing was fetched from elsewhere, nothing was refused by the policy.
    assert_eq!(browser.complaints(), Vec::<String>::new());
    assert_eq!(browser.overflow(360), 0, "the page fits a narrow phone");
    browser.open(&format!("{}/devices/store-042", hub.url()));
    assert_eq!(browser.overflow(360), 0, "the device's page fits a narrow phone");
}

/// A fleet with some of everything, for the pictures in `target/pictures`.
async fn some_of_everything(hub: &Hub) {
    let token = hub.token(&[]);
    let apps: &[(&str, &str, &str)] =
        &[("base", "synced", "healthy"), ("pos", "synced", "healthy"), ("label-printer", "synced", "healthy")];
    let sick: &[(&str, &str, &str)] = &[("base", "synced", "healthy"), ("pos", "out-of-sync", "degraded")];
    let moving: &[(&str, &str, &str)] = &[("base", "synced", "healthy"), ("pos", "updating", "progressing")];
    for number in 1..=14_u32 {
        let mut device = Device::new(hub, &format!("store-{number:03}"));
        let region = if number % 3 == 0 { "us" } else { "eu" };
        let ring = if number < 3 { "canary" } else { "rest" };
        device.labels = [("region".to_owned(), region.to_owned()), ("ring".to_owned(), ring.to_owned())].into();
        device.hub_key = device.enroll(&token).await.hub_key;
        let name = device.name.to_string();
        let mut said = match number {
            2 => status(&name, "stalled", '4', '4', apps),
            5 => status(&name, "probing", '8', '4', moving),
            6 => status(&name, "steady", '8', '8', sick),
            9 => continue,
            _ => status(&name, "steady", if number < 4 { '8' } else { '4' }, '4', apps),
        };
        if number == 2 {
            said.blocked = serde_json::from_value(serde_json::json!([{"revision": "8".repeat(40), "digest": null,
                "reason": "app pos was not healthy within 3 min: container pos-web-1 answers 500 on /healthz"}]))
            .expect("blocked");
            said.conditions = serde_json::from_value(serde_json::json!([
                {"type": "Applied", "status": false, "reason": "Unhealthy", "since": Mqtt::hours_ago(1),
                 "message": "while probing, health failed for app pos: GET http://127.0.0.1:8080/healthz answered 500, expected 200\nhint: burgee-agent logs pos shows what it says"},
                {"type": "Verified", "status": true, "reason": "SignedBy", "since": Mqtt::hours_ago(30),
                 "message": "the head is signed by ada@example.com"}]))
            .expect("conditions");
            said.apps[1].message = "runs the last good image again".to_owned();
            let mut reports = Vec::new();
            for (hours, event, digit, message) in [
                (30, "accepted", '4', "signed by ada@example.com (SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8)"),
                (30, "steady", '4', "applied and healthy"),
                (2, "accepted", '8', "signed by ada@example.com (SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8)"),
                (
                    2,
                    "failed",
                    '8',
                    "while probing, health failed for app pos: GET http://127.0.0.1:8080/healthz answered 500, expected 200\nhint: burgee-agent logs pos shows what it says",
                ),
                (2, "rolled-back", '4', "from 888888888888 to 444444444444"),
            ] {
                let mut report = device.event(event, message);
                report.at = Mqtt::hours_ago(hours);
                if let ReportBody::Event(event) = &mut report.body {
                    event.revision = digit.to_string().repeat(40).parse().ok();
                }
                reports.push(device.sign(&report));
            }
            device.post(&reports).await;
        }
        device.post(&[device.sign(&device.status(said))]).await;
    }
    let waiting = Device::new(hub, "kiosk-berlin-07");
    waiting.enroll(&hub.token(&["--lobby"])).await;
    hub.done(&["command", "store-002", "retry", "--no-wait"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures() {
    let hub = Hub::start("");
    let folder = harness::bins::root().join("target/pictures");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut browser = Browser::start();
    browser.window(1240, 800, false);
    browser.open(&hub.url());
    browser.picture(&folder.join("empty.png"));
    some_of_everything(&hub).await;
    for (page, path) in [("fleet", "/"), ("device", "/devices/store-002"), ("lobby", "/lobby")] {
        for (kind, width, dark) in [("light", 1240, false), ("dark", 1240, true), ("phone", 360, false)] {
            browser.window(width, 800, dark);
            browser.open(&format!("{}{path}", hub.url()));
            let wide = browser.value("document.documentElement.scrollWidth").as_u64();
            assert!(wide <= Some(u64::from(width)), "{page} {kind} is {wide:?} wide");
            browser.picture(&folder.join(format!("{page}-{kind}.png")));
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
