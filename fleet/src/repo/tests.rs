//! `check` by case: one wrong file in an otherwise good repository.

use crate::finding::Finding;
use crate::tree::MemoryTree;

const GOOD: &[(&str, &str)] = &[
    ("burgee.yaml", "format: 1\nfleet: retail\nvars: {TZ: Europe/Berlin}\n"),
    (
        "apps/base/app.yaml",
        "runtime: files\nfiles:\n  - {from: base.conf, to: /etc/base/base.conf}\ntemplates: [base.conf]\nvars: {LOG: info}\n",
    ),
    ("apps/base/files/base.conf", "log=${LOG}\n"),
    ("apps/till/app.yaml", "runtime: files\ndependsOn: [base]\nfiles: [{from: till/, to: /etc/till/}]\n"),
    ("apps/till/files/till/a", "a"),
    ("groups/eu.yaml", "selector: {matchLabels: {region: eu}}\napps: [base, till]\n"),
    ("devices/lab-1.yaml", "labels: {region: eu}\n"),
    ("rollouts/eu.yaml", "groups: [eu]\nstages: [{name: canary, percent: 10}, {name: rest}]\n"),
];

fn found(changed: &[(&str, &str)]) -> Vec<Finding> {
    let tree: MemoryTree = GOOD.iter().chain(changed).copied().collect();
    super::check(&tree)
}

#[test]
fn a_good_repository_has_no_findings() {
    assert_eq!(found(&[]), []);
}

