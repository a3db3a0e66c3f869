//! A device's status boiled down to the axes that lists and counts need.
//!
//! Three axes, never merged: sync (is it where Git wants it), health (do its
//! apps work), link (do we hear of it). **Invariant:** a device that went back
//! is never counted as in sync, however well it runs.

use fleet::wire::status::{Health, PhaseName, Status, Sync};
use serde::Serialize;

macro_rules! axis {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal, $label:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, best first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As stored, in URLs and in metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// For people.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// What [`Self::as_str`] gave.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

axis! {
    /// Whether the device is where Git wants it.
    SyncAxis {
        /// At the newest revision it accepted, every app as desired.
        Synced = "synced", "In sync";
        /// On its way.
        Updating = "updating", "Updating";
        /// Ready for a newer revision, and told to wait.
        Held = "held", "Held";
        /// Drifted.
        OutOfSync = "out-of-sync", "Out of sync";
        /// On its way back from a revision that failed.
        RollingBack = "rolling-back", "Rolling back";
        /// Back at last good, because a newer revision failed.
        RolledBack = "rolled-back", "Rolled back";
        /// Needs a newer commit or a person.
        Stalled = "stalled", "Stalled";
        /// No status yet.
        Unknown = "unknown", "Unknown";
    }
}

axis! {
    /// Whether the apps work: that of the worst.
    HealthAxis {
        Healthy = "healthy", "Healthy";
        Progressing = "progressing", "Progressing";
        Suspended = "suspended", "Suspended";
        Degraded = "degraded", "Degraded";
        Missing = "missing", "Missing";
        Unknown = "unknown", "Unknown";
    }
}

axis! {
    /// Whether the hub hears of the device, by signed reports alone.
    LinkAxis {
        Heard = "heard", "Reporting";
        Silent = "silent", "Silent";
        Unheard = "unheard", "Never reported";
    }
}

/// The sync axis of a status.
#[must_use]
pub fn sync(status: &Status) -> SyncAxis {
    match status.phase {
        PhaseName::Starting => SyncAxis::Unknown,
        PhaseName::Preparing | PhaseName::Applying | PhaseName::Probing => SyncAxis::Updating,
        PhaseName::Held => SyncAxis::Held,
        PhaseName::RollingBack => SyncAxis::RollingBack,
        // Something runs that is not what failed: it went back, or never left.
        PhaseName::Stalled if went_back(status) => SyncAxis::RolledBack,
        PhaseName::Stalled => SyncAxis::Stalled,
        PhaseName::Steady => match &status.target {
            // An operator sent it back: steady, but not where Git wants it.
            Some(target) if Some(target) != status.revision.as_ref() => {
                if status.blocked.iter().any(|blocked| blocked.revision == *target) {
                    SyncAxis::RolledBack
                } else {
                    SyncAxis::Held
                }
            }
            _ => worst_sync(status),
        },
    }
}

fn went_back(status: &Status) -> bool {
    let Some(at) = &status.revision else { return false };
    status.last_good.as_ref() == Some(at) && status.blocked.iter().any(|blocked| blocked.revision != *at)
}

fn worst_sync(status: &Status) -> SyncAxis {
    let any = |wanted: Sync| status.apps.iter().any(|app| app.sync == wanted);
    if any(Sync::OutOfSync) {
        SyncAxis::OutOfSync
    } else if any(Sync::Updating) {
        SyncAxis::Updating
    } else if any(Sync::Unknown) {
        SyncAxis::Unknown
    } else {
        SyncAxis::Synced
    }
}

/// The health axis: the worst of the apps. A device without apps is healthy
/// once it is steady, and unknown before.
#[must_use]
pub fn health(status: &Status) -> HealthAxis {
    let of = |health: Health| match health {
        Health::Healthy => HealthAxis::Healthy,
        Health::Progressing => HealthAxis::Progressing,
        Health::Suspended => HealthAxis::Suspended,
        Health::Degraded => HealthAxis::Degraded,
        Health::Missing => HealthAxis::Missing,
        Health::Unknown => HealthAxis::Unknown,
    };
    let worst = status.apps.iter().map(|app| of(app.health)).max_by_key(|health| severity(*health));
    match worst {
        Some(health) => health,
        None if status.phase == PhaseName::Steady => HealthAxis::Healthy,
        None => HealthAxis::Unknown,
    }
}

/// What is known to be broken weighs more than what is not known.
fn severity(health: HealthAxis) -> u8 {
    match health {
        HealthAxis::Healthy => 0,
        HealthAxis::Suspended => 1,
        HealthAxis::Progressing => 2,
        HealthAxis::Unknown => 3,
        HealthAxis::Degraded => 4,
        HealthAxis::Missing => 5,
    }
}

/// The phase as the wire writes it.
#[must_use]
pub fn phase(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Starting => "starting",
        PhaseName::Steady => "steady",
        PhaseName::Preparing => "preparing",
        PhaseName::Held => "held",
        PhaseName::Applying => "applying",
        PhaseName::Probing => "probing",
        PhaseName::RollingBack => "rolling-back",
        PhaseName::Stalled => "stalled",
    }
}

