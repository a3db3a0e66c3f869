//! What `--help` prints. Also says which options each command has: the parser
//! knows no others.

use std::fmt::Write as _;

/// One command.
pub(super) struct About {
    pub name: &'static str,
    /// What stands behind the name.
    pub arguments: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Whole paragraphs.
    pub more: &'static str,
    pub flags: &'static [Flag],
}

/// One option.
#[derive(Clone, Copy)]
pub(super) struct Flag {
    pub long: &'static str,
    pub short: Option<&'static str>,
    /// The value's name; `None`: a switch.
    pub value: Option<&'static str>,
    pub what: &'static str,
}

const fn switch(long: &'static str, what: &'static str) -> Flag {
    Flag { long, short: None, value: None, what }
}

const fn option(long: &'static str, value: &'static str, what: &'static str) -> Flag {
    Flag { long, short: None, value: Some(value), what }
}

const WAITING: [Flag; 2] =
    [switch("--no-wait", "return at once"), option("--timeout", "SECS", "give up waiting after so long (exit 1)")];

/// Options that every command takes.
pub(super) const GLOBAL: [Flag; 6] = [
    Flag { long: "--config", short: Some("-c"), value: Some("FILE"), what: "read FILE alone instead of /etc/burgee" },
    option("--set", "KEY=VALUE", "set a key of agent.toml, over every file"),
    Flag { long: "--output", short: Some("-o"), value: Some("json|table"), what: "how data is printed" },
    option("--log", "LEVEL", "error, warn, info, debug or trace (or $BURGEE_LOG)"),
    Flag { long: "--help", short: Some("-h"), value: None, what: "this, or a command's own help" },
    Flag { long: "--version", short: Some("-V"), value: None, what: "the version" },
];

/// Every command, in the order of the overall help.
pub(super) const COMMANDS: [About; 15] = [
    About {
        name: "run",
        arguments: "[--once]",
        summary: "run the agent",
        more: "Fetches, verifies and applies the fleet repository, for as long as it runs. The\n\
               service burgee-agent.service does this.\n\n\
               With --once: reconciles until the device is steady or stalled, prints the status\n\
               and exits.",
        flags: &[switch("--once", "reconcile once, print the status, exit")],
    },
    About {
        name: "enroll",
        arguments: "--hub URL --token TOKEN --trust FILE",
        summary: "make the device known to a hub",
        more: "Makes the device's key, proves to the hub that it has it, and keeps the hub's key.\n\
               The hub can never say whom the device trusts: that is what --trust is for, or,\n\
               where the hub hands out the file, --trust-fingerprint, which you compare.",
        flags: &[
            option("--hub", "URL", "the hub (default: hub.url)"),
            option("--token", "TOKEN", "a join token: burgee-hub token create"),
            option("--token-file", "FILE", "the same, from a file's first line"),
            option("--trust", "FILE", "who may sign: becomes the device's root of trust"),
            option("--trust-fingerprint", "SHA256:…", "take the hub's file, if it holds these keys and no others"),
            option("--ca-file", "FILE", "certificates that the hub's is checked against"),
            option("--fleet", "NAME", "refuse to join any other fleet"),
            switch("--no-wait", "do not wait in the lobby; ask again later"),
            switch("--new-hub-key", "accept another key of the hub than at the last enrolment"),
            switch("--new-identity", "a device that was copied: give its key up, join with another"),
            switch("--insecure-http", "allow http:// to another machine"),
        ],
    },
    About {
        name: "status",
        arguments: "[-o json]",
        summary: "what runs, how it fares, and what is in the way",
        more: "Three things that are never mixed: whether each app is as Git says (SYNC), whether\n\
               it works (HEALTH), and whether Git, broker and hub can be reached (links).\n\
               Exits with 0 whatever the state is; 5 where no agent runs.",
        flags: &[],
    },
    About {
        name: "sync",
        arguments: "[--prune] [--no-wait]",
        summary: "fetch and reconcile now",
        more: "Waits until the device is steady, held or stalled. Exits with 0 when it is as Git\n\
               says and healthy, 2 when the repository's content is wrong, 3 when the head is not\n\
               trusted, 4 when it is unhealthy, stalled or went back, 5 when Git can't be reached.",
        flags: &[
            switch("--prune", "delete even more than prune.maxDelete allows at once"),
            switch("--wait", "wait (the default)"),
            WAITING[0],
            WAITING[1],
        ],
    },
    About {
        name: "diff",
        arguments: "",
        summary: "what a reconcile would do now",
        more: "One line for each step, app by app. Changes nothing.",
        flags: &[],
    },
    About {
        name: "history",
        arguments: "",
        summary: "what happened to which revision on this device",
        more: "Oldest first. Kept in the journal, so that it is there after a restart, too.",
        flags: &[],
    },
    About {
        name: "rollback",
        arguments: "[--no-wait]",
        summary: "go back to the revision before last good",
        more: "Needs neither Git nor network. Every revision up to the accepted head is blocked,\n\
               so that the next poll does not undo it; a newer commit, or `retry`, goes on.",
        flags: &[WAITING[0], WAITING[1]],
    },
    About {
        name: "suspend",
        arguments: "[--all]",
        summary: "take no new revision until `resume`",
        more: "What runs is still repaired. With --all it is not.",
        flags: &[switch("--all", "stop repair, too")],
    },
    About { name: "resume", arguments: "", summary: "end a suspension", more: "", flags: &[] },
    About {
        name: "retry",
        arguments: "",
        summary: "unblock what failed and try it again",
        more: "A revision that failed is not tried again unprompted. This is the prompt.",
        flags: &[],
    },
    About {
        name: "logs",
        arguments: "APP [-n N]",
        summary: "the last lines that an app logged",
        more: "",
        flags: &[Flag { long: "--lines", short: Some("-n"), value: Some("N"), what: "how many (100)" }],
    },
    About {
        name: "verify",
        arguments: "[--repo PATH_OR_URL] [--branch B] [--trust FILE] [--after REVISION]",
        summary: "fetch and verify as the device would; needs no running agent",
        more: "Prints REVISION PRINCIPAL FINGERPRINT; otherwise the reason, and exits with 3 (2\n\
               where the repository's content is malformed). Without --after, as on a first start.",
        flags: &[
            option("--repo", "PATH_OR_URL", "the repository (default: source.url)"),
            option("--branch", "B", "its branch (default: source.branch)"),
            option("--trust", "FILE", "who may sign (default: source.trust)"),
            option("--revoked", "FILE", "keys that never count (default: source.revoked)"),
            option("--after", "REVISION", "take signers and policy as they were at that commit"),
            option("--floor", "ID", "the head must be at or above it (default: source.floor)"),
            option("--token-file", "FILE", "the token for HTTP (default: source.token_file)"),
            option("--timeout", "SECS", "the longest silence of the host (default: 60)"),
        ],
    },
    About {
        name: "render",
        arguments: "[--repo PATH_OR_URL] [--device NAME] [--label KEY=VALUE]…",
        summary: "what this device is to run; needs no running agent",
        more: "Fetches and verifies as on a first start, renders the head for this device, and\n\
               prints it as JSON. Contents of files show as digests only. To render a folder that\n\
               is not committed yet, use burgee render on the machine where you edit it.",
        flags: &[
            option("--repo", "PATH_OR_URL", "the repository (default: source.url)"),
            option("--device", "NAME", "as this device (default: device.name)"),
            option("--label", "KEY=VALUE", "on top of device.labels"),
        ],
    },
    About {
        name: "doctor",
        arguments: "[--bundle [FILE]] [-o json]",
        summary: "look for what could keep the agent from working",
        more: "One line for each part: ok, warn or fail, and a hint. Needs no running agent. Exits\n\
               with 0 where nothing failed; else with 2 for a wrong configuration, 3 for a head that\n\
               is refused, 5 where all that failed is out of reach, and 1 for the rest.\n\n\
               With --bundle: writes doctor's lines, version, settings, status, history, sizes, log\n\
               and facts of the system into one tar file for whoever helps, and prints its name.\n\
               Passwords, tokens and keys are taken out.",
        flags: &[option("--bundle", "[FILE]", "write it all into FILE (default: burgee-NAME-TIME.tar)")],
    },
    About {
        name: "anchor",
        arguments: "--accept REVISION",
        summary: "accept a commit that does not descend from the accepted one",
        more: "After a history that was rewritten on purpose. The commit still has to be signed by\n\
               a key of the device's own root of trust. Only ever said on the device itself.",
        flags: &[option("--accept", "REVISION", "the full id of the commit")],
    },
];

