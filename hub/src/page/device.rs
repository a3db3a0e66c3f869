//! `/devices/NAME`: everything that is known of one device.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fleet::name::DeviceName;
use fleet::wire::report::ReportBody;
use fleet::wire::status::{AppStatus, Condition, PhaseName, Status};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::part::{self, Tone};
use super::{Place, failed, layout, lobby};
use crate::axes::{self, LinkAxis, SyncAxis};
use crate::clock;
use crate::hub::SharedHub;
use crate::order;
use crate::store::{Device, DeviceState, Entry, RunSeen, Store, StoreError, StoredCommand, Twin};

/// Events on the page.
const EVENTS: u32 = 100;
/// Commands on the page.
const COMMANDS: u32 = 10;
/// A report that took longer than this says so.
const LATE: SignedDuration = SignedDuration::from_secs(60);

struct View {
    device: Device,
    entries: Vec<Entry>,
    commands: Vec<StoredCommand>,
    runs: Vec<RunSeen>,
    silent_before: Timestamp,
    now: Timestamp,
}

async fn read(hub: &SharedHub, name: &DeviceName) -> Result<Option<View>, StoreError> {
    let now = clock::now();
    let Some(device) = hub.store.device(name).await? else { return Ok(None) };
    Ok(Some(View {
        entries: hub.store.entries(name, EVENTS).await?,
        commands: hub.store.commands(name, COMMANDS).await?,
        runs: hub.store.runs(name).await?,
        silent_before: hub.silent_before(now),
        device,
        now,
    }))
}

pub(super) async fn page(State(hub): State<SharedHub>, Path(name): Path<String>) -> Response {
    let view = match name.parse::<DeviceName>() {
        Ok(name) => read(&hub, &name).await,
        Err(_) => Ok(None),
    };
    match view {
        Err(error) => failed(&hub, &error),
        Ok(Some(view)) => layout(&hub, &name, Place::Elsewhere, &content(&view)).into_response(),
        Ok(None) => {
            let content = html! {
                section.card.empty {
                    h1 { "No such device" }
                    p { "It never enrolled here under this name. " a href="/" { "Back to the fleet" } }
                }
            };
            (StatusCode::NOT_FOUND, layout(&hub, "No such device", Place::Elsewhere, &content)).into_response()
        }
    }
}

fn content(view: &View) -> Markup {
    let device = &view.device;
    html! {
        p.crumbs { a href="/" { "Fleet" } " / " (device.name) }
        div.title {
            h1 { (device.name) }
            p.sub {
                @for (key, value) in &device.labels { span.label { (key) "=" (value) } " " }
            }
        }
        div id="notices" data-live { (notices(view)) }
        section.axes.three id="axes" data-live aria-label="The device by its axes" { (three(view)) }
        @if let Some(status) = &device.status {
            section.card id="apps" data-live aria-label="Apps" { (apps(status)) }
            section.card id="conditions" data-live aria-label="Conditions" { (conditions(status, view.now)) }
        } @else {
            section.card.empty id="apps" data-live {
                h2 { "No report yet" }
                p { "The device is enrolled and has sent nothing. On the device:" }
                (part::typed(&["burgee-agent status", "burgee-agent doctor"]))
            }
        }
        section.card id="events" data-live aria-label="Events" { (events(view)) }
        section.card id="commands" data-live aria-label="Commands" { (commands(view)) }
        section.card id="facts" data-live aria-label="Facts" { (facts(view)) }
    }
}

fn notices(view: &View) -> Markup {
    let device = &view.device;
    let status = device.status.as_ref();
    let accept = format!("burgee-hub --config hub.toml device accept {}", device.name);
    html! {
        @match device.state {
            DeviceState::Lobby => div.notice.busy {
                strong { "This device waits in the lobby." } " Accept it:"
                (part::typed(&[&accept]))
            },
            DeviceState::Removed => p.notice.warn {
                strong { "This device was removed." } " Its key counts for nothing; what follows is history."
            },
            DeviceState::Accepted => {},
        }
        @if let Some(twin) = device.twin(view.silent_before) { (copied(view, twin)) }
        @if let Some(status) = status {
            @if matches!(device.sync, SyncAxis::RolledBack | SyncAxis::RollingBack | SyncAxis::Stalled) {
                div.notice.bad { (went_wrong(device, status)) }
            }
            @if status.suspended {
                p.notice.warn { strong { "Suspended." } " An operator stopped new revisions; what runs is still kept." }
            }
        }
        @if part::link_axis(device, view.silent_before) == LinkAxis::Silent {
            p.notice.warn {
                strong { "Silent." } " What follows is what the device said last"
                @if let Some(at) = device.status_at { ", at " (part::clock(at)) } "."
            }
        }
    }
}

