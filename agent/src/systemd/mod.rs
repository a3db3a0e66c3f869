//! A small client of systemd's manager over D-Bus.
//!
//! Two adapters share it: the files runtime, which drives units, and the
//! health checks, which look at them. It speaks raw method calls, for size. It
//! has no opinion on what should run; it never talks to a user's manager.
//!
//! The connection is made at the first call and made anew when it was lost.
//! One task per connection reads every signal, so that no queue ever fills.

mod bus;
pub mod generator;
pub mod unit;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use zbus::zvariant::{DynamicType, OwnedObjectPath};

use bus::Bus;
use unit::Unit;

/// How long an ordinary call may take.
const CALL: Duration = Duration::from_secs(25);
/// `daemon-reload` runs every generator.
const RELOAD: Duration = Duration::from_secs(120);
/// Longer than systemd's own default of 90 s, so that its verdict comes first.
const JOB: Duration = Duration::from_secs(120);

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Why systemd did not do, or say, what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// No bus, or it went away.
    #[error("cannot talk to systemd over D-Bus (`systemctl status dbus`)")]
    Unreachable(#[source] Box<zbus::Error>),
    /// No answer in time.
    #[error("systemd did not answer {call} within {} s", limit.as_secs())]
    Silent { call: &'static str, limit: Duration },
    /// systemd said no. `name` is the D-Bus error's.
    #[error("systemd refused {call}: {message}")]
    Refused { call: &'static str, name: String, message: String },
    /// An answer of a shape that no systemd gives.
    #[error("systemd's answer to {call} makes no sense")]
    Answer { call: &'static str, source: Box<zbus::Error> },
    /// A job ended otherwise than done: `failed`, `timeout`, `dependency`, `canceled`, …
    #[error("the job ended as {result:?}: {detail}")]
    Job { result: String, detail: String },
    /// A job still ran at the limit.
    #[error("the job still runs after {} s", limit.as_secs())]
    Unfinished { limit: Duration },
}

impl SystemdError {
    /// Whether the unit in question does not exist.
    #[must_use]
    pub fn is_missing_unit(&self) -> bool {
        matches!(self, Self::Refused { name, .. }
            if name == "org.freedesktop.systemd1.NoSuchUnit" || name == "org.freedesktop.DBus.Error.FileNotFound"
                || name == "org.freedesktop.systemd1.UnitNotFound" || name.ends_with(".NoSuchFile"))
    }
}

/// What a job is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    Start,
    Restart,
    Stop,
}

impl Job {
    fn method(self) -> &'static str {
        match self {
            Self::Start => "StartUnit",
            Self::Restart => "RestartUnit",
            Self::Stop => "StopUnit",
        }
    }
}

/// The system's manager. Cheap to make; connects when first asked something.
#[derive(Debug, Default)]
pub struct Systemd {
    bus: Mutex<Option<Arc<Bus>>>,
    changed: Arc<Notify>,
}

impl Systemd {
    /// Whether systemd is this device's init: `sd_booted(3)`.
    #[must_use]
    pub fn is_booted() -> bool {
        Path::new("/run/systemd/system").is_dir()
    }

    async fn bus(&self) -> Result<Arc<Bus>, SystemdError> {
        let mut slot = self.bus.lock().await;
        if let Some(bus) = slot.as_ref().filter(|bus| bus.is_open()) {
            return Ok(Arc::clone(bus));
        }
        let bus = match tokio::time::timeout(CALL, Bus::connect(Arc::clone(&self.changed))).await {
            Ok(bus) => Arc::new(bus?),
            Err(_) => return Err(SystemdError::Silent { call: "Hello", limit: CALL }),
        };
        *slot = Some(Arc::clone(&bus));
        Ok(bus)
    }

    async fn manage<B>(&self, call: &'static str, body: &B, limit: Duration) -> Result<zbus::Message, SystemdError>
    where
        B: serde::Serialize + DynamicType,
    {
        self.bus().await?.call(DESTINATION, MANAGER_PATH, MANAGER, call, body, limit).await
    }

    /// Looks at a unit, loading it if need be. A unit that does not exist is
    /// one whose `load` is `not-found`.
    ///
    /// # Errors
    /// When systemd can't be asked; never for what the unit is.
    pub async fn unit(&self, name: &str) -> Result<Unit, SystemdError> {
        let bus = self.bus().await?;
        let path = bus.load(name).await?;
        let generic = bus.properties(&path, UNIT).await?;
        let service = match name.ends_with(".service") {
            true => Some(bus.properties(&path, "org.freedesktop.systemd1.Service").await?),
            false => None,
        };
        let file_state = match self.manage("GetUnitFileState", &name, CALL).await {
            Ok(answer) => read(&answer, "GetUnitFileState")?,
            Err(SystemdError::Refused { .. }) => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Unit::from_properties(name, file_state, &generic, service.as_ref()))
    }

    /// Makes a unit start at boot, as its `[Install]` says; does nothing for
    /// one that has none. `again`: links that a former `[Install]` made go.
    ///
    /// # Errors
    /// When there is no such unit file, or systemd can't be asked.
    pub async fn enable(&self, name: &str, again: bool) -> Result<(), SystemdError> {
        let call = if again { "ReenableUnitFiles" } else { "EnableUnitFiles" };
        self.manage(call, &([name].as_slice(), false, false), CALL).await.map(drop)
    }

    /// The opposite of [`Self::enable`].
    ///
    /// # Errors
    /// As there.
    pub async fn disable(&self, name: &str) -> Result<(), SystemdError> {
        self.manage("DisableUnitFiles", &([name].as_slice(), false), CALL).await.map(drop)
    }

    /// `daemon-reload`: unit files are read anew, generators run.
    ///
    /// # Errors
    /// When systemd can't be asked, or takes too long.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.manage("Reload", &(), RELOAD).await.map(drop)
    }

    /// Forgets a failure and the start limit; no error where there is nothing to forget.
    ///
    /// # Errors
    /// When systemd can't be asked.
    pub async fn reset_failed(&self, name: &str) -> Result<(), SystemdError> {
        match self.manage("ResetFailedUnit", &name, CALL).await {
            Ok(_) | Err(SystemdError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs a job on a unit and waits for its end.
    ///
    /// # Errors
    /// When the job does not end as `done` (with the unit's own result), or
    /// not within two minutes ([`SystemdError::Unfinished`]; it goes on).
    pub async fn run(&self, job: Job, name: &str) -> Result<(), SystemdError> {
        let bus = self.bus().await?;
        // How it ends can still be asked afterwards.
        bus.hold(name).await?;
        let call = job.method();
        // Listening starts before the call: a job may end before its number is known here.
        let mut ended = bus.jobs();
        let answer = bus.call(DESTINATION, MANAGER_PATH, MANAGER, call, &(name, "replace"), CALL).await?;
        let number: OwnedObjectPath = read(&answer, call)?;
        let result = match tokio::time::timeout(JOB, bus.outcome(&mut ended, number.as_str())).await {
            Ok(result) => result?,
            Err(_) => return Err(SystemdError::Unfinished { limit: JOB }),
        };
        if result == "done" {
            return Ok(());
        }
        let detail = self.unit(name).await.map_or_else(|error| error.to_string(), |unit| unit.state());
        Err(SystemdError::Job { result, detail })
    }

    /// The units that a socket, timer or path unit activates.
    ///
    /// # Errors
    /// When systemd can't be asked.
    pub async fn triggers(&self, name: &str) -> Result<Vec<String>, SystemdError> {
        let bus = self.bus().await?;
        let path = bus.load(name).await?;
        let generic = bus.properties(&path, UNIT).await?;
        Ok(generic.get("Triggers").and_then(|value| value.try_clone().ok()?.try_into().ok()).unwrap_or_default())
    }

    /// From here on, [`Self::changed`] resolves when one of `units` changes.
    ///
    /// # Errors
    /// When systemd can't be asked.
    pub async fn watch(&self, units: &BTreeSet<String>) -> Result<(), SystemdError> {
        // An idle device without units needs no bus.
        if units.is_empty() && self.bus.lock().await.is_none() {
            return Ok(());
        }
        self.bus().await?.watch(units).await
    }

    /// Resolves when a watched unit may have changed, or the bus was lost.
    /// Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn read<T>(answer: &zbus::Message, call: &'static str) -> Result<T, SystemdError>
where
    T: serde::de::DeserializeOwned + zbus::zvariant::Type,
{
    answer.body().deserialize().map_err(|source| SystemdError::Answer { call, source: Box::new(source) })
}
