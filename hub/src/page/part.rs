//! Parts that several pages have: badges, times, revisions, code to type.

use fleet::revision::CommitId;
use fleet::wire::status::{Health, LinkState, Sync};
use jiff::Timestamp;
use maud::{Markup, html};

use crate::axes::{HealthAxis, LinkAxis, SyncAxis};
use crate::store::Device;

/// How something is meant: colour and sign go together, so that neither is alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Quiet,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }
}

pub(super) fn sync_tone(axis: SyncAxis) -> Tone {
    match axis {
        SyncAxis::Synced => Tone::Good,
        SyncAxis::Updating => Tone::Busy,
        SyncAxis::Held | SyncAxis::OutOfSync => Tone::Warn,
        SyncAxis::RollingBack | SyncAxis::RolledBack | SyncAxis::Stalled => Tone::Bad,
        SyncAxis::Unknown => Tone::Quiet,
    }
}

pub(super) fn health_tone(axis: HealthAxis) -> Tone {
    match axis {
        HealthAxis::Healthy => Tone::Good,
        HealthAxis::Progressing => Tone::Busy,
        HealthAxis::Suspended => Tone::Warn,
        HealthAxis::Degraded | HealthAxis::Missing => Tone::Bad,
        HealthAxis::Unknown => Tone::Quiet,
    }
}

pub(super) fn link_tone(axis: LinkAxis) -> Tone {
    match axis {
        LinkAxis::Heard => Tone::Good,
        LinkAxis::Silent => Tone::Bad,
        LinkAxis::Unheard => Tone::Quiet,
    }
}

/// What reports alone say of the link.
pub(super) fn link_axis(device: &Device, silent_before: Timestamp) -> LinkAxis {
    match device.last_seen {
        None => LinkAxis::Unheard,
        Some(seen) if seen < silent_before => LinkAxis::Silent,
        Some(_) => LinkAxis::Heard,
    }
}

pub(super) fn badge(tone: Tone, text: &str) -> Markup {
    html! { span.badge.(tone.class()) { span.sign aria-hidden="true" {} (text) } }
}

pub(super) fn sync_badge(axis: SyncAxis) -> Markup {
    badge(sync_tone(axis), axis.label())
}

pub(super) fn health_badge(axis: HealthAxis) -> Markup {
    badge(health_tone(axis), axis.label())
}

pub(super) fn link_badge(device: &Device, silent_before: Timestamp, now: Timestamp) -> Markup {
    let axis = link_axis(device, silent_before);
    match device.last_seen {
        None => badge(link_tone(axis), axis.label()),
        Some(seen) if axis == LinkAxis::Silent => badge(Tone::Bad, &format!("Silent for {}", span(seen, now))),
        Some(seen) => badge(link_tone(axis), &format!("Heard {}", ago_text(seen, now))),
    }
}

pub(super) fn app_sync(sync: Sync) -> Markup {
    match sync {
        Sync::Synced => badge(Tone::Good, "As desired"),
        Sync::OutOfSync => badge(Tone::Warn, "Differs"),
        Sync::Updating => badge(Tone::Busy, "Updating"),
        Sync::Unknown => badge(Tone::Quiet, "Unknown"),
    }
}

pub(super) fn app_health(health: Health) -> Markup {
    health_badge(match health {
        Health::Healthy => HealthAxis::Healthy,
        Health::Progressing => HealthAxis::Progressing,
        Health::Degraded => HealthAxis::Degraded,
        Health::Missing => HealthAxis::Missing,
        Health::Suspended => HealthAxis::Suspended,
        Health::Unknown => HealthAxis::Unknown,
    })
}

pub(super) fn link_state(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::Down => "down",
        LinkState::Unused => "unused",
    }
}

/// The first digits, the rest on demand.
pub(super) fn revision(id: &CommitId) -> Markup {
    html! { code.rev title=(id) { (id.short()) } }
}

/// `2026-11-23 07:22:18 UTC`.
pub(crate) fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// How long from one to the other, in its largest unit.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    let secs = to.duration_since(from).as_secs().unsigned_abs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

fn ago_text(at: Timestamp, now: Timestamp) -> String {
    let secs = now.duration_since(at).as_secs();
    match secs {
        -5..5 => "just now".to_owned(),
        5.. => format!("{} ago", span(at, now)),
        _ => format!("{} ahead", span(at, now)),
    }
}

/// "3 min ago", with the time itself behind it.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(at) title=(utc(at)) { (ago_text(at, now)) } }
}

pub(super) fn clock(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (utc(at)) } }
}

/// Lines to type, as they are.
pub(super) fn typed(lines: &[&str]) -> Markup {
    html! { pre.typed { code { @for line in lines { (line) "\n" } } } }
}

/// A message whose lines after `hint:` are what to do.
pub(super) fn message(text: &str) -> Markup {
    let (cause, hint) = match text.split_once("hint:") {
        Some((cause, hint)) => (cause.trim(), Some(hint.trim())),
        None => (text.trim(), None),
    };
    html! {
        @if !cause.is_empty() { span.cause { (cause) } }
        @if let Some(hint) = hint { span.hint { b { "Hint " } (hint) } }
    }
}

/// The small flag of the heading.
pub(super) fn flag() -> Markup {
    html! {
        svg.flag viewBox="0 0 24 24" aria-hidden="true" focusable="false" {
            path.mast d="M4 2v20" {}
            path.cloth d="M5 4l16 4.5L5 13z" {}
        }
    }
}

/// One part of a whole, drawn as a bar. `parts`: tone, name, count.
pub(super) fn bar(parts: &[(Tone, &str, u64)], total: u64) -> Markup {
    let whole = total.max(1);
    let mut left = 0.0_f64;
    let mut drawn = Vec::new();
    for (tone, _, count) in parts.iter().filter(|(.., count)| *count > 0) {
        let width = share(*count, whole);
        drawn.push((tone.class(), left, width));
        left += width;
    }
    let label: Vec<String> =
        parts.iter().filter(|(.., count)| *count > 0).map(|(_, name, count)| format!("{count} {name}")).collect();
    html! {
        svg.bar viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=(label.join(", ")) {
            rect.none x="0" y="0" width="100" height="4" {}
            @for (class, x, width) in drawn {
                rect.(class) x=(format!("{x:.3}")) y="0" width=(format!("{width:.3}")) height="4" {}
            }
        }
    }
}

fn share(count: u64, whole: u64) -> f64 {
    let exact = |value: u64| f64::from(u32::try_from(value).unwrap_or(u32::MAX));
    exact(count) / exact(whole) * 100.0
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{ago_text, message, span};

    #[test]
    fn times() {
        let at = |secs| Timestamp::from_second(secs).expect("a time");
        let cases = [
            (0, "just now", "0 s"),
            (59, "59 s ago", "59 s"),
            (60, "1 min ago", "1 min"),
            (7199, "1 h ago", "1 h"),
            (172_800, "2 days ago", "2 days"),
            (-300, "5 min ahead", "5 min"),
        ];
        for (later, ago, long) in cases {
            assert_eq!((ago_text(at(0), at(later)).as_str(), span(at(0), at(later)).as_str()), (ago, long), "{later}");
        }
    }

    #[test]
    fn what_devices_say_is_text() {
        let shown = message("pull failed <script>\nhint: log in").into_string();
        assert!(shown.contains("&lt;script&gt;") && shown.contains("<b>Hint </b>log in"), "{shown}");
    }
}
