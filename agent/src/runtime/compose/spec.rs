//! A service as the Engine's create request: pure.
//!
//! One network goes into the request, the others are connected before the
//! start, because that is all that Docker before 25 takes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::str::FromStr;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigIsolationEnum, HostConfigLogConfig, NetworkingConfig, PortBinding,
    ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, ThrottleDevice,
};
use fleet::compose::model::{Attachment, Mode, MountSource, Project, Restart, Service};

use super::diff;
use super::mounts;
use crate::ports::runtime::Pins;

/// What a request needs beside the service.
pub(super) struct Surroundings<'a> {
    pub(super) project: &'a Project,
    pub(super) image_id: &'a str,
    /// Ids of the images that it mounts, by reference.
    pub(super) images: &'a Pins,
    pub(super) labels: HashMap<String, String>,
    /// The service's folder of files.
    pub(super) folder: Option<PathBuf>,
    /// Ids of the containers that it refers to, by service.
    pub(super) refers: &'a BTreeMap<String, String>,
    /// Anonymous volumes to take over, by target.
    pub(super) inherited: &'a BTreeMap<String, String>,
}

/// What can't be said to an Engine of this API version, as (key, version needed).
pub(super) fn needs(service: &Service) -> Vec<(&'static str, (usize, usize))> {
    let mut needs = Vec::new();
    let mut need = |there: bool, key, minor| {
        if there {
            needs.push((key, (1, minor)));
        }
    };
    let healthcheck = service.healthcheck.as_ref();
    need(healthcheck.is_some_and(|check| check.start_interval_ms.is_some()), "healthcheck.start_interval", 44);
    need(!service.annotations.is_empty(), "annotations", 43);
    let networks = || service.networks.values();
    need(networks().any(|it| it.mac_address.is_some()) && service.networks.len() > 1, "networks.mac_address", 44);
    need(networks().any(|it| it.gw_priority != 0), "networks.gw_priority", 48);
    need(networks().any(|it| it.interface_name.is_some()), "networks.interface_name", 49);
    for mount in &service.mounts {
        match &mount.source {
            MountSource::Volume { subpath, .. } => need(subpath.is_some(), "volumes.volume.subpath", 45),
            MountSource::Image { .. } => need(true, "volumes.type image", 48),
            MountSource::Bind { recursive, .. } => {
                let new = matches!(recursive.as_deref(), Some("writable" | "readonly"));
                need(new, "volumes.bind.recursive", 44);
            }
            _ => {}
        }
    }
    needs
}