/// Changes one file at a time; a finding has to start with what is wanted.
fn check(cases: impl IntoIterator<Item = (&'static str, String, String)>) {
    let mut wrong = Vec::new();
    for (path, text, want) in cases {
        let all: Vec<_> = found(&[(path, &text)]).iter().map(ToString::to_string).collect();
        if !all.iter().any(|one| one.starts_with(&want)) {
            wrong.push(format!("{text:?}\n  wanted {want}\n  found  {}", all.join("\n         ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn burgee_yaml() {
    let cases = [
        ("", "burgee.yaml:1:1: the file is empty, expected a mapping (key: value)"),
        ("fleet: f\n", "burgee.yaml:1:1: the key `format` is missing"),
        ("format: 2\nfleet: f\n", "burgee.yaml:1:9: format 2 is unknown, expected 1"),
        ("format: 1\nfleet: Retail\n", "burgee.yaml:2:8: \"Retail\" is not a name: expected 1 to 63 characters"),
        (
            "format: 1\nfleet: f\nfleat: g\n",
            "burgee.yaml:3:1: unknown key `fleat`, expected one of `format`, `fleet`, `agent`, `vars`",
        ),
        ("format: 1\nfleet: f\nvars: {1A: x}\n", "burgee.yaml:3:8: `1A` is no variable name, expected"),
        ("format: 1\nfleet: f\nvars: {BURGEE_X: x}\n", "burgee.yaml:3:8: `BURGEE_X` is built in, expected"),
        ("format: 1\nfleet: f\nvars: {A: [x]}\n", "burgee.yaml:3:11: expected text"),
        (
            "format: 1\nfleet: f\nagent: {version: one, url: \"https://x/{arch}\", sha256: {}}\n",
            "burgee.yaml:3:18: `one` is no version, expected",
        ),
        (
            "format: 1\nfleet: f\nagent: {version: 1.2.0, url: \"http://x/\", sha256: {}}\n",
            "burgee.yaml:3:30: `http://x/` is not encrypted, expected",
        ),
        (
            "format: 1\nfleet: f\nagent: {version: 1.2.0, url: \"https://me:pw@x/\", sha256: {}}\n",
            "burgee.yaml:3:30: a password in a URL would be everybody's",
        ),
        (
            "format: 1\nfleet: f\nagent: {version: 1.2.0, url: \"https://x/\", sha256: {arm: ab}}\n",
            "burgee.yaml:3:53: `arm` is no machine",
        ),
        (
            "format: 1\nfleet: f\nagent: {version: 1.2.0, url: \"https://x/\", sha256: {armv7: ab}}\n",
            "burgee.yaml:3:60: `ab` is no SHA-256, expected 64 hex digits",
        ),
    ];
    check(cases.map(|(text, want)| ("burgee.yaml", text.to_owned(), want.to_owned())));
    let hint = found(&[("burgee.yaml", "format: 1\nfleat: f\n")]).remove(0).hint;
    assert_eq!(hint.as_deref(), Some("did you mean `fleet`?"));
    let tree: MemoryTree = GOOD[1..].iter().copied().collect();
    assert_eq!(super::check(&tree)[0].to_string(), "burgee.yaml:1:1: no such file in the repository, expected it");
}

#[test]
fn app_yaml() {
    let files = "runtime: files\nfiles: [{from: base.conf, to: /etc/base.conf}]\n";
    let cases = [
        ("runtime: docker\n", "1:10: unknown value `docker`, expected one of `compose`, `kubernetes`, `files`"),
        ("dependsOn: []\n", "1:1: the key `runtime` is missing"),
        ("runtime: files\n", "1:1: an app with `runtime: files` delivers nothing"),
        (
            "runtime: compose\nunits: [a.service]\n",
            "2:8: `units` belongs to `runtime: files`, this app has `runtime: compose`",
        ),
        ("runtime: compose\nnamespace: shelf\n", "2:12: `namespace` belongs to `runtime: kubernetes`"),
        ("runtime: compose\ndrift: {ignore: [/spec]}\n", "2:17: `drift.ignore` belongs to `runtime: kubernetes`"),
        ("runtime: kubernetes\nfiles: []\n", "2:8: `files` belongs to `runtime: files`"),
        ("runtime: kubernetes\nnamespace: Shelf\n", "2:12: `Shelf` is no namespace"),
        ("runtime: kubernetes\ncreateNamespace: true\n", "2:18: `createNamespace` without a `namespace`"),
        ("runtime: kubernetes\nreplace: [job]\n", "2:11: `job` is no kind, expected for example `Job`"),
        ("runtime: kubernetes\ndrift: {ignore: [spec]}\n", "2:18: `spec` is no JSON pointer"),
        ("runtime: kubernetes\n", "1:1: there are no manifests below `apps/base/kubernetes/`"),
        ("+health: {timeout: 3 minutes}\n", "3:19: `3 minutes` is not a duration, expected for example"),
        ("+health: {timeout: 0s}\n", "3:19: no time at all"),
        ("+health: {soak: 40d}\n", "3:16: `40d` is longer than 30 days"),
        (
            "+health: {checks: [{htp: x}]}\n",
            "3:20: unknown key `htp`, expected one of `http`, `status`, `tcp`, `unit`, `exec`",
        ),
        ("+health: {checks: [{}]}\n", "3:19: expected exactly one of `http`, `tcp`, `unit` and `exec`"),
        ("+health:\n  checks:\n    - {http: \"http://x/\", tcp: \"x:1\"}\n", "5:7: expected exactly one of"),
        ("+health: {checks: [{http: localhost}]}\n", "3:26: `localhost` is no URL"),
        (
            "+health: {checks: [{http: \"http://x\", status: 99}]}\n",
            "3:46: `99` is no HTTP status, expected 100 to 599",
        ),
        ("+health: {checks: [{status: 200, tcp: \"x:1\"}]}\n", "3:28: `status` without `http`"),
        ("+health: {checks: [{tcp: \"x\"}]}\n", "3:25: `x` is no address, expected `host:port`"),
        ("+health: {checks: [{unit: \"x\"}]}\n", "3:26: `x` is no systemd unit"),
        ("+health: {checks: [{exec: []}]}\n", "3:26: expected the absolute path of a program"),
        ("+health: {checks: [{exec: [check]}]}\n", "3:27: expected the absolute path of a program"),
        ("+drift: {mode: fix}\n", "3:15: unknown value `fix`, expected one of `correct`, `report`, `off`"),
        ("+prune: {maxDelete: half}\n", "3:20: `half` is neither a count nor a share"),
        ("+prune: {keep: [volume]}\n", "3:16: `volume` is nothing that can be kept"),
        ("+onFailure: stop\n", "3:12: unknown value `stop`, expected one of `rollback`, `hold`"),
        ("+dependsOn: [nothing]\n", "3:13: there is no app `nothing`, expected a name that apps/<app>/app.yaml gives"),
        ("+dependsOn: [base]\n", "3:13: `base` depends on itself: `base` → `base`"),
        ("+dependsOn: [till]\n", "3:13: `base` depends on itself: `base` → `till` → `base`"),
        ("+dependsOn: [Till]\n", "3:13: \"Till\" is not a name"),
        (
            "+units: [base.container]\n",
            "3:9: `base.container` is a quadlet, expected the unit that systemd makes of it: `base.service`",
        ),
        ("+templates: [other.conf]\n", "3:13: no entry under `files` delivers `other.conf`"),
        ("+templates: [../x]\n", "3:13: `../x` is no path below `files/`"),
        ("runtime: files\nfiles: [{from: nothing, to: /etc/x}]\n", "2:16: there is no file `apps/base/files/nothing`"),
        (
            "runtime: files\nfiles: [{from: nothing/, to: /etc/x/}]\n",
            "2:16: there is no folder `apps/base/files/nothing/` with files",
        ),
        (
            "runtime: files\nfiles: [{from: ../../till/files/till/a, to: /etc/x}]\n",
            "2:16: `../../till/files/till/a` is no path below",
        ),
        (
            "runtime: files\nfiles: [{from: base.conf, to: etc/x}]\n",
            "2:31: `etc/x` is no target, expected an absolute path",
        ),
        ("runtime: files\nfiles: [{from: base.conf, to: /etc/../x}]\n", "2:31: `/etc/../x` is no target"),
        (
            "runtime: files\nfiles: [{from: conf/, to: /etc/x}]\n",
            "2:27: `conf/` is a folder, expected a folder here, too: `/etc/x/`",
        ),
        ("runtime: files\nfiles: [{from: base.conf, to: /x, mode: rw}]\n", "2:41: `rw` is not a file mode"),
        ("runtime: files\nfiles: [{from: base.conf, to: /x, owner: \"a:b:c\"}]\n", "2:42: `a:b:c` is not an owner"),
        (
            "runtime: files\nfiles:\n  - {from: base.conf, to: /x}\n  - {from: base.conf, to: /x}\n",
            "4:27: `/x` is delivered by the entry on line 3, too",
        ),
    ];
    check(cases.map(|(text, want)| {
        let text = text.strip_prefix('+').map_or_else(|| text.to_owned(), |rest| format!("{files}{rest}"));
        ("apps/base/app.yaml", text, format!("apps/base/app.yaml:{want}"))
    }));
}

#[test]
fn groups_devices_and_rollouts() {
    let cases = [
        ("groups/eu.yaml", "apps: []\n", "groups/eu.yaml:1:1: the key `selector` is missing"),
        ("groups/eu.yaml", "selector: {}\n", "groups/eu.yaml:1:11: warning: an empty selector matches no device"),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\napps: [bsae]\n",
            "groups/eu.yaml:2:8: there is no app `bsae`",
        ),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\napps: [base, base]\n",
            "groups/eu.yaml:2:14: the app `base` stands here a second time",
        ),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\npriority: high\n",
            "groups/eu.yaml:2:11: expected a whole number",
        ),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\nwindow: {apply: {from: \"2:00\", for: 2h}}\n",
            "groups/eu.yaml:2:24: `2:00` is no time of day",
        ),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\nwindow: {apply: {from: \"02:00\", for: 30s}}\n",
            "groups/eu.yaml:2:38: `30s` is no length of a window",
        ),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\nwindow: {apply: {from: \"02:00\", for: 2h, tz: Berlin}}\n",
            "groups/eu.yaml:2:46: `Berlin` is no time zone",
        ),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\nwindow: {apply: {days: [monday], from: \"02:00\", for: 2h}}\n",
            "groups/eu.yaml:2:25: `monday` is no day",
        ),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {a: b}}\nwindow: {apply: {days: [], from: \"02:00\", for: 2h}}\n",
            "groups/eu.yaml:2:24: no day, so the window never opens",
        ),
        ("groups/Eu.yaml", "selector: {}\n", "groups/Eu.yaml:1:1: \"Eu\" is not a name"),
        ("groups/us.yml", "", "groups/us.yml:1:1: not a file of format 1, expected `groups/<name>.yaml`"),
        ("groups/sub/us.yaml", "", "groups/sub/us.yaml:1:1: not a file of format 1"),
        ("devices/lab-1.yaml", "labels: {a b: c}\n", "devices/lab-1.yaml:1:10: `a b` is no label name"),
        ("devices/lab-1.yaml", "labels: {a: b c}\n", "devices/lab-1.yaml:1:13: `b c` is no label value"),
        ("devices/lab-1.yaml", "apps: [none]\n", "devices/lab-1.yaml:1:8: there is no app `none`"),
        (
            "devices/lab-1.yaml",
            "labels: {a-b: c, a.b: d}\n",
            "devices/lab-1.yaml:1:1: the labels `a-b` and `a.b` of the device both become `BURGEE_LABEL_A_B`",
        ),
        (
            "devices/lab-1.yaml",
            "apps: [till]\n",
            "apps/till/app.yaml:2:13: warning: `till` depends on `base`, which the device `lab-1` does not get",
        ),
        ("rollouts/eu.yaml", "groups: [eu]\n", "rollouts/eu.yaml:1:1: the key `stages` is missing"),
        ("rollouts/eu.yaml", "groups: []\nstages: [{name: a}]\n", "rollouts/eu.yaml:1:9: no groups"),
        ("rollouts/eu.yaml", "groups: [ue]\nstages: [{name: a}]\n", "rollouts/eu.yaml:1:10: there is no group `ue`"),
        ("rollouts/eu.yaml", "groups: [eu]\nstages: []\n", "rollouts/eu.yaml:2:9: 0 stages, expected 1 to 64"),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a, percent: 0}]\n",
            "rollouts/eu.yaml:2:29: 0% takes no device",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a, percent: 5, selector: {}}]\n",
            "rollouts/eu.yaml:2:29: both `selector` and `percent`",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a, percent: 5}]\n",
            "rollouts/eu.yaml:2:9: warning: the last stage does not take the rest",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a}, {name: b}]\n",
            "rollouts/eu.yaml:2:21: no device is left for stage `b`",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a, percent: 5}, {name: a}]\n",
            "rollouts/eu.yaml:2:40: a second stage `a`",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a, success: 101%}]\n",
            "rollouts/eu.yaml:2:29: `101%` is not a percentage",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a, approval: maybe}]\n",
            "rollouts/eu.yaml:2:30: unknown value `maybe`, expected one of `automatic`, `manual`",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a}]\nbudget: {maxUnavailable: 0}\n",
            "rollouts/eu.yaml:3:26: `0` lets no device move",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a}]\nbudget: {by: store}\n",
            "rollouts/eu.yaml:3:10: the key `maxUnavailable` is missing",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [eu]\nstages: [{name: a}]\noffline: ignore\n",
            "rollouts/eu.yaml:3:10: unknown value `ignore`, expected one of `skip`, `wait`",
        ),
        (
            "rollouts/two.yaml",
            "groups: [eu]\nstages: [{name: a}]\n",
            "rollouts/two.yaml:1:10: the group `eu` is in rollouts/eu.yaml, too",
        ),
        ("apps/lost/notes.txt", "", "apps/lost/app.yaml:1:1: no such file, expected one in every folder of `apps/`"),
        ("apps/Lost/app.yaml", "", "apps/Lost/app.yaml:1:1: \"Lost\" is not a name"),
        (
            "apps/lone/app.yaml",
            "runtime: kubernetes\n",
            "apps/lone/app.yaml:1:1: warning: no device gets the app `lone`",
        ),
    ];
    check(cases.map(|(path, text, want)| (path, text.to_owned(), want.to_owned())));
}

