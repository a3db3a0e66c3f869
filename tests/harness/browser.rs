//! A real browser, headless, with a profile of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::output;

/// The browser; tests of pages need one.
#[must_use]
pub fn browser() -> &'static str {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| crate::process::has(name))
        .expect("a browser: apt-get install chromium (./dev test does)")
}

fn command(profile: &Path, url: &str) -> Command {
    let mut command = Command::new(browser());
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(url);
    command
}

/// The document after it was open for `open`, as the browser has it then.
#[must_use]
pub fn document(url: &str, open: Duration) -> String {
    let profile = tempfile::tempdir().expect("a folder");
    // Flags must stand before the address.
    let mut command = command(profile.path(), url);
    command.args(["--dump-dom", &format!("--timeout={}", open.as_millis())]);
    let output = output(&mut command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.is_empty(), "the browser says nothing: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A picture of the page.
pub fn screenshot(url: &str, file: &Path, width: u32, height: u32, dark: bool) {
    let profile = tempfile::tempdir().expect("a folder");
    let mut command = command(profile.path(), url);
    command.arg(format!("--screenshot={}", file.display())).arg(format!("--window-size={width},{height}"));
    if dark {
        command.args(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]);
    }
    let output = output(&mut command);
    assert!(file.exists(), "no picture: {}", String::from_utf8_lossy(&output.stderr));
}
