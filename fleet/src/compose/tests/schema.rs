//! Every key that the specification's own schema knows is honoured or named: none is dropped.
//!
//! The schema is walked from its root. For each key there is a pair of files, without it and with it: either the
//! project differs, or a finding names the key. Where a key is refused or ignored, so is everything below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::read_files;

/// Below `services.*`: the key, a service's lines without it, and with it.
const SERVICE: &[(&str, &str, &str)] = &[
    ("annotations", "", "annotations: {a: b}"),
    ("attach", "", "attach: false"),
    (
        "blkio_config.device_read_bps.path",
        "blkio_config: {device_read_bps: [{path: /a, rate: 1}]}",
        "blkio_config: {device_read_bps: [{path: /b, rate: 1}]}",
    ),
    (
        "blkio_config.device_read_bps.rate",
        "blkio_config: {device_read_bps: [{path: /a, rate: 1}]}",
        "blkio_config: {device_read_bps: [{path: /a, rate: 2}]}",
    ),
    (
        "blkio_config.device_read_iops.path",
        "blkio_config: {device_read_iops: [{path: /a, rate: 1}]}",
        "blkio_config: {device_read_iops: [{path: /b, rate: 1}]}",
    ),
    (
        "blkio_config.device_read_iops.rate",
        "blkio_config: {device_read_iops: [{path: /a, rate: 1}]}",
        "blkio_config: {device_read_iops: [{path: /a, rate: 2}]}",
    ),
    (
        "blkio_config.device_write_bps.path",
        "blkio_config: {device_write_bps: [{path: /a, rate: 1}]}",
        "blkio_config: {device_write_bps: [{path: /b, rate: 1}]}",
    ),
    (
        "blkio_config.device_write_bps.rate",
        "blkio_config: {device_write_bps: [{path: /a, rate: 1}]}",
        "blkio_config: {device_write_bps: [{path: /a, rate: 2}]}",
    ),
    (
        "blkio_config.device_write_iops.path",
        "blkio_config: {device_write_iops: [{path: /a, rate: 1}]}",
        "blkio_config: {device_write_iops: [{path: /b, rate: 1}]}",
    ),
    (
        "blkio_config.device_write_iops.rate",
        "blkio_config: {device_write_iops: [{path: /a, rate: 1}]}",
        "blkio_config: {device_write_iops: [{path: /a, rate: 2}]}",
    ),
    ("blkio_config.weight", "", "blkio_config: {weight: 10}"),
    (
        "blkio_config.weight_device.path",
        "blkio_config: {weight_device: [{path: /a, weight: 10}]}",
        "blkio_config: {weight_device: [{path: /b, weight: 10}]}",
    ),
    (
        "blkio_config.weight_device.weight",
        "blkio_config: {weight_device: [{path: /a, weight: 10}]}",
        "blkio_config: {weight_device: [{path: /a, weight: 11}]}",
    ),
    ("build", "", "build: ."),
    ("cap_add", "", "cap_add: [A]"),
    ("cap_drop", "", "cap_drop: [A]"),
    ("cgroup", "", "cgroup: host"),
    ("cgroup_parent", "", "cgroup_parent: x"),
    ("command", "", "command: x"),
    ("configs.gid", "configs: [{source: c}]", "configs: [{source: c, gid: '1'}]"),
    ("configs.mode", "configs: [{source: c}]", "configs: [{source: c, mode: 0400}]"),
    ("configs.source", "", "configs: [{source: c}]"),
    ("configs.target", "configs: [{source: c}]", "configs: [{source: c, target: /t}]"),
    ("configs.uid", "configs: [{source: c}]", "configs: [{source: c, uid: '1'}]"),
    ("container_name", "", "container_name: xyz"),
    ("cpu_count", "", "cpu_count: 1"),
    ("cpu_percent", "", "cpu_percent: 1"),
    ("cpu_period", "", "cpu_period: 1000"),
    ("cpu_quota", "", "cpu_quota: 1000"),
    ("cpu_rt_period", "", "cpu_rt_period: 1000"),
    ("cpu_rt_runtime", "", "cpu_rt_runtime: 1000"),
    ("cpu_shares", "", "cpu_shares: 5"),
    ("cpus", "", "cpus: 1"),
    ("cpuset", "", "cpuset: 0-1"),
    ("credential_spec", "", "credential_spec: {file: x}"),
    (
        "depends_on.*.condition",
        "depends_on: {db: {condition: service_started}}",
        "depends_on: {db: {condition: service_healthy}}",
    ),
    (
        "depends_on.*.required",
        "depends_on: {db: {condition: service_started}}",
        "depends_on: {db: {condition: service_started, required: false}}",
    ),
    (
        "depends_on.*.restart",
        "depends_on: {db: {condition: service_started}}",
        "depends_on: {db: {condition: service_started, restart: true}}",
    ),
    ("deploy.endpoint_mode", "", "deploy: {endpoint_mode: vip}"),
    ("deploy.labels", "", "deploy: {labels: {a: b}}"),
    ("deploy.mode", "", "deploy: {mode: global}"),
    ("deploy.placement", "", "deploy: {placement: {constraints: [a]}}"),
    ("deploy.replicas", "", "deploy: {replicas: 2}"),
    ("deploy.resources.limits.cpus", "", "deploy: {resources: {limits: {cpus: 1}}}"),
    ("deploy.resources.limits.memory", "", "deploy: {resources: {limits: {memory: 1g}}}"),
    ("deploy.resources.limits.pids", "", "deploy: {resources: {limits: {pids: 1}}}"),
    ("deploy.resources.reservations.cpus", "", "deploy: {resources: {reservations: {cpus: 1}}}"),
    (
        "deploy.resources.reservations.devices.capabilities",
        "",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
    ),
    (
        "deploy.resources.reservations.devices.count",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}",
    ),
    (
        "deploy.resources.reservations.devices.device_ids",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], device_ids: [a]}]}}}",
    ),
    (
        "deploy.resources.reservations.devices.driver",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], driver: d}]}}}",
    ),
    (
        "deploy.resources.reservations.devices.options",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], options: [a=b]}]}}}",
    ),
    (
        "deploy.resources.reservations.generic_resources",
        "",
        "deploy: {resources: {reservations: {generic_resources: []}}}",
    ),
    ("deploy.resources.reservations.memory", "", "deploy: {resources: {reservations: {memory: 1g}}}"),
    ("deploy.restart_policy.condition", "", "deploy: {restart_policy: {condition: any}}"),
    ("deploy.restart_policy.delay", "", "deploy: {restart_policy: {delay: 1s}}"),
    (
        "deploy.restart_policy.max_attempts",
        "deploy: {restart_policy: {condition: on-failure}}",
        "deploy: {restart_policy: {condition: on-failure, max_attempts: 1}}",
    ),
    ("deploy.restart_policy.window", "", "deploy: {restart_policy: {window: 1s}}"),
    ("deploy.rollback_config", "", "deploy: {rollback_config: {delay: 1s}}"),
    ("deploy.update_config.delay", "", "deploy: {update_config: {delay: 1s}}"),
    ("deploy.update_config.failure_action", "", "deploy: {update_config: {failure_action: pause}}"),
    ("deploy.update_config.max_failure_ratio", "", "deploy: {update_config: {max_failure_ratio: 1}}"),
    ("deploy.update_config.monitor", "", "deploy: {update_config: {monitor: 1s}}"),
    ("deploy.update_config.order", "", "deploy: {update_config: {order: start-first}}"),
    ("deploy.update_config.parallelism", "", "deploy: {update_config: {parallelism: 1}}"),
    ("develop", "", "develop: {watch: []}"),
    ("device_cgroup_rules", "", "device_cgroup_rules: [a]"),
    ("devices.permissions", "devices: [{source: /a}]", "devices: [{source: /a, permissions: r}]"),
    ("devices.source", "", "devices: [{source: /a}]"),
    ("devices.target", "devices: [{source: /a}]", "devices: [{source: /a, target: /b}]"),
    ("dns", "", "dns: 1.1.1.1"),
    ("dns_opt", "", "dns_opt: [a]"),
    ("dns_search", "", "dns_search: a"),
    ("domainname", "", "domainname: a"),
    ("entrypoint", "", "entrypoint: a"),
    ("env_file.format", "env_file: [{path: x.env}]", "env_file: [{path: x.env, format: raw}]"),
    ("env_file.path", "", "env_file: [{path: x.env}]"),
    ("env_file.required", "", "env_file: [{path: none.env, required: true}]"),
    ("environment", "", "environment: {A: b}"),
    ("expose", "", "expose: [1]"),
    ("extends.file", "", "extends: {service: o, file: other.yaml}"),
    ("extends.service", "", "extends: {service: labelled}"),
    ("external_links", "", "external_links: [a]"),
    ("extra_hosts", "", "extra_hosts: {a: 1.1.1.1}"),
    ("gpus.capabilities", "gpus: [{}]", "gpus: [{capabilities: [utility]}]"),
    ("gpus.count", "gpus: [{}]", "gpus: [{count: 1}]"),
    ("gpus.device_ids", "gpus: [{}]", "gpus: [{device_ids: [a]}]"),
    ("gpus.driver", "gpus: [{}]", "gpus: [{driver: a}]"),
    ("gpus.options", "gpus: [{}]", "gpus: [{options: {a: b}}]"),
    ("group_add", "", "group_add: [1]"),
    ("healthcheck.disable", "", "healthcheck: {disable: true}"),
    ("healthcheck.interval", "healthcheck: {}", "healthcheck: {interval: 1s}"),
    ("healthcheck.retries", "healthcheck: {}", "healthcheck: {retries: 1}"),
    ("healthcheck.start_interval", "healthcheck: {}", "healthcheck: {start_interval: 1s}"),
    ("healthcheck.start_period", "healthcheck: {}", "healthcheck: {start_period: 1s}"),
    ("healthcheck.test", "healthcheck: {}", "healthcheck: {test: a}"),
    ("healthcheck.timeout", "healthcheck: {}", "healthcheck: {timeout: 1s}"),
    ("hostname", "", "hostname: a"),
    ("image", "", "image: other"),
    ("init", "", "init: true"),
    ("ipc", "", "ipc: host"),
    ("isolation", "", "isolation: a"),
    ("label_file", "", "label_file: x.env"),
    ("labels", "", "labels: {a: b}"),
    ("links", "", "links: [db]"),
    ("logging.driver", "", "logging: {driver: a}"),
    ("logging.options", "logging: {}", "logging: {options: {a: b}}"),
    ("mac_address", "", "mac_address: a"),
    ("mem_limit", "", "mem_limit: 1g"),
    ("mem_reservation", "", "mem_reservation: 1g"),
    ("mem_swappiness", "", "mem_swappiness: 1"),
    ("memswap_limit", "", "memswap_limit: 1g"),
    ("models", "", "models: [a]"),
    ("network_mode", "", "network_mode: host"),
    ("networks.*.aliases", "networks: {front: }", "networks: {front: {aliases: [a]}}"),
    ("networks.*.driver_opts", "networks: {front: }", "networks: {front: {driver_opts: {a: 1}}}"),
    ("networks.*.gw_priority", "networks: {front: }", "networks: {front: {gw_priority: 1}}"),
    ("networks.*.interface_name", "networks: {front: }", "networks: {front: {interface_name: a}}"),
    ("networks.*.ipv4_address", "networks: {front: }", "networks: {front: {ipv4_address: 1.1.1.1}}"),
    ("networks.*.ipv6_address", "networks: {front: }", "networks: {front: {ipv6_address: '::1'}}"),
    ("networks.*.link_local_ips", "networks: {front: }", "networks: {front: {link_local_ips: [1.1.1.1]}}"),
    ("networks.*.mac_address", "networks: {front: }", "networks: {front: {mac_address: a}}"),
    ("networks.*.priority", "networks: {front: }", "networks: {front: {priority: 1}}"),
    ("oom_kill_disable", "", "oom_kill_disable: true"),
    ("oom_score_adj", "", "oom_score_adj: 1"),
    ("pid", "", "pid: host"),
    ("pids_limit", "", "pids_limit: 1"),
    ("platform", "", "platform: linux/arm64"),
    ("ports.app_protocol", "ports: [{target: 1}]", "ports: [{target: 1, app_protocol: http}]"),
    ("ports.host_ip", "ports: [{target: 1}]", "ports: [{target: 1, host_ip: 1.1.1.1}]"),
    ("ports.mode", "ports: [{target: 1}]", "ports: [{target: 1, mode: other}]"),
    ("ports.name", "ports: [{target: 1}]", "ports: [{target: 1, name: a}]"),
    ("ports.protocol", "ports: [{target: 1}]", "ports: [{target: 1, protocol: udp}]"),
    ("ports.published", "ports: [{target: 1}]", "ports: [{target: 1, published: 2}]"),
    ("ports.target", "ports: [{target: 1}]", "ports: [{target: 2}]"),
    ("post_start", "", "post_start: [{command: a}]"),
    ("pre_start", "", "pre_start: [{command: a}]"),
    ("pre_stop", "", "pre_stop: [{command: a}]"),
    ("privileged", "", "privileged: true"),
    ("profiles", "", "profiles: [off]"),
    ("provider", "", "provider: {type: a}"),
    ("pull_policy", "", "pull_policy: always"),
    ("pull_refresh_after", "", "pull_refresh_after: 1d"),
    ("read_only", "", "read_only: true"),
    ("restart", "", "restart: always"),
    ("runtime", "", "runtime: a"),
    ("scale", "", "scale: 2"),
    ("secrets.gid", "secrets: [{source: s}]", "secrets: [{source: s, gid: '1'}]"),
    ("secrets.mode", "secrets: [{source: s}]", "secrets: [{source: s, mode: 0400}]"),
    ("secrets.source", "", "secrets: [{source: s}]"),
    ("secrets.target", "secrets: [{source: s}]", "secrets: [{source: s, target: t}]"),
    ("secrets.uid", "secrets: [{source: s}]", "secrets: [{source: s, uid: '1'}]"),
    ("security_opt", "", "security_opt: [a]"),
    ("shm_size", "", "shm_size: 1g"),
    ("stdin_open", "", "stdin_open: true"),
    ("stop_grace_period", "", "stop_grace_period: 1s"),
    ("stop_signal", "", "stop_signal: SIGINT"),
    ("storage_opt", "", "storage_opt: {size: 1g}"),
    ("sysctls", "", "sysctls: {a: 1}"),
    ("tmpfs", "", "tmpfs: /a"),
    ("tty", "", "tty: true"),
    ("ulimits.*.hard", "ulimits: {nproc: {soft: 1, hard: 1}}", "ulimits: {nproc: {soft: 1, hard: 2}}"),
    ("ulimits.*.soft", "ulimits: {nproc: {soft: 1, hard: 2}}", "ulimits: {nproc: {soft: 2, hard: 2}}"),
    ("use_api_socket", "", "use_api_socket: true"),
    ("user", "", "user: a"),
    ("userns_mode", "", "userns_mode: host"),
    ("uts", "", "uts: host"),
    (
        "volumes.bind.create_host_path",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /a, target: /b, bind: {create_host_path: false}}]",
    ),
    (
        "volumes.bind.propagation",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /a, target: /b, bind: {propagation: shared}}]",
    ),
    (
        "volumes.bind.recursive",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /a, target: /b, bind: {recursive: disabled}}]",
    ),
    (
        "volumes.bind.selinux",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /a, target: /b, bind: {selinux: z}}]",
    ),
    (
        "volumes.consistency",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /a, target: /b, consistency: cached}]",
    ),
    (
        "volumes.image.subpath",
        "volumes: [{type: image, source: a, target: /b}]",
        "volumes: [{type: image, source: a, target: /b, image: {subpath: c}}]",
    ),
    (
        "volumes.read_only",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /a, target: /b, read_only: true}]",
    ),
    (
        "volumes.source",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /c, target: /b}]",
    ),
    (
        "volumes.target",
        "volumes: [{type: bind, source: /a, target: /b}]",
        "volumes: [{type: bind, source: /a, target: /c}]",
    ),
    (
        "volumes.tmpfs.mode",
        "volumes: [{type: tmpfs, target: /b}]",
        "volumes: [{type: tmpfs, target: /b, tmpfs: {mode: 0700}}]",
    ),
    (
        "volumes.tmpfs.size",
        "volumes: [{type: tmpfs, target: /b}]",
        "volumes: [{type: tmpfs, target: /b, tmpfs: {size: 1m}}]",
    ),
    ("volumes.type", "volumes: [{type: tmpfs, target: /b}]", "volumes: [{type: volume, target: /b}]"),
    (
        "volumes.volume.labels",
        "volumes: [{type: volume, source: data, target: /b}]",
        "volumes: [{type: volume, source: data, target: /b, volume: {labels: [a=b]}}]",
    ),
    (
        "volumes.volume.nocopy",
        "volumes: [{type: volume, source: data, target: /b}]",
        "volumes: [{type: volume, source: data, target: /b, volume: {nocopy: true}}]",
    ),
    (
        "volumes.volume.subpath",
        "volumes: [{type: volume, source: data, target: /b}]",
        "volumes: [{type: volume, source: data, target: /b, volume: {subpath: a}}]",
    ),
    ("volumes_from", "", "volumes_from: [db]"),
    ("working_dir", "", "working_dir: /a"),
];

