//! `burgee-hub serve`: opens everything, puts it together, and closes it again.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use crate::api;
use crate::broker::embedded::{self, Embedded, HUB_USER};
use crate::broker::link::{self, Access};
use crate::broker::tunnel::{self, Target};
use crate::config::{Broker, Config};
use crate::duty;
use crate::exit::{Failure, chain};
use crate::hook::Sender;
use crate::hub::{Hub, RefusedBook, Secrets, SharedHub};
use crate::ingest::{Inlet, Rate};
use crate::keys;
use crate::metrics::Metrics;
use crate::net::{self, Incoming};
use crate::passed::{Passed, PassedError};
use crate::store::HubStore;

/// How long open requests may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Makes the data folder if it is missing, for its owner alone.
///
/// # Errors
/// When it can't be made.
pub fn data_folder(data: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|error| {
        Failure::failed(&format!("making the data folder {} failed", data.display()), &error)
            .hint("create it for the user that the hub runs as, or set another `data`")
    })
}

/// Opens the store in `data`.
///
/// # Errors
/// When it can't be opened.
pub async fn open_store(data: &Path) -> Result<HubStore, Failure> {
    HubStore::open(&data.join("hub.db")).await.map_err(|error| Failure::failed("opening the store failed", &error))
}

/// Reads the files with secrets.
///
/// # Errors
/// When one can't be read or is empty.
pub fn secrets(config: &Config) -> Result<Secrets, Failure> {
    let read = |path: &Path| {
        keys::secret_file(path).map_err(|error| {
            Failure::usage(format!("reading the secret {} failed: {error}", path.display()))
                .hint("the file holds the secret in its first line, readable by the hub")
        })
    };
    let page = match &config.page_login {
        Some((user, file)) => Some((user.clone(), read(file)?)),
        None => None,
    };
    let files = &config.webhooks;
    let mut hooks = Vec::new();
    for (sender, file) in [
        (Sender::GitHub, &files.github_secret_file),
        (Sender::GitLab, &files.gitlab_secret_file),
        (Sender::Gitea, &files.gitea_secret_file),
        (Sender::Plain, &files.plain_secret_file),
    ] {
        if let Some(file) = file {
            hooks.push((sender, read(file)?));
        }
    }
    Ok(Secrets { page, hooks })
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When something it needs can't be had.
pub async fn serve(config: Config) -> Result<(), Failure> {
    let failed = |what: &'static str| move |error: &(dyn std::error::Error + 'static)| Failure::failed(what, error);
    data_folder(&config.data)?;
    let _lock = lock(&config.data)?;
    let secrets = secrets(&config)?;
    let key = keys::load_or_create(&config.data).map_err(|error| failed("the hub has no key")(&error))?;
    let store = open_store(&config.data).await?;

    let (stop, stopped) = watch::channel(false);
    let tls = match &config.tls {
        Some(files) => {
            let acceptor = |alpn| net::acceptor(files, alpn).map_err(|error| failed("TLS can't be set up")(&error));
            Some((watch::channel(acceptor(HTTP_ALPN)?), watch::channel(acceptor(&[])?)))
        }
        None => None,
    };
    let wrong_socket = |error: PassedError| {
        Failure::failed("the hub can't listen", &error).hint(
            "each ListenStream of burgee-hub.socket is an address that hub.toml names as `listen` or `mqtt.listen`: \
             `systemctl edit burgee-hub.socket`, or `systemctl disable --now burgee-hub.socket`",
        )
    };
    let mut passed = Passed::from_env().map_err(wrong_socket)?;
    let bound = |address, passed, tls| async move {
        Incoming::bind(address, passed, tls).await.map_err(|error| {
            Failure::failed("the hub can't listen", &error).hint("is another hub running, or the port taken?")
        })
    };
    let http = bound(config.listen, passed.take(config.listen), tls.as_ref().map(|(http, _)| http.1.clone())).await?;

    let (up, mqtt_up) = watch::channel(false);
    let (hints, hint_queue) = mpsc::channel(64);
    let (outbox, outbox_queue) = mpsc::channel(1024);
    let wants_mqtt = !matches!(config.broker, Broker::Off);
    let broker_failed = |error: crate::broker::BrokerError| Failure::failed("MQTT can't be set up", &error);
    let mut mqtt_url = config.mqtt_public_url.clone();
    let mut front = None;
    let (target, login, logins) = match &config.broker {
        Broker::Off => (None, None, None),
        Broker::Embedded { listen } => {
            let incoming = bound(*listen, passed.take(*listen), tls.as_ref().map(|(_, mqtt)| mqtt.1.clone())).await?;
            let address = incoming.address();
            mqtt_url
                .get_or_insert_with(|| format!("{}://{address}", if config.tls.is_some() { "mqtts" } else { "mqtt" }));
            let (broker, logins) = Embedded::start().map_err(broker_failed)?;
            front = Some((incoming, Arc::clone(&broker)));
            let password = keys::random::<32>().map_err(|error| failed("no password")(&error))?;
            let password = keys::hex(&password);
            let login = Some((HUB_USER.to_owned(), password.clone()));
            (Some(Target::Embedded(broker)), login, Some((password, logins)))
        }
        Broker::External { host, port, tls, ca_file, username, password_file } => {
            let target = Target::external(host, *port, *tls, ca_file.as_deref()).map_err(broker_failed)?;
            let password = match password_file {
                Some(file) => keys::secret_file(file)
                    .map_err(|error| Failure::usage(format!("reading {} failed: {error}", file.display())))?,
                None => String::new(),
            };
            (Some(target), username.clone().map(|user| (user, password)), None)
        }
    };
    passed.done().map_err(wrong_socket)?;
    let mqtt_address = front.as_ref().map(|(incoming, _)| incoming.address());
    let embedded = front.as_ref().map(|(_, broker)| Arc::clone(broker));

    let hub: SharedHub = Arc::new(Hub {
        inlet: Inlet::start(store.clone()),
        rate: Rate::new(config.reports_per_minute),
        refused: RefusedBook::default(),
        metrics: Metrics::default(),
        outbox: wants_mqtt.then_some(outbox),
        mqtt_up,
        mqtt_url,
        hints,
        orders: Notify::new(),
        changes: watch::Sender::new(0),
        stop: stopped.clone(),
        key,
        secrets,
        store: store.clone(),
        config,
    });
    if let Some((password, logins)) = logins {
        tokio::spawn(embedded::judge_logins(Arc::clone(&hub), password, logins));
    }
    if let Some((incoming, broker)) = front {
        tokio::spawn(embedded::front(incoming, broker));
    }
    if let Some(target) = target {
        let socket = hub.config.data.join("mqtt.sock");
        tunnel::open(socket.clone(), target).map_err(broker_failed)?;
        tokio::spawn(link::run(Arc::clone(&hub), Access { socket, login, embedded }, outbox_queue, up));
    }
    duty::start(&hub, hint_queue);
    duty::listen(Arc::clone(&hub), &hub.config.data)
        .map_err(|error| Failure::failed("the socket for the command line can't be made", &error))?;

    addresses(&hub, &http, mqtt_address)?;
    let app = api::router(Arc::clone(&hub));
    let mut ending = stopped.clone();
    let serving = tokio::spawn(
        axum::serve(http, app)
            .with_graceful_shutdown(async move {
                let _ = ending.wait_for(|stop| *stop).await;
            })
            .into_future(),
    );
    notify_systemd("READY=1");
    wait_for_signal(&hub, tls.as_ref()).await?;
    notify_systemd("STOPPING=1");
    tracing::info!("stopping");
    stop.send_replace(true);
    if tokio::time::timeout(GRACE, serving).await.is_err() {
        tracing::warn!("open requests were cut off");
    }
    hub.flush_refusals().await;
    store.close().await;
    Ok(())
}