#[test]
fn groups_of_equal_priority_that_can_meet_must_agree() {
    let eu = ("groups/eu.yaml", "selector: {matchLabels: {region: eu}}\napps: [base, till]\nvars: {LOG: warn}\n");
    let cases = [
        ("selector: {matchLabels: {ring: lab}}\nvars: {LOG: debug}\n", true),
        ("selector: {matchLabels: {ring: lab}}\nvars: {LOG: warn}\n", false),
        ("selector: {matchLabels: {region: us}}\nvars: {LOG: debug}\n", false),
        ("priority: 1\nselector: {matchLabels: {ring: lab}}\nvars: {LOG: debug}\n", false),
        ("selector: {matchExpressions: [{key: region, operator: NotIn, values: [eu]}]}\nvars: {LOG: debug}\n", false),
    ];
    for (text, want) in cases {
        let found = found(&[eu, ("groups/lab.yaml", text)]);
        let said = found.iter().any(|one| {
            one.to_string().starts_with("groups/lab.yaml:2:8: `LOG` is `debug` here and `warn` in groups/eu.yaml")
        });
        assert_eq!(said, want, "{text}: {found:#?}");
    }
}

#[test]
fn an_undefined_variable_is_an_error_unless_a_layer_could_define_it() {
    let conf = |text| ("apps/base/files/base.conf", text);
    let wrong = found(&[conf("a\n  b=${NOTHING}\n")]);
    assert!(wrong[0].to_string().starts_with("apps/base/files/base.conf:2:5: "), "{wrong:?}");
    for good in
        ["${LOG}", "${TZ}", "${X:-y}", "$$X", "${BURGEE_APP}", "${BURGEE_LABEL_REGION}", "${BURGEE_LABEL_OTHER}"]
    {
        assert_eq!(found(&[conf(good)]), [], "{good}");
    }
    let possible = [conf("${SITE}"), ("groups/us.yaml", "selector: {matchLabels: {region: us}}\nvars: {SITE: a}\n")];
    assert_eq!(found(&possible), []);
    let revision = found(&[conf("a\nr=${BURGEE_REVISION}\n")]);
    assert_eq!(revision.len(), 1, "{revision:?}");
    assert!(
        revision[0]
            .to_string()
            .starts_with("apps/base/files/base.conf:2:3: warning: `BURGEE_REVISION` changes with every commit")
    );
}

#[test]
fn a_dependency_that_no_device_gets_is_an_error() {
    let all = found(&[("groups/eu.yaml", "selector: {matchLabels: {region: eu}}\napps: [till]\n")]);
    assert!(
        all.iter().any(|one| one.to_string().starts_with("apps/till/app.yaml:2:13: `till` depends on `base`, which")),
        "{all:#?}"
    );
}
