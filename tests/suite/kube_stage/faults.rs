//! A server in front of the API server that lies about lists: nginx, with the
//! administrator's certificate towards the server and one of its own towards
//! the device.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::broker::Certificates;
use harness::cluster::Cluster;
use harness::net::{answers, free_port};
use harness::process::{Running, run};
use harness::wait::until;
use serde_json::{Value, json};

/// What is answered to a list of `ConfigMap`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Error,
    EmptyList,
}

/// See the module.
pub struct Faults {
    pub kubeconfig: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    upstream: String,
    _nginx: Running,
}

impl Faults {
    /// Passes everything on.
    pub fn start(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let certificates = Certificates::new(folder.path());
        let text = std::fs::read_to_string(cluster.kubeconfig()).expect("a kubeconfig");
        let raw = cluster.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]);
        drop(text);
        let config: Value = serde_json::from_str(&raw).expect("JSON");
        let user = &config["users"][0]["user"];
        for (key, file) in [("client-certificate-data", "admin.pem"), ("client-key-data", "admin.key")] {
            let data = user[key].as_str().expect("the administrator has a certificate");
            run(Command::new("sh").args(["-c", "printf %s \"$1\" | base64 -d > \"$2\"", "sh", data]).arg(path(file)));
        }
        let port = free_port();
        let kubeconfig = path("kubeconfig");
        let ca = certificates.ca.display().to_string();
        let lying = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://localhost:{port}"), "certificate-authority": ca}}],
            "users": [{"name": "u", "user": {"token": "of-no-use"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(&kubeconfig, lying.to_string()).expect("a kubeconfig");
        let config = path("nginx.conf");
        write(&config, &folder.path().display().to_string(), port, &cluster.address(), Fault::None);
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(&config).arg("-p").arg(folder.path()).args(["-e", "error.log", "-g", "daemon off;"]);
        let nginx = Running::start(&mut nginx, &path("nginx.log"));
        until("nginx", Duration::from_secs(10), || answers(port).then_some(()));
        Self { kubeconfig, port, upstream: cluster.address(), folder, _nginx: nginx }
    }

    /// From now on, for new requests.
    pub fn set(&self, fault: Fault) {
        let folder = self.folder.path().display().to_string();
        let config = self.folder.path().join("nginx.conf");
        write(&config, &folder, self.port, &self.upstream, fault);
        run(Command::new("nginx").arg("-c").arg(&config).arg("-p").arg(&folder).args([
            "-e",
            "error.log",
            "-s",
            "reload",
        ]));
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn write(path: &std::path::Path, folder: &str, port: u16, upstream: &str, fault: Fault) {
    let lie = match fault {
        Fault::None => String::new(),
        Fault::Error => "location ~ ^/api/v1/(namespaces/[^/]+/)?configmaps$ { return 500 '{}'; }".to_owned(),
        Fault::EmptyList => "location ~ ^/api/v1/(namespaces/[^/]+/)?configmaps$ { default_type application/json; return 200 '{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}'; }".to_owned(),
    };
    let text = format!(
        "pid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\nserver {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;\n{lie}\nlocation / {{ proxy_pass {upstream}; proxy_ssl_certificate {folder}/admin.pem; proxy_ssl_certificate_key {folder}/admin.key; proxy_set_header Authorization \"\"; proxy_buffering off; proxy_http_version 1.1; }}\n}}\n}}\n"
    );
    std::fs::write(path, text).expect("nginx.conf");
}
