//! The way to the hub: MQTT and HTTPS beside each other, a spool below both.
//!
//! Either way alone is enough. Reports leave the spool when the hub's own
//! signature says that they are stored, and only then. Deliberately not here:
//! which commands are acted on (the daemon journals their sequence), when to
//! fetch after a hint, and anything about the root of trust.

mod address;
mod backoff;
mod durable;
mod exchange;
mod http;
mod identity;
mod mqtt;
mod pace;
mod spool;

use std::collections::BTreeMap;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;

use fleet::name::DeviceName;
use fleet::wire::report::ReportBody;
use fleet::wire::status::LinkState;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub(crate) use self::address::{hub as hub_address, is_private};
pub(crate) use self::durable::write as write_durably;
use self::exchange::{Exchange, Identity};
use self::http::HttpsWay;
pub(crate) use self::http::HubClient;
pub use self::identity::{Enrolment, device_key, enrolment, enrolment_path, keep_enrolment, key_path, make_device_key};
use self::mqtt::MqttWay;
pub use self::pace::Pace;
pub use self::spool::Bounds;
use self::spool::Spool;
use crate::config::settings::{HubSettings, MqttSettings, Settings};
use crate::ports::Reason as _;
use crate::ports::clock::Clock;
use crate::ports::uplink::{Inbound, Uplink, UplinkError};
use crate::tls;

/// What the uplink is told.
#[derive(Clone, Debug)]
pub struct UplinkSettings {
    pub hub: HubSettings,
    /// `agent.toml`'s broker; else the one that the hub named at enrolment.
    pub mqtt: Option<MqttSettings>,
    pub device: DeviceName,
    /// The store's folder.
    pub store: PathBuf,
    pub bounds: Bounds,
    pub pace: Pace,
}

impl UplinkSettings {
    /// From `agent.toml`; `None` where no hub is configured.
    #[must_use]
    pub fn new(settings: &Settings) -> Option<Self> {
        Some(Self {
            hub: settings.hub.clone()?,
            mqtt: settings.mqtt.clone(),
            device: settings.device.name.clone(),
            store: settings.store.path.clone(),
            bounds: Bounds::default(),
            pace: Pace::default(),
        })
    }
}

/// The uplink of a device that may have a hub.
pub enum AnyUplink<C> {
    Hub(HubUplink<C>),
    None(NoUplink),
}

impl<C: Clock + Send + Sync + 'static> AnyUplink<C> {
    /// Starts what `settings` asks for. Call within the runtime.
    ///
    /// # Errors
    /// As [`HubUplink::start`].
    pub fn start(settings: &Settings, epoch: u64, command_sequence: u64, clock: Arc<C>) -> Result<Self, UplinkError> {
        match UplinkSettings::new(settings) {
            Some(settings) => HubUplink::start(settings, epoch, command_sequence, clock).map(Self::Hub),
            None => Ok(Self::None(NoUplink)),
        }
    }
}

impl<C: Clock + Send + Sync + 'static> Uplink for AnyUplink<C> {
    fn report(&mut self, body: ReportBody, durable: bool) {
        match self {
            Self::Hub(uplink) => uplink.report(body, durable),
            Self::None(uplink) => uplink.report(body, durable),
        }
    }

    async fn next(&mut self) -> Inbound {
        match self {
            Self::Hub(uplink) => uplink.next().await,
            Self::None(uplink) => uplink.next().await,
        }
    }

    fn links(&self) -> (LinkState, LinkState) {
        match self {
            Self::Hub(uplink) => uplink.links(),
            Self::None(uplink) => uplink.links(),
        }
    }

    fn dropped(&self) -> u64 {
        match self {
            Self::Hub(uplink) => uplink.dropped(),
            Self::None(uplink) => uplink.dropped(),
        }
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        match self {
            Self::Hub(uplink) => uplink.refused(),
            Self::None(uplink) => uplink.refused(),
        }
    }
}

/// No hub is configured: nobody to report to, nobody to hear from.
pub struct NoUplink;

impl Uplink for NoUplink {
    fn report(&mut self, _: ReportBody, _: bool) {}

    async fn next(&mut self) -> Inbound {
        pending().await
    }

    fn links(&self) -> (LinkState, LinkState) {
        (LinkState::Unused, LinkState::Unused)
    }

    fn dropped(&self) -> u64 {
        0
    }
}

/// The uplink of a device with a hub. Its connections end with it.
pub struct HubUplink<C> {
    exchange: Arc<Exchange<C>>,
    inbound: mpsc::Receiver<Inbound>,
    task: AbortHandle,
}

