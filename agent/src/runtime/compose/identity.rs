//! What a container, network or volume is made from, as one digest each.
//!
//! **Invariant:** everything that ends up in a create request, and can't be
//! changed on the object afterwards, is in its digest; nothing else is. The
//! revision isn't, nor how many replicas there are, nor how an update goes.

use std::collections::{BTreeMap, BTreeSet};

use fleet::compose::model::{Mode, MountSource, Network, Project, PullPolicy, Service, UpdateConfig, Volume};
use fleet::digest::Digest;
use serde::Serialize;

use super::materialise;
use crate::ports::runtime::{Pins, RuntimeError};

/// Raised when the way in which a container is made from a service changes.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Ingredients<'a> {
    format: u32,
    project: &'a str,
    service: &'a Service,
    /// By reference; the service's own under the empty key.
    images: BTreeMap<&'a str, &'a str>,
    networks: BTreeMap<&'a str, &'a Network>,
    volumes: BTreeMap<&'a str, &'a str>,
    /// Digests of the services that it can't outlive.
    bound_to: BTreeMap<&'a str, String>,
}

/// One service, ready to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) digest: String,
    /// Services whose containers it names by id.
    pub(super) refers: Vec<String>,
    /// The folder of its materialised files, if it has any.
    pub(super) files: Option<Digest>,
}

/// Services whose containers a service names by id.
pub(super) fn refers(service: &Service) -> BTreeSet<&str> {
    let modes = [&service.network_mode, &service.pid, &service.ipc].into_iter().flatten();
    modes
        .chain(service.volumes_from.iter().map(|from| &from.source))
        .filter_map(|mode| match mode {
            Mode::Service(name) => Some(name.as_str()),
            Mode::Named(_) | Mode::Container(_) => None,
        })
        .collect()
}

/// Every image that a service needs: its own, and those that it mounts.
pub(super) fn images(service: &Service) -> impl Iterator<Item = &str> {
    let mounted = service.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Image { image, .. } => Some(image.as_str()),
        _ => None,
    });
    std::iter::once(service.image.as_str()).chain(mounted)
}

/// Services in an order in which each comes after those it depends on, links
/// to, or refers to. What is left of a cycle comes last, by name.
pub(super) fn order(project: &Project) -> Vec<&str> {
    let mut placed: Vec<&str> = Vec::new();
    let mut left: BTreeSet<&str> = project.services.keys().map(String::as_str).collect();
    while !left.is_empty() {
        let free: Vec<&str> = left
            .iter()
            .copied()
            .filter(|name| {
                let service = &project.services[*name];
                let depends = service.depends_on.keys().map(String::as_str);
                let links = service.links.iter().map(|link| link.service.as_str());
                !depends.chain(links).chain(refers(service)).any(|on| on != *name && left.contains(on))
            })
            .collect();
        let next = if free.is_empty() { left.iter().copied().collect() } else { free };
        for name in next {
            left.remove(name);
            placed.push(name);
        }
    }
    placed
}

/// The identity of every service.
///
/// # Errors
/// When an image's id isn't known.
pub(super) fn services(project: &Project, pins: &Pins) -> Result<BTreeMap<String, Identity>, RuntimeError> {
    let mut known: BTreeMap<String, Identity> = BTreeMap::new();
    for name in order(project) {
        let service = &project.services[name];
        let mut ids = BTreeMap::new();
        for image in images(service) {
            let id = pins.get(image).ok_or_else(|| unpinned(image))?;
            ids.insert(if image == service.image { "" } else { image }, id.as_str());
        }
        let restarts = service.depends_on.iter().filter(|(_, how)| how.restart).map(|(on, _)| on.as_str());
        let bound = refers(service).into_iter().chain(restarts);
        let files = materialise::digest(service)?;
        let ingredients = Ingredients {
            format: FORMAT,
            project: &project.name,
            service: &essence(service),
            images: ids,
            networks: service
                .networks
                .keys()
                .filter_map(|key| project.networks.get_key_value(key))
                .map(|(key, network)| (key.as_str(), network))
                .collect(),
            volumes: service
                .mounts
                .iter()
                .filter_map(|mount| match &mount.source {
                    MountSource::Volume { key, .. } => project.volumes.get_key_value(key),
                    _ => None,
                })
                .map(|(key, volume)| (key.as_str(), volume.name.as_str()))
                .collect(),
            bound_to: bound
                .filter_map(|on| known.get_key_value(on))
                .map(|(on, it)| (on.as_str(), it.digest.clone()))
                .collect(),
        };
        let digest = of(&ingredients, name)?;
        let refers = refers(service).into_iter().map(str::to_owned).collect();
        known.insert(name.to_owned(), Identity { digest, refers, files });
    }
    Ok(known)
}

