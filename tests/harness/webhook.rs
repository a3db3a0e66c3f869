//! An admission webhook: a real one, over TLS with a certificate authority of
//! its own, that the API server asks about the `ConfigMap`s of one namespace.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::broker::Certificates;
use crate::cluster::Cluster;
use crate::http::Server;
use crate::net::{answers, free_port};
use crate::process::Running;
use crate::wait::until;

/// Its configuration goes with it.
pub struct Webhook<'a> {
    cluster: &'a Cluster,
    name: String,
    port: u16,
    behind: u16,
    folder: tempfile::TempDir,
    asked: Arc<Mutex<u32>>,
    /// nginx, which speaks TLS, and what answers behind it; none: it is down.
    running: Option<(Running, Server)>,
    judge: fn(&Value) -> Option<&'static str>,
}

impl<'a> Webhook<'a> {
    /// `judge` says of a request why it is refused, if it is.
    pub fn start(cluster: &'a Cluster, space: &str, judge: fn(&Value) -> Option<&'static str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certificates = Certificates::new(folder.path());
        let name = format!("{space}.example.com");
        let (port, behind) = (free_port(), free_port());
        let mut webhook = Self { cluster, name, port, behind, folder, asked: Arc::default(), running: None, judge };
        webhook.up();
        let ca = STANDARD.encode(std::fs::read(certificates.ca).expect("a certificate"));
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": webhook.name},
            "webhooks": [{
                "name": webhook.name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Fail", "timeoutSeconds": 5,
                "clientConfig": {"url": format!("https://localhost:{port}/judge"), "caBundle": ca},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}],
            }],
        });
        cluster.apply(&configuration.to_string());
        // The API server takes it up within a moment.
        let probe = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": space}});
        let probe = probe.to_string();
        until("the webhook is asked", Duration::from_secs(30), || {
            cluster.apply(&probe);
            cluster.kubectl(&["delete", "configmap", "probe", "--namespace", space]);
            (webhook.asked() > 0).then_some(())
        });
        webhook
    }

    /// How often it was asked.
    pub fn asked(&self) -> u32 {
        *self.asked.lock().expect("no panic")
    }

    /// Nobody answers any more.
    pub fn down(&mut self) {
        self.running = None;
    }

    pub fn up(&mut self) {
        let (judge, asked) = (self.judge, Arc::clone(&self.asked));
        let server = Server::start(self.behind, move |request| {
            *asked.lock().expect("no panic") += 1;
            let review: Value = serde_json::from_slice(&request.body).expect("an AdmissionReview");
            let refused = judge(&review["request"]);
            let mut response = json!({"uid": review["request"]["uid"], "allowed": refused.is_none()});
            if let Some(words) = refused {
                response["status"] = json!({"code": 403, "message": words});
            }
            let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            (200, answer.to_string())
        });
        let folder = self.folder.path();
        let (shown, port, behind) = (folder.display(), self.port, self.behind);
        let config = folder.join("nginx.conf");
        let text = format!(
            "pid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy; fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\nserver {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate {shown}/server.pem; ssl_certificate_key {shown}/server.key;\nlocation / {{ proxy_pass http://127.0.0.1:{behind}; }}\n}}\n}}\n"
        );
        std::fs::write(&config, text).expect("nginx.conf");
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(&config).arg("-p").arg(folder).args(["-e", "error.log", "-g", "daemon off;"]);
        let nginx = Running::start(&mut nginx, &folder.join("nginx.log"));
        until("nginx", Duration::from_secs(10), || answers(port).then_some(()));
        self.running = Some((nginx, server));
    }
}

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.try_kubectl(&["delete", "validatingwebhookconfiguration", &self.name]);
    }
}
