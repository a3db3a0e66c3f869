//! Every key of a service and of what is declared beside it, in each of its forms.

use super::{dict, project, read_files, texts, web, web_file};
use crate::compose::model::{Condition, FailureAction, Mode, PullPolicy, Restart, Service, Ulimit};

#[test]
fn the_least() {
    let project = project("services: {web: {image: 'docker.io/library/nginx:1@sha256:abc'}}");
    assert_eq!(project.name, "pos");
    let web = &project.services["web"];
    assert_eq!(web.image, "docker.io/library/nginx:1@sha256:abc");
    assert_eq!((web.replicas, web.restart, web.pull_policy), (1, Restart::No, PullPolicy::Missing));
    assert_eq!(web.networks.keys().collect::<Vec<_>>(), ["default"]);
    assert_eq!(project.networks["default"].name, "pos_default");
    assert!(project.volumes.is_empty());
}

#[test]
fn commands() {
    let cases: [(&str, Option<&[&str]>); 6] = [
        ("command: sh -c 'a  b'", Some(&["sh", "-c", "a  b"])),
        ("command: [sh, -c, 'a b']", Some(&["sh", "-c", "a b"])),
        ("command: []", Some(&[])),
        ("command: ''", Some(&[])),
        ("command:", None),
        ("command: echo $$HOME", Some(&["echo", "$HOME"])),
    ];
    for (lines, want) in cases {
        assert_eq!(web(lines).command, want.map(texts), "{lines}");
        let entrypoint = web(&lines.replace("command", "entrypoint")).entrypoint;
        assert_eq!(entrypoint, want.map(texts), "{lines}");
    }
}