impl<C: Clock + Send + Sync + 'static> HubUplink<C> {
    /// Starts connecting, on the runtime that this is called within. A device
    /// that is not enrolled yet spools, and connects once it is.
    ///
    /// `epoch`: journalled, one more than at the last start. `command_sequence`:
    /// of the last command that was acted on.
    ///
    /// # Errors
    /// When an address or a CA file of the settings can't be used.
    pub fn start(
        settings: UplinkSettings,
        epoch: u64,
        command_sequence: u64,
        clock: Arc<C>,
    ) -> Result<Self, UplinkError> {
        let hub = HubClient::new(&settings.hub)?;
        let mqtt = match &settings.mqtt {
            Some(mqtt) => {
                address::broker(&mqtt.url)?;
                LinkState::Down
            }
            None => LinkState::Unused,
        };
        if !is_private(&settings.hub.url) {
            tracing::warn!(url = settings.hub.url, "the hub's address is not https: others on the way can read along");
        }
        let (sender, inbound) = mpsc::channel(64);
        let spool = Spool::open(settings.store.join("spool"), settings.bounds);
        let exchange = Arc::new(Exchange::new(clock, spool, epoch, command_sequence, mqtt, sender));
        let task = tokio::spawn(connect(settings, hub, exchange.clone())).abort_handle();
        Ok(Self { exchange, inbound, task })
    }

    /// Reports on disk that the hub has yet to acknowledge.
    #[must_use]
    pub fn spooled(&self) -> usize {
        self.exchange.spooled()
    }
}

impl<C> Drop for HubUplink<C> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<C: Clock + Send + Sync + 'static> Uplink for HubUplink<C> {
    fn report(&mut self, body: ReportBody, durable: bool) {
        self.exchange.report(body, durable);
    }

    async fn next(&mut self) -> Inbound {
        match self.inbound.recv().await {
            Some(inbound) => inbound,
            // The exchange holds the other end; there is always one.
            None => pending().await,
        }
    }

    fn links(&self) -> (LinkState, LinkState) {
        self.exchange.links()
    }

    fn dropped(&self) -> u64 {
        self.exchange.dropped()
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.exchange.refused()
    }
}

/// Both ways, side by side, once the device is enrolled.
async fn connect<C: Clock + Send + Sync + 'static>(
    settings: UplinkSettings,
    hub: HubClient,
    exchange: Arc<Exchange<C>>,
) {
    let identity = Arc::new(enrolled(&settings).await);
    let ca_file = settings.hub.ca_file.clone();
    let told = || identity.enrolment.mqtt.clone().map(|url| MqttSettings { url, ca_file: ca_file.clone() });
    let mqtt = settings.mqtt.clone().or_else(told).and_then(|mqtt| {
        broker(mqtt, &settings)
            .map_err(|error| tracing::error!(%error, "mqtt can't be used; the hub is asked over HTTPS"))
            .ok()
    });
    let pace = settings.pace;
    let beside_mqtt = mqtt.is_some();
    let https = HttpsWay { exchange: exchange.clone(), identity: identity.clone(), hub, pace, beside_mqtt }.run();
    match mqtt {
        Some((broker, tls)) => {
            exchange.mqtt(LinkState::Down);
            let mqtt = MqttWay { exchange, identity, broker, tls, pace }.run();
            tokio::join!(https, mqtt);
        }
        None => https.await,
    }
}

type BrokerAndTls = (address::Broker, Option<Arc<rustls::ClientConfig>>);

fn broker(mqtt: MqttSettings, settings: &UplinkSettings) -> Result<BrokerAndTls, UplinkError> {
    let broker = address::broker(&mqtt.url)?;
    if !broker.tls {
        if !is_private(&mqtt.url) {
            tracing::warn!(url = mqtt.url, "the broker's address is not mqtts: others on the way can read along");
        }
        return Ok((broker, None));
    }
    let ca_file = mqtt.ca_file.as_ref().or(settings.hub.ca_file.as_ref());
    let tls = tls::client_config(ca_file.map(PathBuf::as_path))
        .map_err(|error| UplinkError::Tls { thing: mqtt.url, source: error.into() })?;
    Ok((broker, Some(tls)))
}

/// Waits until the device has key and enrolment, and says once what is missing.
async fn enrolled(settings: &UplinkSettings) -> Identity {
    let mut said = None;
    loop {
        let missing = match identity(settings) {
            Ok(Some(identity)) => return identity,
            Ok(None) => ("the device is not enrolled".to_owned(), Some("run `burgee-agent enroll`".to_owned())),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                (format!("{error}{cause}"), error.hint())
            }
        };
        if said.as_ref() != Some(&missing) {
            tracing::warn!(cause = missing.0, hint = missing.1, "reports wait in the spool");
            said = Some(missing);
        }
        tokio::time::sleep(settings.pace.enrolment).await;
    }
}

fn identity(settings: &UplinkSettings) -> Result<Option<Identity>, UplinkError> {
    let (Some(key), Some(enrolment)) = (device_key(&settings.store)?, enrolment(&settings.store)?) else {
        return Ok(None);
    };
    if enrolment.device != settings.device {
        return Err(UplinkError::OtherName { enrolled: enrolment.device, configured: settings.device.clone() });
    }
    Ok(Some(Identity { key, enrolment }))
}