fn copied(view: &View, twin: Twin) -> Markup {
    let device = &view.device;
    let clear = format!("burgee-hub --config hub.toml device clear {}", device.name);
    html! {
        div.notice.bad {
            strong { "Copied." }
            " Two agents report with this device’s key, since " (part::clock(twin.since))
            ": the device, or its store, was copied. What each says is kept; what is shown is of the one that spoke last."
            table.plain {
                thead { tr { th scope="col" { "Agent" } th scope="col" { "Machine" } th scope="col" { "First heard" } th scope="col" { "Last heard" } } }
                tbody {
                    @for run in view.runs.iter().filter(|run| run.last >= view.silent_before) {
                        tr {
                            td data-label="Agent" { (agent(&run.run)) }
                            td data-label="Machine" { @match &run.machine { Some(id) => code { (short_run(id)) }, None => "–" } }
                            td data-label="First heard" { (part::ago(run.first, view.now)) }
                            td data-label="Last heard" { (part::ago(run.last, view.now)) }
                        }
                    }
                }
            }
            span.hint {
                b { "Hint " } "on the one that is the copy (" code { "burgee-agent doctor" }
                " shows its machine), with its agent stopped:"
            }
            (part::typed(&["burgee-agent enroll --new-identity --token TOKEN"]))
            "This notice goes by itself once one of them is silent; or at once:"
            (part::typed(&[&clear]))
        }
    }
}

