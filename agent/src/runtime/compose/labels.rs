//! The labels by which burgee finds again what it made, and by which
//! `docker compose ps`, `ls` and `logs` find it, too.

use std::collections::HashMap;

use fleet::compose::model::{Condition, Project, Service};
use fleet::name::{AppName, DeviceName, FleetName};

pub(super) const FLEET: &str = "dev.burgee.fleet";
pub(super) const DEVICE: &str = "dev.burgee.device";
pub(super) const APP: &str = "dev.burgee.app";
/// What the object was made from; see `identity`.
pub(super) const DIGEST: &str = "dev.burgee.digest";
/// The folder of materialised files that a container mounts from.
pub(super) const FILES: &str = "dev.burgee.files";
/// Ids of the containers whose namespaces or volumes it shares.
pub(super) const REFERS: &str = "dev.burgee.refers";
/// Seconds that it gets to stop.
pub(super) const GRACE: &str = "dev.burgee.grace";
/// The image as the Compose file names it.
pub(super) const IMAGE: &str = "dev.burgee.image";
/// Anonymous volumes that it took over from the container before it.
pub(super) const INHERITED: &str = "dev.burgee.inherited";

pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
pub(super) const DEPENDS: &str = "com.docker.compose.depends_on";

/// Whose objects are meant: one app of one fleet on one device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) fleet: &'a FleetName,
    pub(super) device: &'a DeviceName,
    pub(super) app: &'a AppName,
}

impl Owner<'_> {
    /// Whether an object with these labels is this app's.
    pub(super) fn owns(&self, labels: &HashMap<String, String>) -> bool {
        let is = |key, value: &str| labels.get(key).is_some_and(|label| label == value);
        is(FLEET, self.fleet.as_str()) && is(DEVICE, self.device.as_str()) && is(APP, self.app.as_str())
    }

    /// The labels of ownership.
    pub(super) fn labels(&self, digest: &str) -> HashMap<String, String> {
        [(FLEET, self.fleet.as_str()), (DEVICE, self.device.as_str()), (APP, self.app.as_str()), (DIGEST, digest)]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}

/// Who made an object that isn't ours, for people.
pub(super) fn maker(labels: &HashMap<String, String>) -> String {
    let get = |key| labels.get(key).map(String::as_str);
    match (get(FLEET), get(DEVICE), get(APP), get(PROJECT)) {
        (Some(fleet), Some(device), Some(app), _) => {
            format!("made by burgee for app {app} of device {device}, fleet {fleet}")
        }
        (_, _, _, Some(project)) => format!("made by Compose project {project}"),
        _ => "made by something else".to_owned(),
    }
}

/// Compose's labels for a network or volume.
pub(super) fn compose_object(kind: &'static str, key: &str, project: &Project) -> Vec<(String, String)> {
    vec![
        (PROJECT.to_owned(), project.name.clone()),
        (format!("com.docker.compose.{kind}"), key.to_owned()),
        ("com.docker.compose.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

/// What a container's labels tell.
pub(super) struct Facts<'a> {
    pub(super) project: &'a Project,
    pub(super) app: &'a AppName,
    /// The service's name, and its definition.
    pub(super) name: &'a str,
    pub(super) service: &'a Service,
    pub(super) number: u32,
    pub(super) digest: &'a str,
    pub(super) image_id: &'a str,
    /// Where the app's files are on the device.
    pub(super) folder: &'a str,
}

/// Compose's labels for a container.
pub(super) fn compose_container(facts: &Facts<'_>) -> Vec<(String, String)> {
    let Facts { project, app, name, service, number, digest, image_id, folder } = *facts;
    let depends = service.depends_on.iter().map(|(on, how)| {
        let condition = match how.condition {
            Condition::Started => "service_started",
            Condition::Healthy => "service_healthy",
            Condition::CompletedSuccessfully => "service_completed_successfully",
        };
        format!("{on}:{condition}:{}", how.restart)
    });
    [
        (PROJECT, project.name.clone()),
        (SERVICE, name.to_owned()),
        (NUMBER, number.to_string()),
        (DEPENDS, depends.collect::<Vec<_>>().join(",")),
        ("com.docker.compose.config-hash", digest.to_owned()),
        ("com.docker.compose.oneoff", "False".to_owned()),
        ("com.docker.compose.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("com.docker.compose.image", image_id.to_owned()),
        ("com.docker.compose.project.working_dir", folder.to_owned()),
        ("com.docker.compose.project.config_files", format!("apps/{app}/compose.yaml")),
        (IMAGE, service.image.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The services named in a [`DEPENDS`] label.
pub(super) fn depends(label: Option<&String>) -> Vec<String> {
    let entries = label.map(String::as_str).unwrap_or_default().split(',');
    entries.filter_map(|entry| entry.split(':').next()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