const HTTP_ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

type Acceptors = (watch::Sender<tokio_rustls::TlsAcceptor>, watch::Receiver<tokio_rustls::TlsAcceptor>);

/// One hub on one folder: two would both send every command.
fn lock(data: &Path) -> Result<fs::File, Failure> {
    let path = data.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Failure::failed(&format!("opening {} failed", path.display()), &error))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) => Err(Failure::failed(&format!("locking {} failed", path.display()), &error)
            .hint("another burgee-hub serves from this folder")),
    }
}

/// Where it listens, for people in the log and for scripts in a file.
fn addresses(hub: &SharedHub, http: &Incoming, mqtt: Option<std::net::SocketAddr>) -> Result<(), Failure> {
    let scheme = if hub.config.tls.is_some() { "https" } else { "http" };
    let page = format!("{scheme}://{}", http.address());
    let fingerprint = keys::public(&hub.key).fingerprint();
    tracing::info!(
        page,
        mqtt = hub.mqtt_url.as_deref().unwrap_or("off"),
        fleet = %hub.config.fleet,
        hub_key = fingerprint,
        "hub is ready"
    );
    let text = serde_json::json!({
        "http": page,
        "mqtt": hub.mqtt_url,
        "mqttListen": mqtt.map(|address| address.to_string()),
        "hubKey": fingerprint,
        "pid": std::process::id(),
    });
    let path = hub.config.data.join("addresses.json");
    let temporary = path.with_extension("new");
    fs::write(&temporary, format!("{text}\n"))
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(|error| Failure::failed(&format!("writing {} failed", path.display()), &error))
}

async fn wait_for_signal(hub: &SharedHub, tls: Option<&(Acceptors, Acceptors)>) -> Result<(), Failure> {
    let no_signals = |error: std::io::Error| Failure::failed("signals can't be waited for", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                let (Some(files), Some((http, mqtt))) = (&hub.config.tls, tls) else { continue };
                match (net::acceptor(files, HTTP_ALPN), net::acceptor(files, &[])) {
                    (Ok(new_http), Ok(new_mqtt)) => {
                        http.0.send_replace(new_http);
                        mqtt.0.send_replace(new_mqtt);
                        tracing::info!("certificate read again");
                    }
                    (Err(error), _) | (_, Err(error)) => {
                        tracing::error!(error = chain(&error), "certificate not read, the old one stays");
                    }
                }
            }
        }
    }
}

/// Tells systemd, where it wants to know.
fn notify_systemd(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text = path.to_string_lossy();
    let address = match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(text.as_ref()),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        tracing::warn!(%error, "systemd not told");
    }
}
