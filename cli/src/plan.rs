//! `burgee plan`: what a range of commits changes, from the object database.

use std::path::Path;

use fleet::plan::{End, plan};

use crate::Done;
use crate::arguments::Output;
use crate::commits::{CommitTree, Commits};
use crate::failure::{Failure, count, tell_findings};
use crate::output;

pub(crate) fn run(dir: &Path, range: &str, form: Output) -> Done {
    let (from, to) = range
        .split_once("..")
        .filter(|(from, to)| !from.ends_with('.') && !to.starts_with('.'))
        .ok_or_else(|| Failure::usage(format!("{range:?} is no range"), "expected A..B, for example HEAD~1..HEAD"))?;
    let commits = Commits::open(dir)?;
    let end = |name: &str| commits.tree(if name.is_empty() { "HEAD" } else { name });
    let (before, after) = (end(from)?, end(to)?);
    let wrong = |found: &[fleet::finding::Finding], tree: &CommitTree<'_>| {
        tell_findings(found);
        Failure::Content(count(found, tree.id.short()))
    };
    if !after.refused.is_empty() {
        return Err(wrong(&after.refused, &after));
    }
    let ends = (End { tree: &before, commit: &before.id }, End { tree: &after, commit: &after.id });
    let plan = plan(ends.0, ends.1).map_err(|found| wrong(&found, &after))?;
    match form {
        Output::Json => output::json(&plan),
        Output::Text => output::text(&plan.to_string()),
    }
}
