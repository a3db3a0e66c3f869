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
mod join;
mod mqtt;
mod pace;
mod spool;

use std::collections::BTreeMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet::wire::report::ReportBody;
use fleet::wire::status::LinkState;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub(crate) use self::address::{hub as hub_address, is_private};
pub(crate) use self::durable::write as write_durably;
use self::exchange::{Exchange, Identity};
use self::http::HttpsWay;
pub(crate) use self::http::HubClient;
pub use self::identity::{
    Enrolment, device_key, enrolment, enrolment_path, keep_enrolment, keep_name, key_path, make_device_key,
};
use self::join::Joining;
pub(crate) use self::join::{Applicant, enrolment_in, give_up, refusal_of};
use self::mqtt::MqttWay;
pub use self::pace::Pace;
pub use self::spool::Bounds;
use self::spool::Spool;
use crate::config::facts::Facts;
use crate::config::settings::{DeviceSettings, HubSettings, MqttSettings, Settings};
use crate::ports::Reason as _;
use crate::ports::clock::Clock;
use crate::ports::uplink::{Inbound, Unenrolled, Uplink, UplinkError};
use crate::tls;

/// What the uplink is told.
#[derive(Clone, Debug)]
pub struct UplinkSettings {
    pub hub: HubSettings,
    /// `agent.toml`'s broker; else the one that the hub named at enrolment.
    pub mqtt: Option<MqttSettings>,
    pub device: DeviceSettings,
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
            device: settings.device.clone(),
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

    fn twin(&self) -> Option<Timestamp> {
        match self {
            Self::Hub(uplink) => uplink.twin(),
            Self::None(uplink) => uplink.twin(),
        }
    }

    fn unenrolled(&self) -> Option<Unenrolled> {
        match self {
            Self::Hub(uplink) => uplink.unenrolled(),
            Self::None(uplink) => uplink.unenrolled(),
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
    /// When an address of the settings is none. What else is missing (a CA file,
    /// the enrolment) is waited for: a device that can't report still runs.
    pub fn start(
        settings: UplinkSettings,
        epoch: u64,
        command_sequence: u64,
        clock: Arc<C>,
    ) -> Result<Self, UplinkError> {
        address::hub(&settings.hub.url)?;
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
        let exchange = Arc::new(Exchange::new(clock, run(), spool, epoch, command_sequence, mqtt, sender));
        let task = tokio::spawn(connect(settings, exchange.clone())).abort_handle();
        Ok(Self { exchange, inbound, task })
    }

    /// Reports on disk that the hub has yet to acknowledge.
    #[must_use]
    pub fn spooled(&self) -> usize {
        self.exchange.spooled()
    }
}

/// What tells this run of the agent from every other, and its machine.
fn run() -> (String, Option<String>) {
    let mut drawn = [0; 8];
    if getrandom::fill(&mut drawn).is_err() {
        // Without chance, what differs: the process. Told apart less surely.
        drawn = u64::from(std::process::id()).to_be_bytes();
    }
    (format!("{:016x}", u64::from_be_bytes(drawn)), Facts::read(Path::new("/")).fingerprint())
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

    fn twin(&self) -> Option<Timestamp> {
        self.exchange.twin()
    }

    fn unenrolled(&self) -> Option<Unenrolled> {
        self.exchange.unenrolled()
    }

    fn dropped(&self) -> u64 {
        self.exchange.dropped()
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.exchange.refused()
    }
}

/// Both ways, side by side, once there is all that they need.
async fn connect<C: Clock + Send + Sync + 'static>(settings: UplinkSettings, exchange: Arc<Exchange<C>>) {
    let Ready { identity, hub, mqtt } = ready(&settings, &exchange).await;
    let (identity, pace) = (Arc::new(identity), settings.pace);
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

/// What it takes to connect.
struct Ready {
    identity: Identity,
    hub: HubClient,
    mqtt: Option<BrokerAndTls>,
}

/// Waits until there is all that it takes, joins the hub where the device has
/// a token for it, and says what is missing.
async fn ready<C: Clock>(settings: &UplinkSettings, exchange: &Exchange<C>) -> Ready {
    let mut joining = Joining::new(&settings.device);
    loop {
        let missing = match look(settings) {
            Ok(Some(ready)) => {
                // Power may have failed between the enrolment and this.
                if let Some(file) = &settings.hub.token_file {
                    join::forget_token(file);
                }
                exchange.enrolled(None);
                return ready;
            }
            Ok(None) => match joining.turn(settings, &*exchange.clock).await {
                None => continue,
                Some(missing) => missing,
            },
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                Unenrolled { reason: error.reason(), message: format!("{error}{cause}{hint}") }
            }
        };
        exchange.enrolled(Some(missing));
        tokio::time::sleep(settings.pace.enrolment).await;
    }
}

/// `None`: the device is not enrolled.
fn look(settings: &UplinkSettings) -> Result<Option<Ready>, UplinkError> {
    let Some(identity) = identity(settings)? else { return Ok(None) };
    let mqtt = match (&settings.mqtt, &identity.enrolment.mqtt) {
        (Some(mqtt), _) => Some(broker(&mqtt.url, mqtt.ca_file.as_ref(), settings)?),
        (None, Some(told)) => match broker(told, None, settings) {
            // The hub's word is no reason not to speak to the hub.
            Err(error @ UplinkError::Address { .. }) => {
                tracing::error!(%error, "the hub named a broker that can't be used");
                None
            }
            told => Some(told?),
        },
        (None, None) => None,
    };
    Ok(Some(Ready { identity, hub: HubClient::new(&settings.hub)?, mqtt }))
}

fn broker(url: &str, ca_file: Option<&PathBuf>, settings: &UplinkSettings) -> Result<BrokerAndTls, UplinkError> {
    let broker = address::broker(url)?;
    if !broker.tls {
        if !is_private(url) {
            tracing::warn!(url, "the broker's address is not mqtts: others on the way can read along");
        }
        return Ok((broker, None));
    }
    let ca_file = ca_file.or(settings.hub.ca_file.as_ref());
    let tls = tls::client_config(ca_file.map(PathBuf::as_path))
        .map_err(|error| UplinkError::Tls { thing: url.to_owned(), source: error.into() })?;
    Ok((broker, Some(tls)))
}

/// Whether the broker that this device would use takes a connection (and TLS);
/// its address, and why not. `None`: there is no broker. No session is begun.
pub(crate) async fn knock(settings: &Settings, patience: Duration) -> Option<(String, Result<(), String>)> {
    let uplink = UplinkSettings::new(settings)?;
    let told = || enrolment(&uplink.store).ok().flatten().and_then(|enrolment| enrolment.mqtt);
    let (url, ca_file) = match &uplink.mqtt {
        Some(mqtt) => (mqtt.url.clone(), mqtt.ca_file.clone()),
        None => (told()?, None),
    };
    let said = match broker(&url, ca_file.as_ref(), &uplink) {
        Ok((broker, tls)) => mqtt::knock(&broker, tls.as_ref(), patience).await,
        Err(error) => Err(error.to_string()),
    };
    Some((url, said))
}

fn identity(settings: &UplinkSettings) -> Result<Option<Identity>, UplinkError> {
    let (Some(key), Some(enrolment)) = (device_key(&settings.store)?, enrolment(&settings.store)?) else {
        return Ok(None);
    };
    let configured = &settings.device.name;
    if enrolment.device != *configured {
        return Err(UplinkError::OtherName { enrolled: enrolment.device, configured: configured.clone() });
    }
    Ok(Some(Identity { key, enrolment }))
}
