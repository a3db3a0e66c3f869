//! Anchors, `.env`, several files, `extends` and `include`.

use super::{dict, project, read_files};
use crate::compose::model::{MountSource, Project};

#[track_caller]
fn layered(files: &[(&str, &str)]) -> Project {
    read_files(files, &[]).unwrap_or_else(|errors| panic!("{errors:#?}")).project
}

#[track_caller]
fn refused(files: &[(&str, &str)], want: &str) {
    let errors = read_files(files, &[]).map(|read| read.project).unwrap_err();
    let first = errors[0].split("\nhint:").next().unwrap();
    assert_eq!((first, errors.len()), (want, 1), "{errors:#?}");
}

#[test]
fn anchors_and_merge_keys() {
    let project = project(
        "\
x-env: &env {A: 1, B: 2}
x-base: &base
  restart: always
  environment: &both
    <<: *env
    B: 3
x-more: &more {restart: 'no', user: u}
services:
  a: {<<: *base, image: a}
  b:
    <<: [*base, *more]
    image: b
    environment: {<<: [*both], C: 4}
",
    );
    let (a, b) = (&project.services["a"], &project.services["b"]);
    assert_eq!(a.environment, dict(&[("A", "1"), ("B", "3")]));
    assert_eq!(b.environment, dict(&[("A", "1"), ("B", "3"), ("C", "4")]));
    assert_eq!((a.restart, b.restart, b.user.as_deref()), (b.restart, a.restart, Some("u")));
}

#[test]
fn dotenv_is_the_lowest_layer() {
    let files = [
        (".env", "TAG=1.0\nTZ=env\nDERIVED=${TAG}-x\nCOMPOSE_PROFILES=debug\nCOMPOSE_BAKE=1\nCOMPOSE_PROJECT_NAME=no"),
        (
            "compose.yaml",
            "name: p-$TAG_NAME\nservices:\n  web: {image: 'w:${TAG}', profiles: [debug], user: $TZ, hostname: $DERIVED, labels: {n: $COMPOSE_PROJECT_NAME}}",
        ),
    ];
    let read = read_files(&files, &[("TZ", "scope"), ("TAG_NAME", "t")]).unwrap();
    let web = &read.project.services["web"];
    assert_eq!(
        (web.image.as_str(), web.user.as_deref(), web.hostname.as_deref()),
        ("w:1.0", Some("scope"), Some("1.0-x"))
    );
    assert_eq!((read.project.name.as_str(), web.labels["n"].as_str()), ("p-t", "p-t"));
    let notes: Vec<_> = read.notes.iter().map(ToString::to_string).collect();
    let want = [
        "apps/pos/.env:5:1: warning: COMPOSE_BAKE is ignored: it is for the docker compose command",
        "apps/pos/.env:6:1: warning: COMPOSE_PROJECT_NAME is ignored: a project's name is its name:, else the app's",
    ];
    assert_eq!(notes, want);
}

#[test]
fn which_files() {
    let file = |image: &str| format!("services: {{web: {{image: {image}}}}}");
    let (a, b, c) = (file("a"), file("b"), file("c"));
    for name in ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"] {
        assert_eq!(layered(&[(name, &a)]).services["web"].image, "a");
    }
    let read =
        read_files(&[("docker-compose.yml", &b), ("compose.yml", &a), ("docker-compose.override.yml", "{}")], &[]);
    let read = read.unwrap();
    assert_eq!(read.project.services["web"].image, "a");
    assert_eq!(
        read.notes[0].to_string(),
        "apps/pos/docker-compose.yml:1:1: warning: the file is ignored: apps/pos/compose.yml goes before it"
    );
    let files = [
        ("x/one.yaml", a.as_str()),
        ("two.yaml", &b),
        ("compose.yaml", &c),
        (".env", "COMPOSE_FILE=x/one.yaml:two.yaml"),
    ];
    assert_eq!(layered(&files).services["web"].image, "b");
    assert_eq!(layered(&[("compose.yaml", &format!("{a}\n---\n{b}"))]).services["web"].image, "b");
}

#[test]
fn overrides() {
    let base = "\
services:
  web:
    image: a
    command: [a, b]
    entrypoint: e
    environment: [A=1, B=1, D=1]
    labels: {l: 1}
    ports: ['80:80', 81:81]
    volumes: ['/a:/x', '/b:/y']
    dns: 1.1.1.1
    cap_add: [A]
    networks: [one]
    depends_on: [db]
    healthcheck: {test: [CMD, a], interval: 1s}
    logging: {driver: json-file, options: {max-size: 1m}}
    ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}
    tmpfs: /t
    expose: [1]
    secrets: [s]
    extra_hosts: {h: 1.1.1.1}
    deploy: {resources: {limits: {memory: 1g, cpus: 1}}}
    user: u
    init: true
  db: {image: d}