#[test]
fn plain_keys() {
    let web = web("\
platform: linux/arm64
user: '1000:1000'
group_add: [audio, 44]
working_dir: /app
hostname: h
domainname: d.example
mac_address: 02:42:ac:11:65:43
init: true
tty: yes
stdin_open: 'true'
read_only: true
privileged: true
restart: on-failure:3
stop_signal: SIGINT
stop_grace_period: 1m30s
pid: host
ipc: shareable
uts: host
userns_mode: host
cgroup: private
cgroup_parent: m
runtime: runc
isolation: default
pull_policy: always
cap_add: [NET_ADMIN]
cap_drop: [ALL]
device_cgroup_rules: ['c 1:3 mr']
dns: 1.1.1.1
dns_opt: [use-vc]
dns_search: [a.example, b.example]
security_opt: [no-new-privileges]
storage_opt: {size: 1G}
oom_kill_disable: true
oom_score_adj: -500
shm_size: 64m
external_links: [other, db:database]
annotations: [a=b]
labels: {c: 1}
profiles: []
scale: 2
sysctls: {net.core.somaxconn: 1024}");
    assert_eq!(web.platform.as_deref(), Some("linux/arm64"));
    assert_eq!(web.user.as_deref(), Some("1000:1000"));
    assert_eq!(web.group_add, ["audio", "44"]);
    assert_eq!(
        (web.init, web.tty, web.stdin_open, web.read_only, web.privileged),
        (Some(true), true, true, true, true)
    );
    assert_eq!(web.restart, Restart::OnFailure { max_retries: Some(3) });
    assert_eq!(web.stop_grace_period_ms, Some(90_000));
    assert_eq!((web.pid, web.ipc), (Some(Mode::Named("host".into())), Some(Mode::Named("shareable".into()))));
    assert_eq!(web.pull_policy, PullPolicy::Always);
    assert_eq!((web.dns, web.dns_search), (texts(&["1.1.1.1"]), texts(&["a.example", "b.example"])));
    assert_eq!((web.shm_size, web.oom_score_adj, web.replicas), (Some(64 << 20), Some(-500), 2));
    assert_eq!((web.annotations, web.labels), (dict(&[("a", "b")]), dict(&[("c", "1")])));
    assert_eq!(web.sysctls, dict(&[("net.core.somaxconn", "1024")]));
}

#[test]
fn environments() {
    let vars = [("FROM_SCOPE", "s"), ("N", "7")];
    let files = [
        ("a.env", "A=file\nB=file $N\nC='lit $N'\n"),
        ("b.env", "B=second"),
        ("raw.env", "R=\"$x\""),
        (
            "compose.yaml",
            &web_file(
                "env_file: [a.env, {path: ./b.env, required: true}, {path: raw.env, format: raw}, {path: no.env, required: false}]
environment:
  A: mapping
  NUMBER: 1.10
  OCTAL: 0755
  FLAG: TRUE
  QUOTED: '1.10'
  FROM_SCOPE:
  NOWHERE:
  EMPTY: ''
  VAR: ${N}.10",
            ),
        ),
    ];
    let read = read_files(&files, &vars).unwrap();
    let want = [
        ("A", "mapping"),
        ("B", "second"),
        ("C", "lit $N"),
        ("R", "\"$x\""),
        ("NUMBER", "1.1"),
        ("OCTAL", "493"),
        ("FLAG", "true"),
        ("QUOTED", "1.10"),
        ("FROM_SCOPE", "s"),
        ("EMPTY", ""),
        ("VAR", "7.10"),
    ];
    assert_eq!(read.project.services["web"].environment, dict(&want));
    let list = web("environment: [A=b=c, 'D=', E]");
    assert_eq!(list.environment, dict(&[("A", "b=c"), ("D", "")]));
    let labels =
        read_files(&[("l.env", "a=1\nb=2"), ("compose.yaml", &web_file("label_file: ./l.env\nlabels: [b=3]"))], &[]);
    assert_eq!(labels.unwrap().project.services["web"].labels, dict(&[("a", "1"), ("b", "3")]));
}

#[test]
fn published_ports() {
    let web = web("\
ports:
  - 80
  - '127.0.0.1:8443:443'
  - 53:53/udp
  - {target: 90, published: '9090', host_ip: '::1', protocol: udp, mode: host}
  - {target: 91, published: 9100-9110}
  - {target: 92}
expose: [3000, '4000-4001', 53/udp, 3000]");
    let shown: Vec<_> = web
        .ports
        .iter()
        .map(|p| {
            let (ip, published) = (p.host_ip.as_deref().unwrap_or("*"), p.published.as_deref().unwrap_or("any"));
            format!("{ip} {published}>{}/{}", p.target, p.protocol)
        })
        .collect();
    let want = [
        "* any>80/tcp",
        "127.0.0.1 8443>443/tcp",
        "* 53>53/udp",
        "::1 9090>90/udp",
        "* 9100-9110>91/tcp",
        "* any>92/tcp",
    ];
    assert_eq!(shown, want);
    assert_eq!(web.expose, ["3000", "4000", "4001", "53/udp"]);
}

#[test]
fn resources_and_updates() {
    let web = web("\
deploy:
  mode: replicated
  replicas: 3
  update_config: {order: start-first, monitor: 10s, failure_action: continue, parallelism: 2, delay: 1s}
  restart_policy: {condition: on-failure, max_attempts: 4}
  resources:
    limits: {cpus: '0.5', memory: 1.5G, pids: 100}
    reservations:
      memory: 64m
      devices: [{driver: nvidia, count: 2, capabilities: [gpu, compute], options: {a: b}}]
cpu_shares: 512
cpu_period: 100ms
cpu_quota: 50000
cpu_rt_period: 1s
cpu_rt_runtime: 950ms
cpuset: 0-1
mem_swappiness: 10
memswap_limit: -1
gpus: [{device_ids: ['0']}]
blkio_config:
  weight: 300
  weight_device: [{path: /dev/sda, weight: 400}]
  device_read_bps: [{path: /dev/sda, rate: 12mb}]
  device_read_iops: [{path: /dev/sda, rate: 120}]
  device_write_bps: [{path: /dev/sda, rate: 1024}]
  device_write_iops: [{path: /dev/sda, rate: 30}]");
    let r = &web.resources;
    assert_eq!((r.nano_cpus, r.memory, r.pids), (Some(500_000_000), Some(1_610_612_736), Some(100)));
    assert_eq!((r.memory_reservation, r.memory_swap, r.memory_swappiness), (Some(64 << 20), Some(-1), Some(10)));
    assert_eq!((r.cpu_period, r.cpu_quota, r.cpu_rt_runtime), (Some(100_000), Some(50_000), Some(950_000)));
    assert_eq!((r.blkio_weight, &r.device_read_bps), (Some(300), &vec![("/dev/sda".to_owned(), 12 << 20)]));
    assert_eq!((r.gpus[0].count, r.gpus[0].capabilities.as_slice()), (None, &texts(&["gpu"])[..]));
    assert_eq!((r.gpus[1].count, r.gpus[1].driver.as_deref()), (Some(2), Some("nvidia")));
    assert_eq!((web.replicas, web.restart), (3, Restart::OnFailure { max_retries: Some(4) }));
    let update = &web.update;
    assert!(update.start_first);
    assert_eq!((update.monitor_ms, update.failure_action), (Some(10_000), FailureAction::Continue));
    assert_eq!((update.parallelism, update.delay_ms), (Some(2), Some(1000)));
    let older = super::web("cpus: 0.25\nmem_limit: 10m\nmem_reservation: 5m\npids_limit: -1\ngpus: all").resources;
    assert_eq!((older.nano_cpus, older.memory), (Some(250_000_000), Some(10 << 20)));
    assert_eq!((older.pids, older.gpus[0].count), (Some(-1), Some(-1)));
}

#[test]
fn restarts() {
    let cases = [
        ("restart: 'no'", Restart::No),
        ("restart: no", Restart::No),
        ("restart: always", Restart::Always),
        ("restart: unless-stopped", Restart::UnlessStopped),
        ("restart: on-failure", Restart::OnFailure { max_retries: None }),
        ("deploy: {restart_policy: {condition: any}}", Restart::Always),
        ("deploy: {restart_policy: {condition: none}}", Restart::No),
        ("deploy: {restart_policy: {}}", Restart::Always),
    ];
    for (lines, want) in cases {
        assert_eq!(web(lines).restart, want, "{lines}");
    }
}

#[test]
fn healthchecks() {
    let check = web(
        "healthcheck: {test: curl x, interval: 10s, timeout: 1m, retries: 3, start_period: 30s, start_interval: 500ms}",
    );
    let check = check.healthcheck.unwrap();
    assert_eq!(check.test, Some(texts(&["CMD-SHELL", "curl x"])));
    assert_eq!((check.interval_ms, check.timeout_ms, check.retries), (Some(10_000), Some(60_000), Some(3)));
    assert_eq!((check.start_period_ms, check.start_interval_ms), (Some(30_000), Some(500)));
    let test = |lines| web(lines).healthcheck.unwrap().test;
    assert_eq!(test("healthcheck: {test: [CMD, a, b]}"), Some(texts(&["CMD", "a", "b"])));
    assert_eq!(test("healthcheck: {test: [NONE]}"), Some(texts(&["NONE"])));
    assert_eq!(test("healthcheck: {disable: true}"), Some(texts(&["NONE"])));
    assert_eq!(test("healthcheck: {interval: 1s}"), None);
}

#[test]
fn small_structures() {
    let web = web("\
logging: {driver: json-file, options: {max-size: 10m, max-file: 3}}
devices: ['/dev/a', '/dev/b:/dev/c', '/dev/d:/dev/e:r', '/dev/f:rw', {source: /dev/g, target: /dev/h, permissions: rm}, 'nvidia.com/gpu=all']
ulimits: {nproc: 65535, nofile: {soft: 20000, hard: -1}}
extra_hosts: ['a:1.2.3.4', 'b=::1', 'c=[::1]', 'd:host-gateway']");
    let logging = web.logging.unwrap();
    assert_eq!(logging.options, dict(&[("max-file", "3"), ("max-size", "10m")]));
    let devices: Vec<_> = web.devices.iter().map(|d| format!("{} {} {}", d.source, d.target, d.permissions)).collect();
    let want = ["/dev/a /dev/a rwm", "/dev/b /dev/c rwm", "/dev/d /dev/e r", "/dev/f /dev/f rw", "/dev/g /dev/h rm"];
    assert_eq!(devices, want);
    assert_eq!(web.resources.gpus[0].device_ids, ["nvidia.com/gpu=all"]);
    assert_eq!(web.ulimits["nproc"], Ulimit { soft: 65_535, hard: 65_535 });
    assert_eq!(web.ulimits["nofile"], Ulimit { soft: 20_000, hard: -1 });
    assert_eq!(web.extra_hosts, ["a:1.2.3.4", "b:::1", "c:::1", "d:host-gateway"]);
    let mapped = super::web("extra_hosts: {a: 1.2.3.4, b: ['::1', 5.6.7.8]}");
    assert_eq!(mapped.extra_hosts, ["a:1.2.3.4", "b:::1", "b:5.6.7.8"]);
}

#[test]
fn services_together() {
    let project = project("\
name: shop
services:
  web:
    image: w
    depends_on: {db: {condition: service_healthy, restart: true}, job: {condition: service_completed_successfully, required: false}}
    networks: {front: {aliases: [www], ipv4_address: 10.1.0.2, priority: 5, mac_address: 02:42:ac:11:65:43}, default: }
    links: [db, 'cache:c']
  db: {image: d, networks: [default], volumes: ['db:/db', 'ext:/ext']}
  cache: {image: c, network_mode: 'service:db', pid: 'container:x', volumes_from: ['db:ro', 'container:y']}
  job: {image: j, depends_on: [db]}
networks:
  front: {driver: bridge, driver_opts: {a: 1}, internal: true, attachable: true, enable_ipv6: true, enable_ipv4: false, labels: [l=1], ipam: {driver: default, config: [{subnet: 10.1.0.0/16, ip_range: 10.1.1.0/24, gateway: 10.1.0.1, aux_addresses: {h: 10.1.0.9}}], options: {o: p}}}
  unused:
volumes:
  db: {driver: local, driver_opts: {type: nfs}, labels: {a: b}}
  ext: {external: true, name: other}
  unused:
");
    assert_eq!(project.networks.keys().collect::<Vec<_>>(), ["default", "front"]);
    let front = &project.networks["front"];
    assert_eq!((front.name.as_str(), front.internal, front.attachable), ("shop_front", true, true));
    assert_eq!((front.enable_ipv4, front.enable_ipv6), (Some(false), Some(true)));
    assert_eq!(front.ipam[0].subnet.as_deref(), Some("10.1.0.0/16"));
    assert_eq!(front.ipam[0].aux_addresses, dict(&[("h", "10.1.0.9")]));
    assert_eq!(project.volumes.keys().collect::<Vec<_>>(), ["db", "ext"]);
    assert_eq!((project.volumes["db"].name.as_str(), project.volumes["ext"].name.as_str()), ("shop_db", "other"));
    assert!(project.volumes["ext"].external);
    let Service { depends_on, networks, links, .. } = &project.services["web"];
    assert_eq!((depends_on["db"].condition, depends_on["db"].restart), (Condition::Healthy, true));
    assert_eq!((depends_on["job"].condition, depends_on["job"].required), (Condition::CompletedSuccessfully, false));
    // A link is a dependency, too.
    assert_eq!(depends_on["cache"].condition, Condition::Started);
    assert_eq!(networks["front"].aliases, ["www"]);
    assert_eq!(links[1].alias.as_deref(), Some("c"));
    let cache = &project.services["cache"];
    assert_eq!(cache.network_mode, Some(Mode::Service("db".into())));
    assert_eq!(cache.pid, Some(Mode::Container("x".into())));
    assert!(cache.networks.is_empty() && cache.volumes_from[0].read_only);
    assert!(cache.depends_on["db"].restart);
}

#[test]
fn profiles() {
    let yaml = "\
services:
  a: {image: a, depends_on: {b: {condition: service_started, required: false}}}
  b: {image: b, profiles: [debug], volumes: ['v:/v']}
  c: {image: c, profiles: [other, debug]}
volumes: {v: }
";
    let names = |profiles: &str| {
        let read = read_files(&[("compose.yaml", yaml)], &[("COMPOSE_PROFILES", profiles)]).unwrap();
        let names: Vec<_> = read.project.services.keys().cloned().collect();
        (names.join(""), read.project.volumes.len(), read.project.services["a"].depends_on.len())
    };
    assert_eq!(names(""), ("a".to_owned(), 0, 0));
    assert_eq!(names("debug"), ("abc".to_owned(), 1, 1));
    assert_eq!(names("x, other"), ("ac".to_owned(), 0, 0));
    assert_eq!(names("*"), ("abc".to_owned(), 1, 1));
}

#[test]
fn notes() {
    let read = read_files(
        &[("compose.yaml", "version: '3'\nx-a: $NONE\nservices: {web: {image: w, x-b: 1, develop: {watch: []}}}")],
        &[],
    );
    let notes: Vec<_> = read.unwrap().notes.iter().map(ToString::to_string).collect();
    let want = [
        "apps/pos/compose.yaml:1:1: warning: version is ignored: it is obsolete, and says nothing",
        "apps/pos/compose.yaml:3:36: warning: services.web.develop is ignored: it is for docker compose watch",
    ];
    assert_eq!(notes, want);
}