/// Elsewhere: the key, the rest of a file without it, and with it. `web` uses network `n`, volume `v`, config `k` and
/// secret `t`.
const DECLARED: &[(&str, &str, &str)] = &[
    ("configs.*.content", "configs: {k: {content: a}}", "configs: {k: {content: b}}"),
    ("configs.*.environment", "configs: {k: {content: a}}", "configs: {k: {environment: S}}"),
    ("configs.*.external", "configs: {k: {content: a}}", "configs: {k: {external: true}}"),
    ("configs.*.file", "configs: {k: {content: a}}", "configs: {k: {file: x.env}}"),
    ("configs.*.labels", "configs: {k: {content: a}}", "configs: {k: {content: a, labels: {a: b}}}"),
    ("configs.*.name", "configs: {k: {content: a}}", "configs: {k: {content: a, name: b}}"),
    ("configs.*.template_driver", "configs: {k: {content: a}}", "configs: {k: {content: a, template_driver: b}}"),
    ("include.env_file", "include: [{path: inc.yaml}]", "include: [{path: inc.yaml, env_file: x.env}]"),
    ("include.path", "", "include: [{path: inc.yaml}]"),
    ("include.project_directory", "include: [{path: inc.yaml}]", "include: [{path: inc.yaml, project_directory: sub}]"),
    ("models", "", "models: {m: {model: a}}"),
    ("name", "", "name: other"),
    ("networks.*.attachable", "networks: {n: }", "networks: {n: {attachable: true}}"),
    ("networks.*.driver", "networks: {n: }", "networks: {n: {driver: a}}"),
    ("networks.*.driver_opts", "networks: {n: }", "networks: {n: {driver_opts: {a: 1}}}"),
    ("networks.*.enable_ipv4", "networks: {n: }", "networks: {n: {enable_ipv4: false}}"),
    ("networks.*.enable_ipv6", "networks: {n: }", "networks: {n: {enable_ipv6: true}}"),
    ("networks.*.external.name", "networks: {n: {external: true}}", "networks: {n: {external: {name: a}}}"),
    ("networks.*.internal", "networks: {n: }", "networks: {n: {internal: true}}"),
    (
        "networks.*.ipam.config.aux_addresses",
        "networks: {n: {ipam: {config: [{}]}}}",
        "networks: {n: {ipam: {config: [{aux_addresses: {a: 1.1.1.1}}]}}}",
    ),
    (
        "networks.*.ipam.config.gateway",
        "networks: {n: {ipam: {config: [{}]}}}",
        "networks: {n: {ipam: {config: [{gateway: 1.1.1.1}]}}}",
    ),
    (
        "networks.*.ipam.config.ip_range",
        "networks: {n: {ipam: {config: [{}]}}}",
        "networks: {n: {ipam: {config: [{ip_range: 1.1.0.0/16}]}}}",
    ),
    (
        "networks.*.ipam.config.subnet",
        "networks: {n: {ipam: {config: [{}]}}}",
        "networks: {n: {ipam: {config: [{subnet: 1.1.0.0/16}]}}}",
    ),
    ("networks.*.ipam.driver", "networks: {n: }", "networks: {n: {ipam: {driver: a}}}"),
    ("networks.*.ipam.options", "networks: {n: }", "networks: {n: {ipam: {options: {a: b}}}}"),
    ("networks.*.labels", "networks: {n: }", "networks: {n: {labels: [a=b]}}"),
    ("networks.*.name", "networks: {n: }", "networks: {n: {name: a}}"),
    ("secrets.*.driver", "secrets: {t: {environment: S}}", "secrets: {t: {environment: S, driver: a}}"),
    ("secrets.*.driver_opts", "secrets: {t: {environment: S}}", "secrets: {t: {environment: S, driver_opts: {a: b}}}"),
    ("secrets.*.environment", "secrets: {t: {file: x.env}}", "secrets: {t: {environment: S}}"),
    ("secrets.*.external", "secrets: {t: {environment: S}}", "secrets: {t: {external: true}}"),
    ("secrets.*.file", "secrets: {t: {environment: S}}", "secrets: {t: {file: x.env}}"),
    ("secrets.*.labels", "secrets: {t: {environment: S}}", "secrets: {t: {environment: S, labels: [a]}}"),
    ("secrets.*.name", "secrets: {t: {environment: S}}", "secrets: {t: {environment: S, name: a}}"),
    (
        "secrets.*.template_driver",
        "secrets: {t: {environment: S}}",
        "secrets: {t: {environment: S, template_driver: a}}",
    ),
    ("version", "", "version: '3'"),
    ("volumes.*.driver", "volumes: {v: }", "volumes: {v: {driver: a}}"),
    ("volumes.*.driver_opts", "volumes: {v: }", "volumes: {v: {driver_opts: {a: 1}}}"),
    ("volumes.*.external.name", "volumes: {v: {external: true}}", "volumes: {v: {external: {name: a}}}"),
    ("volumes.*.labels", "volumes: {v: }", "volumes: {v: {labels: {a: b}}}"),
    ("volumes.*.name", "volumes: {v: }", "volumes: {v: {name: a}}"),
];

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/examples/compose/compose-spec.schema.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("the schema is missing: {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The keys of a service, for other tests.
pub(super) fn service_keys() -> Vec<String> {
    schema()["$defs"]["service"]["properties"].as_object().unwrap().keys().cloned().collect()
}

/// The keys directly below a schema, references followed, every alternative taken together.
fn below(root: &Value, schema: &Value, keys: &mut BTreeMap<String, Vec<Value>>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        below(root, &root["$defs"][name], keys);
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        keys.entry(key.clone()).or_default().push(value.clone());
    }
    for (pattern, value) in schema["patternProperties"].as_object().into_iter().flatten() {
        // A pattern over single values is a mapping of texts, which is one value here.
        let mut inner = BTreeMap::new();
        below(root, value, &mut inner);
        if pattern != "^x-" && !inner.is_empty() {
            keys.entry("*".to_owned()).or_default().push(value.clone());
        }
    }
    for alternative in ["oneOf", "anyOf"] {
        for value in schema[alternative].as_array().into_iter().flatten() {
            below(root, value, keys);
        }
    }
    if schema["items"].is_object() {
        below(root, &schema["items"], keys);
    }
}