/// The text for one command, or for all.
pub(super) fn text(name: Option<&str>) -> String {
    match COMMANDS.iter().find(|command| Some(command.name) == name) {
        Some(command) => one(command),
        None => all(),
    }
}

fn all() -> String {
    let mut text = String::from(
        "burgee-agent makes this device run what its fleet repository says.\n\n\
         Usage: burgee-agent [OPTIONS] COMMAND\n\nCommands:\n",
    );
    for command in &COMMANDS {
        row(&mut text, command.name, command.summary, 10);
    }
    text.push_str("\nOptions of every command:\n");
    flags(&mut text, &GLOBAL);
    text.push_str(
        "\nExit codes: 0 done as asked, 1 failed, 2 wrong usage, configuration or repository\n\
         content, 3 refused by trust, 4 unhealthy, stalled, or went back by itself, 5 not\n\
         reachable.\n\n\
         `burgee-agent COMMAND --help` says more. The keys of agent.toml are explained in\n\
         docs/agent-toml.md.\n",
    );
    text
}

fn one(command: &About) -> String {
    let space = if command.arguments.is_empty() { "" } else { " " };
    let mut text = format!("Usage: burgee-agent {}{space}{}\n\n", command.name, command.arguments);
    let mut summary = command.summary.chars();
    text.extend(summary.next().into_iter().flat_map(char::to_uppercase).chain(summary));
    text.push_str(".\n");
    if !command.more.is_empty() {
        let _ = write!(text, "\n{}\n", command.more);
    }
    if !command.flags.is_empty() {
        text.push_str("\nOptions:\n");
        flags(&mut text, command.flags);
    }
    text.push_str("\nOptions of every command: see burgee-agent --help.\n");
    text
}

fn flags(text: &mut String, flags: &[Flag]) {
    let spelled = |flag: &Flag| {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("{short}, "));
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        format!("{short}{}{value}", flag.long)
    };
    let width = flags.iter().map(|flag| spelled(flag).chars().count()).max().unwrap_or(0);
    for flag in flags {
        row(text, &spelled(flag), flag.what, width);
    }
}

fn row(text: &mut String, left: &str, right: &str, width: usize) {
    let _ = writeln!(text, "  {left:width$}  {right}");
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, text};

    #[test]
    fn every_help_is_whole_and_fits_a_terminal() {
        for name in COMMANDS.iter().map(|command| Some(command.name)).chain([None]) {
            let text = text(name);
            assert!(text.starts_with("Usage: ") || text.starts_with("burgee-agent "), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{name:?}: {line}");
            }
        }
        assert!(text(None).contains("doctor"));
        assert!(text(Some("sync")).contains("--prune"));
    }
}
