//! A server in front of the API server that counts what is asked, and may lie:
//! nginx, with the administrator's certificate towards the server and one of
//! its own towards the device.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::broker::Certificates;
use crate::cluster::Cluster;
use crate::net::{answers, free_port};
use crate::process::{Running, run};
use crate::wait::until;
use serde_json::{Value, json};

/// What is answered instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// 500 to a list of `ConfigMap`s.
    Error,
    /// An empty list of them.
    EmptyList,
    /// An empty list of them, and 410 to a watch of them.
    Forgetful,
    /// The `ConfigMap` of that name is not there for who asks for it.
    Hidden(&'static str),
    /// The `ConfigMap` of that name may not be deleted.
    Kept(&'static str),
    /// 500 to a list of an app's `Deployment`s.
    Unread,
    /// 503 to a quarter of what is asked about a `ConfigMap`, and no word on when to come again.
    Busy,
    /// 429 to as many, and to come again in a second.
    TooMany,
    /// A watch of `ConfigMap`s gets no answer: it leads to this port, where
    /// nobody takes what comes.
    WatchHangs(u16),
}

/// See the module.
pub struct Between {
    pub kubeconfig: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    upstream: String,
    _nginx: Running,
}

impl Between {
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

    /// Every request that has ended: method, path with query, and status. A watch has
    /// not, for as long as it lasts.
    pub fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("asked.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
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
        // Connections to the old one end within a second.
        std::thread::sleep(Duration::from_millis(1500));
    }
}

fn write(path: &Path, folder: &str, port: u16, upstream: &str, fault: Fault) {
    let pass = format!(
        "proxy_pass https://api; proxy_set_header Host {api}; proxy_set_header Connection \"\"; proxy_ssl_certificate {folder}/admin.pem; proxy_ssl_certificate_key {folder}/admin.key; proxy_set_header Authorization \"\"; proxy_buffering off; proxy_read_timeout 900s; proxy_http_version 1.1;",
        api = upstream.trim_start_matches("https://")
    );
    let lists = "location ~ ^/api/v1/(namespaces/[^/]+/)?configmaps$";
    let missing = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"not found","code":404}"#;
    let kept = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"it is kept","code":403}"#;
    let unread = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"InternalError","message":"conversion failed","code":500}"#;
    let gone = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","message":"too old resource version","code":410}"#;
    let forgotten = if fault == Fault::Forgetful {
        format!("if ($arg_watch = true) {{ return 410 '{gone}'; }}")
    } else {
        String::new()
    };
    let lie = match fault {
        Fault::None => String::new(),
        Fault::Error => format!("{lists} {{ return 500 '{{}}'; }}"),
        Fault::EmptyList | Fault::Forgetful => format!("{lists} {{ default_type application/json; {forgotten} return 200 '{{\"kind\":\"List\",\"metadata\":{{\"resourceVersion\":\"1\"}},\"items\":[]}}'; }}"),
        Fault::Hidden(name) => format!("location ~ /configmaps/{name}$ {{ default_type application/json; if ($request_method = GET) {{ return 404 '{missing}'; }} {pass} }}"),
        Fault::Kept(name) => format!("location ~ /configmaps/{name}$ {{ default_type application/json; if ($request_method = DELETE) {{ return 403 '{kept}'; }} {pass} }}"),
        Fault::Unread => format!("location ~ /deployments$ {{ default_type application/json; if ($args ~ \"burgee.dev%2Fapp\") {{ return 500 '{unread}'; }} {pass} }}"),
        Fault::WatchHangs(port) => "location ~ ^/api/v1/configmaps$ { if ($arg_watch = true) { proxy_pass http://127.0.0.1:PORT; } PASS }".replace("PORT", &port.to_string()).replace("PASS", &pass),
        Fault::TooMany => "location ~ ^/api/v1/namespaces/[^/]+/configmaps/ { set $turn $request_id; if ($turn ~ ^[0-3]) { add_header Retry-After 1 always; return 429 '{}'; } PASS }".replace("PASS", &pass),
        Fault::Busy => "location ~ ^/api/v1/namespaces/[^/]+/configmaps/ { set $turn $request_id; if ($turn ~ ^[0-3]) { return 503 '{}'; } PASS }".replace("PASS", &pass),
    };
    let api = upstream.trim_start_matches("https://");
    let text = format!(
        "pid nginx.pid;\nworker_shutdown_timeout 1s;\nevents {{}}\nhttp {{\nlog_format asked '$request_method $request_uri $status';\naccess_log {folder}/asked.log asked;\nclient_max_body_size 0;\nkeepalive_requests 100000;\nupstream api {{ server {api}; keepalive 16; }}\nclient_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\nserver {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;\n{lie}\nlocation / {{ {pass} }}\n}}\n}}\n"
    );
    std::fs::write(path, text).expect("nginx.conf");
}
