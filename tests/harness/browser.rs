//! A real browser, headless, spoken to over its debugging pipe.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{has, run};

/// A browser with one page, ended with the test.
pub struct Browser {
    folder: TempDir,
    child: Child,
    to: File,
    from: BufReader<File>,
    session: String,
    last: u64,
    complaints: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts it; panics where there is none.
    #[must_use]
    pub fn start() -> Self {
        let program = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| has(name));
        let program = program.expect("a browser: apt-get install chromium (./dev test does)");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        run(Command::new("mkfifo").args([at("in"), at("out")]));
        // The browser reads its orders from 3 and answers on 4.
        let script = "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
            --hide-scrollbars --remote-debugging-pipe --user-data-dir=\"$1/profile\" about:blank \
            3<\"$1/in\" 4>\"$1/out\" 2>\"$1/log\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, program]).arg(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("starts");
        let to = OpenOptions::new().write(true).open(at("in")).expect("the way in");
        let from = BufReader::new(File::open(at("out")).expect("the way out"));
        let (session, complaints) = (String::new(), Vec::new());
        let mut browser = Self { folder, child, to, from, session, last: 0, complaints };
        let target = browser.ask("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.ask(domain, &json!({}));
        }
        browser
    }

    /// One order and its answer. What the page complains of meanwhile is kept.
    #[track_caller]
    pub fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut order = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            order["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{order}\0").as_bytes()).expect("the browser listens");
        loop {
            let message = self.hear();
            if message["id"] == json!(id) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    #[track_caller]
    fn hear(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).expect("the browser speaks");
        if bytes.pop().is_none() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            panic!("the browser ended: {log}");
        }
        let message: Value = serde_json::from_slice(&bytes).expect("JSON");
        match message["method"].as_str() {
            Some("Log.entryAdded") => {
                let text = message["params"]["entry"]["text"].to_string();
                // Other tests make and remove network interfaces of this machine.
                if !text.contains("ERR_NETWORK_CHANGED") {
                    self.complaints.push(text);
                }
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(message["params"].to_string()),
            _ => {}
        }
        message
    }

    /// Whether pages may run scripts.
    pub fn scripts(&mut self, allowed: bool) {
        self.ask("Emulation.setScriptExecutionDisabled", &json!({"value": !allowed}));
    }

    /// Opens an address and waits until it is loaded.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.ask("Page.navigate", &json!({"url": url}));
        while self.hear()["method"] != "Page.loadEventFired" {}
    }

    /// What an expression comes to in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        answer["result"]["value"].clone()
    }

    /// The document as it is now.
    #[track_caller]
    #[must_use]
    pub fn document(&mut self) -> String {
        self.value("document.documentElement.outerHTML").as_str().expect("a document").to_owned()
    }

    /// Errors that the page met so far: scripts, resources, policy.
    #[must_use]
    pub fn complaints(&mut self) -> Vec<String> {
        self.value("1");
        std::mem::take(&mut self.complaints)
    }

    /// The window; `dark`: what the person prefers.
    pub fn window(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700});
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.ask("Emulation.setEmulatedMedia", &json!({"features": [scheme]}));
    }

    /// By how many pixels the page is wider than a window of that width.
    #[track_caller]
    pub fn overflow(&mut self, width: u32) -> i64 {
        self.window(width, 780, false);
        let value = self.value("document.documentElement.scrollWidth");
        (value.as_i64().expect("a width") - i64::from(width)).max(0)
    }

    /// A picture of the whole page, PNG.
    pub fn picture(&mut self, file: &Path) {
        let answer = self.ask("Page.captureScreenshot", &json!({"captureBeyondViewport": true}));
        let data = STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, data).expect("writes the picture");
    }
}