networks: {one: , two: , three: {ipam: {config: [{subnet: 10.0.0.0/8}]}}}
secrets: {s: {file: /s}}
";
    let over = "\
services:
  web:
    image: b
    command: [c]
    environment: {B: 2, C: 2, D: }
    labels: [m=2]
    ports: ['80:80/tcp', '82:82']
    volumes: [{type: bind, source: /c, target: /x}]
    dns: [2.2.2.2]
    cap_add: [B, A]
    networks: {two: {aliases: [t]}}
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {test: [CMD, b]}
    logging: {driver: local, options: {max-file: 2}}
    ulimits: {nofile: {soft: 6, hard: 7}, nproc: {soft: 1, hard: 9}}
    tmpfs: ['/t:size=1m', /u]
    expose: [2, 1]
    secrets: [{source: s, target: /run/secrets/s}]
    extra_hosts: [h=2.2.2.2]
    deploy: {resources: {limits: {memory: 2g}}}
    user: !reset null
    init:
networks: {three: {ipam: {config: [{subnet: 10.0.0.0/8, gateway: 10.0.0.1}]}}}
";
    let project = layered(&[("compose.yaml", base), ("compose.override.yaml", over)]);
    let web = &project.services["web"];
    assert_eq!((web.image.as_str(), web.command.as_deref()), ("b", Some(&["c".to_owned()][..])));
    assert_eq!(web.entrypoint.as_deref(), Some(&["e".to_owned()][..]));
    assert_eq!(web.environment, dict(&[("A", "1"), ("B", "2"), ("C", "2")]));
    assert_eq!(web.labels, dict(&[("l", "1"), ("m", "2")]));
    assert_eq!(web.ports.iter().map(|port| port.target).collect::<Vec<_>>(), [80, 81, 82]);
    let sources: Vec<_> = web.mounts.iter().map(|mount| (mount.target.as_str(), mount_path(&mount.source))).collect();
    assert_eq!(
        sources,
        [("/x", "/c"), ("/y", "/b"), ("/t", "1048576"), ("/u", ""), ("/run/secrets/s", "/s")]
            .map(|(a, b)| (a, b.to_owned()))
    );
    assert_eq!(
        (web.dns.join(" "), web.cap_add.join(" "), web.expose.join(" ")),
        ("1.1.1.1 2.2.2.2".into(), "A B".into(), "1 2".into())
    );
    assert_eq!(web.networks.keys().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(web.networks["two"].aliases, ["t"]);
    assert_eq!(web.depends_on["db"].condition, crate::compose::model::Condition::Healthy);
    let check = web.healthcheck.as_ref().unwrap();
    assert_eq!((check.test.as_ref().unwrap()[1].as_str(), check.interval_ms), ("b", Some(1000)));
    assert_eq!(web.logging.as_ref().unwrap().options, dict(&[("max-file", "2")]));
    assert_eq!((web.ulimits["nofile"].hard, web.ulimits["nproc"].hard), (7, 9));
    assert_eq!(web.extra_hosts, ["h:1.1.1.1", "h:2.2.2.2"]);
    assert_eq!((web.resources.memory, web.resources.nano_cpus), (Some(2 << 30), Some(1_000_000_000)));
    assert_eq!((web.user.as_deref(), web.init), (None, Some(true)));
}