/// What happens to a key: named by a finding, or seen in the project.
fn named(path: &str, without: &str, with: &str) -> Result<bool, String> {
    let files = |yaml: &str| {
        let files = [
            ("compose.yaml", yaml),
            ("x.env", "A='1'\nTAG=file"),
            ("other.yaml", "services: {o: {image: w, user: o}}"),
            ("inc.yaml", "services: {inc: {image: 'i:${TAG:-none}', volumes: ['./y:/y']}}"),
            ("y", "1"),
            ("sub/y", "2"),
        ];
        read_files(&files, &[("S", "secret")])
    };
    let base = files(without).map_err(|errors| format!("{path}: without it: {errors:#?}"))?;
    let name = path.replace(".*", "");
    let key = name.rsplit('.').next().unwrap().to_owned();
    let names = |message: &str| {
        let said = message.split(": warning: ").last().unwrap_or(message);
        // The key at the end of a path, or before one of its own children.
        said.split([' ', ':']).any(|word| word.split('.').any(|part| part == key))
    };
    match files(with) {
        Err(errors) if errors.iter().any(|error| names(error)) => Ok(true),
        Err(errors) => Err(format!("{path}: no finding names it: {errors:#?}")),
        Ok(read) if read.project != base.project => Ok(false),
        Ok(read) if read.notes.iter().any(|note| names(&note.to_string())) => Ok(true),
        Ok(_) => Err(format!("{path}: dropped in silence")),
    }
}