/// The create request, and the networks to connect afterwards.
pub(super) fn container(
    service_name: &str,
    service: &Service,
    around: &Surroundings<'_>,
) -> (ContainerCreateBody, Vec<(String, EndpointSettings)>) {
    let mut endpoints = endpoints(service_name, service, around.project);
    let first = (!endpoints.is_empty()).then(|| endpoints.remove(0));
    let mut host = host(service, around);
    host.network_mode = match (&service.network_mode, &first) {
        (Some(mode), _) => Some(mode_text(mode, around)),
        (None, Some((name, _))) => Some(name.clone()),
        (None, None) => None,
    };
    let mut labels = around.labels.clone();
    labels.extend(service.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    let (port_bindings, mut exposed) = ports(service);
    exposed.extend(service.expose.iter().map(|port| with_protocol(port)));
    exposed.sort();
    exposed.dedup();
    host.port_bindings = some(port_bindings);
    let legacy_mac = service.mac_address.clone();
    let body = ContainerCreateBody {
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        env: Some(service.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        healthcheck: healthcheck(service),
        image: Some(around.image_id.to_owned()),
        working_dir: service.working_dir.clone(),
        labels: Some(labels),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: Some(i64::from(grace_secs(service))),
        host_config: Some(host),
        networking_config: first.map(|(name, mut endpoint)| {
            if endpoint.mac_address.is_none() {
                endpoint.mac_address = legacy_mac;
            }
            NetworkingConfig { endpoints_config: Some([(name, endpoint)].into()) }
        }),
        ..ContainerCreateBody::default()
    };
    (body, endpoints)
}

/// Seconds that a container gets to stop; Docker's default is 10.
pub(super) fn grace_secs(service: &Service) -> u32 {
    let secs = service.stop_grace_period_ms.map_or(10, |ms| ms.div_ceil(1000));
    u32::try_from(secs).unwrap_or(u32::MAX)
}

/// Endpoints by network name, in order of priority.
fn endpoints(service_name: &str, service: &Service, project: &Project) -> Vec<(String, EndpointSettings)> {
    let mut attachments: Vec<(&String, &Attachment)> = service.networks.iter().collect();
    attachments.sort_by_key(|(key, attachment)| (-attachment.priority, (*key).clone()));
    let links: Vec<String> = service
        .links
        .iter()
        .filter_map(|link| {
            let target = project.services.get(&link.service)?;
            let name = diff::name_of(project, &link.service, target, 1);
            Some(format!("{name}:{}", link.alias.as_deref().unwrap_or(&link.service)))
        })
        .chain(service.external_links.iter().cloned())
        .collect();
    attachments
        .into_iter()
        .filter_map(|(key, attachment)| {
            let network = project.networks.get(key)?;
            let mut aliases = vec![service_name.to_owned()];
            aliases.extend(attachment.aliases.iter().filter(|alias| *alias != service_name).cloned());
            let mut driver_opts: HashMap<String, String> =
                attachment.driver_opts.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            if let Some(interface) = &attachment.interface_name {
                driver_opts.insert("com.docker.network.endpoint.ifname".to_owned(), interface.clone());
            }
            let ipam = EndpointIpamConfig {
                ipv4_address: attachment.ipv4_address.clone(),
                ipv6_address: attachment.ipv6_address.clone(),
                link_local_ips: (!attachment.link_local_ips.is_empty()).then(|| attachment.link_local_ips.clone()),
            };
            let endpoint = EndpointSettings {
                ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
                links: (!links.is_empty()).then(|| links.clone()),
                aliases: Some(aliases),
                mac_address: attachment.mac_address.clone(),
                driver_opts: some(driver_opts),
                gw_priority: (attachment.gw_priority != 0).then_some(attachment.gw_priority),
                ..EndpointSettings::default()
            };
            Some((network.name.clone(), endpoint))
        })
        .collect()
}

type Bindings = HashMap<String, Option<Vec<PortBinding>>>;

fn ports(service: &Service) -> (Bindings, Vec<String>) {
    let mut bindings = Bindings::new();
    let mut exposed = Vec::new();
    for port in &service.ports {
        let key = format!("{}/{}", port.target, port.protocol);
        let binding =
            PortBinding { host_ip: port.host_ip.clone(), host_port: Some(port.published.clone().unwrap_or_default()) };
        bindings.entry(key.clone()).or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(binding);
        exposed.push(key);
    }
    (bindings, exposed)
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

fn healthcheck(service: &Service) -> Option<HealthConfig> {
    let check = service.healthcheck.as_ref()?;
    let nanos = |ms: Option<u64>| ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000));
    Some(HealthConfig {
        test: check.test.clone(),
        interval: nanos(check.interval_ms),
        timeout: nanos(check.timeout_ms),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period_ms),
        start_interval: nanos(check.start_interval_ms),
    })
}

fn mode_text(mode: &Mode, around: &Surroundings<'_>) -> String {
    match mode {
        Mode::Named(name) => name.clone(),
        Mode::Container(name) => format!("container:{name}"),
        Mode::Service(name) => {
            format!("container:{}", around.refers.get(name).map(String::as_str).unwrap_or_default())
        }
    }
}

pub(super) fn some<K, V>(map: HashMap<K, V>) -> Option<HashMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

fn list(values: &[String]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.to_vec())
}

