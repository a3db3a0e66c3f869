//! `burgee render`: what a device would run, from the folder as it lies there.

use fleet::render::{DeviceFacts, render};
use fleet::repo::value::Labels;
use fleet::revision::CommitId;

use crate::Done;
use crate::arguments::{Format, Render};
use crate::commits::Commits;
use crate::failure::{Failure, count, tell_findings};
use crate::folder::FolderTree;
use crate::output;

pub(crate) fn run(given: &Render) -> Done {
    let name = given.device.parse().map_err(|wrong: fleet::name::InvalidName| {
        Failure::usage(format!("--device {wrong}"), "a device's name is the one in its agent.toml, or its host's")
    })?;
    let facts = DeviceFacts { name, labels: labels(&given.labels)? };
    let tree = FolderTree::open(&given.dir)?;
    if !tree.refused.is_empty() {
        tell_findings(&tree.refused);
        return Err(Failure::Content(count(&tree.refused, &given.dir.display().to_string())));
    }
    let commit = commit(given)?;
    let rendered = render(&tree, &facts, &commit).map_err(|found| {
        tell_findings(&found);
        Failure::Content(format!("{} for the device {}", count(&found, &given.dir.display().to_string()), facts.name))
    })?;
    tell_findings(&rendered.notes);
    match given.output {
        Format::Yaml => output::yaml(&rendered.state),
        Format::Json => output::json(&rendered.state),
    }
}

/// What `BURGEE_REVISION` says: HEAD, in a repository that has one.
fn commit(given: &Render) -> Result<CommitId, Failure> {
    match Commits::open(&given.dir).and_then(|commits| commits.head()) {
        Ok(head) => Ok(head),
        Err(_) => {
            "0".repeat(40).parse().map_err(|wrong: fleet::revision::InvalidCommitId| Failure::failed(wrong.to_string()))
        }
    }
}

fn labels(given: &[String]) -> Result<Labels, Failure> {
    given
        .iter()
        .map(|label| match label.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(
                format!("--label {label:?} is no label"),
                "expected KEY=VALUE, for example region=eu",
            )),
        })
        .collect()
}
