//! `/`: the fleet at a glance, and its devices.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::part::{self, Tone};
use super::{Place, failed, layout};
use crate::axes::{HealthAxis, LinkAxis, SyncAxis};
use crate::clock;
use crate::config::Broker;
use crate::hub::SharedHub;
use crate::store::{Device, DeviceFilter, DeviceState, FleetCounts, Group, Refusal, Store, StoreError};

/// Devices on one page.
const PAGE: u32 = 50;

/// The query string.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    q: String,
    #[serde(default)]
    sync: String,
    #[serde(default)]
    health: String,
    #[serde(default)]
    link: String,
    #[serde(default)]
    revision: String,
    #[serde(default)]
    page: String,
}

impl Wanted {
    /// From 1.
    fn number(&self) -> u32 {
        self.page.parse().unwrap_or(1).clamp(1, 1_000_000)
    }

    fn filter(&self, silent_before: Timestamp) -> DeviceFilter {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let hex = |text: &String| text.len() <= 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
        DeviceFilter {
            state: Some(DeviceState::Accepted),
            search: text(&self.q).map(|search| search.chars().take(200).collect()),
            sync: SyncAxis::parse(&self.sync).map(|axis| axis.as_str().to_owned()),
            health: HealthAxis::parse(&self.health).map(|axis| axis.as_str().to_owned()),
            link: LinkAxis::parse(&self.link).map(|axis| (axis, silent_before)),
            revision: text(&self.revision).filter(hex).map(|text| text.to_ascii_lowercase()),
            phase: None,
            copied: None,
            offset: (self.number() - 1) * PAGE,
            limit: PAGE,
        }
    }

    fn is_narrowed(&self) -> bool {
        [&self.q, &self.sync, &self.health, &self.link, &self.revision].iter().any(|text| !text.trim().is_empty())
    }

    /// The address with one key set to something else.
    fn href(&self, key: &str, value: &str) -> String {
        let mut pairs = vec![
            ("q", self.q.as_str()),
            ("sync", self.sync.as_str()),
            ("health", self.health.as_str()),
            ("link", self.link.as_str()),
            ("revision", self.revision.as_str()),
        ];
        pairs.iter_mut().filter(|(name, _)| *name == key).for_each(|pair| pair.1 = value);
        if key == "page" {
            pairs.push(("page", value));
        }
        let query: Vec<String> = pairs
            .iter()
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        if query.is_empty() { "/".to_owned() } else { format!("/?{}", query.join("&")) }
    }
}

/// For a query string.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

struct View {
    counts: FleetCounts,
    devices: Vec<Device>,
    matching: u64,
    refusals: Vec<Refusal>,
    /// The first of those that were copied.
    copied: Vec<Device>,
    silent_before: Timestamp,
    now: Timestamp,
}

async fn read(hub: &SharedHub, wanted: &Wanted) -> Result<View, StoreError> {
    let now = clock::now();
    let silent_before = hub.silent_before(now);
    let filter = wanted.filter(silent_before);
    let copied = DeviceFilter {
        state: Some(DeviceState::Accepted),
        copied: Some(silent_before),
        limit: 5,
        ..DeviceFilter::default()
    };
    Ok(View {
        counts: hub.store.counts(silent_before).await?,
        devices: hub.store.devices(&filter).await?,
        matching: hub.store.count(&filter).await?,
        refusals: hub.store.refusals().await?,
        copied: hub.store.devices(&copied).await?,
        silent_before,
        now,
    })
}

pub(super) async fn page(State(hub): State<SharedHub>, Query(wanted): Query<Wanted>) -> Response {
    match read(&hub, &wanted).await {
        Ok(view) => layout(&hub, "Fleet", Place::Fleet, &fleet(&hub, &wanted, &view)).into_response(),
        Err(error) => failed(&hub, &error),
    }
}

fn fleet(hub: &SharedHub, wanted: &Wanted, view: &View) -> Markup {
    html! {
        div.title {
            h1 { "Fleet " (hub.config.fleet) }
            p.sub id="size" data-live { (devices_text(view.counts.accepted)) }
        }
        div id="notices" data-live { (notices(hub, view)) }
        @if view.counts.accepted == 0 {
            div id="first" data-live { (first_steps(hub)) }
        } @else {
            section.axes id="axes" data-live aria-label="The fleet by its axes" { (axes(wanted, &view.counts)) }
            section.list aria-labelledby="devices" {
                h2 id="devices" { "Devices" }
                (search(wanted))
                div id="rows" data-live { (table(wanted, view)) }
            }
        }
        @if !view.refusals.is_empty() {
            details.refusals {
                summary { "Messages the hub refused" }
                div id="refusals" data-live { (refusals(view)) }
            }
        }
    }
}

fn devices_text(count: u64) -> String {
    match count {
        1 => "1 device".to_owned(),
        count => format!("{count} devices"),
    }
}

