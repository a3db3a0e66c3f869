//! From the statuses of an app's objects to one verdict on the app.

use fleet::kubernetes::ObjectId;
use fleet::wire::status::Health;

use super::fields::one_line;
use super::pods::{Severity, Trouble};
use super::status::{State, Status};
use crate::ports::runtime::Verdict;

/// The verdict's sentence has at most about this many bytes.
const LIMIT: usize = 600;

/// One object that an app wants, as far as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) id: &'a ObjectId,
    /// `None`: it is not on the server.
    pub(super) status: Option<&'a Status>,
    /// What its pods suffer from; asked for, and looked at, only where the
    /// object is not as it should be.
    pub(super) trouble: Option<&'a Trouble>,
}

/// The worst object's health and name, and why. Of several that are equally
/// bad it is the first, so objects are given in the order of their applying.
#[must_use]
pub(super) fn verdict<'a>(objects: impl IntoIterator<Item = Seen<'a>>) -> Verdict {
    let mut worst: Option<(Health, Seen<'a>)> = None;
    let mut others = 0;
    for seen in objects {
        let health = health(&seen);
        if health == Health::Healthy {
            continue;
        }
        match worst {
            Some((known, _)) if rank(health) <= rank(known) => {
                others += u32::from(rank(health) == rank(known));
            }
            _ => {
                worst = Some((health, seen));
                others = 0;
            }
        }
    }
    let Some((health, seen)) = worst else { return Verdict { health: Health::Healthy, message: String::new() } };
    let mut message = one_line(&format!("{}: {}", seen.id, cause(&seen)), LIMIT);
    if others > 0 {
        message.push_str(&format!(" (and {others} more {})", word(health)));
    }
    Verdict { health, message }
}

fn health(seen: &Seen<'_>) -> Health {
    let Some(status) = seen.status else { return Health::Missing };
    match status.state {
        State::Current => Health::Healthy,
        State::Failed => Health::Degraded,
        State::Suspended => Health::Suspended,
        State::InProgress if seen.trouble.is_some_and(|trouble| trouble.severity == Severity::Degraded) => {
            Health::Degraded
        }
        State::InProgress | State::Terminating => Health::Progressing,
    }
}

fn cause(seen: &Seen<'_>) -> String {
    match (seen.status, seen.trouble) {
        (None, _) => "does not exist".to_owned(),
        (Some(Status { state: State::InProgress | State::Failed, message }), Some(trouble)) => {
            format!("{message}; {}", trouble.message)
        }
        (Some(status), _) => status.message.clone(),
    }
}

/// Missing objects come first: what is there may only lack them.
fn rank(health: Health) -> u8 {
    match health {
        Health::Missing => 4,
        Health::Degraded => 3,
        Health::Progressing => 2,
        Health::Suspended => 1,
        Health::Healthy | Health::Unknown => 0,
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Missing => "missing",
        Health::Degraded => "degraded",
        Health::Suspended => "suspended",
        _ => "in progress",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, status and trouble.
    type Case<'a> = (&'a str, Option<(State, &'a str)>, Option<(Severity, &'a str)>);

    fn check(objects: &[Case<'_>], health: Health, message: &str) {
        let objects: Vec<(ObjectId, Option<Status>, Option<Trouble>)> = objects
            .iter()
            .map(|(id, status, trouble)| {
                (
                    id.parse().unwrap(),
                    status.map(|(state, message)| Status { state, message: message.to_owned() }),
                    trouble.map(|(severity, message)| Trouble { severity, message: message.to_owned() }),
                )
            })
            .collect();
        let seen =
            objects.iter().map(|(id, status, trouble)| Seen { id, status: status.as_ref(), trouble: trouble.as_ref() });
        assert_eq!(verdict(seen), Verdict { health, message: message.to_owned() });
    }

    #[test]
    fn the_worst_object_is_named() {
        let fine = ("Service/shop/web", Some((State::Current, "")), None);
        let claim = ("PersistentVolumeClaim/shop/data", Some((State::Current, "waits for the first pod")), None);
        let slow = ("Deployment.apps/shop/web", Some((State::InProgress, "1 of 3 replicas available")), None);
        let sick = (slow.0, slow.1, Some((Severity::Degraded, "pod web-1: container app: ImagePullBackOff: no")));
        let busy = (slow.0, slow.1, Some((Severity::Progressing, "pod web-1: container app: not ready")));
        let gone = ("ConfigMap/shop/settings", None, None);
        let failed = ("Job.batch/shop/migrate", Some((State::Failed, "failed: BackoffLimitExceeded")), None);
        let paused = ("CronJob.batch/shop/night", Some((State::Suspended, "suspended")), None);
        let ending = ("Pod/shop/one", Some((State::Terminating, "is being deleted")), None);

        check(&[], Health::Healthy, "");
        check(&[fine, claim], Health::Healthy, "");
        check(&[fine, paused], Health::Suspended, "CronJob.batch/shop/night: suspended");
        check(&[paused, slow], Health::Progressing, "Deployment.apps/shop/web: 1 of 3 replicas available");
        check(
            &[busy],
            Health::Progressing,
            "Deployment.apps/shop/web: 1 of 3 replicas available; pod web-1: container app: not ready",
        );
        check(
            &[fine, ending, sick],
            Health::Degraded,
            "Deployment.apps/shop/web: 1 of 3 replicas available; pod web-1: container app: ImagePullBackOff: no",
        );
        check(
            &[slow, failed, sick],
            Health::Degraded,
            "Job.batch/shop/migrate: failed: BackoffLimitExceeded (and 1 more degraded)",
        );
        check(&[sick, failed, gone], Health::Missing, "ConfigMap/shop/settings: does not exist");
        check(&[gone, gone, gone], Health::Missing, "ConfigMap/shop/settings: does not exist (and 2 more missing)");
        // Pods of an object that is as it should be are of no interest.
        check(&[(fine.0, fine.1, sick.2)], Health::Healthy, "");
    }
}