#[cfg(test)]
mod tests {
    use fleet::wire::status::Status;
    use serde_json::json;

    use super::{HealthAxis, SyncAxis, health, sync};

    fn status(phase: &str, at: &str, good: &str, blocked: &[&str], apps: &[(&str, &str)]) -> Status {
        let id = |short: &str| (!short.is_empty()).then(|| short.repeat(40));
        serde_json::from_value(json!({
            "device": "d", "phase": phase, "revision": id(at), "lastGood": id(good),
            "blocked": blocked.iter().map(|b| json!({"revision": id(b), "digest": null, "reason": "r"})).collect::<Vec<_>>(),
            "apps": apps.iter().map(|(sync, health)| json!({
                "name": "a", "runtime": "files", "sync": sync, "health": health, "digest": null})).collect::<Vec<_>>(),
            "conditions": [], "link": {"git": "up", "mqtt": "up", "hub": "up"},
        }))
        .expect("a status")
    }

    #[test]
    fn axes() {
        let ok: &[(&str, &str)] = &[("synced", "healthy")];
        let cases = [
            ("all is well", status("steady", "a", "a", &[], ok), SyncAxis::Synced, HealthAxis::Healthy),
            ("went back", status("stalled", "a", "a", &["b"], ok), SyncAxis::RolledBack, HealthAxis::Healthy),
            ("never had a good one", status("stalled", "", "", &["b"], &[]), SyncAxis::Stalled, HealthAxis::Unknown),
            ("failed and stays", status("stalled", "b", "a", &["b"], ok), SyncAxis::Stalled, HealthAxis::Healthy),
            ("going back", status("rolling-back", "a", "a", &[], ok), SyncAxis::RollingBack, HealthAxis::Healthy),
            (
                "drift",
                status("steady", "a", "a", &[], &[("out-of-sync", "healthy")]),
                SyncAxis::OutOfSync,
                HealthAxis::Healthy,
            ),
            ("old failure, newer fix", status("steady", "c", "c", &["b"], ok), SyncAxis::Synced, HealthAxis::Healthy),
            (
                "one sick",
                status("steady", "a", "a", &[], &[("synced", "healthy"), ("synced", "degraded")]),
                SyncAxis::Synced,
                HealthAxis::Degraded,
            ),
            (
                "sick beats unknown",
                status("steady", "a", "a", &[], &[("unknown", "unknown"), ("synced", "degraded")]),
                SyncAxis::Unknown,
                HealthAxis::Degraded,
            ),
            ("nothing to run", status("steady", "a", "a", &[], &[]), SyncAxis::Synced, HealthAxis::Healthy),
        ];
        for (name, status, want_sync, want_health) in cases {
            assert_eq!(sync(&status), want_sync, "{name}");
            assert_eq!(health(&status), want_health, "{name}");
        }
    }

    #[test]
    fn texts_come_back() {
        for axis in SyncAxis::ALL {
            assert_eq!(SyncAxis::parse(axis.as_str()), Some(*axis));
        }
    }
}
