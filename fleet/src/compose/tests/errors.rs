//! What is wrong in a file, word for word and with its place.

use super::{read_files, refused, web_file, web_refused};

#[test]
fn values_of_a_service() {
    let cases = [
        (
            "ports: ['80:x']",
            "1:9: services.web.ports: \"80:x\" is not a port: \"x\" is not a number from 1 to 65535; expected [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL]",
        ),
        ("ports: [{published: 80}]", "1:9: services.web.ports: target is missing"),
        (
            "ports: [{target: 80, mode: global}]",
            "1:28: services.web.ports.mode: \"global\" is not a mode: expected host or ingress",
        ),
        ("ports: [{target: 80, port: 1}]", "1:22: services.web.ports.port: the Compose specification has no such key"),
        ("ports: 80", "1:8: services.web.ports: expected a list, found a single value"),
        (
            "restart: sometimes",
            "1:10: services.web.restart: \"sometimes\" is not known: expected \"no\", always, unless-stopped or on-failure[:RETRIES]",
        ),
        ("init: maybe", "1:7: services.web.init: \"maybe\" is not a switch: expected true or false"),
        (
            "stop_grace_period: 10",
            "1:20: services.web.stop_grace_period: \"10\" is not a duration: expected for example 500ms, 30s, 1m30s or 2h",
        ),
        (
            "mem_limit: 1x",
            "1:12: services.web.mem_limit: \"1x\" is not a size: expected a number of bytes, or one with a unit (b, k, m, g, t)",
        ),
        ("cpus: many", "1:7: services.web.cpus: \"many\" is not a number of processors: expected for example 0.5 or 2"),
        ("scale: -1", "1:8: services.web.scale: \"-1\" is not a whole number that is possible here"),
        ("command: 'a \"b'", "1:10: services.web.command: \"a \\\"b\" can't be split into words: no closing \""),
        ("command: {a: b}", "1:10: services.web.command: expected a single value, found a mapping"),
        (
            "environment: 5",
            "1:14: services.web.environment: expected a mapping or a list of KEY=VALUE, found a single value",
        ),
        ("environment: {A: [1]}", "1:18: services.web.environment: expected a single value for \"A\", found a list"),
        ("environment: ['=x']", "1:15: services.web.environment: a key is empty"),
        ("env_file: no.env", "1:11: services.web.env_file: apps/pos/no.env is not in the repository"),
        (
            "env_file: /etc/env",
            "1:11: services.web.env_file: \"/etc/env\" is outside of the repository, where it can't be verified",
        ),
        ("volumes: ['./no:/x']", "1:11: services.web.volumes: apps/pos/no is not in the repository"),
        ("volumes: ['../../../etc:/x']", "1:11: services.web.volumes: \"../../../etc\" leaves the repository"),
        ("volumes: ['~/x:/x']", "1:11: services.web.volumes: \"~/x\" is in a home folder, and an agent has none"),
        (
            "volumes: [{type: bind, source: ~/x, target: /x}]",
            "1:32: services.web.volumes.source: \"~/x\" is in a home folder, and an agent has none",
        ),
        ("volumes: ['data:/x']", "1:11: services.web.volumes: volume \"data\" is not declared under volumes"),
        (
            "volumes: ['/a:/b:xx']",
            "1:11: services.web.volumes: option \"xx\" of \"/a:/b:xx\" is not known: expected ro, rw, nocopy, z, Z or a propagation",
        ),
        (
            "volumes: ['/a:b']",
            "1:11: services.web.volumes: \"/a:b\" is not a volume: the target is not an absolute path; expected [SOURCE:]TARGET[:OPTIONS]",
        ),
        ("volumes: ['/a:/b', '/c:/b/']", "1:20: services.web.volumes: /b/ is mounted twice, first in line 4"),
        (
            "volumes: [{type: cluster, source: x, target: /x}]",
            "1:18: services.web.volumes.type: \"cluster\" can't be honoured: expected bind, volume, tmpfs or image",
        ),
        (
            "volumes: [{type: tmpfs, target: /x, bind: {}}]",
            "1:37: services.web.volumes.bind: says nothing about a mount of type tmpfs",
        ),
        ("volumes: [{type: bind, target: /x}]", "1:11: services.web.volumes.source: is missing"),
        (
            "volumes: [{type: bind, source: /x, target: /x, bind: {zap: 1}}]",
            "1:55: services.web.volumes.bind.zap: the Compose specification has no such key",
        ),
        ("tmpfs: run", "1:8: services.web.tmpfs: \"run\" is not an absolute path"),
        ("networks: [front]", "1:12: services.web.networks: network \"front\" is not declared under networks"),
        (
            "networks: {default: {ipv4_address: x}}",
            "1:36: services.web.networks.default.ipv4_address: \"x\" is not an IPv4 address",
        ),
        (
            "networks: [default]\nnetwork_mode: host",
            "2:1: services.web.network_mode: networks are given, too: expected one of them",
        ),
        ("configs: [c]", "1:11: services.web.configs: \"c\" is not declared under configs"),
        ("secrets: [{target: x}]", "1:11: services.web.secrets: source is missing"),
        ("depends_on: [nobody]", "1:14: services.web: depends on nobody, and there is no such service"),
        ("depends_on: {web: {condition: service_started}}", "1:14: services.web: depends on itself"),
        ("links: [nobody]", "1:9: services.web: depends on nobody, and there is no such service"),
        ("network_mode: service:nobody", "1:15: services.web: depends on nobody, and there is no such service"),
        (
            "network_mode: 'service:'",
            "1:15: services.web.network_mode: \"service:\" names nothing: expected host, none, service:NAME or container:NAME",
        ),
        (
            "healthcheck: {test: [curl, x]}",
            "1:21: services.web.healthcheck.test: a list begins with NONE, CMD or CMD-SHELL, not with \"curl\"",
        ),
        (
            "healthcheck: {test: x, disable: true}",
            "1:21: services.web.healthcheck.test: disable: true is given, too: expected one of them",
        ),
        (
            "labels: {com.docker.compose.project: x}",
            "1:38: services.web.labels: label com.docker.compose.project is one that only burgee itself may set",
        ),
        (
            "pull_policy: build",
            "1:14: services.web.pull_policy: \"build\": a device does not build images: expected missing, always or never",
        ),
        (
            "pull_policy: daily",
            "1:14: services.web.pull_policy: \"daily\" can't be honoured: expected missing, always or never",
        ),
        (
            "container_name: a b",
            "1:17: services.web.container_name: \"a b\" is not a name that an Engine takes: expected letters, digits, '_', '.' and '-'",
        ),
        ("container_name: abc\nscale: 2", "1:17: services.web.container_name: 2 containers can't have one name"),
        ("ports: ['80:80']\nscale: 2", "1:9: services.web.ports: 80/tcp can't be published by 2 containers"),
        (
            "deploy: {mode: global}",
            "1:16: services.web.deploy.mode: \"global\" can't be honoured: expected replicated; other modes are Swarm's",
        ),
        ("deploy: {replicas: 2}\nscale: 3", "1:20: services.web.deploy.replicas: scale says 3: expected the same"),
        (
            "deploy: {resources: {limits: {memory: 1g}}}\nmem_limit: 2g",
            "1:39: services.web.deploy.resources.limits.memory: mem_limit says something else: expected the same, or one of them",
        ),
        (
            "deploy: {restart_policy: {condition: any}}\nrestart: always",
            "1:10: services.web.deploy.restart_policy: restart is given, too: expected one of them",
        ),
        (
            "extra_hosts: ['a:b']",
            "1:15: services.web.extra_hosts: \"b\" is not an IP address: expected one, or host-gateway",
        ),
        ("dns: [1.1.1.1, x]", "1:16: services.web.dns: \"x\" is not an IP address"),
        (
            "devices: [sda]",
            "1:11: services.web.devices: \"sda\" is not a device: expected SOURCE[:TARGET[:rwm]], or VENDOR/CLASS=NAME",
        ),
        ("ulimits: {nofile: {soft: 1}}", "1:11: services.web.ulimits.nofile: expected soft and hard"),
        ("profiles: ['/x']", "1:12: services.web.profiles: \"/x\" is not a profile's name"),
        ("colour: red", "1:1: services.web.colour: the Compose specification has no such key"),
        (
            "blkio_config: {weight: 5}",
            "1:24: services.web.blkio_config.weight: \"5\" is not a weight: expected 10 to 1000, or 0 for none",
        ),
        ("label_file: no.env", "1:13: services.web.label_file: apps/pos/no.env is not in the repository"),
    ];
    for (lines, want) in cases {
        web_refused(lines, want);
    }
    web_refused(
        "volumes: [{type: tmpfs, target: /t, tmpfs: {mode: 777}}]",
        "1:51: services.web.volumes.tmpfs.mode: \"777\" would be decimal: expected octal digits with a leading zero, such as 0440",
    );
    web_refused(
        "ulimits: {no_file: 1}",
        "1:11: services.web.ulimits.no_file: is not a limit's name: expected lower-case letters, such as nofile",
    );
}