pub(super) fn map(values: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    some(values.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn host(service: &Service, around: &Surroundings<'_>) -> HostConfig {
    let resources = &service.resources;
    let throttle = |rates: &[(String, i64)]| {
        let rates = rates.iter().map(|(path, rate)| ThrottleDevice { path: Some(path.clone()), rate: Some(*rate) });
        Some(rates.collect::<Vec<_>>()).filter(|rates| !rates.is_empty())
    };
    let restart = match service.restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure { max_retries } => (RestartPolicyNameEnum::ON_FAILURE, max_retries.map(i64::from)),
    };
    // Links work through the endpoints; without any, the Engine has a key of its own.
    let links = service.networks.is_empty().then(|| {
        service.links.iter().filter_map(|link| {
            let target = around.project.services.get(&link.service)?;
            let name = diff::name_of(around.project, &link.service, target, 1);
            Some(format!("{name}:{}", link.alias.as_deref().unwrap_or(&link.service)))
        })
    });
    let links: Vec<String> = links.into_iter().flatten().collect();
    let volumes_from = service.volumes_from.iter().map(|from| {
        let id = match &from.source {
            Mode::Service(name) => around.refers.get(name).cloned().unwrap_or_default(),
            Mode::Container(name) | Mode::Named(name) => name.clone(),
        };
        if from.read_only { format!("{id}:ro") } else { id }
    });
    let gpus = resources.gpus.iter().map(|gpu| DeviceRequest {
        driver: gpu.driver.clone(),
        count: gpu.count,
        device_ids: list(&gpu.device_ids),
        capabilities: (!gpu.capabilities.is_empty()).then(|| vec![gpu.capabilities.clone()]),
        options: map(&gpu.options),
    });
    let mut host = HostConfig {
        cpu_shares: resources.cpu_shares,
        memory: resources.memory,
        cgroup_parent: service.cgroup_parent.clone(),
        blkio_weight: resources.blkio_weight,
        blkio_weight_device: Some(
            resources
                .blkio_weight_device
                .iter()
                .map(|(path, weight)| ResourcesBlkioWeightDevice {
                    path: Some(path.clone()),
                    weight: usize::try_from(*weight).ok(),
                })
                .collect::<Vec<_>>(),
        )
        .filter(|weights| !weights.is_empty()),
        blkio_device_read_bps: throttle(&resources.device_read_bps),
        blkio_device_write_bps: throttle(&resources.device_write_bps),
        blkio_device_read_iops: throttle(&resources.device_read_iops),
        blkio_device_write_iops: throttle(&resources.device_write_iops),
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_realtime_period: resources.cpu_rt_period,
        cpu_realtime_runtime: resources.cpu_rt_runtime,
        cpuset_cpus: resources.cpuset.clone(),
        nano_cpus: resources.nano_cpus,
        memory_reservation: resources.memory_reservation,
        memory_swap: resources.memory_swap,
        memory_swappiness: resources.memory_swappiness,
        pids_limit: resources.pids,
        devices: Some(
            service
                .devices
                .iter()
                .map(|device| DeviceMapping {
                    path_on_host: Some(device.source.clone()),
                    path_in_container: Some(device.target.clone()),
                    cgroup_permissions: Some(device.permissions.clone()),
                })
                .collect::<Vec<_>>(),
        )
        .filter(|devices| !devices.is_empty()),
        device_cgroup_rules: list(&service.device_cgroup_rules),
        device_requests: Some(gpus.collect::<Vec<_>>()).filter(|gpus| !gpus.is_empty()),
        oom_kill_disable: service.oom_kill_disable,
        init: service.init,
        ulimits: Some(
            service
                .ulimits
                .iter()
                .map(|(name, limit)| ResourcesUlimits {
                    name: Some(name.clone()),
                    soft: Some(limit.soft),
                    hard: Some(limit.hard),
                })
                .collect::<Vec<_>>(),
        )
        .filter(|limits| !limits.is_empty()),
        log_config: service
            .logging
            .as_ref()
            .map(|logging| HostConfigLogConfig { typ: logging.driver.clone(), config: map(&logging.options) }),
        restart_policy: Some(RestartPolicy { name: Some(restart.0), maximum_retry_count: restart.1 }),
        volume_driver: service.volume_driver.clone(),
        volumes_from: Some(volumes_from.collect::<Vec<_>>()).filter(|from| !from.is_empty()),
        annotations: map(&service.annotations),
        cap_add: list(&service.cap_add),
        cap_drop: list(&service.cap_drop),
        cgroupns_mode: service.cgroup.as_deref().and_then(|mode| HostConfigCgroupnsModeEnum::from_str(mode).ok()),
        dns: list(&service.dns),
        dns_options: list(&service.dns_opt),
        dns_search: list(&service.dns_search),
        extra_hosts: list(&service.extra_hosts),
        group_add: list(&service.group_add),
        ipc_mode: service.ipc.as_ref().map(|mode| mode_text(mode, around)),
        links: (!links.is_empty()).then_some(links),
        oom_score_adj: service.oom_score_adj,
        pid_mode: service.pid.as_ref().map(|mode| mode_text(mode, around)),
        privileged: Some(service.privileged),
        readonly_rootfs: Some(service.read_only),
        security_opt: list(&service.security_opt),
        storage_opt: map(&service.storage_opt),
        uts_mode: service.uts.clone(),
        userns_mode: service.userns_mode.clone(),
        shm_size: service.shm_size,
        sysctls: map(&service.sysctls),
        runtime: service.runtime.clone(),
        isolation: service.isolation.as_deref().and_then(|kind| HostConfigIsolationEnum::from_str(kind).ok()),
        ..HostConfig::default()
    };
    mounts::mounts(service, around, &mut host);
    host
}

#[cfg(test)]
mod tests {
    use fleet::compose::model::{Mount, Network, Port};

    use super::*;

    fn around<'a>(project: &'a Project, empty: &'a BTreeMap<String, String>) -> Surroundings<'a> {
        Surroundings {
            project,
            image_id: "sha256:1",
            images: empty,
            labels: HashMap::new(),
            folder: Some(PathBuf::from("/store/apps/p/d")),
            refers: empty,
            inherited: empty,
        }
    }

    #[test]
    fn one_network_now_the_others_later() {
        let network = |name: &str| Network { name: name.to_owned(), ..Network::default() };
        let mut service = Service { replicas: 1, ..Service::default() };
        service.networks.insert("a".to_owned(), Attachment::default());
        service.networks.insert("b".to_owned(), Attachment { priority: 5, ..Attachment::default() });
        let project = Project {
            name: "p".to_owned(),
            services: [("web".to_owned(), service.clone())].into(),
            networks: [("a".to_owned(), network("p_a")), ("b".to_owned(), network("p_b"))].into(),
            volumes: BTreeMap::new(),
        };
        let empty = BTreeMap::new();
        let (body, rest) = container("web", &service, &around(&project, &empty));
        assert_eq!(body.host_config.unwrap().network_mode.as_deref(), Some("p_b"));
        assert_eq!(rest.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["p_a"]);
        assert_eq!(rest[0].1.aliases.as_deref(), Some(&["web".to_owned()][..]));
    }

    #[test]
    fn mounts_and_ports() {
        let bind = |create_host_path| MountSource::Bind {
            path: "/srv".to_owned(),
            create_host_path,
            propagation: None,
            selinux: None,
            recursive: None,
        };
        let mount = |target: &str, source| Mount { target: target.to_owned(), read_only: true, source };
        let service = Service {
            ports: vec![Port {
                target: 80,
                protocol: "tcp".to_owned(),
                host_ip: None,
                published: Some("8080".to_owned()),
            }],
            expose: vec!["90".to_owned()],
            mounts: vec![
                mount("/a", bind(true)),
                mount("/b", bind(false)),
                mount("/c", MountSource::Tmpfs { size: Some(65536), mode: Some(0o1777), options: vec![] }),
            ],
            ..Service::default()
        };
        let project = Project {
            name: "p".to_owned(),
            services: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        };
        let empty = BTreeMap::new();
        let (body, _) = container("web", &service, &around(&project, &empty));
        let host = body.host_config.unwrap();
        assert_eq!(body.exposed_ports.unwrap(), ["80/tcp", "90/tcp"]);
        assert_eq!(host.binds.unwrap(), ["/srv:/a:ro"]);
        assert_eq!(host.mounts.unwrap()[0].source.as_deref(), Some("/srv"));
        assert_eq!(host.tmpfs.unwrap()["/c"], "size=65536,mode=1777,ro");
    }
}
