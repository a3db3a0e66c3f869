//! Case tables for the planner: what there is, what is wanted, which steps.

use std::collections::{BTreeMap, BTreeSet};

use fleet::compose::model::{Attachment, Condition, Dependency, Mode, Network, Project, Restart, Service};
use fleet::desired::{AppSpec, DesiredApp, DriftMode, DriftPolicy, HealthPolicy, Limit, OnFailure, PrunePolicy};
use fleet::digest::Digest;
use fleet::name::AppName;

use super::diff::{self, Wanted};
use super::identity;
use super::observe::{Observed, Seen, SeenObject, Stand};
use crate::ports::runtime::{Pins, RuntimeError};

fn service(image: &str) -> Service {
    Service {
        image: image.to_owned(),
        replicas: 1,
        restart: Restart::Always,
        networks: [("default".to_owned(), Attachment::default())].into(),
        ..Service::default()
    }
}

/// web depends on db, side shares db's network.
fn project() -> Project {
    let mut web = service("a");
    let how = Dependency { condition: Condition::Healthy, restart: false, required: true };
    web.depends_on.insert("db".to_owned(), how);
    let mut side = service("a");
    side.networks.clear();
    side.network_mode = Some(Mode::Service("db".to_owned()));
    let network = Network { name: "p_default".to_owned(), ..Network::default() };
    Project {
        name: "p".to_owned(),
        services: [("web", web), ("db", service("a")), ("side", side)].map(|(name, it)| (name.to_owned(), it)).into(),
        networks: [("default".to_owned(), network)].into(),
        volumes: BTreeMap::new(),
    }
}

fn pins() -> Pins {
    [("a", "sha256:1"), ("b", "sha256:2")].map(|(image, id)| (image.to_owned(), id.to_owned())).into()
}

/// As it is after `project` was applied whole.
fn applied(project: &Project) -> Observed {
    let identities = identity::services(project, &pins()).unwrap();
    let mut observed = Observed::default();
    for (name, service) in &project.services {
        let networks: BTreeSet<String> =
            service.networks.keys().map(|key| project.networks[key].name.clone()).collect();
        observed.containers.push(Seen {
            id: format!("id-{name}"),
            name: format!("p-{name}-1"),
            service: name.clone(),
            number: 1,
            digest: identities[name].digest.clone(),
            stand: Stand::Running,
            networks,
            refers: identities[name].refers.iter().map(|on| format!("id-{on}")).collect(),
            depends: service.depends_on.keys().cloned().collect(),
            ports: BTreeSet::new(),
            grace_secs: 10,
        });
    }
    for network in project.networks.values() {
        let digest = identity::network(network).unwrap();
        observed.networks.insert(network.name.clone(), SeenObject { id: "net".to_owned(), digest });
    }
    observed
}

fn steps(project: &Project, observed: &Observed) -> Result<Vec<String>, RuntimeError> {
    let name: AppName = "app".parse().unwrap();
    let desired = DesiredApp {
        name: name.clone(),
        depends_on: vec![],
        spec: AppSpec::Compose(Box::new(project.clone())),
        health: HealthPolicy { timeout_ms: 1000, soak_ms: 0, checks: vec![] },
        drift: DriftPolicy { mode: DriftMode::Correct, ignore: vec![] },
        prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: vec!["volumes".to_owned()] },
        on_failure: OnFailure::Rollback,
        digest: Digest::of(b""),
    };
    let wanted = Wanted {
        app: &name,
        desired: &desired,
        project,
        had: None,
        identities: &identity::services(project, &pins()).unwrap(),
        folders: &BTreeSet::new(),
    };
    let plan = diff::plan(&wanted, observed)?;
    Ok(plan.steps.iter().map(|step| format!("{:?} {}", step.verb, step.object)).collect())
}

#[test]
fn from_nothing_everything_is_created_before_anything_starts() {
    let want = [
        "Create network/p_default",
        "Create container/p-db-1",
        "Create container/p-side-1",
        "Create container/p-web-1",
        "Start container/p-db-1",
        "Start container/p-side-1",
        "Wait container/p-db-1",
        "Start container/p-web-1",
    ];
    assert_eq!(steps(&project(), &Observed::default()).unwrap(), want);
}