#[test]
fn build_is_refused_with_a_hint() {
    let want = "3:5: services.web.build: a device does not build images\nhint: publish the image, name it under image:, and take build: out";
    refused("services:\n  web:\n    build: .", &[want]);
    refused("services:\n  web:\n    build: {context: .}\n    image: w", &[want]);
}

#[test]
fn the_top_of_a_file() {
    refused("", &["1:1: the file is empty: expected services"]);
    refused("- a", &["1:1: expected a mapping, found a list"]);
    refused("x-a: 1", &["1:1: services: is missing: expected at least one service"]);
    refused("services: {}", &["1:11: services: expected at least one service"]);
    refused("services: [a]", &["1:11: services: expected a mapping, found a list"]);
    refused("services: {web: x}", &["1:17: services.web: expected a mapping, found a single value"]);
    refused("services: {web: {}}", &["1:12: services.web: image is missing"]);
    refused(
        "services: {'a b': {image: w}}",
        &["1:12: services: \"a b\" is not a name: expected letters, digits, '.', '_' and '-'"],
    );
    refused("volume: {}\nservices: {web: {image: w}}", &["1:1: volume: the Compose specification has no such key"]);
    refused(
        "name: Shop\nservices: {web: {image: w}}",
        &[
            "1:7: name: \"Shop\" is not a project's name: expected lower-case letters, digits, '-' and '_', the first a letter or a digit",
        ],
    );
    refused(
        "services: {web: {image: Web}}",
        &["1:25: services.web.image: \"Web\" is not an image: expected NAME[:TAG][@DIGEST], the name in lower case"],
    );
}

