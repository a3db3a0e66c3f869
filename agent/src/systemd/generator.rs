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

use crate::config::{self, ConfigError, Inputs};

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
    // Only of what is needed: at this time of a boot, a device may not know its name yet.
    let text =
        config::read_of_any_age(None, &[]).and_then(|inputs| drop_in(&inputs)).map_err(|error| error.to_string())?;
    let path = folder.join(DROP_IN);
    let failed = |error: std::io::Error| format!("writing {} failed: {error}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
    std::fs::write(&path, text).map_err(failed)
}

/// The text of the drop-in.
fn drop_in(inputs: &Inputs) -> Result<String, ConfigError> {
    let files = inputs.file_settings()?;
    let allowed = files.allow.iter().map(|path| (files.root.join(path.strip_prefix("/").unwrap_or(path)), "0755"));
    let socket = inputs.socket().parent().map(|folder| (folder.to_owned(), "0755"));
    let own = [(inputs.store(), "0700")].into_iter().chain(socket);
    let own = own.filter(|(path, _)| !IN_THE_UNIT.contains(&path.to_str().unwrap_or_default()));
    let mut text = String::from("# By burgee-agent-generator, from agent.toml.\n[Service]\n");
    for (path, mode) in allowed.chain(own) {
        // A name that no line of a unit can hold stays read-only.
        let Some(word) = path.to_str().filter(|path| !path.contains(['\n', '\r'])).map(escaped) else { continue };
        // systemd can only open what is there; this one command runs outside of the walls.
        let _ = writeln!(text, "ExecStartPre=+-/bin/mkdir -p -m {mode} -- \"{}\"", word.replace('$', "$$"));
        let _ = writeln!(text, "ReadWritePaths=\"-{word}\"");
    }
    // The file alone, to be emptied: the root of trust may lie beside it.
    let token = inputs.token_file();
    let token = token.as_ref().and_then(|path| path.to_str()).filter(|path| !path.contains(['\n', '\r']));
    if let Some(word) = token.map(escaped) {
        let _ = writeln!(text, "ReadWritePaths=\"-{word}\"");
    }
    Ok(text)
}

/// As a double-quoted word of a unit file holds it.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::{Inputs, called, drop_in};

    #[test]
    fn what_may_be_written_is_what_the_settings_name() {
        let mut inputs = Inputs::default();
        let text = "[device]\nname = \"{no-such-fact}\"\n[runtime.files]\nroot = \"/mnt\"\nallow = [\"/etc/till\", \"/srv/50% \\\"off\\\" $HOME\"]\n[store]\npath = \"/data/burgee\"\n[hub]\ntoken_file = \"join-token\"\n";
        inputs.add_text(text, "agent.toml", std::path::Path::new("/etc/burgee").into()).unwrap();
        let made = drop_in(&inputs).unwrap();
        let lines: Vec<&str> = made.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "ExecStartPre=+-/bin/mkdir -p -m 0755 -- \"/mnt/etc/till\"",
                "ReadWritePaths=\"-/mnt/etc/till\"",
                "ExecStartPre=+-/bin/mkdir -p -m 0755 -- \"/mnt/srv/50%% \\\"off\\\" $$HOME\"",
                "ReadWritePaths=\"-/mnt/srv/50%% \\\"off\\\" $HOME\"",
                "ExecStartPre=+-/bin/mkdir -p -m 0700 -- \"/data/burgee\"",
                "ReadWritePaths=\"-/data/burgee\"",
                "ReadWritePaths=\"-/etc/burgee/join-token\"",
            ]
        );
    }

    #[test]
    fn only_by_its_own_name() {
        assert!(called(["/usr/bin/burgee-agent".into(), "run".into()]).is_none());
        assert!(called([]).is_none());
        assert!(called(["burgee-agent-generator".into()]).is_some());
    }
}