#[test]
fn every_key_is_honoured_or_named() {
    let schema = schema();
    let mut rows: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (path, without, with) in SERVICE {
        let file = |lines: &str| {
            let image = if lines.starts_with("image:") || lines.starts_with("build:") { "" } else { "image: w, " };
            // A flow mapping may hold the lines as they are.
            format!(
                "services:\n  web: {{{image}{lines}}}\n  db: {{image: d}}\n  labelled: {{image: w, labels: [x]}}\n\
                 networks: {{front: }}\nvolumes: {{data: }}\nconfigs: {{c: {{content: x}}}}\nsecrets: {{s: {{environment: S}}}}\n"
            )
        };
        rows.insert(format!("services.*.{path}"), (file(without), file(with)));
    }
    for (path, without, with) in DECLARED {
        let file = |lines: &str| {
            let mut web = "image: w".to_owned();
            for (section, usage) in
                [("networks", "[n]"), ("volumes", "['v:/v']"), ("configs", "[k]"), ("secrets", "[t]")]
            {
                if lines.starts_with(section) {
                    web += &format!(", {section}: {usage}");
                }
            }
            format!("services: {{web: {{{web}}}}}\n{lines}\n")
        };
        rows.insert((*path).to_owned(), (file(without), file(with)));
    }
    let mut problems = Vec::new();
    let mut met = BTreeSet::new();
    let mut open = vec![(String::new(), vec![schema.clone()])];
    let mut count = 0;
    while let Some((path, schemas)) = open.pop() {
        let mut keys = BTreeMap::new();
        schemas.iter().for_each(|value| below(&schema, value, &mut keys));
        if let Some((without, with)) = rows.get(&path) {
            met.insert(path.clone());
            count += 1;
            match named(&path, without, with) {
                // What is refused or ignored takes everything below with it.
                Ok(true) => continue,
                Ok(false) => {}
                Err(problem) => problems.push(problem),
            }
        } else if keys.is_empty() {
            problems.push(format!("{path}: no sample: is it honoured?"));
        }
        for (key, values) in keys {
            open.push((if path.is_empty() { key } else { format!("{path}.{key}") }, values));
        }
    }
    for path in rows.keys().filter(|path| !met.contains(*path)) {
        problems.push(format!("{path}: the schema has no such key"));
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(count > 180, "only {count} keys were met");
}

/// `docs/compose.md` lists the same keys.
#[test]
fn every_key_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compose.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let missing: Vec<_> = service_keys().into_iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/compose.md does not mention {missing:?}");
}
