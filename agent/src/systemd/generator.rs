//! The agent as a systemd generator (`systemd.generator(7)`): tells systemd what
//! `burgee-agent.service`, for which everything is read-only, may write.
//!
//! Packages install a link of this name to the agent. systemd calls it at boot
//! and at every `daemon-reload`; it reads the settings as the agent does, and
//! writes one drop-in. So `runtime.files.allow` is said in one place alone.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::settings::Settings;
use crate::config::{self, Inputs};

const NAME: &str = "burgee-agent-generator";
const DROP_IN: &str = "burgee-agent.service.d/50-paths.conf";
/// What the unit lets the agent write to in any case.
const IN_THE_UNIT: [&str; 2] = ["/var/lib/burgee", "/run/burgee"];

/// Does a generator's work where this process was called as one; `None` where
/// it was not.
pub fn called(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    if Path::new(&arguments.next()?).file_name()? != NAME {
        return None;
    }
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        eprintln!("{NAME}: no folder to write to was named");
        return Some(ExitCode::from(2));
    };
    Some(match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    })
}

fn write(folder: &Path) -> Result<(), String> {
    let inputs = config::read(None, &[]).map_err(|error| error.to_string())?;
    // Wrong: the agent says it better.
    let Some(settings) = settings(inputs) else { return Ok(()) };
    let path = folder.join(DROP_IN);
    let failed = |error: std::io::Error| format!("writing {} failed: {error}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
    std::fs::write(&path, drop_in(&settings)).map_err(failed)
}

/// The settings, whatever the device's name: what a name is made of (a network
/// card) may not be there yet so early in a boot.
fn settings(mut inputs: Inputs) -> Option<Settings> {
    inputs.settings().ok().or_else(|| {
        inputs.add_flag("device.name=not-known-yet").ok()?;
        inputs.settings().ok()
    })
}

/// The text of the drop-in.
fn drop_in(settings: &Settings) -> String {
    let root = &settings.files.root;
    let allowed = settings.files.allow.iter().map(|path| root.join(path.strip_prefix("/").unwrap_or(path)));
    let socket = settings.control.socket.parent().map(Path::to_owned);
    let mut text = String::from("# By burgee-agent-generator, from agent.toml.\n[Service]\n");
    let own = [settings.store.path.clone()].into_iter().chain(socket);
    for path in allowed.chain(own.filter(|path| !IN_THE_UNIT.contains(&path.to_str().unwrap_or_default()))) {
        // A name that no line of a unit can hold stays read-only.
        let Some(word) = path.to_str().filter(|path| !path.contains(['\n', '\r'])).map(escaped) else { continue };
        // systemd can only open what is there; this one command runs outside of the walls.
        let _ = writeln!(text, "ExecStartPre=+-/bin/mkdir -p -- \"{}\"", word.replace('$', "$$"));
        let _ = writeln!(text, "ReadWritePaths=\"-{word}\"");
    }
    // The file alone, to be emptied: the root of trust may lie beside it.
    let token = settings.hub.as_ref().and_then(|hub| hub.token_file.as_ref()).and_then(|path| path.to_str());
    if let Some(word) = token.filter(|path| !path.contains(['\n', '\r'])).map(escaped) {
        let _ = writeln!(text, "ReadWritePaths=\"-{word}\"");
    }
    text
}

/// As a double-quoted word of a unit file holds it.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::{called, drop_in, settings};
    use crate::config::Inputs;

    #[test]
    fn what_may_be_written_is_what_the_settings_name() {
        let mut inputs = Inputs::default();
        let text = "[device]\nname = \"a\"\n[source]\nurl = \"https://example.com/fleet.git\"\n\
            [runtime.files]\nroot = \"/mnt\"\nallow = [\"/etc/till\", \"/srv/50% \\\"off\\\" $HOME\"]\n[store]\npath = \"/data/burgee\"\n\
            [hub]\nurl = \"https://hub.example.com\"\ntoken_file = \"join-token\"\n";
        inputs.add_text(text, "agent.toml", std::path::Path::new("/etc/burgee").into()).unwrap();
        let made = drop_in(&inputs.settings().unwrap());
        let lines: Vec<&str> = made.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "ExecStartPre=+-/bin/mkdir -p -- \"/mnt/etc/till\"",
                "ReadWritePaths=\"-/mnt/etc/till\"",
                "ExecStartPre=+-/bin/mkdir -p -- \"/mnt/srv/50%% \\\"off\\\" $$HOME\"",
                "ReadWritePaths=\"-/mnt/srv/50%% \\\"off\\\" $HOME\"",
                "ExecStartPre=+-/bin/mkdir -p -- \"/data/burgee\"",
                "ReadWritePaths=\"-/data/burgee\"",
                "ReadWritePaths=\"-/etc/burgee/join-token\"",
            ]
        );
    }

    #[test]
    fn a_name_that_can_not_be_made_yet_hides_nothing() {
        let mut inputs = Inputs::default();
        let text =
            "[device]\nname = \"{uuid}\"\n[source]\nurl = \"/fleet\"\n[runtime.files]\nallow = [\"/etc/till\"]\n";
        inputs.add_text(text, "agent.toml", std::path::Path::new("/etc/burgee").into()).unwrap();
        let made = drop_in(&settings(inputs.clone()).unwrap());
        assert!(made.contains("ReadWritePaths=\"-/etc/till\""), "{made}");
        inputs.add_flag("source.branch=..").unwrap();
        assert!(settings(inputs).is_none(), "what is wrong in itself is not written");
    }

    #[test]
    fn only_by_its_own_name() {
        assert!(called(["/usr/bin/burgee-agent".into(), "run".into()]).is_none());
        assert!(called([]).is_none());
        assert!(called(["burgee-agent-generator".into()]).is_some());
    }
}
