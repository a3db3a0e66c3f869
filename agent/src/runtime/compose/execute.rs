//! Carries out one action. Each may be repeated: what is there already is not
//! done twice, and what is gone already is not missed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use bollard::models::{Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, RemoveVolumeOptions, RenameContainerOptions, StopContainerOptions,
};
use fleet::compose::model::{MountSource, Network, Project, Service, Volume};
use fleet::desired::AppSpec;
use fleet::digest::Digest;
use tokio::time::Instant;

use super::action::Action;
use super::diff;
use super::engine::{Failure, Link, WRITE};
use super::health::OwnChecks;
use super::identity;
use super::labels::{self, Owner};
use super::materialise;
use super::observe::{self};
use super::read::{self, inspect};
use super::spec::{self, Surroundings};
use crate::ports::runtime::{Hinted, Object, RuntimeError, Task};

/// What every action works with.
pub(super) struct Hands<'a> {
    pub(super) link: &'a Link,
    pub(super) own: &'a OwnChecks,
    pub(super) owner: Owner<'a>,
    pub(super) store: &'a Path,
    pub(super) task: Task<'a>,
}

impl Hands<'_> {
    pub(super) async fn carry_out(&self, object: &Object, action: &Action) -> Result<(), RuntimeError> {
        match action {
            Action::WriteFolder { service, digest } => self.write_folder(service, digest).await,
            Action::CreateNetwork { key, replaces } => {
                let network = self.project()?.networks.get(key).ok_or_else(|| changed(object))?;
                if let Some(id) = replaces {
                    self.remove_network(object, id).await?;
                }
                self.create_network(object, key, network).await
            }
            Action::CreateVolume { key } => {
                let volume = self.project()?.volumes.get(key).ok_or_else(|| changed(object))?;
                self.create_volume(object, key, volume).await
            }
            Action::CreateContainer { service, number, name, digest, former } => {
                self.create_container(object, service, *number, name, digest, former.as_deref()).await
            }
            Action::RemoveContainer { id, grace_secs } => self.remove_container(object, id, *grace_secs).await,
            Action::StartContainer { name, from, start } => {
                self.start_container(object, name, from.as_deref(), *start).await
            }
            Action::AwaitService { service, condition, required, limit_ms } => {
                match self.await_service(object, service, *condition, Duration::from_millis(*limit_ms)).await {
                    Err(error @ RuntimeError::Step { .. }) if !required => {
                        tracing::warn!(%object, %error, "an optional dependency is not there");
                        Ok(())
                    }
                    outcome => outcome,
                }
            }
            Action::Watch { names, monitor_ms, healthy, tolerate, limit_ms, then_ms } => {
                let limit = Duration::from_millis(*limit_ms);
                match self.watch(names, Duration::from_millis(*monitor_ms), *healthy, limit).await {
                    Err(error @ RuntimeError::Step { .. }) if *tolerate => {
                        tracing::warn!(%object, %error, "an update failed and goes on, as failure_action says");
                    }
                    outcome => outcome?,
                }
                tokio::time::sleep(Duration::from_millis(*then_ms)).await;
                Ok(())
            }
            Action::RemoveNetwork { id } => self.remove_network(object, id).await,
            Action::RemoveVolume { name } => {
                let options = Some(RemoveVolumeOptions::default());
                done(
                    self.link.ask(WRITE, self.link.docker.remove_volume(name, options)).await,
                    &[404],
                    "remove",
                    object,
                )
            }
        }
    }

    fn project(&self) -> Result<&Project, RuntimeError> {
        match self.task.want.map(|app| &app.spec) {
            Some(AppSpec::Compose(project)) => Ok(project),
            _ => Err(RuntimeError::Refused {
                object: self.task.app.to_string(),
                cause: "it is no compose app any more".to_owned(),
                hint: None,
            }),
        }
    }

    pub(super) fn service(&self, name: &str, object: &Object) -> Result<(&Project, &Service), RuntimeError> {
        let project = self.project()?;
        Ok((project, project.services.get(name).ok_or_else(|| changed(object))?))
    }

    async fn write_folder(&self, service: &str, digest: &Digest) -> Result<(), RuntimeError> {
        let object = materialise::object(self.task.app, digest);
        let (_, definition) = self.service(service, &object)?;
        let (items, folders) = materialise::items(self.task.app, definition, digest, self.task.blobs)?;
        let target = materialise::folder(self.store, self.task.app, digest);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Step {
            action: "write",
            object: object.clone(),
            transient: true,
            source,
        };
        let written = tokio::task::spawn_blocking(move || materialise::write(&target, &items, &folders)).await;
        written.map_err(|error| failed(Box::new(error)))?.map_err(|error| failed(Box::new(error)))
    }

    async fn create_network(&self, object: &Object, key: &str, network: &Network) -> Result<(), RuntimeError> {
        let digest = identity::network(network)?;
        let observed = observe::observe(self.link, self.owner).await?;
        match (observed.networks.get(&network.name), observed.foreign_networks.get(&network.name)) {
            (Some(seen), _) if seen.digest == digest => return Ok(()),
            (Some(_), _) => return Err(changed(object)),
            (None, Some(owner)) => return Err(RuntimeError::Foreign { object: object.clone(), owner: owner.clone() }),
            (None, None) => {}
        }
        let mut labels: HashMap<String, String> =
            network.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        labels.extend(labels::compose_object("network", key, self.project()?));
        labels.extend(self.owner.labels(&digest));
        let pools = network.ipam.iter().map(|pool| IpamConfig {
            subnet: pool.subnet.clone(),
            ip_range: pool.ip_range.clone(),
            gateway: pool.gateway.clone(),
            auxiliary_addresses: map(&pool.aux_addresses),
        });
        let pools: Vec<IpamConfig> = pools.collect();
        let ipam =
            (network.ipam_driver.is_some() || !pools.is_empty() || !network.ipam_options.is_empty()).then(|| Ipam {
                driver: network.ipam_driver.clone(),
                config: (!pools.is_empty()).then_some(pools),
                options: map(&network.ipam_options),
            });
        let request = NetworkCreateRequest {
            name: network.name.clone(),
            driver: Some(network.driver.clone().unwrap_or_else(|| "bridge".to_owned())),
            internal: Some(network.internal),
            attachable: Some(network.attachable),
            ipam,
            enable_ipv4: network.enable_ipv4,
            enable_ipv6: network.enable_ipv6,
            options: map(&network.driver_opts),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        let made = self.link.ask(WRITE, self.link.docker.create_network(request)).await;
        made.map(|_| ()).map_err(|failure| failure.step("create", object))
    }

    async fn create_volume(&self, object: &Object, key: &str, volume: &Volume) -> Result<(), RuntimeError> {
        let digest = identity::volume(volume)?;
        // Creating a volume that exists succeeds: whose it is has to be asked before.
        if let Some(found) = read::volume(self.link, &volume.name).await? {
            let labels = found.labels.unwrap_or_default();
            if self.owner.owns(&labels) {
                return Ok(());
            }
            return Err(RuntimeError::Foreign { object: object.clone(), owner: labels::maker(&labels) });
        }
        let mut labels: HashMap<String, String> =
            volume.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        labels.extend(labels::compose_object("volume", key, self.project()?));
        labels.extend(self.owner.labels(&digest));
        let request = VolumeCreateRequest {
            name: Some(volume.name.clone()),
            driver: Some(volume.driver.clone().unwrap_or_else(|| "local".to_owned())),
            driver_opts: map(&volume.driver_opts),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        read::make_volume(self.link, &request).await.map_err(|failure| failure.step("create", object))
    }

    async fn remove_network(&self, object: &Object, id: &str) -> Result<(), RuntimeError> {
        done(self.link.ask(WRITE, self.link.docker.remove_network(id)).await, &[404], "remove", object)
    }

    async fn create_container(
        &self,
        object: &Object,
        service_name: &str,
        number: u32,
        name: &str,
        digest: &str,
        former: Option<&str>,
    ) -> Result<(), RuntimeError> {
        let (project, service) = self.service(service_name, object)?;
        let networks = service.networks.keys().filter_map(|key| project.networks.get(key)).map(|it| it.name.as_str());
        let networks: BTreeSet<&str> = networks.collect();
        if let Some(found) = inspect(self.link, name).await? {
            let labels = found.config.labels.unwrap_or_default();
            if !self.owner.owns(&labels) {
                let owner = labels::maker(&labels);
                return Err(RuntimeError::Foreign { object: object.clone(), owner });
            }
            let on = found.network_settings.networks.unwrap_or_default();
            let whole = networks.iter().all(|network| on.contains_key(*network));
            return match whole && labels.get(labels::DIGEST).is_some_and(|label| label == digest) {
                true => Ok(()),
                false => Err(changed(object)),
            };
        }
        self.refuse_the_impossible(service_name, service)?;
        let image_id = self.task.pins.get(&service.image).ok_or_else(|| changed(object))?;
        let refers = self.refers(object, project, service).await?;
        let inherited = match former {
            Some(id) => self.inherited(service, id).await?,
            None => BTreeMap::new(),
        };
        let files = materialise::digest(service)?;
        let folder = files.map(|digest| materialise::folder(self.store, self.task.app, &digest));
        let working = self.store.join("apps").join(self.task.app.as_str()).display().to_string();
        let mut all = self.owner.labels(digest);
        all.extend(labels::compose_container(&labels::Facts {
            project,
            app: self.task.app,
            name: service_name,
            service,
            number,
            digest,
            image_id,
            folder: &working,
        }));
        all.insert(labels::GRACE.to_owned(), spec::grace_secs(service).to_string());
        if let Some(digest) = files {
            all.insert(labels::FILES.to_owned(), format!("{}/{digest}", self.task.app));
        }
        if !refers.is_empty() {
            let ids: Vec<&str> = refers.values().map(String::as_str).collect();
            all.insert(labels::REFERS.to_owned(), ids.join(","));
        }
        if !inherited.is_empty() {
            let names: Vec<&str> = inherited.values().map(String::as_str).collect();
            all.insert(labels::INHERITED.to_owned(), names.join(","));
        }
        let around = Surroundings {
            project,
            image_id,
            images: self.task.pins,
            labels: all,
            folder,
            refers: &refers,
            inherited: &inherited,
        };
        let (body, others) = spec::container(service_name, service, &around);
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let made = match self.link.ask(WRITE, self.link.docker.create_container(Some(options), body)).await {
            Ok(made) => made,
            Err(Failure::Refused { status: 404, message }) if message.to_lowercase().contains("image") => {
                return Err(RuntimeError::Pull {
                    image: service.image.clone(),
                    transient: true,
                    source: Box::new(Hinted {
                        message: format!("{image_id} is no longer on this device"),
                        hint: format!("bring it back with `docker pull {}`, or push a new commit", service.image),
                    }),
                });
            }
            Err(Failure::Refused { status: 409, .. }) => return Err(changed(object)),
            Err(failure) => return Err(failure.step("create", object)),
        };
        for warning in made.warnings {
            tracing::warn!(%object, warning, "the engine warns");
        }
        for (network, endpoint) in others {
            let request = NetworkConnectRequest { container: made.id.clone(), endpoint_config: Some(endpoint) };
            if let Err(failure) = self.link.ask(WRITE, self.link.docker.connect_network(&network, request)).await {
                // Half a container is of no use; if this fails, the next plan finds it.
                let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
                let _ = self.link.ask(WRITE, self.link.docker.remove_container(&made.id, Some(options))).await;
                return Err(failure.step("connect", object));
            }
        }
        Ok(())
    }

    /// What this Engine can't do is refused by name, not left out.
    fn refuse_the_impossible(&self, name: &str, service: &Service) -> Result<(), RuntimeError> {
        possible(self.link, name, service)
    }

    /// Ids of the containers that a service shares something with: the newest
    /// made from the definition that is wanted now.
    async fn refers(
        &self,
        object: &Object,
        project: &Project,
        service: &Service,
    ) -> Result<BTreeMap<String, String>, RuntimeError> {
        let names = identity::refers(service);
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let identities = identity::services(project, self.task.pins)?;
        let observed = observe::observe(self.link, self.owner).await?;
        let mut ids = BTreeMap::new();
        for name in names {
            let wanted = identities.get(name).map(|identity| identity.digest.as_str());
            let own = project.services.get(name).map(|it| diff::name_of(project, name, it, 1));
            let found = observed
                .containers
                .iter()
                .filter(|seen| seen.service == name && seen.number == 1 && Some(seen.digest.as_str()) == wanted)
                // A successor under its temporary name comes after the one that it replaces.
                .max_by_key(|seen| own.as_ref() != Some(&seen.name))
                .ok_or_else(|| changed(object))?;
            ids.insert(name.to_owned(), found.id.clone());
        }
        Ok(ids)
    }

    /// The anonymous volumes of the container before, by target: as Compose
    /// does, their data goes on living in the next one.
    async fn inherited(&self, service: &Service, former: &str) -> Result<BTreeMap<String, String>, RuntimeError> {
        let Some(found) = inspect(self.link, former).await? else { return Ok(BTreeMap::new()) };
        let named: BTreeSet<&str> = service
            .mounts
            .iter()
            .filter(|mount| !matches!(mount.source, MountSource::Anonymous { .. }))
            .map(|mount| mount.target.as_str())
            .collect();
        let mounts = found.mounts.unwrap_or_default().into_iter();
        let anonymous = mounts
            .filter(|mount| mount.kind == "volume" && is_anonymous(&mount.name))
            .map(|mount| (mount.destination, mount.name));
        Ok(anonymous.filter(|(target, _)| !named.contains(target.as_str())).collect())
    }

    async fn remove_container(&self, object: &Object, id: &str, grace_secs: u32) -> Result<(), RuntimeError> {
        let Some(found) = inspect(self.link, id).await? else { return Ok(()) };
        let labels = found.config.labels.unwrap_or_default();
        if !self.owner.owns(&labels) {
            return Err(changed(object));
        }
        let limit = Duration::from_secs(u64::from(grace_secs)) + WRITE;
        let stop = StopContainerOptions { t: i32::try_from(grace_secs).ok(), ..StopContainerOptions::default() };
        done(self.link.ask(limit, self.link.docker.stop_container(id, Some(stop))).await, &[304, 404], "stop", object)?;
        let options = RemoveContainerOptions { v: true, force: true, ..RemoveContainerOptions::default() };
        let removed = self.link.ask(WRITE, self.link.docker.remove_container(id, Some(options))).await;
        match removed {
            Err(Failure::Refused { status: 409, message }) if message.contains("already in progress") => {
                self.until_gone(object, id).await?;
            }
            outcome => done(outcome, &[404], "remove", object)?,
        }
        for volume in labels.get(labels::INHERITED).into_iter().flat_map(|names| names.split(',')) {
            // Still in use by its successor, or gone: both are as they should be.
            let options = Some(RemoveVolumeOptions::default());
            if let Err(failure) = self.link.ask(WRITE, self.link.docker.remove_volume(volume, options)).await {
                tracing::debug!(volume, cause = %failure, "anonymous volume stays");
            }
        }
        Ok(())
    }

    async fn until_gone(&self, object: &Object, id: &str) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + WRITE;
        while inspect(self.link, id).await?.is_some() {
            if Instant::now() > deadline {
                return Err(step_failed("remove", object, "the engine does not finish removing it", true));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    async fn start_container(
        &self,
        object: &Object,
        name: &str,
        from: Option<&str>,
        start: bool,
    ) -> Result<(), RuntimeError> {
        if let Some(from) = from {
            let options = RenameContainerOptions { name: name.to_owned() };
            match self.link.ask(WRITE, self.link.docker.rename_container(from, options)).await {
                Ok(()) => {}
                // Renamed before: its name is looked at below.
                Err(failure) if failure.is_missing() => {}
                Err(failure) if failure.status() == Some(409) => return Err(changed(object)),
                Err(failure) => return Err(failure.step("rename", object)),
            }
        }
        let Some(found) = inspect(self.link, name).await? else { return Err(changed(object)) };
        let labels = found.config.labels.unwrap_or_default();
        if !self.owner.owns(&labels) {
            return Err(changed(object));
        }
        if !start {
            return Ok(());
        }
        if found.state.paused {
            let unpaused = self.link.ask(WRITE, self.link.docker.unpause_container(name)).await;
            return done(unpaused, &[], "unpause", object);
        }
        if found.state.running {
            return Ok(());
        }
        match self.link.ask(WRITE, self.link.docker.start_container(name, None)).await {
            Err(failure) if failure.is_missing() && inspect(self.link, name).await?.is_none() => Err(changed(object)),
            outcome => done(outcome, &[304], "start", object),
        }
    }
}

/// Refuses by name what this Engine can't do.
pub(super) fn possible(link: &Link, name: &str, service: &Service) -> Result<(), RuntimeError> {
    let refuse = |cause: String, hint: &str| {
        Err(RuntimeError::Refused { object: format!("service {name}"), cause, hint: Some(hint.to_owned()) })
    };
    for (key, needed) in spec::needs(service) {
        if link.api < needed {
            let (major, minor) = link.api;
            return refuse(
                format!("{key} needs Engine API {}.{}, this engine speaks {major}.{minor}", needed.0, needed.1),
                "drop the key, or update the engine on this device",
            );
        }
    }
    let renames = service.links.iter().any(|link| link.alias.as_ref().is_some_and(|alias| *alias != link.service));
    if link.podman && (renames || !service.external_links.is_empty()) {
        return refuse("Podman has no links with names of their own".to_owned(), "use networks.NAME.aliases");
    }
    Ok(())
}

fn done(outcome: Result<(), Failure>, fine: &[u16], action: &'static str, object: &Object) -> Result<(), RuntimeError> {
    match outcome {
        Err(failure) if failure.status().is_some_and(|status| fine.contains(&status)) => Ok(()),
        Err(failure) => Err(failure.step(action, object)),
        Ok(()) => Ok(()),
    }
}

pub(super) fn step_failed(action: &'static str, object: &Object, cause: &str, transient: bool) -> RuntimeError {
    RuntimeError::Step { action, object: object.clone(), transient, source: cause.to_owned().into() }
}

pub(super) fn changed(object: &Object) -> RuntimeError {
    RuntimeError::Changed { object: object.clone() }
}

/// Engines name anonymous volumes by 64 hex digits.
fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit())
}

fn map(values: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!values.is_empty()).then(|| values.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}
