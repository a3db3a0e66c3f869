//! One connection to the system bus, and the task that reads its signals.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Mutex, Notify, broadcast};
use tokio::task::AbortHandle;
use zbus::message::Type;
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue};
use zbus::{Connection, MessageStream};

use super::{CALL, DESTINATION, MANAGER, MANAGER_PATH, PROPERTIES, SystemdError, UNIT, read};

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// A job's object path and how it ended.
type Ended = (String, String);

/// The properties of one interface.
pub(super) type Properties = HashMap<String, OwnedValue>;

#[derive(Debug)]
pub(super) struct Bus {
    connection: Connection,
    jobs: broadcast::Sender<Ended>,
    /// Unit name → match rule that was added for it.
    watched: Mutex<BTreeMap<String, String>>,
    /// Units that systemd keeps in memory for this connection, with their paths.
    held: Mutex<BTreeMap<String, OwnedObjectPath>>,
    reader: AbortHandle,
}

impl Drop for Bus {
    fn drop(&mut self) {
        // The reader's stream would keep the connection open.
        self.reader.abort();
    }
}

impl Bus {
    pub(super) async fn connect(changed: Arc<Notify>) -> Result<Self, SystemdError> {
        let connection = Connection::system().await.map_err(|error| SystemdError::Unreachable(Box::new(error)))?;
        let jobs = broadcast::Sender::new(64);
        let reader = tokio::spawn(read_signals(MessageStream::from(&connection), jobs.clone(), changed));
        let bus =
            Self { connection, jobs, watched: Mutex::default(), held: Mutex::default(), reader: reader.abort_handle() };
        bus.add_match(&format!("type='signal',sender='{DESTINATION}',interface='{MANAGER}',member='JobRemoved'"))
            .await?;
        // Without a subscriber the manager sends no signals.
        bus.call(DESTINATION, MANAGER_PATH, MANAGER, "Subscribe", &(), CALL).await?;
        Ok(bus)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.connection.is_closed() && !self.reader.is_finished()
    }

    pub(super) async fn call<B>(
        &self,
        destination: &str,
        path: &str,
        interface: &str,
        call: &'static str,
        body: &B,
        limit: Duration,
    ) -> Result<zbus::Message, SystemdError>
    where
        B: serde::Serialize + DynamicType,
    {
        let asked = self.connection.call_method(Some(destination), path, Some(interface), call, body);
        match tokio::time::timeout(limit, asked).await {
            Err(_) => Err(SystemdError::Silent { call, limit }),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(zbus::Error::MethodError(name, message, _))) => Err(SystemdError::Refused {
                call,
                message: message.unwrap_or_else(|| name.to_string()),
                name: name.to_string(),
            }),
            Ok(Err(error)) => Err(SystemdError::Unreachable(Box::new(error))),
        }
    }

    pub(super) async fn load(&self, name: &str) -> Result<OwnedObjectPath, SystemdError> {
        let answer = self.call(DESTINATION, MANAGER_PATH, MANAGER, "LoadUnit", &name, CALL).await?;
        read(&answer, "LoadUnit")
    }

    pub(super) async fn properties(&self, path: &OwnedObjectPath, interface: &str) -> Result<Properties, SystemdError> {
        let answer = self.call(DESTINATION, path.as_str(), PROPERTIES, "GetAll", &interface, CALL).await?;
        read(&answer, "GetAll")
    }

    pub(super) fn jobs(&self) -> broadcast::Receiver<Ended> {
        self.jobs.subscribe()
    }

    /// Loads a unit and keeps it loaded: systemd forgets how a unit ended as
    /// soon as nothing refers to it.
    pub(super) async fn hold(&self, name: &str) -> Result<OwnedObjectPath, SystemdError> {
        let mut held = self.held.lock().await;
        if let Some(path) = held.get(name) {
            return Ok(path.clone());
        }
        let path = self.load(name).await?;
        match self.call(DESTINATION, path.as_str(), UNIT, "Ref", &(), CALL).await {
            Ok(_) => drop(held.insert(name.to_owned(), path.clone())),
            // There is no such unit, or not yet.
            Err(SystemdError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(path)
    }

    /// The opposite of [`Self::hold`], for all units but `units`.
    async fn release(&self, units: &BTreeSet<String>) -> Result<(), SystemdError> {
        let mut held = self.held.lock().await;
        let stale: Vec<_> = held.keys().filter(|name| !units.contains(*name)).cloned().collect();
        for name in stale {
            let Some(path) = held.remove(&name) else { continue };
            match self.call(DESTINATION, path.as_str(), UNIT, "Unref", &(), CALL).await {
                // Gone already.
                Ok(_) | Err(SystemdError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How job `number` ended.
    pub(super) async fn outcome(
        &self,
        ended: &mut broadcast::Receiver<Ended>,
        number: &str,
    ) -> Result<String, SystemdError> {
        let lost = || SystemdError::Unreachable(Box::new(zbus::Error::Failure("the bus was closed".to_owned())));
        loop {
            let next = tokio::select! {
                next = ended.recv() => next,
                () = self.connection.closed() => return Err(lost()),
            };
            match next {
                Ok((job, result)) if job == number => return Ok(result),
                // Others' jobs, and a burst of them that pushed some out: were ours
                // among those, the limit ends the wait and the next plan looks.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(lost()),
            }
        }
    }

    pub(super) async fn watch(&self, units: &BTreeSet<String>) -> Result<(), SystemdError> {
        self.release(units).await?;
        let mut watched = self.watched.lock().await;
        let stale: Vec<_> = watched.keys().filter(|name| !units.contains(*name)).cloned().collect();
        for name in stale {
            if let Some(rule) = watched.remove(&name) {
                self.call(BUS, BUS_PATH, BUS, "RemoveMatch", &rule, CALL).await?;
            }
        }
        for name in units {
            let path = self.hold(name).await?;
            if watched.contains_key(name) {
                continue;
            }
            let rule = format!(
                "type='signal',sender='{DESTINATION}',interface='{PROPERTIES}',member='PropertiesChanged',\
                 path='{}',arg0='{UNIT}'",
                path.as_str()
            );
            self.add_match(&rule).await?;
            watched.insert(name.clone(), rule);
        }
        Ok(())
    }

    async fn add_match(&self, rule: &str) -> Result<(), SystemdError> {
        self.call(BUS, BUS_PATH, BUS, "AddMatch", &rule, CALL).await.map(drop)
    }
}

async fn read_signals(mut stream: MessageStream, jobs: broadcast::Sender<Ended>, changed: Arc<Notify>) {
    while let Some(Ok(message)) = stream.next().await {
        if message.message_type() != Type::Signal {
            continue;
        }
        let header = message.header();
        match header.member().map(|member| member.as_str()) {
            Some("JobRemoved") => {
                if let Ok((_, job, _, result)) = message.body().deserialize::<(u32, OwnedObjectPath, String, String)>()
                {
                    // Nobody listening is the ordinary case: jobs of others.
                    let _ = jobs.send((job.as_str().to_owned(), result));
                }
            }
            Some("PropertiesChanged") => changed.notify_one(),
            _ => {}
        }
    }
    // What happened meanwhile is unknown: look.
    changed.notify_one();
}