/// Below the top and what is declared there, a key that begins with x- is a name like any other.
#[test]
fn names_that_look_like_extensions() {
    let yaml = "services:\n  x-web: {image: w, x-own: $NO, labels: {x-l: $$a}}\nx-own: {a: $NO}";
    let project = super::project(yaml);
    assert_eq!(project.services["x-web"].labels["x-l"], "$a");
    refused("name: [a]\nservices: {web: {image: w}}", &["1:7: name: expected a single value, found a list"]);
}

#[test]
fn declarations() {
    let with = |lines: &str| format!("services: {{web: {{image: w}}}}\n{lines}");
    refused(
        &with("networks: {a: {external: true, driver: bridge}}"),
        &["2:32: networks.a.driver: says nothing about what is external"],
    );
    refused(
        &with("networks: {a: {ipam: {config: [{subnet: x}]}}}"),
        &["2:41: networks.a.ipam.config.subnet: \"x\" is not a subnet: expected for example 172.28.0.0/16"],
    );
    refused(
        &with("volumes: {a: {colour: red}}"),
        &["2:15: volumes.a.colour: the Compose specification has no such key"],
    );
    refused(
        &with("volumes: {a: {name: 'a/b'}}"),
        &["2:21: volumes.a.name: \"a/b\" is not a name that an Engine takes"],
    );
    refused(
        &with("secrets: {a: {external: true}}"),
        &[
            "2:15: secrets.a.external: there is no Swarm to take it from\nhint: give the secret a file: or an environment:",
        ],
    );
    refused(
        &with("secrets: {a: {content: x}}"),
        &[
            "2:14: secrets.a: expected one of file or environment",
            "2:15: secrets.a.content: the Compose specification has no such key",
        ],
    );
    refused(
        &with("configs: {a: {file: x, content: y}}"),
        &["2:14: configs.a: expected one of file, content or environment"],
    );
    refused(&with("configs: {a: {environment: NONE}}"), &["2:28: configs.a.environment: variable NONE is not defined"]);
    refused(
        "services: {web: {image: w, secrets: [a]}}\nsecrets: {a: {file: ./pass}}",
        &[
            "2:21: secrets.a: apps/pos/pass is not in the repository\nhint: commit the file, or name an absolute path for a file of the device's own",
        ],
    );
}

#[test]
fn services_against_each_other() {
    refused(
        "services:\n  a: {image: a, container_name: one}\n  b: {image: b, container_name: one}",
        &["3:33: services.b.container_name: \"one\" is taken by services.a"],
    );
    refused(
        "services:\n  a: {image: a, ports: ['80:80']}\n  b: {image: b, ports: ['127.0.0.1:80:1', '81:81/udp', '81:81']}",
        &["3:25: services.b.ports: 80/tcp is already published by services.a in line 2"],
    );
    refused(
        "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: b, links: [c]}\n  c: {image: c, depends_on: {a: {condition: service_started}}}\n  d: {image: d, depends_on: [a]}",
        &["4:30: services depend on each other: a → b → c → a"],
    );
    refused(
        "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: b, profiles: [debug]}",
        &[
            "2:30: services.a: depends on b, whose profile is not active\nhint: give a the same profiles, or say required: false",
        ],
    );
    refused(
        "services:\n  a: {image: a, depends_on: {b: {condition: service_healthy}}}\n  b: {image: b, healthcheck: {disable: true}}",
        &["2:30: services.a: waits for b to be healthy, and its healthcheck is off"],
    );
}