fn notices(hub: &SharedHub, view: &View) -> Markup {
    let broker_down = !matches!(hub.config.broker, Broker::Off) && !*hub.mqtt_up.borrow();
    html! {
        @if broker_down {
            p.notice.warn {
                strong { "The MQTT broker is not connected." }
                " Reports and commands go over HTTPS as devices poll; pushes arrive later."
            }
        }
        @if !view.copied.is_empty() {
            p.notice.bad {
                strong { (devices_text(view.counts.copied)) " copied." }
                " Two agents report with one device’s key: "
                @for device in &view.copied { a href={ "/devices/" (device.name) } { (device.name) } " " }
                @if view.counts.copied > view.copied.len() as u64 { "and more" }
            }
        }
        @if view.counts.lobby > 0 {
            p.notice.busy {
                strong { (devices_text(view.counts.lobby)) }
                " in the lobby. " a href="/lobby" { "See who asks to join" }
            }
        }
    }
}

fn first_steps(hub: &SharedHub) -> Markup {
    let enroll = format!("burgee-agent enroll --hub {} --token TOKEN --trust allowed_signers", hub.config.public_url);
    html! {
        section.card.empty {
            h2 { "No device has joined yet" }
            p { "Make a join token, here where the hub runs:" }
            (part::typed(&["burgee-hub --config hub.toml token create"]))
            p { "Then, on the device, with the file that says who may sign for your fleet:" }
            (part::typed(&[&enroll]))
            p.muted { "The device appears here by itself." }
        }
    }
}

type Part<'a> = (Tone, &'a str, &'a str, u64);

fn axes(wanted: &Wanted, counts: &FleetCounts) -> Markup {
    let of = |groups: &[Group], key: &str| groups.iter().find(|group| group.key == key).map_or(0, |g| g.count);
    let sync: Vec<Part<'_>> = SyncAxis::ALL
        .iter()
        .map(|axis| (part::sync_tone(*axis), axis.as_str(), axis.label(), of(&counts.sync, axis.as_str())))
        .collect();
    let health: Vec<Part<'_>> = HealthAxis::ALL
        .iter()
        .map(|axis| (part::health_tone(*axis), axis.as_str(), axis.label(), of(&counts.health, axis.as_str())))
        .collect();
    let link: Vec<Part<'_>> = LinkAxis::ALL
        .iter()
        .zip([counts.heard, counts.silent, counts.unheard])
        .map(|(axis, count)| (part::link_tone(*axis), axis.as_str(), axis.label(), count))
        .collect();
    html! {
        (axis_card(wanted, "sync", "Sync", "Where Git wants it", &sync, counts.accepted))
        (axis_card(wanted, "health", "Health", "Do its apps work", &health, counts.accepted))
        (axis_card(wanted, "link", "Link", "By signed reports", &link, counts.accepted))
        (revisions_card(wanted, counts))
    }
}