fn short_run(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn agent(run: &str) -> Markup {
    html! { @if run.is_empty() { "an older agent" } @else { code { (short_run(run)) } } }
}

fn went_wrong(device: &Device, status: &Status) -> Markup {
    let failed = status.blocked.last();
    html! {
        strong { @match device.sync {
            SyncAxis::RolledBack => "Rolled back.",
            SyncAxis::RollingBack => "Rolling back.",
            _ => "Stalled.",
        } }
        @if let Some(failed) = failed { " " (part::revision(&failed.revision)) " did not work: " (failed.reason) "." }
        @match (&status.last_good, device.sync) {
            (Some(good), SyncAxis::RolledBack) => { " The device runs its last good revision " (part::revision(good)) " again." },
            (Some(good), SyncAxis::RollingBack) => { " The device returns to " (part::revision(good)) "." },
            _ => {},
        }
        " A newer commit goes through by itself; "
        code { "burgee-hub command " (device.name) " retry" } " tries this one again."
    }
}

fn three(view: &View) -> Markup {
    let device = &view.device;
    let status = device.status.as_ref();
    let link = part::link_axis(device, view.silent_before);
    html! {
        div.card.axis.one.(part::sync_tone(device.sync).class()) {
            h2 { "Sync" }
            p.big { b { (device.sync.label()) } }
            p.sub { @match status {
                None => "Nothing reported.",
                Some(status) => { (phase_text(status)) },
            } }
        }
        div.card.axis.one.(part::health_tone(device.health).class()) {
            h2 { "Health" }
            p.big { b { (device.health.label()) } }
            p.sub { @match status {
                None => "Nothing reported.",
                Some(status) => { (health_text(status)) },
            } }
        }
        div.card.axis.one.(part::link_tone(link).class()) {
            h2 { "Link" }
            p.big { b { (link.label()) } }
            p.sub { @match device.last_seen {
                None => "No signed report has come.",
                Some(seen) => { "Last signed report " (part::ago(seen, view.now)) "." },
            } }
        }
    }
}

fn phase_text(status: &Status) -> Markup {
    let at = status.revision.as_ref();
    html! {
        @match (status.phase, at) {
            (PhaseName::Steady, Some(at)) => { "Steady at " (part::revision(at)) "." },
            (PhaseName::Steady, None) => "Steady, with nothing to run yet.",
            (PhaseName::Stalled, Some(at)) => { "Stalled at " (part::revision(at)) "." },
            (PhaseName::Starting, _) => "Starting.",
            (phase, at) => {
                (title_case(axes::phase(phase)))
                @if let Some(at) = at { " " (part::revision(at)) }
                @if let Some(target) = &status.target { " → " (part::revision(target)) }
                "."
            },
        }
    }
}

fn title_case(text: &str) -> String {
    let text = text.replace('-', " ");
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn health_text(status: &Status) -> String {
    let sick: Vec<&str> = status
        .apps
        .iter()
        .filter(|app| app.health != fleet::wire::status::Health::Healthy)
        .map(|app| app.name.as_str())
        .collect();
    match (status.apps.len(), sick.as_slice()) {
        (0, _) => "No apps for this device.".to_owned(),
        (1, []) => "Its one app is healthy.".to_owned(),
        (all, []) => format!("All {all} apps are healthy."),
        (all, sick) => format!("{} of {all} apps not healthy: {}.", sick.len(), sick.join(", ")),
    }
}

fn apps(status: &Status) -> Markup {
    html! {
        h2 { "Apps " small { "desired against observed" } }
        @if status.apps.is_empty() {
            p.muted { "No group of the fleet repository gives this device an app." }
        } @else {
            table.apps {
                thead { tr {
                    th scope="col" { "App" } th scope="col" { "Runtime" } th scope="col" { "State" }
                    th scope="col" { "Health" } th scope="col" { "Desired" } th scope="col" { "Why" }
                } }
                tbody { @for app in &status.apps { (app_row(app)) } }
            }
        }
    }
}

fn app_row(app: &AppStatus) -> Markup {
    html! {
        tr {
            th scope="row" { (app.name) }
            td data-label="Runtime" { (app.runtime) }
            td data-label="State" { (part::app_sync(app.sync)) }
            td data-label="Health" { (part::app_health(app.health)) }
            td.none[app.digest.is_none()] data-label="Desired" {
                @match &app.digest {
                    Some(digest) => { @let text = digest.to_string(); code.rev title=(text) { (short_digest(&text)) } },
                    None => span.muted { "–" },
                }
            }
            td.why.none[app.message.is_empty()] data-label="Why" { @if app.message.is_empty() { span.muted { "–" } } @else { (part::message(&app.message)) } }
        }
    }
}

fn short_digest(text: &str) -> &str {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.get(..12).unwrap_or(hex)
}

/// Whether a condition speaks of trouble. Most say what should be true.
fn concerns(condition: &Condition) -> bool {
    let true_is_bad = ["Drifted", "DriftFighting", "FollowsBranch", "Held", "PruneLimited", "Suspended"];
    condition.status == true_is_bad.contains(&condition.kind.as_str())
}

fn conditions(status: &Status, now: Timestamp) -> Markup {
    let mut sorted: Vec<&Condition> = status.conditions.iter().collect();
    sorted.sort_by_key(|condition| !concerns(condition));
    html! {
        h2 { "Conditions" }
        @if sorted.is_empty() && status.blocked.is_empty() { p.muted { "None reported." } }
        ul.conditions {
            @for blocked in &status.blocked {
                li.bad {
                    span.head { (part::badge(Tone::Bad, "Blocked")) " " (part::revision(&blocked.revision)) }
                    span.body { (part::message(&blocked.reason)) span.hint { b { "Hint " } "not tried again until a newer commit, or retry" } }
                }
            }
            @for condition in sorted {
                @let tone = if concerns(condition) { Tone::Warn } else { Tone::Good };
                li.(tone.class()) {
                    span.head {
                        (part::badge(tone, &condition.kind))
                        " " span.muted { @if condition.status { "yes" } @else { "no" } " · " (condition.reason) }
                    }
                    span.body { (part::message(&condition.message)) span.since { "since " (part::ago(condition.since, now)) } }
                }
            }
        }
    }
}

fn events(view: &View) -> Markup {
    let shown: Vec<&Entry> = view.entries.iter().collect();
    let two = view.device.twin(view.silent_before).is_some();
    html! {
        h2 { "Events " small { "newest first, by the device’s own clock" } }
        @if shown.is_empty() { p.muted { "None yet." } }
        ol.events {
            @for entry in shown {
                li {
                    span.when {
                        (part::clock(entry.at))
                        @let late = entry.received.duration_since(entry.at);
                        @if late > LATE {
                            span.late { "received " (part::span(entry.at, entry.received)) " later" }
                        } @else if late < -LATE {
                            span.late { "device’s clock " (part::span(entry.received, entry.at)) " ahead" }
                        }
                    }
                    @if two { span.late { "agent " (agent(&entry.run)) } }
                    (event_body(&entry.body))
                }
            }
        }
    }
}

fn event_body(body: &ReportBody) -> Markup {
    html! {
        @match body {
            ReportBody::Event(event) => {
                span.what { (part::badge(event_tone(&event.event), &title_case(&event.event))) }
                span.text {
                    @if let Some(id) = &event.revision { (part::revision(id)) " " }
                    (part::message(&event.message))
                }
            },
            ReportBody::Logs(logs) => {
                span.what { (part::badge(Tone::Quiet, "Logs")) }
                details.text {
                    summary { (logs.app) ", " (logs.lines.len()) " lines" }
                    pre.log { @for line in &logs.lines { (line) "\n" } }
                }
            },
            ReportBody::Answer(answer) => {
                @let refused = answer.outcome == fleet::wire::report::Outcome::Refused;
                span.what { (part::badge(if refused { Tone::Warn } else { Tone::Quiet }, if refused { "Command refused" } else { "Command taken" })) }
                span.text { (part::message(&answer.message)) }
            },
            ReportBody::Status(_) => {},
        }
    }
}

/// What went back never looks like what went well.
fn event_tone(event: &str) -> Tone {
    match event {
        "steady" | "applied" | "drift-repaired" => Tone::Good,
        "identity-given-up" => Tone::Warn,
        "failed" | "rolled-back" | "rolling-back" | "refused" | "stalled" => Tone::Bad,
        "accepted" | "preparing" | "applying" | "probing" => Tone::Busy,
        "held" | "suspended" | "drifted" => Tone::Warn,
        _ => Tone::Quiet,
    }
}

fn commands(view: &View) -> Markup {
    let name = &view.device.name;
    let sync = format!("burgee-hub --config hub.toml command {name} sync");
    let more = "sync, suspend, resume, retry, rollback, logs APP";
    html! {
        h2 { "Commands" }
        @if view.commands.is_empty() { p.muted { "None was sent." } } @else {
            table.plain.commands {
                thead { tr { th scope="col" { "Command" } th scope="col" { "Issued" } th scope="col" { "Now" } th scope="col" { "Answer" } } }
                tbody {
                    @for command in &view.commands {
                        @let standing = order::standing(command, view.now);
                        @let tone = match standing { "done" => Tone::Good, "refused" | "expired" => Tone::Bad, _ => Tone::Busy };
                        tr {
                            td data-label="Command" { code { (command.act) } }
                            td data-label="Issued" { (part::ago(command.issued, view.now)) }
                            td data-label="Now" { (part::badge(tone, &title_case(standing))) }
                            td.none[command.message.is_empty()] data-label="Answer" { (part::message(&command.message)) }
                        }
                    }
                }
            }
        }
        @if view.device.state == DeviceState::Accepted {
            p.muted { "To send one (" (more) "):" }
            (part::typed(&[&sync]))
        }
    }
}

fn facts(view: &View) -> Markup {
    let device = &view.device;
    html! {
        h2 { "Facts" }
        dl.facts {
            @if let Some(status) = &device.status {
                dt { "Phase" } dd { (axes::phase(status.phase)) }
                dt { "Revision" } dd { @match &status.revision { Some(id) => (long(id.as_str())), None => "none" } }
                dt { "Last good" } dd { @match &status.last_good { Some(id) => (long(id.as_str())), None => "none yet" } }
                @if let Some(target) = &status.target { dt { "Target" } dd { (long(target.as_str())) } }
                dt { "Device says" }
                dd {
                    "Git " (part::link_state(status.link.git)) ", MQTT " (part::link_state(status.link.mqtt))
                    ", hub " (part::link_state(status.link.hub))
                }
                @if !status.agent.is_empty() { dt { "Agent" } dd { (status.agent) } }
            }
            @if let Some(up) = device.mqtt_up {
                dt { "Broker says" } dd { @if up { "connected" } @else { "not connected" } " " span.muted { "(a hint, unsigned)" } }
            }
            dt { "Enrolled" } dd { (part::clock(device.enrolled)) }
            dt { "Key" } dd { code { (lobby::fingerprint(device)) } }
            @if let Some(at) = device.status_at {
                dt { "Status made" } dd { (part::clock(at)) }
            }
            @if let Some(at) = device.status_received {
                dt { "Status received" } dd { (part::clock(at)) }
            }
        }
    }
}

fn long(id: &str) -> Markup {
    html! { code.rev { (id) } }
}
