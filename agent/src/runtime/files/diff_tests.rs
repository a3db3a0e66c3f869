use super::super::marks::Start;
use super::*;
use crate::systemd::unit::Service;

const OWNER: Owner = (0, 0);

fn wanted(text: &str) -> WantFile {
    WantFile { content: Digest::of(text.as_bytes()), mode: 0o644, owner: OWNER }
}

fn there(text: &str) -> Found {
    Found::File { digest: Some(Digest::of(text.as_bytes())), mode: 0o644, owner: OWNER }
}

fn absent(missing: &[&str]) -> Found {
    Found::Nothing { missing: missing.iter().map(|path| (*path).to_owned()).collect() }
}

fn unit_at(name: &str, active: &str, file_state: &str) -> Unit {
    let service = Service { result: "success".into(), ran: true, ..Service::default() };
    let (load, condition) = ("loaded".into(), true);
    let (name, active, file_state) = (name.into(), active.into(), file_state.into());
    Unit { name, load, active, file_state, condition, service: Some(service), ..Unit::default() }
}

#[derive(Default)]
struct Case {
    want: Vec<(&'static str, &'static str)>,
    units: Vec<&'static str>,
    leaves: bool,
    inventory: Vec<&'static str>,
    found: Vec<(&'static str, Found)>,
    folders: Vec<(&'static str, Vec<&'static str>)>,
    states: Vec<Unit>,
    /// Units whose mark is of exactly these files.
    marked: Vec<&'static str>,
    /// The boot in which that was; this one is the empty text.
    boot: &'static str,
    reload: bool,
    shared: Vec<&'static str>,
    had: Vec<&'static str>,
    neighbours: Vec<(&'static str, bool)>,
}

impl Case {
    fn run(&self) -> Result<Plan<Act>, RuntimeError> {
        let files: BTreeMap<_, _> = self.want.iter().map(|(path, text)| ((*path).to_owned(), wanted(text))).collect();
        let digest = Digest::of(format!("{files:?}").as_bytes());
        let units = self.units.iter().map(|name| (*name).to_owned()).collect();
        let want = Want { files, units, digest };
        let inventory = self
            .inventory
            .iter()
            .map(|entry| {
                let (object, value) = entry.split_once('=').unwrap_or((entry, ""));
                let (kind, name) = object.split_once('/').unwrap();
                (Object { kind: kind.into(), name: name.into() }, value.to_owned())
            })
            .collect();
        let seen = Seen {
            files: self
                .found
                .iter()
                .map(|(path, found)| {
                    let unit = path.starts_with("/etc/systemd/system/") || path.starts_with("/etc/containers/systemd/");
                    ((*path).to_owned(), Sight { found: found.clone(), unit })
                })
                .collect(),
            folders: self
                .folders
                .iter()
                .map(|(path, inside)| ((*path).to_owned(), inside.iter().map(|one| (*one).to_owned()).collect()))
                .collect(),
            units: self.states.iter().map(|unit| (unit.name.clone(), unit.clone())).collect(),
            marks: Marks {
                reload: self.reload,
                started: self
                    .marked
                    .iter()
                    .map(|name| ((*name).to_owned(), Start { files: digest, boot: self.boot.to_owned() }))
                    .collect(),
            },
            boot: String::new(),
            shared: self.shared.iter().map(|path| (*path).to_owned()).collect(),
            systemd: true,
            had: self.had.iter().map(|path| (*path).to_owned()).collect(),
            neighbours: self
                .neighbours
                .iter()
                .map(|(path, claims)| {
                    ((*path).to_owned(), Neighbour { app: "other".parse().unwrap(), claims: *claims })
                })
                .collect(),
        };
        plan((!self.leaves).then_some(&want), &inventory, &seen)
    }

    #[track_caller]
    fn check(&self, steps: &[&str], inventory: &[&str]) {
        let plan = self.run().unwrap();
        let told: Vec<_> = plan
            .steps
            .iter()
            .map(|step| format!("{:?} {}: {}", step.verb, step.object, step.why).to_lowercase())
            .collect();
        assert_eq!(told, steps);
        let owned: Vec<_> = plan
            .inventory
            .iter()
            .map(|(object, value)| {
                let value =
                    if object.kind == "unit" && !value.is_empty() { format!("={value}") } else { String::new() };
                format!("{object}{value}")
            })
            .collect();
        assert_eq!(owned, inventory);
    }

    #[track_caller]
    fn refuse(&self, reason: &str, part: &str) {
        use crate::ports::Reason as _;
        let error = self.run().unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(part), "{part:?} in {error}");
    }
}

const A: &str = "/etc/app/a";
const RELOAD: &str = "update systemd/manager: unit files changed";

#[test]
fn files_are_created_with_their_folders_and_compared() {
    Case {
        want: vec![(A, "1"), ("/etc/app/d/b", "2")],
        found: vec![(A, absent(&["/etc/app"])), ("/etc/app/d/b", absent(&["/etc/app", "/etc/app/d"]))],
        ..Case::default()
    }
    .check(
        &["create file//etc/app/a: missing", "create file//etc/app/d/b: missing"],
        &["file//etc/app/a", "file//etc/app/d/b", "folder//etc/app", "folder//etc/app/d"],
    );
    let owned = vec!["file//etc/app/a", "folder//etc/app"];
    let same = Case {
        want: vec![(A, "1")],
        inventory: owned.clone(),
        found: vec![(A, there("1"))],
        folders: vec![("/etc/app", vec![A])],
        ..Case::default()
    };
    same.check(&[], &owned);
    Case { found: vec![(A, there("2"))], ..same }.check(&["update file//etc/app/a: content"], &owned);
    Case {
        want: vec![(A, "1")],
        inventory: owned.clone(),
        found: vec![(A, Found::File { digest: None, mode: 0o600, owner: (5, 0) })],
        ..Case::default()
    }
    .check(&["update file//etc/app/a: content, mode, owner"], &owned);
    Case {
        want: vec![(A, "1")],
        inventory: owned.clone(),
        found: vec![(A, Found::Other("a link"))],
        ..Case::default()
    }
    .check(&["update file//etc/app/a: a link took its place"], &owned);
}

#[test]
fn what_burgee_did_not_make_is_adopted_only_when_it_is_as_desired() {
    let foreign = |found| Case { want: vec![(A, "1")], found: vec![(A, found)], ..Case::default() };
    foreign(there("1")).check(&[], &["file//etc/app/a"]);
    foreign(there("2")).refuse("ForeignObject", "/etc/app/a exists");
    foreign(Found::File { digest: Some(Digest::of(b"1")), mode: 0o600, owner: OWNER }).refuse("ForeignObject", "0600");
    foreign(Found::Other("a link")).refuse("ForeignObject", "a link");
    foreign(Found::Other("a folder")).refuse("ForeignObject", "a folder");
    foreign(Found::BehindFile { at: "/etc/app".into() }).refuse("ForeignObject", "/etc/app exists");
    foreign(Found::BehindLink { at: "/etc/app".into(), to: "/root".into() }).refuse("Refused", "/etc/app is a link");
}

#[test]
fn what_leaves_goes_and_folders_only_when_they_are_empty() {
    let case = |inside| Case {
        leaves: true,
        inventory: vec!["file//etc/app/a", "file//etc/app/d/b", "folder//etc/app", "folder//etc/app/d"],
        found: vec![(A, there("1")), ("/etc/app/d/b", there("1"))],
        folders: vec![("/etc/app", vec![A, "/etc/app/d"]), ("/etc/app/d", inside)],
        ..Case::default()
    };
    let files = ["delete file//etc/app/a: no longer wanted", "delete file//etc/app/d/b: no longer wanted"];
    let folders =
        ["delete folder//etc/app/d: empty and made by burgee", "delete folder//etc/app: empty and made by burgee"];
    case(vec!["/etc/app/d/b"]).check(&[files.as_slice(), &folders].concat(), &[]);
    // Somebody keeps something there: it is theirs now, and nothing is planned for ever.
    case(vec!["/etc/app/d/b", "/etc/app/d/mine"]).check(&files, &[]);
    Case { leaves: true, inventory: vec!["file//etc/app/a"], found: vec![(A, absent(&[]))], ..Case::default() }
        .check(&[], &[]);
    Case {
        leaves: true,
        inventory: vec!["file//etc/app/a"],
        found: vec![(A, Found::Other("a folder"))],
        ..Case::default()
    }
    .check(&[], &[]);
}

#[test]
fn a_folder_that_two_apps_use_goes_with_the_last() {
    Case {
        want: vec![(A, "1")],
        found: vec![(A, absent(&[]))],
        shared: vec!["/etc/app", "/etc/other"],
        ..Case::default()
    }
    .check(&["create file//etc/app/a: missing"], &["file//etc/app/a", "folder//etc/app"]);
}

#[test]
fn a_file_becomes_a_folder_and_back() {
    Case {
        want: vec![("/etc/app/a/b", "1")],
        inventory: vec!["file//etc/app/a"],
        found: vec![(A, there("1")), ("/etc/app/a/b", Found::BehindFile { at: A.into() })],
        ..Case::default()
    }
    .check(
        &["delete file//etc/app/a: no longer wanted", "create file//etc/app/a/b: missing"],
        &["file//etc/app/a/b", "folder//etc/app/a"],
    );
    Case {
        want: vec![(A, "1")],
        inventory: vec!["file//etc/app/a/b", "folder//etc/app/a"],
        found: vec![(A, Found::Other("a folder")), ("/etc/app/a/b", there("1"))],
        folders: vec![(A, vec!["/etc/app/a/b"])],
        ..Case::default()
    }
    .check(
        &[
            "delete file//etc/app/a/b: no longer wanted",
            "delete folder//etc/app/a: empty and made by burgee",
            "create file//etc/app/a: a folder",
        ],
        &["file//etc/app/a"],
    );
}

#[test]
fn apps_hand_files_to_each_other() {
    let moved = |claims| Case {
        want: vec![(A, "1")],
        found: vec![(A, there("2"))],
        neighbours: vec![(A, claims)],
        ..Case::default()
    };
    moved(false).check(&["update file//etc/app/a: content"], &["file//etc/app/a"]);
    moved(true).refuse("Refused", "app other delivers it, too");
    Case {
        leaves: true,
        inventory: vec!["file//etc/app/a"],
        found: vec![(A, there("1"))],
        neighbours: vec![(A, true)],
        ..Case::default()
    }
    .check(&[], &[]);
    // Back at last good, after a restart: nobody tells that the other app had it.
    Case { want: vec![(A, "1")], found: vec![(A, there("2"))], had: vec![A], ..Case::default() }
        .check(&["update file//etc/app/a: content"], &["file//etc/app/a"]);
}

const UNIT_FILE: &str = "/etc/systemd/system/a.service";

#[test]
fn units_are_enabled_reloaded_and_started_in_that_order() {
    let new = Case {
        want: vec![(UNIT_FILE, "[Service]")],
        units: vec!["a.service"],
        found: vec![(UNIT_FILE, absent(&[]))],
        states: vec![Unit { load: "not-found".into(), ..unit_at("a.service", "inactive", "") }],
        ..Case::default()
    };
    let owned = ["file//etc/systemd/system/a.service", "unit/a.service"];
    new.check(
        &[
            "create file//etc/systemd/system/a.service: missing",
            "create unit/a.service: its unit file changed",
            RELOAD,
            "start unit/a.service: does not exist",
        ],
        &owned,
    );
    let running = Case {
        found: vec![(UNIT_FILE, there("[Service]"))],
        inventory: owned.to_vec(),
        states: vec![unit_at("a.service", "active", "enabled")],
        marked: vec!["a.service"],
        ..new
    };
    running.check(&[], &owned);
    // Power went between the write and the reload, or the restart.
    let restart = "restart unit/a.service: not restarted since its app's files changed";
    let cut = Case { marked: vec![], reload: true, ..running };
    cut.check(&["create unit/a.service: its unit file changed", RELOAD, restart], &owned);
    let cut = Case { reload: false, ..cut };
    cut.check(&[restart], &owned);
    let changed = Case { found: vec![(UNIT_FILE, there("old"))], marked: vec!["a.service"], ..cut };
    changed.check(
        &[
            "update file//etc/systemd/system/a.service: content",
            "create unit/a.service: its unit file changed",
            RELOAD,
            "restart unit/a.service: a file of its app changed",
        ],
        &owned,
    );
    Case {
        want: vec![],
        leaves: true,
        units: vec![],
        folders: vec![],
        found: vec![(UNIT_FILE, there("[Service]"))],
        ..changed
    }
    .check(
        &[
            "delete unit/a.service: no longer wanted",
            "delete file//etc/systemd/system/a.service: no longer wanted",
            RELOAD,
        ],
        &[],
    );
}

#[test]
fn a_file_that_systemd_does_not_read_needs_no_reload() {
    Case {
        want: vec![(A, "2")],
        units: vec!["a.service"],
        inventory: vec!["file//etc/app/a", "unit/a.service"],
        found: vec![(A, there("1"))],
        states: vec![unit_at("a.service", "active", "enabled")],
        marked: vec!["a.service"],
        ..Case::default()
    }
    .check(
        &["update file//etc/app/a: content", "restart unit/a.service: a file of its app changed"],
        &["file//etc/app/a", "unit/a.service"],
    );
}

#[test]
fn quadlets_are_started_and_never_enabled() {
    const QUADLET: &str = "/etc/containers/systemd/web.container";
    let owned = ["file//etc/containers/systemd/web.container", "unit/web.service"];
    let new = Case {
        want: vec![(QUADLET, "[Container]")],
        units: vec!["web.service"],
        found: vec![(QUADLET, absent(&[]))],
        states: vec![Unit { load: "not-found".into(), ..unit_at("web.service", "inactive", "") }],
        ..Case::default()
    };
    new.check(
        &[
            "create file//etc/containers/systemd/web.container: missing",
            RELOAD,
            "start unit/web.service: does not exist",
        ],
        &owned,
    );
    Case {
        inventory: vec!["file//etc/containers/systemd/web.container"],
        found: vec![(QUADLET, there("[Container]"))],
        states: vec![unit_at("web.service", "active", "generated")],
        marked: vec!["web.service"],
        ..new
    }
    .check(&[], &owned);
    for (file, unit) in [
        ("/x/a.container", Some("a.service")),
        ("/x/a.kube", Some("a.service")),
        ("/x/a.volume", Some("a-volume.service")),
        ("/x/a.network", Some("a-network.service")),
        ("/x/a.image", Some("a-image.service")),
        ("/x/a.pod", Some("a-pod.service")),
        ("/x/a.conf", None),
    ] {
        assert_eq!(generated(file).as_deref(), unit);
    }
}

#[test]
fn units_that_stopped_are_started_and_those_that_are_done_stay_so() {
    let case = |unit: Unit, marked: bool| Case {
        want: vec![(A, "1")],
        units: vec!["a.service"],
        inventory: vec!["file//etc/app/a", "unit/a.service"],
        found: vec![(A, there("1"))],
        states: vec![unit],
        marked: if marked { vec!["a.service"] } else { vec![] },
        ..Case::default()
    };
    let owned = ["file//etc/app/a", "unit/a.service"];
    let mut dead = unit_at("a.service", "inactive", "enabled");
    dead.sub = "dead".into();
    case(dead.clone(), true).check(&["start unit/a.service: inactive (dead)"], &owned);
    let mut done = dead.clone();
    done.service.as_mut().unwrap().oneshot = true;
    case(done.clone(), true).check(&[], &owned);
    // systemd forgot it: the mark tells, for this boot.
    let mut forgotten = done.clone();
    forgotten.service.as_mut().unwrap().ran = false;
    case(forgotten.clone(), true).check(&[], &owned);
    let rebooted = Case { boot: "former", ..case(forgotten, true) };
    rebooted.check(&["start unit/a.service: inactive (dead)"], &owned);
    case(done, false).check(&["start unit/a.service: inactive (dead)"], &owned);
    let mut unmet = dead;
    unmet.condition = false;
    case(unmet, true).check(&[], &owned);
    case(unit_at("a.service", "activating", "enabled"), true).check(&[], &owned);
    let off = unit_at("a.service", "active", "disabled");
    case(off, true).check(&["create unit/a.service: disabled", RELOAD], &owned);
    case(unit_at("a.service", "inactive", "masked"), true).refuse("Refused", "masked");
}

#[test]
fn a_unit_that_ran_before_burgee_came_is_left_running() {
    const DROP_IN: &str = "/etc/systemd/system/docker.service.d/burgee.conf";
    let case = Case {
        want: vec![(DROP_IN, "[Service]")],
        units: vec!["docker.service"],
        found: vec![(DROP_IN, absent(&[]))],
        states: vec![unit_at("docker.service", "active", "enabled")],
        ..Case::default()
    };
    let owned = ["file//etc/systemd/system/docker.service.d/burgee.conf", "unit/docker.service=found"];
    case.check(
        &[
            "create file//etc/systemd/system/docker.service.d/burgee.conf: missing",
            RELOAD,
            "restart unit/docker.service: a file of its app changed",
        ],
        &owned,
    );
    Case { leaves: true, inventory: owned.to_vec(), found: vec![(DROP_IN, there("[Service]"))], ..case }
        .check(&["delete file//etc/systemd/system/docker.service.d/burgee.conf: no longer wanted", RELOAD], &[]);
    // Units alone: nothing that a restart could bring in.
    Case {
        units: vec!["docker.service"],
        states: vec![unit_at("docker.service", "active", "enabled")],
        ..Case::default()
    }
    .check(&[], &["unit/docker.service=found"]);
}

#[test]
fn sockets_come_before_what_they_activate() {
    let plan = Case {
        units: vec!["a.service", "a.socket"],
        states: vec![unit_at("a.service", "inactive", "static"), unit_at("a.socket", "inactive", "disabled")],
        ..Case::default()
    }
    .run()
    .unwrap();
    let order: Vec<_> = plan.steps.iter().map(|step| step.object.to_string()).collect();
    assert_eq!(order, ["unit/a.socket", "systemd/manager", "unit/a.socket", "unit/a.service"]);
}
