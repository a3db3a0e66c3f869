//! Whole Compose files in, projects or findings out.

mod errors;
mod examples;
mod keys;
mod layers;
mod mounts;
mod random;
mod schema;
mod services;

use std::collections::BTreeMap;

use crate::compose::model::{Project, Service};
use crate::compose::{Read, Request, read};
use crate::name::AppName;
use crate::tree::MemoryTree;
use crate::vars::Scope;

/// Reads the app `pos`; paths are below `apps/pos/`, or from the root with a leading slash.
pub(super) fn read_files(files: &[(&str, &str)], vars: &[(&str, &str)]) -> Result<Read, Vec<String>> {
    let tree: MemoryTree = files
        .iter()
        .map(|(path, content)| {
            let path = path.strip_prefix('/').map_or_else(|| format!("apps/pos/{path}"), str::to_owned);
            (path, content.as_bytes().to_vec())
        })
        .collect();
    let app: AppName = "pos".parse().unwrap();
    let vars: BTreeMap<_, _> = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let scope = Scope::new(vars);
    let request = Request { tree: &tree, app: &app, folder: "apps/pos", scope: &scope };
    let shown = |finding: crate::finding::Finding| {
        let hint = finding.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("{finding}{hint}")
    };
    read(request).map_err(|errors| errors.into_iter().map(shown).collect())
}

pub(super) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(super) fn dict(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The project of one file.
#[track_caller]
pub(super) fn project(yaml: &str) -> Project {
    read_files(&[("compose.yaml", yaml)], &[]).unwrap_or_else(|errors| panic!("{yaml}\n{errors:#?}")).project
}

/// The service `web` of an image `w`, with these further lines.
#[track_caller]
pub(super) fn web(lines: &str) -> Service {
    project(&web_file(lines)).services.remove("web").unwrap()
}

pub(super) fn web_file(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  web:\n    image: w\n{lines}")
}

/// The findings of one file, all of them.
#[track_caller]
pub(super) fn refused(yaml: &str, want: &[&str]) {
    let findings = read_files(&[("compose.yaml", yaml)], &[]).map(|read| read.project).expect_err(yaml);
    let findings: Vec<_> = findings.iter().map(|f| f.strip_prefix("apps/pos/compose.yaml:").unwrap_or(f)).collect();
    assert_eq!(findings, want, "{yaml}");
}

/// The one finding, without its hint, of a service with these further lines; lines count from the first of them.
#[track_caller]
pub(super) fn web_refused(lines: &str, want: &str) {
    let yaml = web_file(lines);
    let findings = read_files(&[("compose.yaml", &yaml)], &[]).map(|read| read.project).expect_err(lines);
    let first = findings[0].split("\nhint:").next().unwrap();
    let mut parts = first.strip_prefix("apps/pos/compose.yaml:").unwrap().splitn(3, ':');
    let line: usize = parts.next().unwrap().parse().unwrap();
    let column: usize = parts.next().unwrap().parse().unwrap();
    let shown = format!("{}:{}:{}", line - 3, column - 4, parts.next().unwrap());
    assert_eq!((shown.as_str(), findings.len()), (want, 1), "{findings:#?}\n{yaml}");
}