fn stand(observed: &mut Observed, name: &str, stand: Stand) {
    observed.containers.iter_mut().filter(|it| it.service == name).for_each(|it| it.stand = stand);
}

#[test]
fn changes_and_drift() {
    let check = |project_change: fn(&mut Project), drift: fn(&mut Observed), want: &[&str]| {
        let mut project = project();
        let mut observed = applied(&project);
        project_change(&mut project);
        drift(&mut observed);
        assert_eq!(steps(&project, &observed).unwrap(), want);
    };
    check(|_| (), |_| (), &[]);
    // One image: that container alone, created before the former one goes.
    check(
        |it| it.services.get_mut("web").unwrap().image = "b".to_owned(),
        |_| (),
        &["Replace container/p-web-1", "Wait container/p-db-1", "Replace container/p-web-1", "Start container/p-web-1"],
    );
    // What shares a namespace goes along, and goes first.
    check(
        |it| it.services.get_mut("db").unwrap().image = "b".to_owned(),
        |_| (),
        &[
            "Replace container/p-db-1",
            "Replace container/p-side-1",
            "Replace container/p-side-1",
            "Replace container/p-db-1",
            "Start container/p-db-1",
            "Start container/p-side-1",
        ],
    );
    // A network that changes is made anew, and all that is on it.
    check(
        |it| it.networks.get_mut("default").unwrap().internal = true,
        |_| (),
        &[
            "Replace container/p-web-1",
            "Replace container/p-side-1",
            "Replace container/p-db-1",
            "Replace network/p_default",
            "Replace container/p-db-1",
            "Replace container/p-side-1",
            "Replace container/p-web-1",
            "Start container/p-db-1",
            "Start container/p-side-1",
            "Wait container/p-db-1",
            "Start container/p-web-1",
        ],
    );
    check(
        |_| (),
        |it| stand(it, "web", Stand::Exited { code: 0 }),
        &["Wait container/p-db-1", "Start container/p-web-1"],
    );
    check(|_| (), |it| stand(it, "db", Stand::Paused), &["Start container/p-db-1"]);
    check(|_| (), |it| stand(it, "db", Stand::Restarting), &[]);
    check(|it| it.services.get_mut("web").unwrap().replicas = 0, |_| (), &["Delete container/p-web-1"]);
    check(
        |_| (),
        |it| it.containers.retain(|it| it.service != "web"),
        &["Create container/p-web-1", "Wait container/p-db-1", "Start container/p-web-1"],
    );
    // The agent died between removing the former container and the renaming.
    check(
        |_| (),
        |it| it.containers.iter_mut().filter(|it| it.service == "web").for_each(|it| it.name.push_str(".abc")),
        &["Wait container/p-db-1", "Start container/p-web-1"],
    );
}

#[test]
fn a_job_that_is_done_is_not_run_again() {
    let check = |restart: Restart, code: i64, want: &[&str]| {
        let mut project = project();
        project.services.retain(|name, _| name == "db");
        project.services.get_mut("db").unwrap().restart = restart;
        let mut observed = applied(&project);
        observed.containers[0].stand = Stand::Exited { code };
        assert_eq!(steps(&project, &observed).unwrap(), want, "{restart:?} {code}");
    };
    check(Restart::No, 0, &[]);
    check(Restart::OnFailure { max_retries: Some(1) }, 0, &[]);
    check(Restart::No, 1, &["Start container/p-db-1"]);
    check(Restart::Always, 0, &["Start container/p-db-1"]);
    check(Restart::UnlessStopped, 0, &["Start container/p-db-1"]);
}

#[test]
fn names_of_others_are_refused() {
    let check = |taken: fn(&mut Observed), name: &str| {
        let mut observed = Observed::default();
        taken(&mut observed);
        let error = steps(&project(), &observed).unwrap_err();
        assert!(matches!(error, RuntimeError::Foreign { .. }), "{error}");
        assert!(error.to_string().starts_with(name), "{error}");
    };
    check(|it| drop(it.foreign_containers.insert("p-web-1".to_owned(), String::new())), "container/p-web-1");
    check(|it| drop(it.foreign_networks.insert("p_default".to_owned(), String::new())), "network/p_default");
}
