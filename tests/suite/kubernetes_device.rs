//! What an agent finds on its device to reach and to fill Kubernetes with:
//! `kubectl` for kustomizations, a kubeconfig, the account of a pod.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::cluster::Cluster;
use harness::device::Setup;
use harness::kube_stage::{Stage, config_map};
use harness::wait::until;

const LONG: Duration = Duration::from_secs(60);

/// Has a command run in a mount namespace of its own, after these lines of shell.
fn within(command: &mut Command, lines: &str) {
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "--propagation", "private", "sh", "-ec", &format!("{lines}\nexec \"$@\""), "sh"]);
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    *command = outer;
}

/// Whatever of Kubernetes this machine itself has is not the device's.
const BARE: &str = "for found in /usr/local/bin/kubectl /usr/bin/kubectl /opt/bin/kubectl /usr/local/bin/k3s /usr/bin/k3s \
    /opt/bin/k3s /etc/rancher/k3s/k3s.yaml; do [ ! -e $found ] || mount --bind /dev/null $found; done";

fn script(path: &Path, text: &str) {
    drop(fs::remove_file(path));
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Starts the agent on a bare machine, with these programs alone.
fn start_bare(stage: &mut Stage) {
    stage.start_with(|device, command| {
        let bin = device.folder.join("bin");
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        within(command, BARE);
    });
}

#[test]
fn a_device_without_kubectl_renders_no_kustomization_and_says_so() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let bin = stage.device.folder.join("bin");
    fs::remove_file(bin.join("kubectl")).expect("it was there");
    start_bare(&mut stage);

    // Plain manifests need none.
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    let first = stage.pushed("first");

    stage.manifest("shop", "x.yaml", &[config_map("map", "2")]);
    stage.repo.write("apps/shop/kubernetes/kustomization.yaml", "nameSuffix: -k\nresources: [x.yaml]\n");
    let second = stage.push("a kustomization");
    let status = stage.device.wait_stalled(&first, &second, 60);
    let conditions = status["conditions"].to_string();
    assert!(
        conditions.contains("app shop: ") && conditions.contains("there is no kubectl on this device"),
        "{status:#}"
    );
    assert!(conditions.contains("hint: install kubectl"), "{status:#}");
    let value = |name: &str| cluster.get(&stage.space, "configmap", name)["data"]["value"].clone();
    assert_eq!((value("map").as_str(), value("map-k").as_str()), (Some("1"), None), "nothing was touched");

    // k3s has one inside.
    script(
        &bin.join("k3s"),
        &format!(
            "#!/bin/sh\n[ \"$1\" = kubectl ] || exit 9\nshift\nexec {} \"$@\"\n",
            cluster.kubectl_program().display()
        ),
    );
    stage.manifest("shop", "x.yaml", &[config_map("map", "3")]);
    stage.pushed("again");
    let value = |name: &str| cluster.get(&stage.space, "configmap", name)["data"]["value"].clone();
    assert_eq!((value("map").as_str(), value("map-k").as_str()), (None, Some("3")));
}

#[test]
fn a_kubectl_that_hangs_is_ended_in_its_time() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    let first = stage.pushed("first");

    let kubectl = stage.device.folder.join("bin/kubectl");
    let pid = stage.device.folder.join("kubectl.pid");
    script(&kubectl, &format!("#!/bin/sh\necho $$ >{}\nexec /bin/sleep 600\n", pid.display()));
    stage.repo.write("apps/shop/kubernetes/kustomization.yaml", "nameSuffix: -k\nresources: [x.yaml]\n");
    let second = stage.push("a kustomization");
    let pid = until("it is rendered", LONG, || fs::read_to_string(&pid).ok().filter(|text| text.ends_with('\n')));
    // The agent does not hang with it.
    let status = stage.device.status().expect("the agent answers");
    assert_eq!(status["revision"], first, "{status:#}");
    let status = stage.device.wait_stalled(&first, &second, 90);
    let conditions = status["conditions"].to_string();
    assert!(conditions.contains("bin/kubectl did not end within 60 s"), "{status:#}");
    until("it is gone", LONG, || (!Path::new("/proc").join(pid.trim()).exists()).then_some(()));
    assert_eq!(cluster.get(&stage.space, "configmap", "map")["data"]["value"], "1");

    fs::remove_file(&kubectl).expect("it was there");
    symlink(cluster.kubectl_program(), &kubectl).expect("a link");
    stage.manifest("shop", "x.yaml", &[config_map("map", "2")]);
    stage.pushed("again");
    assert_eq!(cluster.get(&stage.space, "configmap", "map-k")["data"]["value"], "2");
}

#[test]
fn an_agent_in_a_pod_has_the_pods_account() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let space = stage.space.clone();
    let setup = Setup::new("store-1", &stage.forge.url(), &stage.repo.signer.line()).with("[runtime.kubernetes]\n");
    stage.device.configure(&setup);
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);

    // Neither a pod nor k3s: it waits, and says for what.
    start_bare(&mut stage);
    let head = stage.push("first");
    let waits = |status: &serde_json::Value| status["conditions"].to_string().contains("there is no kubeconfig");
    let status = stage.device.wait("it has no way", 30, waits);
    assert!(status["conditions"].to_string().contains("hint: name one in runtime.kubernetes.kubeconfig"), "{status:#}");
    assert_eq!(status["blocked"].as_array().map(Vec::len), Some(0), "no fault of the revision: {status:#}");
    assert_eq!(stage.device.stop(), Some(0));

    // In a pod, whose account may do nothing yet.
    cluster.kubectl(&["create", "serviceaccount", "burgee", "-n", &space]);
    let account = stage.device.folder.join("account");
    fs::create_dir(&account).expect("a folder");
    fs::write(account.join("ca.crt"), cluster.ca()).expect("its authority");
    let token = cluster.kubectl(&["create", "token", "burgee", "-n", &space, "--duration=1h"]);
    fs::write(account.join("token"), token.trim()).expect("its token");
    let address = cluster.address();
    let (host, port) = address.trim_start_matches("https://").rsplit_once(':').expect("a port");
    stage.start_with(|_, command| {
        command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
        let folder = "/run/secrets/kubernetes.io/serviceaccount";
        // A pod's /run is its own.
        within(
            command,
            &format!("{BARE}\nmount -t tmpfs run /run\nmkdir -p {folder}\nmount --bind {} {folder}", account.display()),
        );
    });
    let who = format!("system:serviceaccount:{space}:burgee");
    let status = stage.device.wait("it may not", 30, |status| status["conditions"].to_string().contains(&who));
    assert!(status["conditions"].to_string().contains("configmaps"), "{status:#}");
    assert_eq!(status["blocked"].as_array().map(Vec::len), Some(0), "no fault of the revision: {status:#}");

    let binding = format!("burgee-{space}");
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        &binding,
        "--clusterrole=cluster-admin",
        &format!("--serviceaccount={space}:burgee"),
    ]);
    stage.device.wait_steady(&head, 90);
    let map = cluster.get(&space, "configmap", "map");
    assert_eq!(map["data"]["value"], "1");
    cluster.kubectl(&["delete", "clusterrolebinding", &binding]);
}
