//! Files that other projects publish, as they are. They lie beside the project, and are not optional.

use std::path::Path;

use super::read_files;
use crate::compose::model::{MountSource, Project};

fn example(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/examples/compose").join(name).join("compose.yaml");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("the examples are missing: {}: {error}", path.display()))
}

#[track_caller]
fn read(name: &str, more: &[(&str, &str)], vars: &[(&str, &str)]) -> Project {
    let yaml = example(name);
    let files: Vec<_> = [("compose.yaml", yaml.as_str())].into_iter().chain(more.iter().copied()).collect();
    read_files(&files, vars).unwrap_or_else(|errors| panic!("{name}: {errors:#?}")).project
}

#[track_caller]
fn refused(name: &str, more: &[(&str, &str)], want: &[&str]) {
    let yaml = example(name);
    let files: Vec<_> = [("compose.yaml", yaml.as_str())].into_iter().chain(more.iter().copied()).collect();
    let errors = read_files(&files, &[]).map(|read| read.project).expect_err(name);
    let errors: Vec<_> = errors.iter().map(|error| error.strip_prefix("apps/pos/compose.yaml:").unwrap()).collect();
    assert_eq!(errors, want, "{name}");
}

#[test]
fn unchanged() {
    let gitea = read("gitea-postgres", &[], &[]);
    assert_eq!(gitea.services["gitea"].environment["DB_HOST"], "db:5432");
    assert_eq!(gitea.services["db"].expose, ["5432"]);
    assert_eq!(gitea.volumes["git_data"].name, "pos_git_data");
    let nextcloud = read("nextcloud-postgres", &[], &[]);
    assert_eq!(nextcloud.services["nc"].ports[0].published.as_deref(), Some("80"));
}

#[test]
fn with_values_for_open_variables() {
    let wireguard = read("wireguard", &[], &[("TIMEZONE", "Europe/Berlin"), ("VPN_SERVER_URL", "vpn.example")]);
    let service = &wireguard.services["wireguard"];
    assert_eq!((service.environment["TZ"].as_str(), service.environment["PEERS"].as_str()), ("Europe/Berlin", "1"));
    assert_eq!((service.ports[0].protocol.as_str(), service.cap_add.len()), ("udp", 2));
    assert_eq!(service.sysctls["net.ipv4.conf.all.src_valid_mark"], "1");
    let plex = read("plex", &[], &[("PLEX_MEDIA_PATH", "/srv/media")]);
    let MountSource::Bind { path, .. } = &plex.services["plex"].mounts[0].source else { panic!() };
    assert_eq!(path, "/srv/media");
    let hint = |name: &str| {
        format!(
            "variable {name} is not defined and has no default\nhint: define {name} under vars: in burgee.yaml, app.yaml, a group or a device, or in apps/pos/.env"
        )
    };
    refused("plex", &[], &[&format!("10:9: {}", hint("PLEX_MEDIA_PATH"))]);
    refused(
        "wireguard",
        &[],
        &[&format!("12:12: {}", hint("TIMEZONE")), &format!("13:19: {}", hint("VPN_SERVER_URL"))],
    );
    let notes = read_files(&[("compose.yaml", &example("wireguard"))], &[("TIMEZONE", "x"), ("VPN_SERVER_URL", "y")])
        .unwrap()
        .notes;
    assert_eq!(notes.len(), 1);
    assert_eq!(
        notes[0].to_string(),
        "apps/pos/compose.yaml:1:1: warning: version is ignored: it is obsolete, and says nothing"
    );
}

#[test]
fn with_the_files_that_they_mount() {
    let files = [("logstash/pipeline/logstash-nginx.config", "c"), ("logstash/nginx.log", "l")];
    let elk = read("elasticsearch-logstash-kibana", &files, &[]);
    assert_eq!(elk.services["logstash"].mounts.len(), 2);
    assert_eq!(elk.services["logstash"].ports.len(), 4);
    let hint = "\nhint: commit the file, or name an absolute path for a file of the device's own";
    refused(
        "elasticsearch-logstash-kibana",
        &[files[0]],
        &[&format!("26:9: services.logstash.volumes: apps/pos/logstash/nginx.log is not in the repository{hint}")],
    );
    let files = [("prometheus/prometheus.yml", "p"), ("grafana/datasource.yml", "g")];
    let grafana = read("prometheus-grafana", &files, &[]);
    let MountSource::Repository { folder, files, .. } = &grafana.services["grafana"].mounts[0].source else { panic!() };
    assert!(*folder && files.contains_key("datasource.yml"));
    refused(
        "prometheus-grafana",
        &[],
        &[
            &format!("11:9: services.prometheus.volumes: apps/pos/prometheus is not in the repository{hint}"),
            &format!("23:9: services.grafana.volumes: apps/pos/grafana is not in the repository{hint}"),
        ],
    );
}

#[test]
fn what_a_device_can_not_do() {
    let home = "13:8: services.minecraft.volumes: \"~/minecraft_data\" is in a home folder, and an agent has none\nhint: name an absolute path, such as /srv/data, or a volume";
    refused("minecraft", &[], &[home]);
    let build = "a device does not build images\nhint: publish the image, name it under image:, and take build: out";
    refused("flask-redis", &[], &[&format!("7:5: services.web.build: {build}")]);
    refused(
        "nginx-golang-mysql",
        &[("db/password.txt", "p"), ("proxy/nginx.conf", "n")],
        &[&format!("3:5: services.backend.build: {build}")],
    );
}