#[test]
fn conditions() {
    refused(
        "services:\n  a: {image: a, depends_on: {b: {condition: ready}}}\n  b: {image: b}",
        &[
            "2:45: services.a.depends_on.b.condition: \"ready\" is not known: expected service_started, service_healthy or service_completed_successfully",
        ],
    );
}

#[test]
fn yaml_itself() {
    refused("a: [", &["1:4: not valid YAML: unclosed bracket '['"]);
    refused("services: {web: {image: w, image: x}}", &["1:28: key \"image\" is given twice, first in line 1"]);
    refused("services: {web: {image: *none}}", &["1:25: not valid YAML: while parsing node, found unknown anchor"]);
    refused("services: {web: &a {image: w, x: *a}}", &["1:34: an alias within the value that it names"]);
    refused(
        "services: {web: {image: !secret w}}",
        &["1:33: tag !secret is not known here: expected !reset or !override"],
    );
    refused("services: {web: {<<: 5, image: w}}", &["1:22: <<: expected a mapping, or a list of mappings"]);
    refused("services: {[a]: b}", &["1:12: a key has to be a single value"]);
}

#[test]
fn bombs() {
    let mut laughs = "x-a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        laughs += &format!("x-a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", "));
    }
    let deep = format!("services: {}{}", "{a: ".repeat(300), "}".repeat(300));
    let mut chain = "services:\n  s0: {image: w, command: [".to_owned() + &"x, ".repeat(5000) + "x]}\n";
    for n in 1..2000 {
        chain += &format!("  s{n}: {{extends: s0}}\n");
    }
    for (yaml, want) in [(&laughs, "too large"), (&deep, "nest"), (&chain, "grow past 8 MiB")] {
        let errors = read_files(&[("compose.yaml", yaml)], &[]).map(|read| read.project).unwrap_err();
        assert!(errors[0].contains(want), "{:?}", errors[0]);
    }
    // A long but honest chain of dependencies is none.
    let mut long = "services:\n  s0: {image: w}\n".to_owned();
    for n in 1..3000 {
        long += &format!("  s{n}: {{image: w, depends_on: [s{}]}}\n", n - 1);
    }
    assert_eq!(super::project(&long).services.len(), 3000);
    web_refused("ports: ['1-60000', '1-60000']", "1:20: services.web.ports: more than 65535 ports");
}

#[test]
fn variables_have_places() {
    let yaml = web_file(
        "environment:\n  - A=1\n  - B=x ${NONE}\ncommand: |\n  echo ok\n    then $MISSING\nuser: \"é ${HOME}\"",
    );
    let hint = |name: &str| {
        format!("\nhint: define {name} under vars: in burgee.yaml, app.yaml, a group or a device, or in apps/pos/.env")
    };
    let undefined = |name: &str| format!("variable {name} is not defined and has no default");
    refused(
        &yaml,
        &[
            &format!("6:13: {}{}", undefined("NONE"), hint("NONE")),
            &format!("9:14: {}{}", undefined("MISSING"), hint("MISSING")),
            &format!("10:14: {}\nhint: an agent has no home and no login: write the value out", undefined("HOME")),
        ],
    );
    refused(&web_file("user: $1"), &["4:11: '$' begins no variable: expected $NAME, ${NAME}, or $$ for a dollar sign"]);
    // The message for a required variable is the author's.
    refused(
        &web_file("user: ${U:?say who}"),
        &[&format!("4:11: variable U is required and has no value: say who{}", hint("U"))],
    );
}

#[test]
fn every_mistake_at_once() {
    let yaml = web_file("init: x\ntty: y2\nports: [a, b]");
    let errors = read_files(&[("compose.yaml", &yaml)], &[]).map(|read| read.project).unwrap_err();
    assert_eq!(errors.len(), 4, "{errors:#?}");
}

#[test]
fn files_that_are_not_there() {
    let error = |files: &[(&str, &str)]| read_files(files, &[]).map(|read| read.project).unwrap_err().join("\n");
    assert_eq!(
        error(&[("app.yaml", "")]),
        "apps/pos/compose.yaml:1:1: no such file: expected one of compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml"
    );
    assert_eq!(
        error(&[("compose.yaml", "services: {web: {image: w}}"), (".env", "A=1\nB='x")]),
        "apps/pos/.env:2:3: a value is not closed: expected another '"
    );
}
