//! What a unit is doing, and what that means. Pure.

use std::collections::HashMap;

use fleet::wire::status::Health;
use zbus::zvariant::{OwnedValue, Value};

use crate::ports::runtime::Verdict;

/// A unit as systemd shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// What is wrong, where `load` is an error.
    pub load_error: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`, …
    pub active: String,
    /// The unit type's own word for it: `running`, `exited`, `auto-restart`, …
    pub sub: String,
    /// `enabled`, `disabled`, `static`, `generated`, `masked`, …; empty where there is no unit file.
    pub file_state: String,
    /// The unit file it was loaded from.
    pub fragment: String,
    /// Whether its conditions held when it was started last.
    pub condition: bool,
    /// Services only.
    pub service: Option<Service>,
}

/// What only services have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub oneshot: bool,
    /// `success`, `exit-code`, `signal`, `timeout`, `start-limit-hit`, …
    pub result: String,
    /// Of the main process: an exit status, or a signal's number.
    pub status: i32,
    /// Whether the main process has run since the boot.
    pub ran: bool,
    /// How often systemd restarted it by itself.
    pub restarts: u32,
}

impl Unit {
    pub(super) fn from_properties(
        name: &str,
        file_state: String,
        generic: &HashMap<String, OwnedValue>,
        service: Option<&HashMap<String, OwnedValue>>,
    ) -> Self {
        let load_error = match generic.get("LoadError").map(|value| &**value) {
            Some(Value::Structure(pair)) => match pair.fields() {
                [_, Value::Str(message)] => message.to_string(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        Self {
            name: name.to_owned(),
            load: text(generic, "LoadState"),
            load_error,
            active: text(generic, "ActiveState"),
            sub: text(generic, "SubState"),
            file_state,
            fragment: text(generic, "FragmentPath"),
            // Never evaluated is not unmet.
            condition: !matches!(
                (generic.get("ConditionResult").map(|v| &**v), generic.get("ConditionTimestamp").map(|v| &**v)),
                (Some(Value::Bool(false)), Some(Value::U64(1..)))
            ),
            service: service.map(|own| Service {
                oneshot: text(own, "Type") == "oneshot",
                result: text(own, "Result"),
                status: match own.get("ExecMainStatus").map(|value| &**value) {
                    Some(Value::I32(status)) => *status,
                    _ => 0,
                },
                ran: matches!(own.get("ExecMainStartTimestamp").map(|value| &**value), Some(Value::U64(1..))),
                restarts: match own.get("NRestarts").map(|value| &**value) {
                    Some(Value::U32(count)) => *count,
                    _ => 0,
                },
            }),
        }
    }

    /// Whether a process, socket, timer… is there, or on its way up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "refreshing" | "activating")
    }

    /// Whether it is a oneshot that has done its work since the boot. systemd
    /// forgets units that nothing refers to, so it may not know: `started` says
    /// that the caller does.
    #[must_use]
    pub fn is_done(&self, started: bool) -> bool {
        self.active == "inactive"
            && self.service.as_ref().is_some_and(|own| own.oneshot && (own.ran || started) && own.result == "success")
    }

    /// Its state in a few words: `failed (exit-code, status 1)`.
    #[must_use]
    pub fn state(&self) -> String {
        match self.load.as_str() {
            "not-found" => return "does not exist".to_owned(),
            "masked" => return "masked".to_owned(),
            "bad-setting" | "error" => return format!("cannot be loaded: {}", self.load_error),
            _ => {}
        }
        match &self.service {
            Some(own) if !own.result.is_empty() && own.result != "success" => {
                format!("{} ({}, status {})", self.active, own.result, own.status)
            }
            _ => format!("{} ({})", self.active, self.sub),
        }
    }

    /// The verdict on a unit that is to run; `started`: see [`Self::is_done`].
    #[must_use]
    pub fn verdict(&self, started: bool) -> Verdict {
        let name = &self.name;
        let see = format!("see `journalctl -u {name}`");
        let sick = |message: String| Verdict { health: Health::Degraded, message };
        match (self.load.as_str(), self.active.as_str()) {
            ("not-found", _) => Verdict { health: Health::Missing, message: format!("{name} does not exist") },
            ("masked", _) => sick(format!("{name} is masked: `systemctl unmask {name}`")),
            ("bad-setting" | "error", _) => sick(format!("{name} {}", self.state())),
            (_, "active" | "reloading" | "refreshing") => well(),
            (_, "activating") if self.is_looping() => sick(format!(
                "{name} keeps stopping: {}, restarted {} times; {see}",
                self.state(),
                self.service.as_ref().map_or(0, |own| own.restarts)
            )),
            (_, "activating") => Verdict { health: Health::Progressing, message: format!("{name} is starting") },
            (_, "deactivating") => Verdict { health: Health::Progressing, message: format!("{name} is stopping") },
            (_, "inactive") if self.is_done(started) => well(),
            (_, "inactive") if !self.condition => {
                sick(format!("{name} did not start: a condition of the unit is not met on this device"))
            }
            _ => sick(format!("{name} is {}; {see}", self.state())),
        }
    }

    /// Started again and again by systemd after failing.
    fn is_looping(&self) -> bool {
        self.sub.starts_with("auto-restart") && self.service.as_ref().is_some_and(|own| own.result != "success")
    }
}

fn well() -> Verdict {
    Verdict { health: Health::Healthy, message: String::new() }
}

fn text(properties: &HashMap<String, OwnedValue>, name: &str) -> String {
    match properties.get(name).map(|value| &**value) {
        Some(Value::Str(text)) => text.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Service, Unit};

    fn unit(load: &str, active: &str, sub: &str, service: Option<Service>) -> Unit {
        Unit {
            name: "a.service".into(),
            load: load.into(),
            active: active.into(),
            sub: sub.into(),
            condition: true,
            service,
            ..Unit::default()
        }
    }

    fn service(oneshot: bool, result: &str, status: i32, ran: bool) -> Option<Service> {
        Some(Service { oneshot, result: result.into(), status, ran, restarts: 3 })
    }

    #[track_caller]
    fn check(unit: &Unit, health: Health, part: &str) {
        let verdict = unit.verdict(false);
        assert_eq!(verdict.health, health, "{verdict:?}");
        assert!(verdict.message.contains(part), "{part:?} in {verdict:?}");
        assert_eq!(verdict.message.is_empty(), health == Health::Healthy);
    }

    #[test]
    fn verdicts() {
        let fine = || service(false, "success", 0, true);
        check(&unit("loaded", "active", "running", fine()), Health::Healthy, "");
        check(&unit("loaded", "active", "waiting", None), Health::Healthy, "");
        check(&unit("loaded", "active", "exited", service(true, "success", 0, true)), Health::Healthy, "");
        check(&unit("loaded", "activating", "start", fine()), Health::Progressing, "starting");
        check(&unit("loaded", "deactivating", "stop", fine()), Health::Progressing, "stopping");
        check(&unit("loaded", "inactive", "dead", fine()), Health::Degraded, "inactive (dead)");
        check(&unit("loaded", "inactive", "dead", service(true, "success", 0, true)), Health::Healthy, "");
        check(&unit("loaded", "inactive", "dead", service(true, "success", 0, false)), Health::Degraded, "inactive");
        check(
            &unit("loaded", "failed", "failed", service(false, "exit-code", 1, true)),
            Health::Degraded,
            "a.service is failed (exit-code, status 1); see `journalctl -u a.service`",
        );
        check(
            &unit("loaded", "activating", "auto-restart", service(false, "exit-code", 7, true)),
            Health::Degraded,
            "restarted 3 times",
        );
        check(&unit("not-found", "inactive", "dead", None), Health::Missing, "does not exist");
        check(&unit("masked", "inactive", "dead", None), Health::Degraded, "unmask");
        let mut unmet = unit("loaded", "inactive", "dead", service(false, "success", 0, false));
        unmet.condition = false;
        check(&unmet, Health::Degraded, "condition");
        let forgotten = unit("loaded", "inactive", "dead", service(true, "success", 0, false));
        assert_eq!(forgotten.verdict(true).health, Health::Healthy);
        let mut bad = unit("bad-setting", "inactive", "dead", None);
        bad.load_error = "no ExecStart=".into();
        check(&bad, Health::Degraded, "cannot be loaded: no ExecStart=");
    }
}