fn mount_path(source: &MountSource) -> String {
    match source {
        MountSource::Bind { path, .. } | MountSource::Repository { path, .. } => path.clone(),
        MountSource::Tmpfs { size, .. } => size.map(|size| size.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

#[test]
fn reset_and_override() {
    let base = "services:\n  web: {image: a, ports: ['80:80'], labels: {a: 1, b: 2}, environment: [A=1], depends_on: [db]}\n  db: {image: d}";
    let over = "services:\n  web: {ports: !override ['81:81'], labels: {a: !reset , c: 3}, environment: !reset [], depends_on: {db: !reset }}\n  db: !reset ";
    let project = layered(&[("compose.yaml", base), ("compose.override.yml", over)]);
    let web = &project.services["web"];
    assert_eq!((web.ports[0].target, web.ports.len()), (81, 1));
    assert_eq!(web.labels, dict(&[("b", "2"), ("c", "3")]));
    assert!(web.environment.is_empty() && web.depends_on.is_empty());
    assert_eq!(project.services.len(), 1);
    let clash = "services:\n  web: {healthcheck: [x]}";
    refused(
        &[("compose.yaml", "services:\n  web: {image: a, healthcheck: {test: a}}"), ("compose.override.yml", clash)],
        "apps/pos/compose.override.yml:2:22: services.web.healthcheck: a list can't be merged over a mapping",
    );
}

#[test]
fn extends() {
    let files = [
        (
            "compose.yaml",
            "services:
  a: {image: a, environment: {A: 1, B: 1}, command: [x], labels: {l: a}}
  b: {extends: a, environment: [B=2]}
  c: {extends: {service: b}, environment: {C: 3}, command: !reset }
  d: {extends: {file: ../base/common.yaml, service: web}, volumes: ['./own:/own']}",
        ),
        ("own", "o"),
        (
            "/apps/base/common.yaml",
            "name: ignored\nservices: {web: {extends: {service: root}, image: w}, root: {image: r, volumes: ['./conf:/conf'], env_file: base.env}}",
        ),
        ("/apps/base/conf", "c"),
        ("/apps/base/base.env", "E=base"),
    ];
    let project = layered(&files);
    let c = &project.services["c"];
    assert_eq!((c.image.as_str(), c.command.as_ref()), ("a", None));
    assert_eq!(c.environment, dict(&[("A", "1"), ("B", "2"), ("C", "3")]));
    let d = &project.services["d"];
    assert_eq!((d.image.as_str(), d.environment["E"].as_str()), ("w", "base"));
    let paths: Vec<_> = d.mounts.iter().map(|mount| mount_path(&mount.source)).collect();
    // A relative path starts from the file that it is written in.
    assert_eq!(paths, ["apps/base/conf", "apps/pos/own"]);
}

#[test]
fn wrong_extends() {
    let one = |yaml: &str, want: &str| refused(&[("compose.yaml", yaml)], &format!("apps/pos/compose.yaml:{want}"));
    one("services: {a: {extends: b}}", "1:25: services.a.extends: apps/pos/compose.yaml has no service \"b\"");
    one(
        "services: {a: {extends: {file: x.yaml, service: b}}}",
        "1:32: apps/pos/x.yaml: no such file in the repository",
    );
    one(
        "services: {a: {extends: {file: ../../../x, service: b}}}",
        "1:32: services.a.extends.file: \"../../../x\" leaves the repository",
    );
    one("services: {a: {extends: {file: x}}}", "1:25: services.a.extends.service: is missing");
    let circle = "services:\n  a: {extends: b}\n  b: {extends: a}";
    let errors = read_files(&[("compose.yaml", circle)], &[]).map(|read| read.project).unwrap_err();
    let want = [
        "apps/pos/compose.yaml:2:16: services extend each other: b → a → b",
        "apps/pos/compose.yaml:3:16: services extend each other: a → b → a",
    ];
    assert_eq!(errors, want);
}

#[test]
fn includes() {
    let files = [
        (
            "compose.yaml",
            "include:\n  - db/compose.yaml\n  - {path: [cache/one.yaml, cache/two.yaml], project_directory: ., env_file: [c.env, d.env]}\nservices: {web: {image: w, depends_on: [db]}}\n",
        ),
        ("compose.override.yaml", "services: {db: {labels: {over: 1}}}"),
        (
            "db/compose.yaml",
            "name: other\nservices: {db: {image: 'd:$TAG', volumes: ['./data:/data', 'v:/v'], environment: {COST: $$5}}}\nvolumes: {v: }\n",
        ),
        ("db/data", "x"),
        ("db/.env", "TAG=from-db"),
        ("cache/one.yaml", "services: {cache: {image: 'c:$C', user: $D}}"),
        ("cache/two.yaml", "services: {cache: {volumes: ['./own:/own']}}"),
        ("own", "o"),
        ("c.env", "C=1\nD=1"),
        ("d.env", "D=2"),
    ];
    let project = layered(&files);
    assert_eq!(project.name, "pos");
    let db = &project.services["db"];
    assert_eq!(
        (db.image.as_str(), db.labels["over"].as_str(), db.environment["COST"].as_str()),
        ("d:from-db", "1", "$5")
    );
    assert_eq!(mount_path(&db.mounts[0].source), "apps/pos/db/data");
    assert_eq!(project.volumes["v"].name, "pos_v");
    let cache = &project.services["cache"];
    assert_eq!((cache.image.as_str(), cache.user.as_deref()), ("c:1", Some("2")));
    assert_eq!(mount_path(&cache.mounts[0].source), "apps/pos/own");
}

#[test]
fn wrong_includes() {
    let one = |yaml: &str, want: &str| refused(&[("compose.yaml", yaml)], &format!("apps/pos/compose.yaml:{want}"));
    one("include: [x.yaml]", "1:11: apps/pos/x.yaml: no such file in the repository");
    one("include: [compose.yaml]", "1:11: include: apps/pos/compose.yaml → apps/pos/compose.yaml is a circle");
    one(
        "include: ['https://example.com/x.yaml']",
        "1:11: include: \"https://example.com/x.yaml\" is not in the repository, where it could be verified",
    );
    one("include: x", "1:10: include: expected a list, found a single value");
    let files = [("compose.yaml", "include: [{path: b.yaml, colour: red}]"), ("b.yaml", "services: {web: {image: b}}")];
    refused(&files, "apps/pos/compose.yaml:1:26: include.colour: the Compose specification has no such key");
    let files = [
        ("compose.yaml", "include: [b.yaml]\nservices:\n  web: {image: a}"),
        ("b.yaml", "services: {web: {image: b}}"),
    ];
    refused(&files, "apps/pos/compose.yaml:3:3: services.web: apps/pos/b.yaml:1, which is included, declares it, too");
    // An unknown key is one in an included file, too.
    let files = [("compose.yaml", "include: [b.yaml]"), ("b.yaml", "service: {}")];
    refused(&files, "apps/pos/b.yaml:1:1: service: the Compose specification has no such key");
}