/// The identity of a network; a network whose identity changed is made anew.
pub(super) fn network(network: &Network) -> Result<String, RuntimeError> {
    of(network, &network.name)
}

/// The identity of a volume: its labels can differ without harm to its data.
pub(super) fn volume(volume: &Volume) -> Result<String, RuntimeError> {
    of(&(&volume.driver, &volume.driver_opts), &volume.name)
}

/// The service without what can change while its container stays. The image
/// counts by its id alone: another tag of the same bytes restarts nothing.
fn essence(service: &Service) -> Service {
    let mut essence = service.clone();
    essence.image = String::new();
    essence.replicas = 1;
    essence.update = UpdateConfig::default();
    essence.pull_policy = PullPolicy::default();
    essence.depends_on.clear();
    essence
}

fn of<T: Serialize>(value: &T, name: &str) -> Result<String, RuntimeError> {
    let digest = Digest::of_json(value).map_err(|error| RuntimeError::Refused {
        object: name.to_owned(),
        cause: format!("it has no digest: {error}"),
        hint: None,
    })?;
    Ok(digest.to_string())
}

fn unpinned(image: &str) -> RuntimeError {
    RuntimeError::Pull {
        image: image.to_owned(),
        transient: true,
        source: "it is not on this device, and was not prepared".into(),
    }
}

#[cfg(test)]
mod tests {
    use fleet::compose::model::{Condition, Dependency};

    use super::*;

    fn service(image: &str) -> Service {
        Service { image: image.to_owned(), replicas: 1, ..Service::default() }
    }

    fn project(services: Vec<(&str, Service)>) -> Project {
        Project {
            name: "p".to_owned(),
            services: services.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    fn depends(on: &str, restart: bool) -> BTreeMap<String, Dependency> {
        [(on.to_owned(), Dependency { condition: Condition::Started, restart, required: true })].into()
    }

    #[test]
    fn what_counts_for_a_container() {
        let pins: Pins = [("a", "sha256:1"), ("b", "sha256:1"), ("c", "sha256:2")]
            .map(|(image, id)| (image.to_owned(), id.to_owned()))
            .into();
        let web = |change: fn(&mut Service)| {
            let mut web = service("a");
            change(&mut web);
            services(&project(vec![("web", web)]), &pins).unwrap()["web"].digest.clone()
        };
        let plain = web(|_| ());
        let check = |change: fn(&mut Service), same: bool| assert_eq!(web(change) == plain, same);
        check(|web| web.image = "b".to_owned(), true);
        check(|web| web.image = "c".to_owned(), false);
        check(|web| web.replicas = 3, true);
        check(|web| web.update.start_first = true, true);
        check(|web| web.depends_on = depends("db", false), true);
        check(|web| web.privileged = true, false);
        check(|web| web.environment = [("A".to_owned(), "1".to_owned())].into(), false);
    }

    #[test]
    fn a_dependency_with_restart_counts() {
        let pins: Pins = [("a", "1"), ("b", "2")].map(|(image, id)| (image.to_owned(), id.to_owned())).into();
        let web = |restart, db: &str| {
            let mut web = service("a");
            web.depends_on = depends("db", restart);
            services(&project(vec![("web", web), ("db", service(db))]), &pins).unwrap()["web"].digest.clone()
        };
        assert_eq!(web(false, "a"), web(false, "b"));
        assert_ne!(web(true, "a"), web(true, "b"));
    }

    #[test]
    fn dependencies_come_first() {
        let mut a = service("x");
        a.depends_on = depends("z", false);
        let mut m = service("x");
        m.network_mode = Some(Mode::Service("a".to_owned()));
        assert_eq!(order(&project(vec![("a", a), ("m", m), ("z", service("x"))])), ["z", "a", "m"]);
    }

    #[test]
    fn an_unknown_image_is_an_error() {
        assert!(services(&project(vec![("a", service("x"))]), &Pins::new()).is_err());
    }
}