fn axis_card(wanted: &Wanted, key: &str, title: &str, sub: &str, parts: &[Part<'_>], total: u64) -> Markup {
    let chosen = match key {
        "sync" => &wanted.sync,
        "health" => &wanted.health,
        _ => &wanted.link,
    };
    let best = parts.first().map_or(0, |(.., count)| *count);
    let drawn: Vec<(Tone, &str, u64)> = parts.iter().map(|(tone, _, label, count)| (*tone, *label, *count)).collect();
    html! {
        div.card.axis {
            h2 { (title) " " small { (sub) } }
            p.big { b { (best) } span { " of " (total) " " (parts.first().map_or("", |(_, _, label, _)| label).to_lowercase()) } }
            (part::bar(&drawn, total))
            ul.legend {
                @for (tone, value, label, count) in parts.iter().filter(|(.., count)| *count > 0) {
                    @let on = chosen == value;
                    li {
                        a.chosen[on] href=(wanted.href(key, if on { "" } else { value }))
                            aria-current=[on.then_some("true")] {
                            span.badge.bare.(tone.class()) { span.sign aria-hidden="true" {} (label) }
                            b { (count) }
                        }
                    }
                }
            }
        }
    }
}

fn revisions_card(wanted: &Wanted, counts: &FleetCounts) -> Markup {
    let shown = 5;
    html! {
        div.card.axis {
            h2 { "Revisions " small { "In use now" } }
            p.big { b { (counts.revisions.len()) } span { @if counts.revisions.len() == 1 { " revision" } @else { " revisions" } } }
            ul.legend {
                @for group in counts.revisions.iter().take(shown) {
                    @let short = group.key.get(..12).unwrap_or(&group.key);
                    @let on = !wanted.revision.is_empty() && group.key.starts_with(&wanted.revision);
                    li {
                        a.chosen[on] href=(wanted.href("revision", if on { "" } else { short }))
                            aria-current=[on.then_some("true")] {
                            code.rev title=(group.key) { (short) }
                            b { (group.count) }
                        }
                    }
                }
                @if counts.revisions.len() > shown { li.muted { "and more" } }
                @if counts.revisions.is_empty() { li.muted { "No device has said what it runs." } }
            }
        }
    }
}

fn search(wanted: &Wanted) -> Markup {
    let option = |value: &str, label: &str, chosen: &str| {
        html! { option value=(value) selected[value == chosen] { (label) } }
    };
    html! {
        form.search method="get" action="/" role="search" {
            label.grow {
                span { "Name or label" }
                input type="search" name="q" value=(wanted.q) placeholder="till-04 or region=eu" autocomplete="off"
                    spellcheck="false" autocapitalize="none";
            }
            label {
                span { "Sync" }
                select name="sync" {
                    (option("", "Any", &wanted.sync))
                    @for axis in SyncAxis::ALL { (option(axis.as_str(), axis.label(), &wanted.sync)) }
                }
            }
            label {
                span { "Health" }
                select name="health" {
                    (option("", "Any", &wanted.health))
                    @for axis in HealthAxis::ALL { (option(axis.as_str(), axis.label(), &wanted.health)) }
                }
            }
            label {
                span { "Link" }
                select name="link" {
                    (option("", "Any", &wanted.link))
                    @for axis in LinkAxis::ALL { (option(axis.as_str(), axis.label(), &wanted.link)) }
                }
            }
            @if !wanted.revision.is_empty() { input type="hidden" name="revision" value=(wanted.revision); }
            button type="submit" { "Show" }
            @if wanted.is_narrowed() { a.clear href="/" { "Clear" } }
        }
    }
}

fn table(wanted: &Wanted, view: &View) -> Markup {
    if view.devices.is_empty() {
        return html! {
            p.card.empty { "No device matches. " a href="/" { "Show all " (view.counts.accepted) } }
        };
    }
    html! {
        table.devices {
            thead { tr {
                th scope="col" { "Device" }
                th scope="col" { "Sync" }
                th scope="col" { "Health" }
                th scope="col" { "Link" }
                th scope="col" { "Revision" }
                th scope="col" { "Labels" }
            } }
            tbody { @for device in &view.devices { (row(device, view)) } }
        }
        (paging(wanted, view))
    }
}

fn row(device: &Device, view: &View) -> Markup {
    let status = device.status.as_ref();
    html! {
        tr {
            th scope="row" {
                a href={ "/devices/" (device.name) } { (device.name) }
                @if device.twin(view.silent_before).is_some() { " " (part::badge(Tone::Bad, "Copied")) }
            }
            td data-label="Sync" { (part::sync_badge(device.sync)) }
            td data-label="Health" { (part::health_badge(device.health)) }
            td data-label="Link" { (part::link_badge(device, view.silent_before, view.now)) }
            td data-label="Revision" {
                @match status.and_then(|status| status.revision.as_ref()) {
                    Some(id) => (part::revision(id)),
                    None => span.muted { "none yet" },
                }
            }
            td.labels.none[device.labels.is_empty()] data-label="Labels" {
                @for (key, value) in &device.labels { span.label { (key) "=" (value) } " " }
                @if device.labels.is_empty() { span.muted { "–" } }
            }
        }
    }
}

fn paging(wanted: &Wanted, view: &View) -> Markup {
    let pages = view.matching.div_ceil(u64::from(PAGE)).max(1);
    let here = wanted.number();
    html! {
        nav.paging aria-label="Pages of devices" {
            span.muted { (devices_text(view.matching)) @if pages > 1 { ", page " (here) " of " (pages) } }
            @if here > 1 { a rel="prev" href=(wanted.href("page", &(here - 1).to_string())) { "‹ Before" } }
            @if u64::from(here) < pages { a rel="next" href=(wanted.href("page", &(here + 1).to_string())) { "Next ›" } }
        }
    }
}

fn refusals(view: &View) -> Markup {
    html! {
        table.plain {
            thead { tr { th scope="col" { "Reason" } th scope="col" { "Count" } th scope="col" { "Last" } th scope="col" { "Said to be" } } }
            tbody {
                @for refusal in &view.refusals {
                    tr {
                        td { (refusal.reason) }
                        td { (refusal.count) }
                        td { (part::ago(refusal.last, view.now)) }
                        td { (refusal.device.as_deref().unwrap_or("–")) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wanted;

    #[test]
    fn addresses() {
        let wanted = Wanted { q: "region=eu &".to_owned(), sync: "held".to_owned(), ..Wanted::default() };
        let cases = [
            ("sync", "", "/?q=region%3Deu%20%26"),
            ("sync", "synced", "/?q=region%3Deu%20%26&sync=synced"),
            ("page", "2", "/?q=region%3Deu%20%26&sync=held&page=2"),
        ];
        for (key, value, want) in cases {
            assert_eq!(wanted.href(key, value), want, "{key}={value}");
        }
        assert_eq!(Wanted::default().href("q", ""), "/");
        assert_eq!(Wanted { page: "x".to_owned(), ..Wanted::default() }.number(), 1);
    }
}
