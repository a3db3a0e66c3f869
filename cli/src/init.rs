//! `burgee init`: a fleet repository with one app, and signing set up in it.
//!
//! Nothing that is there already is written over. No commit is made: the first
//! one is the person's, with the person's key.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use fleet::name::FleetName;

use crate::Done;
use crate::arguments::Init;
use crate::failure::{Failure, tell_findings};
use crate::folder::FolderTree;
use crate::scaffold;
use crate::signing::{Git, Key};

pub(crate) fn run(given: &Init) -> Done {
    let fleet = fleet_name(given)?;
    let principal = principal(given)?;
    if let Some(taken) =
        scaffold::files(&fleet, "").iter().map(|(path, _)| given.dir.join(path)).find(|path| path.exists())
    {
        return Err(Failure::usage(
            format!("{} is there already", taken.display()),
            "init writes over nothing: name a new folder, or go on with `burgee check`",
        ));
    }
    let key = match &given.key {
        Some(path) => Key::take(path)?,
        None => Key::make(&fleet, &principal, !given.no_passphrase)?,
    };
    fs::create_dir_all(&given.dir).map_err(|source| Failure::io("make", &given.dir, &source))?;
    let dir = fs::canonicalize(&given.dir).map_err(|source| Failure::io("find", &given.dir, &source))?;
    let git = Git::of(&dir)?;
    let signer = format!("{principal} namespaces=\"git\" {}\n", key.public);
    for (path, content) in scaffold::files(&fleet, &signer) {
        write_new(&dir.join(path), &content)?;
    }
    git.set("gpg.format", "ssh")?;
    git.set("user.signingkey", &key.public_file)?;
    git.set("commit.gpgsign", "true")?;
    git.set("tag.gpgsign", "true")?;
    git.set("gpg.ssh.allowedSignersFile", dir.join("trust/allowed_signers"))?;
    if Git::setting(&dir, "user.email").is_none() {
        git.set("user.email", &principal)?;
    }
    if Git::setting(&dir, "user.name").is_none() {
        git.set("user.name", principal.split('@').next().unwrap_or(&principal))?;
    }
    let found = fleet::repo::check(&FolderTree::open(&dir)?);
    tell_findings(&found);
    eprint!("{}", next_steps(&given.dir, &fleet, &key));
    Ok(())
}

/// The name that was given, or the folder's, folded to what a name may hold.
fn fleet_name(given: &Init) -> Result<FleetName, Failure> {
    let text = match &given.fleet {
        Some(name) => name.clone(),
        None => {
            let dir: PathBuf =
                std::path::absolute(&given.dir).map_err(|source| Failure::io("find", &given.dir, &source))?;
            let name = dir.components().next_back().map(|part| part.as_os_str().to_string_lossy().to_lowercase());
            let fold = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            name.unwrap_or_default().chars().map(fold).collect::<String>().trim_matches('-').to_owned()
        }
    };
    text.parse().map_err(|wrong: fleet::name::InvalidName| {
        Failure::usage(wrong.to_string(), "give the fleet's name with --fleet NAME")
    })
}

/// Who signs: what `trust/allowed_signers` can carry as one word.
fn principal(given: &Init) -> Result<String, Failure> {
    let principal = given.principal.clone().or_else(|| Git::setting(&given.dir, "user.email")).ok_or_else(|| {
        Failure::usage(
            "Git does not know who you are",
            "say --principal you@example.com, or git config --global user.email",
        )
    })?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | ',' | '*' | '?' | '!' | '#');
    if principal.is_empty() || principal.contains(odd) {
        return Err(Failure::usage(
            format!("{principal:?} can't stand in allowed_signers"),
            "expected a name without blanks, commas, quotes and wildcards, for example you@example.com",
        ));
    }
    Ok(principal)
}

fn write_new(path: &Path, content: &str) -> Done {
    let failed = |source: std::io::Error| Failure::io("write", path, &source);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)
}

fn next_steps(dir: &Path, fleet: &FleetName, key: &Key) -> String {
    let dir = dir.display();
    let made = if key.is_new { "made" } else { "taken" };
    let public = key.public_file.display();
    format!(
        "the fleet repository `{fleet}` is ready; the signing key {public} was {made}

next:
  cd {dir}
  burgee check
  git add -A && git commit -m 'the first revision'    # signed: see git log --show-signature
  git remote add origin URL && git push -u origin main

on each device (or in its image):
  install -D -m 644 trust/allowed_signers /etc/burgee/allowed_signers    # the keys that it trusts, by your hand
  and in /etc/burgee/agent.toml:
    [device]
    labels = {{ site-type = \"demo\" }}
    [source]
    url = \"URL\"
    branch = \"main\"
    trust = \"/etc/burgee/allowed_signers\"
hint: keep the private key off the devices and off the Git host; whoever has it can change every device
"
    )
}
